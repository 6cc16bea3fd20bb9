"""The op of a model: what it reports, and what Dagster records."""

import threading
import time
from datetime import timedelta

import dagster as dg
import pytest
from runway_client import Refused

from assets.fleet import make_fleet
from assets.heartbeat import Heartbeat, LeaseLostError
from assets.tags import OFFLINE_VALIDATION
from assets.trainer import TrainingOrder
from tests.dagster.fake_plane import FakePlane, model, small_fleet
from tests.dagster.worlds import World


def check_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    found = [e for e in result.get_asset_check_evaluations() if e.check_name == OFFLINE_VALIDATION]
    assert len(found) == 1
    return found[0]


def test_a_better_candidate_is_materialized_with_numbers_that_plot(world: World) -> None:
    world.plane.ask("air_time")
    (lease,) = world.leases()
    result = world.execute(lease)
    assert result.success
    assert world.plane.retrain_of("air_time").state == "PROMOTED"
    assert check_of(result).passed
    made = world.materialized("air_time")
    assert made is not None
    assert made.metadata["version"].value == 1
    assert made.metadata["auc"].value == 0.8
    assert made.metadata["auc_gain"].value == pytest.approx(0.1)
    assert made.metadata["holdout_rows"].value == 500
    assert made.metadata["ground_truth_until"].value == "2013-02-28"
    assert len(str(made.metadata["digest"].value)) == 64
    (order,) = world.trainer.orders
    assert order.data_until == lease.data_until
    assert order.causes == ("operator",)


def test_what_the_training_read_is_reported(world: World) -> None:
    world.plane.ask("air_time")
    result = world.execute(world.leases()[0])
    assert world.plane.lineage == [("air_time", 1, world.trainer.reads, result.run_id)]


def test_a_version_is_good_though_what_it_read_could_not_be_reported(world: World) -> None:
    world.plane.no_lineage = True
    world.plane.ask("air_time")
    assert world.execute(world.leases()[0]).success
    assert world.plane.retrain_of("air_time").state == "PROMOTED"
    assert world.plane.calls["report_lineage"] == 1


def test_a_refused_candidate_materializes_nothing(world: World) -> None:
    world.trainer.candidate = 0.5
    world.plane.ask("air_time")
    result = world.execute(world.leases()[0])
    assert not result.success
    assert not check_of(result).passed
    assert check_of(result).blocking
    assert world.materialized("air_time") is None
    assert world.plane.retrain_of("air_time").state == "REFUSED"
    assert world.plane.retrain_of("air_time").conclusion == "auc 0.5 against 0.7"


def test_what_the_control_plane_decides_counts(world: World) -> None:
    """It refuses a candidate whose validation passed: nothing is materialized."""
    world.plane.ask("air_time")
    lease = world.leases()[0]

    def too_late(order: TrainingOrder) -> None:
        world.plane.retrain_of("air_time").state = "REFUSED"

    world.trainer.before_validation = too_late
    assert not world.execute(lease).success
    assert world.materialized("air_time") is None


def test_a_crash_is_reported_in_a_sentence_and_tried_again(world: World) -> None:
    def crash(order: TrainingOrder) -> None:
        raise ValueError("no flights in the window\nand a second line")

    world.trainer.before = crash
    world.plane.ask("air_time")
    for number in (1, 2, 3):
        (lease,) = world.leases()
        assert lease.attempt_id.endswith(f"_a{number}")
        assert not world.execute(lease).success
        assert world.plane.attempt(lease.attempt_id).failure == "ValueError: no flights in the window"
    retrain = world.plane.retrain_of("air_time")
    assert (retrain.state, retrain.conclusion) == ("FAILED", "ValueError: no flights in the window")
    assert world.leases() == []


def test_a_model_without_a_trainer_fails_for_good(world: World) -> None:
    world.plane.shown = make_fleet([model("air_time", tags={"trainer": "nobody"})], [], [])
    world.load()
    world.plane.ask("air_time")
    assert not world.execute(world.leases()[0]).success
    retrain = world.plane.retrain_of("air_time")
    assert retrain.state == "FAILED"
    assert "set its tag `trainer`" in retrain.conclusion


def test_a_crashed_validation_refuses_the_candidate(world: World) -> None:
    def crash(order: TrainingOrder) -> None:
        raise RuntimeError("holdout is empty")

    world.trainer.before_validation = crash
    world.plane.ask("air_time")
    assert not world.execute(world.leases()[0]).success
    retrain = world.plane.retrain_of("air_time")
    assert retrain.state == "REFUSED"
    assert retrain.conclusion == "the validation crashed: RuntimeError: holdout is empty"
    assert world.materialized("air_time") is None


def test_a_lease_lost_before_the_start_stops_at_once(world: World) -> None:
    world.plane.ask("air_time")
    lease = world.leases()[0]
    world.plane.advance(timedelta(hours=1))
    assert not world.execute(lease).success
    assert world.trainer.orders == []
    assert world.plane.retrain_of("air_time").state == "WAITING"


def test_a_lease_lost_in_training_registers_nothing(world: World) -> None:
    def slow(order: TrainingOrder) -> None:
        world.plane.advance(timedelta(hours=1))

    world.trainer.before = slow
    world.plane.ask("air_time")
    lease = world.leases()[0]
    assert not world.execute(lease).success
    assert world.plane.versions == {}
    # The attempt ended as the control plane said, not as a failure that this run reported.
    assert world.plane.attempt(lease.attempt_id).state == "EXPIRED"


def test_the_control_plane_away_when_training_ends_leaves_the_report_to_the_sensor(world: World) -> None:
    def outage(order: TrainingOrder) -> None:
        world.plane.away = True

    world.trainer.before = outage
    world.plane.ask("air_time")
    lease = world.leases()[0]
    assert not world.execute(lease).success
    world.plane.away = False
    assert world.plane.attempt(lease.attempt_id).state == "RUNNING"
    world.tick("report_ended_runs")
    assert world.plane.attempt(lease.attempt_id).state == "FAILED"


def test_a_person_who_presses_materialize_asks_runway(world: World) -> None:
    result = world.launch_by_hand("air_time", "arrival_delay")
    assert result.success
    assert world.trainer.orders == []
    assert world.materialized("air_time") is None
    assert {r.model_id: r.state for r in world.plane.retrains.values()} == {
        "air_time": "WAITING",
        "arrival_delay": "WAITING",
    }


def test_the_check_run_by_hand_evaluates_now(world: World) -> None:
    check = dg.AssetCheckKey(dg.AssetKey(["air_time"]), "fresh")
    job = dg.define_asset_job("look", selection=dg.AssetSelection.checks(check))
    resolved = job.resolve(asset_graph=world.defs.resolve_asset_graph())
    result = resolved.execute_in_process(instance=world.instance)
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert evaluation.description == "UNKNOWN"


class TestHeartbeat:
    """The thread under a training."""

    def beating(self, world: World) -> tuple[FakePlane, Heartbeat, list[str]]:
        world.plane.ask("air_time")
        lease, calls = world.leases()[0], list[str]()
        heartbeat = Heartbeat(
            world.plane,
            lease,
            "run",
            every_s=0.001,
            stop_s_max=0.001,
            interrupt=lambda: calls.append("interrupt"),
            kill=lambda: calls.append("kill"),
        )
        return world.plane, heartbeat, calls

    def test_it_renews_through_an_outage(self, world: World) -> None:
        plane, heartbeat, calls = self.beating(world)
        attempt = plane.retrain_of("air_time").attempts[0]
        with heartbeat:
            await_that(lambda: attempt.renewals > 3)
            plane.away = True
            plane.away = False
            seen = attempt.renewals
            await_that(lambda: attempt.renewals > seen)
        assert calls == []
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("lease ")]

    def test_it_interrupts_and_then_kills_work_that_goes_on(self, world: World) -> None:
        plane, heartbeat, calls = self.beating(world)
        with pytest.raises(LeaseLostError, match="not renewed"), heartbeat:
            plane.advance(timedelta(hours=1))
            await_that(lambda: calls == ["interrupt", "kill"])

    def test_it_raises_at_once_for_a_lease_that_is_gone(self, world: World) -> None:
        plane, heartbeat, _ = self.beating(world)
        plane.advance(timedelta(hours=1))
        with pytest.raises(LeaseLostError), heartbeat:
            pytest.fail("the work began")


def test_an_interruption_ends_the_run_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Heartbeat.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(Heartbeat.__init__, "__kwdefaults__", defaults | {"every_s": 0.01})

    def endless(order: TrainingOrder) -> None:
        world.plane.advance(timedelta(hours=1))
        threading.Event().wait(60)
        raise AssertionError("nobody interrupted")

    world.trainer.before = endless
    world.plane.ask("air_time")
    lease = world.leases()[0]
    result = world.execute(lease)
    assert not result.success
    assert world.plane.attempt(lease.attempt_id).state == "EXPIRED"


def test_tokens_of_another_attempt_are_refused() -> None:
    plane = FakePlane(small_fleet())
    plane.ask("air_time")
    (lease,) = plane.lease([], 10)
    with pytest.raises(Refused):
        plane.renew(lease.attempt_id, "forged", "")


def await_that(condition: object, within_s: float = 10.0) -> None:
    """Wait for a condition of another thread."""
    assert callable(condition)
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        threading.Event().wait(0.001)


def test_the_training_does_not_wait_until_its_start_was_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    training = threading.Event()
    monkeypatch.setattr(world.plane, "report_started", lambda: training.wait(30) or pytest.fail("told first"))
    world.trainer.before = lambda order: training.set()
    world.plane.ask("air_time")
    assert world.execute(world.leases()[0]).success
    assert training.is_set()


def test_a_start_that_cannot_be_told_is_no_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise Refused("NOT_LEADER", "another control plane leads")

    monkeypatch.setattr(world.plane, "report_started", away)
    world.plane.ask("air_time")
    assert world.execute(world.leases()[0]).success
    assert world.plane.retrain_of("air_time").state == "PROMOTED"
