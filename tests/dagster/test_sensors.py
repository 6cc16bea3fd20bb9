"""Sensors, tick by tick, against a control plane in memory."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from assets.fleet import make_fleet
from assets.plane import Verdict
from assets.sensors.cancel import cancel_sensor
from assets.sensors.lease import lease_sensor, run_request
from assets.sensors.reload import AGAIN_S, SETTLE_S_MAX, Seen, step
from assets.sensors.staleness import SCORES_EVERY_S, VERDICTS_PER_TICK_MAX
from assets.tags import ATTEMPT_TAG, LEASE_TAG, MODEL_TAG, RETRAIN_TAG, TEAM_TAG, WORKER_TAG
from assets.trainer import TrainingOrder
from tests.dagster.fake_plane import FakePlane, State, model, small_fleet
from tests.dagster.worlds import World


def requested(result: dg.SensorResult) -> list[str]:
    return [request.run_key or "" for request in result.run_requests or []]


def run_with(world: World, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    """A run of ours that ended, or has not."""
    return world.instance.add_run(dg.DagsterRun(job_name="__ASSET_JOB", status=status, tags=tags))


def tags_of(world: World, model_id: str) -> dict[str, str]:
    return dict(run_request(world.plane.retrain_of(model_id).attempts[-1].lease).tags)


class TestLease:
    def test_a_lease_becomes_a_run_of_one_model(self, world: World) -> None:
        world.plane.ask("air_time")
        result = world.tick("lease_retrains")
        (request,) = result.run_requests or []
        assert request.run_key == "rt_000001_a1"
        assert request.asset_selection == [dg.AssetKey(["air_time"])]
        assert request.tags["dagster/priority"] == "40"
        assert request.tags[TEAM_TAG] == "ops"
        assert request.tags[LEASE_TAG] == "token-rt_000001-1"

    def test_order_and_limits_are_runways(self, world: World) -> None:
        world.plane.ask("arrival_delay", "departure_delay", "air_time")
        assert requested(world.tick("lease_retrains")) == ["rt_000003_a1"]

    def test_a_lost_reply_comes_again_as_the_same_run(self, world: World) -> None:
        world.plane.ask("air_time")
        world.plane.lose_replies = 1
        assert requested(world.tick("lease_retrains")) == []
        assert requested(world.tick("lease_retrains")) == ["rt_000001_a1"]
        assert len(world.plane.retrain_of("air_time").attempts) == 1

    def test_a_run_that_lives_is_known(self, world: World) -> None:
        world.plane.ask("air_time")
        world.tick("lease_retrains")
        run_with(world, dg.DagsterRunStatus.STARTED, **tags_of(world, "air_time"))
        assert requested(world.tick("lease_retrains")) == []

    def test_a_model_newer_than_the_location_waits_for_the_reload(self, world: World) -> None:
        shown = world.plane.shown
        world.plane.shown = make_fleet([*shown.models, model("newcomer")], shown.nodes, shown.dependencies)
        world.plane.ask("newcomer", "air_time")
        assert requested(world.tick("lease_retrains")) == ["rt_000002_a1"]
        world.load()
        assert "rt_000001_a1" in requested(world.tick("lease_retrains"))

    def test_a_tick_lingers_until_something_is_released(self, world: World) -> None:
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                world.plane.ask("air_time")

        sensor = lease_sensor(world.plane.shown, lambda: world.plane, linger_s=3.5, sleep=sleep)
        result = sensor(dg.build_sensor_context(world.instance, definitions=world.defs))
        assert isinstance(result, dg.SensorResult)
        assert requested(result) == ["rt_000001_a1"]
        assert len(slept) == 3

    def test_a_tick_that_lingers_ends(self, world: World) -> None:
        slept: list[float] = []
        sensor = lease_sensor(world.plane.shown, lambda: world.plane, linger_s=3.5, sleep=slept.append)
        assert isinstance(sensor(dg.build_sensor_context(world.instance, definitions=world.defs)), dg.SensorResult)
        assert sum(slept) == 3.5

    def test_the_control_plane_away_is_a_sentence(self, world: World) -> None:
        world.plane.away = True
        skip = world.tick("lease_retrains").skip_reason
        assert skip is not None
        assert "cannot reach the control plane" in str(skip)


class TestCancel:
    def ended(self, world: World, state: State) -> tuple[list[str], str]:
        """Runs that the sensor ends once the retrain of a live one is in a state, and what it says."""
        world.plane.ask("air_time")
        world.tick("lease_retrains")
        run = run_with(world, dg.DagsterRunStatus.NOT_STARTED, **tags_of(world, "air_time"))
        retrain = world.plane.retrain_of("air_time")
        retrain.state, retrain.conclusion = state, "cancelled by maria"
        ended: list[str] = []

        def end(_: dg.DagsterInstance, run_id: str) -> bool:
            ended.append(run_id)
            return True

        sensor = cancel_sensor(lambda: world.plane, end)
        result = sensor(dg.build_sensor_context(world.instance, definitions=world.defs))
        assert isinstance(result, dg.SensorResult)
        return ["the run" if one == run.run_id else one for one in ended], str(result.skip_reason)

    def test_the_run_of_a_cancelled_retrain_ends(self, world: World) -> None:
        ended, said = self.ended(world, "CANCELLED")
        assert ended == ["the run"]
        assert "cancelled by maria" in said

    @pytest.mark.parametrize("state", ["RUNNING", "VALIDATING", "PROMOTED", "REFUSED", "FAILED"])
    def test_every_other_run_is_left_alone(self, world: World, state: State) -> None:
        assert self.ended(world, state)[0] == []


class TestRunStatus:
    def leased(self, world: World) -> dict[str, str]:
        """Tags of a run whose worker was started."""
        world.plane.ask("air_time")
        world.tick("lease_retrains")
        return {**tags_of(world, "air_time"), WORKER_TAG: "4711"}

    def test_a_run_that_could_not_be_started_is_no_attempt_of_the_training(self, world: World) -> None:
        tags = {name: value for name, value in self.leased(world).items() if name != WORKER_TAG}
        run_with(world, dg.DagsterRunStatus.FAILURE, **tags)
        world.tick("report_ended_runs")
        attempt = world.plane.retrain_of("air_time").attempts[0]
        assert (attempt.state, attempt.failure) == ("FAILED", "Dagster could not start its run")
        assert world.plane.calls_failed == 1

    def test_a_killed_worker_is_a_failed_attempt(self, world: World) -> None:
        run_with(world, dg.DagsterRunStatus.FAILURE, **self.leased(world))
        world.tick("report_ended_runs")
        attempt = world.plane.retrain_of("air_time").attempts[0]
        assert (attempt.state, attempt.failure) == (
            "FAILED",
            "its worker ended without a word",
        )
        assert world.plane.retrain_of("air_time").state == "WAITING"

    def test_a_run_that_a_person_ended_is_not_tried_again(self, world: World) -> None:
        run_with(world, dg.DagsterRunStatus.CANCELED, **self.leased(world))
        world.tick("report_ended_runs")
        assert world.plane.retrain_of("air_time").state == "FAILED"
        assert world.plane.retrain_of("air_time").conclusion == "terminated in Dagster"

    def test_nothing_is_forgotten_while_the_control_plane_is_away(self, world: World) -> None:
        run_with(world, dg.DagsterRunStatus.FAILURE, **self.leased(world))
        world.plane.away = True
        cursor = world.tick("report_ended_runs").cursor
        world.plane.away = False
        cursor = world.tick("report_ended_runs", cursor).cursor
        assert world.plane.retrain_of("air_time").attempts[0].state == "FAILED"
        assert world.tick("report_ended_runs", cursor).cursor is None

    def test_what_the_op_reported_stays_as_it_was(self, world: World) -> None:
        tags = self.leased(world)
        world.plane.report_failure(tags[ATTEMPT_TAG], tags[LEASE_TAG], "ValueError: no rows", "", permanent=False)
        run_with(world, dg.DagsterRunStatus.FAILURE, **tags)
        world.tick("report_ended_runs")
        assert world.plane.retrain_of("air_time").attempts[0].failure == "ValueError: no rows"

    def test_a_candidate_nobody_will_validate_is_refused(self, world: World) -> None:
        tags = self.leased(world)
        attempt = world.plane.attempt(tags[ATTEMPT_TAG])
        attempt.state, attempt.version = "SUCCEEDED", 1
        world.plane.retrain_of("air_time").state = "VALIDATING"
        assert {RETRAIN_TAG, MODEL_TAG} < set(tags)
        run_with(world, dg.DagsterRunStatus.FAILURE, **tags)
        world.tick("report_ended_runs")
        assert world.plane.retrain_of("air_time").state == "REFUSED"
        assert "before the validation was reported" in world.plane.retrain_of("air_time").conclusion

    def test_runs_of_others_are_left_alone(self, world: World) -> None:
        run_with(world, dg.DagsterRunStatus.FAILURE)
        cursor = world.tick("report_ended_runs").cursor
        assert cursor is not None
        assert world.tick("report_ended_runs", cursor).cursor is None


def verdict(model_id: str, name: str, score: float) -> Verdict:
    return Verdict(
        model_id=model_id,
        verdict=name,
        score=score,
        version=3,
        evaluated_at=datetime(2013, 3, 9, tzinfo=UTC),
        top_psi=1.3,
        top_feature="temp",
        signals={"age": 8.0, "performance": 0.02},
        confidence="HIGH",
        reasons=("temp drifted", "8 days old"),
        threshold=0.6,
        metrics={"auc": 0.71, "auc origin=JFK": 0.69},
        would_change=("PSI of temp below 0.1 would make it FRESH.",),
        season="temp is what March usually brings",
        forecast="At this pace it is stale around Mar 19.",
        rules="retraining waits for off-peak hours (night_only)",
    )


class TestStaleness:
    def observations(self, world: World, model_id: str) -> list[dg.AssetObservation]:
        records = world.instance.fetch_observations(dg.AssetKey([model_id]), limit=100).records
        return [record.asset_observation for record in records if record.asset_observation]

    def test_a_verdict_plots_and_sets_the_check(self, world: World) -> None:
        world.plane.standing = {"air_time": verdict("air_time", "STALE", 0.71)}
        world.tick("show_staleness")
        (seen,) = self.observations(world, "air_time")
        assert {name: seen.metadata[name].value for name in ("score", "top_psi", "age", "performance")} == {
            **{"score": 0.71, "top_psi": 1.3},
            **{"age": 8.0, "performance": 0.02},
        }
        assert all(type(seen.metadata[name].value) is float for name in ("score", "top_psi", "age"))
        assert seen.metadata["verdict"].value == "STALE"
        assert [seen.metadata[f"metric {name}"].value for name in ("auc", "auc origin=JFK")] == [0.71, 0.69]
        assert (seen.metadata["threshold"].value, seen.metadata["confidence level"].value) == (0.6, 3.0)
        assert seen.metadata["would_change"].value == "- PSI of temp below 0.1 would make it FRESH."
        assert "off-peak" in str(seen.metadata["rules"].value)
        key = dg.AssetCheckKey(dg.AssetKey(["air_time"]), "fresh")
        (record,) = world.instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
        assert record.event is not None
        assert record.event.dagster_event is not None
        evaluation = record.event.dagster_event.asset_check_evaluation_data
        assert not evaluation.passed
        assert evaluation.severity is dg.AssetCheckSeverity.ERROR

    @pytest.mark.parametrize("name", ["UNKNOWN", "AT_RISK"])
    def test_too_little_data_never_looks_fresh(self, world: World, name: str) -> None:
        world.plane.standing = {"air_time": verdict("air_time", name, 0.1)}
        world.tick("show_staleness")
        key = dg.AssetCheckKey(dg.AssetKey(["air_time"]), "fresh")
        (record,) = world.instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
        assert record.status.value == "FAILED"

    def test_only_news_is_written(self, world: World) -> None:
        world.plane.standing = {"air_time": verdict("air_time", "FRESH", 0.10001)}
        cursor = world.tick("show_staleness").cursor
        world.plane.standing = {"air_time": verdict("air_time", "FRESH", 0.10002)}
        cursor = world.tick("show_staleness", cursor).cursor
        assert len(self.observations(world, "air_time")) == 1
        world.plane.standing = {"air_time": verdict("air_time", "FRESH", 0.2)}
        world.tick("show_staleness", cursor)
        assert len(self.observations(world, "air_time")) == 2

    def test_nobody_is_asked_while_nothing_happens(self, world: World) -> None:
        world.plane.standing = {"air_time": verdict("air_time", "FRESH", 0.1)}
        cursor = world.tick("show_staleness").cursor
        for _ in range(5):
            assert world.tick("show_staleness", cursor).cursor is None
        assert world.plane.calls["verdicts"] == 1

    def test_a_score_that_moves_without_an_event_is_shown_later(self, world: World) -> None:
        world.plane.standing = {"air_time": verdict("air_time", "FRESH", 0.1)}
        cursor = world.tick("show_staleness").cursor
        world.plane.standing["air_time"] = verdict("air_time", "FRESH", 0.2)
        assert world.tick("show_staleness", cursor).cursor is None
        world.now_s += SCORES_EVERY_S
        assert world.tick("show_staleness", cursor).cursor is not None
        assert len(self.observations(world, "air_time")) == 2

    def test_a_tick_is_bounded(self, world: World) -> None:
        models = [model(f"m_{number}") for number in range(VERDICTS_PER_TICK_MAX + 5)]
        world.plane.shown = make_fleet(models, [], [])
        world.load()
        world.plane.standing = {each.model_id: verdict(each.model_id, "FRESH", 0.1) for each in models}
        cursor = world.tick("show_staleness").cursor
        after = world.tick("show_staleness", cursor).cursor
        assert world.tick("show_staleness", after).cursor is None
        assert all(len(self.observations(world, each.model_id)) == 1 for each in models[-7:])


class TestProduction:
    def bring(self, world: World, model_id: str) -> None:
        """A version that came into production by another way: trained elsewhere, promoted by hand."""
        trained = world.trainer.train(
            TrainingOrder(model_id=model_id, attempt_id="x", retrain_id="x", data_until=world.plane.now), print
        )
        world.plane.versions.setdefault(model_id, []).append(trained)
        world.plane.production[model_id] = len(world.plane.versions[model_id])
        world.plane.happened("AliasMoved", model_id)

    def test_a_version_from_elsewhere_is_shown_once(self, world: World) -> None:
        self.bring(world, "air_time")
        cursor = world.tick("show_production").cursor
        made = world.materialized("air_time")
        assert made is not None
        assert (made.metadata["version"].value, made.metadata["auc"].value) == (1, 0.9)
        assert world.tick("show_production", cursor).cursor is None
        self.bring(world, "air_time")
        assert world.tick("show_production", cursor).cursor is not None
        newest = world.materialized("air_time")
        assert newest is not None
        assert newest.metadata["version"].value == 2

    def test_what_a_run_materialized_is_left_alone(self, world: World) -> None:
        world.plane.ask("air_time")
        (lease,) = world.leases()
        world.execute(lease)
        before = world.materialized("air_time")
        assert world.tick("show_production").cursor is not None
        assert world.materialized("air_time") == before
        assert len(world.instance.fetch_materializations(dg.AssetKey(["air_time"]), limit=10).records) == 1

    def test_a_run_that_lives_may_say_so_itself(self, world: World) -> None:
        self.bring(world, "air_time")
        run = run_with(world, dg.DagsterRunStatus.STARTED, **{MODEL_TAG: "air_time"})
        cursor = world.tick("show_production").cursor
        assert world.materialized("air_time") is None
        # It said nothing, so the next look does, though nothing happened in Runway meanwhile.
        world.instance.delete_run(run.run_id)
        cursor = world.tick("show_production", cursor).cursor
        assert world.materialized("air_time") is not None
        asked = world.plane.calls["productions"]
        assert world.tick("show_production", cursor).cursor is None
        assert world.plane.calls["productions"] == asked


class TestReload:
    def test_a_fleet_as_loaded_is_left_alone(self) -> None:
        seen, due = step(Seen(pending="b"), "a", "a", 100.0)
        assert not due
        assert not seen.pending

    def test_it_waits_until_the_fleet_stands_still(self) -> None:
        seen, due = step(Seen(), "b", "a", 100.0)
        assert not due
        seen, due = step(seen, "c", "a", 102.0)
        assert not due
        seen, due = step(seen, "c", "a", 104.0)
        assert due

    def test_a_fleet_that_never_stands_still_is_shown_anyway(self) -> None:
        seen, due = Seen(), False
        for number in range(int(SETTLE_S_MAX / 2) + 1):
            assert not due
            seen, due = step(seen, f"f{number}", "a", 100.0 + 2 * number)
        assert due

    def test_a_reload_that_did_not_help_is_asked_for_again_later(self) -> None:
        seen, _ = step(Seen(), "b", "a", 100.0)
        seen, due = step(seen, "b", "a", 102.0)
        assert due
        seen, due = step(seen, "b", "a", 104.0)
        assert not due
        assert step(seen, "b", "a", 102.0 + AGAIN_S)[1]

    def test_it_says_when_it_cannot_reload_itself(self, world: World) -> None:
        shown = world.plane.shown
        world.plane.shown = make_fleet([*shown.models, model("newcomer")], shown.nodes, shown.dependencies)
        first = world.tick("reload_when_the_fleet_changes")
        second = world.tick("reload_when_the_fleet_changes", first.cursor)
        assert "reload it in the UI" in str(second.skip_reason)


def test_advance_expires_leases() -> None:
    """The fake keeps the promise that the sensors rely on."""
    plane = FakePlane(small_fleet())
    plane.ask("air_time")
    (first,) = plane.lease([], 10)
    plane.advance(timedelta(hours=1))
    (second,) = plane.lease([], 10)
    assert (first.attempt_id, second.attempt_id) == ("rt_000001_a1", "rt_000001_a2")
