"""Joins as partitioned assets: numbers by partition, ranges as one run, repeats, checks, and who asks for them when."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from assets.ground_truth import DAILY, HOURLY, Span, span_of
from assets.location import build_definitions, load_for_worker
from assets.sensors.ground_truth import PAUSE_S, due
from tests.dagster.fake_plane import FakePlane, model
from tests.dagster.worlds import World

MARCH = datetime(2013, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def facts(world: World) -> World:
    """Ten days of predictions, ten an hour, nine of them with an outcome; the fourth day has five."""
    for hour in range(240):
        world.plane.facts[MARCH + hour * HOUR] = (10, 5 if hour // 24 == 3 else 9)
    world.plane.now = MARCH + 20 * DAY
    return world


def run(world: World, name: str, first: str, last: str = "") -> dg.ExecuteInProcessResult:
    job = world.defs.resolve_implicit_global_asset_job_def()
    tags = {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last} if last else {}
    return job.execute_in_process(
        instance=world.instance,
        asset_selection=[dg.AssetKey([name])],
        partition_key=None if last else first,
        tags=tags,
        raise_on_error=False,
    )


def materialized(world: World, name: str) -> dict[str, dict[str, object]]:
    """Partition -> numbers, of the newest materialization of each."""
    records = world.instance.fetch_materializations(dg.AssetKey([name]), limit=1000).records
    found: dict[str, dict[str, object]] = {}
    for record in reversed(records):
        made = record.asset_materialization
        assert made is not None
        assert made.partition is not None
        found[made.partition] = {key: value.value for key, value in made.metadata.items() if key != "models"}
    return found


def checks(world: World) -> dict[str, tuple[bool, str]]:
    """Partition -> whether its coverage sufficed, and the sentence."""
    found = {}
    for run_of in reversed(world.instance.get_runs()):
        for entry in world.instance.all_logs(run_of.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
            event = entry.dagster_event
            assert event is not None
            evaluation = event.asset_check_evaluation_data
            found[evaluation.partition or ""] = (evaluation.passed, evaluation.description or "")
    return found


def test_a_day_is_joined_with_its_numbers(facts: World) -> None:
    assert run(facts, DAILY, "2013-03-02").success
    assert facts.plane.joins == [(MARCH + DAY, MARCH + 2 * DAY, True)]
    assert materialized(facts, DAILY) == {
        "2013-03-02": {
            "predicted": 240,
            "joined": 216,
            "late": 1,
            "orphans": 2,
            "hours of models joined": 24,
            "hours of models live": 0,
            "CPU seconds": 0.25,
            "engine": "duckdb",
            "coverage": 0.9,
        }
    }


def test_an_hour_is_joined_incrementally(facts: World) -> None:
    assert run(facts, HOURLY, "2013-03-02-05:00").success
    assert facts.plane.joins == [(MARCH + DAY + 5 * HOUR, MARCH + DAY + 6 * HOUR, False)]
    assert materialized(facts, HOURLY)["2013-03-02-05:00"]["joined"] == 9


def test_a_range_is_one_run_with_the_numbers_of_each_day(facts: World) -> None:
    result = run(facts, DAILY, "2013-03-01", "2013-03-06")
    assert result.success
    made = materialized(facts, DAILY)
    assert sorted(made) == [f"2013-03-0{day}" for day in range(1, 7)]
    assert [made[day]["joined"] for day in sorted(made)] == [216, 216, 216, 120, 216, 216]
    assert len(facts.instance.get_runs()) == 1
    assert checks(facts)["2013-03-04"] == (
        False,
        "Too few outcomes: air_time 50.0% of 80%. `runway coverage air_time` says why.",
    )
    assert [day for day, (passed, _) in checks(facts).items() if not passed] == ["2013-03-04"]


def test_the_same_partition_again_gives_the_same_numbers(facts: World) -> None:
    run(facts, DAILY, "2013-03-01", "2013-03-03")
    first = materialized(facts, DAILY)
    run(facts, DAILY, "2013-03-02")
    assert materialized(facts, DAILY) == first
    facts.plane.facts[MARCH + DAY] = (10, 10)  # an outcome that came late
    run(facts, DAILY, "2013-03-02")
    after = materialized(facts, DAILY)
    assert (after["2013-03-02"]["joined"], after["2013-03-01"]) == (217, first["2013-03-01"])


def test_nothing_mature_is_no_verdict_on_coverage(facts: World) -> None:
    assert run(facts, DAILY, "2013-03-15").success
    assert checks(facts) == {}
    assert materialized(facts, DAILY)["2013-03-15"]["predicted"] == 0


def test_a_partition_of_the_future_fails_with_the_reason_at_once(facts: World) -> None:
    result = run(facts, DAILY, "2013-03-25")
    assert not result.success
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    assert "has not come yet" in str(failure.step_failure_data.user_failure_data)
    assert materialized(facts, DAILY) == {}


def test_a_control_plane_that_is_away_is_tried_again(facts: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assets.ground_truth.RETRY_S", 0.01)
    facts.plane.away = True
    result = run(facts, DAILY, "2013-03-02")
    assert not result.success
    assert len(result.filter_events(lambda event: event.is_step_up_for_retry)) == 5


class TestSensor:
    """With a driven clock."""

    def test_what_is_over_is_requested_as_one_run(self, facts: World) -> None:
        facts.plane.now = MARCH + timedelta(days=3, hours=5)
        ticked = facts.tick("join_by_runways_clock")
        asked = {request.run_key: request.tags for request in ticked.run_requests or ()}
        assert list(asked) == [
            "ground_truth_daily/2013-03-01/2013-03-03/first",
            "ground_truth_hourly/2013-03-01-00:00/2013-03-02-23:00/first",
        ]
        assert asked["ground_truth_daily/2013-03-01/2013-03-03/first"][ASSET_PARTITION_RANGE_END_TAG] == "2013-03-03"

    def test_nothing_is_requested_twice_and_a_day_again_when_it_is_a_week_old(self, facts: World) -> None:
        facts.plane.now = MARCH + 3 * DAY
        first = facts.tick("join_by_runways_clock")
        facts.now_s += PAUSE_S["hourly"] + 1
        again = facts.tick("join_by_runways_clock", first.cursor)
        assert [request.run_key for request in again.run_requests or ()] == [
            "ground_truth_hourly/2013-03-03-00:00/2013-03-03-23:00/first"
        ]
        facts.now_s += PAUSE_S["hourly"] + 1
        nothing = facts.tick("join_by_runways_clock", again.cursor)
        assert (nothing.run_requests, str(nothing.skip_reason)) == ([], "SkipReason(skip_message='Nothing is due.')")
        facts.plane.now = MARCH + 9 * DAY
        later = facts.tick("join_by_runways_clock", nothing.cursor)
        assert [request.run_key for request in later.run_requests or ()][:2] == [
            "ground_truth_daily/2013-03-04/2013-03-09/first",
            "ground_truth_daily/2013-03-01/2013-03-02/again",
        ]

    def test_it_waits_for_the_run_before(self, facts: World) -> None:
        facts.plane.now = MARCH + 2 * DAY
        first = facts.tick("join_by_runways_clock")
        for request in first.run_requests or ():
            run_of = dg.DagsterRun(job_name="__ASSET_JOB", status=dg.DagsterRunStatus.STARTED, tags=request.tags)
            facts.instance.add_run(run_of)
        facts.plane.now, facts.now_s = MARCH + 4 * DAY, facts.now_s + 1000
        assert not facts.tick("join_by_runways_clock", first.cursor).run_requests

    def test_its_requests_run(self, facts: World) -> None:
        facts.plane.now = MARCH + 2 * DAY
        for request in facts.tick("join_by_runways_clock").run_requests or ():
            job = facts.defs.resolve_implicit_global_asset_job_def()
            assert job.execute_in_process(
                instance=facts.instance, asset_selection=list(request.asset_selection or ()), tags=dict(request.tags)
            ).success
        assert sorted(materialized(facts, DAILY)) == ["2013-03-01", "2013-03-02"]
        assert len(materialized(facts, HOURLY)) == 48

    def test_it_stands_back_for_the_wall_and_while_nobody_answers(self, facts: World) -> None:
        facts.plane.driven = False
        assert "the schedules do this" in str(facts.tick("join_by_runways_clock").skip_reason)
        facts.plane.away = True
        assert facts.tick("join_by_runways_clock").skip_reason

    def test_a_long_absence_is_caught_up_in_parts(self) -> None:
        span = Span(start=date(2013, 1, 1))
        assert due("daily", MARCH + 3 * HOUR, None, span) == (
            datetime(2013, 1, 1, tzinfo=UTC),
            datetime(2013, 2, 1, tzinfo=UTC),
        )
        assert due("hourly", MARCH, MARCH, span) == (MARCH, MARCH)
        assert due("daily", MARCH + 300 * DAY, MARCH, Span(start=date(2013, 1, 1), until=date(2013, 3, 4)))[1] == (
            MARCH + 3 * DAY
        )


class TestSchedules:
    """With the clock on the wall."""

    def tick(self, world: World, name: str, at: datetime) -> list[str | None] | str:
        schedule = world.defs.get_repository_def().get_schedule_def(name)
        context = dg.build_schedule_context(
            world.instance, scheduled_execution_time=at, repository_def=world.defs.get_repository_def()
        )
        ticked = schedule.evaluate_tick(context)
        return [request.run_key for request in ticked.run_requests or ()] or (ticked.skip_message or "")

    def test_the_day_and_the_hour_that_just_ended(self, facts: World) -> None:
        facts.plane.driven = False
        at = MARCH + 3 * DAY
        assert self.tick(facts, "join_daily", at + timedelta(minutes=30)) == [
            "ground_truth_daily/2013-03-03/2013-03-03/first"
        ]
        assert self.tick(facts, "join_hourly", at + timedelta(minutes=10)) == [
            "ground_truth_hourly/2013-03-03-23:00/2013-03-03-23:00/first"
        ]

    def test_a_week_later_the_day_is_joined_for_good(self, facts: World) -> None:
        facts.plane.driven = False
        assert self.tick(facts, "join_daily", MARCH + 9 * DAY + HOUR) == [
            "ground_truth_daily/2013-03-09/2013-03-09/first",
            "ground_truth_daily/2013-03-02/2013-03-02/again",
        ]

    def test_they_stand_back_in_a_replay_and_before_the_first_partition(self, facts: World) -> None:
        assert "driven" in self.tick(facts, "join_daily", MARCH + 3 * DAY)
        facts.plane.driven = False
        assert "no partition" in self.tick(facts, "join_daily", MARCH + HOUR)


def test_the_span_is_configured_and_slips_are_told() -> None:
    today = date(2026, 7, 1)
    assert span_of({}, today) == Span(start=date(2025, 1, 1))
    named = {"RUNWAY_PARTITIONS_FROM": "2013-03-01", "RUNWAY_PARTITIONS_UNTIL": "2014-01-01"}
    assert span_of(named, today) == Span(start=date(2013, 3, 1), until=date(2014, 1, 1))
    with pytest.raises(ValueError, match="'March' is not a day: write it as 2026-01-31"):
        span_of({"RUNWAY_PARTITIONS_FROM": "March"})
    with pytest.raises(ValueError, match="is not after"):
        span_of(named | {"RUNWAY_PARTITIONS_UNTIL": "2013-03-01"})


def test_a_worker_of_a_join_asks_for_no_fleet() -> None:
    def nobody() -> FakePlane:
        raise AssertionError("asked")

    assert load_for_worker((DAILY,), nobody).models == ()


def test_a_model_of_that_name_takes_nothing_else_down(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = world.plane.fleet()
    odd = FakePlane(type(fleet)(models=(*fleet.models, model(DAILY))))
    defs = build_definitions(odd.shown, lambda: odd)
    keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert {DAILY, "air_time"} <= keys
    assert HOURLY not in keys
    assert "a model is called ground_truth_daily" in capsys.readouterr().err
