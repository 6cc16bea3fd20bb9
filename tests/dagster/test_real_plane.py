"""The same sensors and ops against the real control plane, through gRPC; its log is in memory."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import msgspec
import pytest
from runway_client import Runway, Why, connect, messages, to_duration

from assets.failures import DataMissingError
from assets.following import Following, Topic
from assets.grpc_plane import GrpcPlane
from assets.location import build_definitions
from assets.plane import Evidence, Slice
from assets.sensors.lease import run_request
from assets.tags import EXIT_TAG, WORKER_TAG
from assets.trainer import TrainingOrder
from control_plane.app import limits
from tests.api.served_plane import ServedPlane
from tests.dagster.candidate_checks import fairness
from tests.dagster.worlds import FakeTrainer

NOW = datetime(2013, 3, 1, tzinfo=UTC)


class RealWorld:
    """A Dagster instance and a control plane with three models, departure_delay between the other two."""

    def __init__(self, instance: dg.DagsterInstance, served: ServedPlane, runway: Runway) -> None:
        self.instance, self.served, self.runway = instance, served, runway
        self.trainer = FakeTrainer(production=None)
        runway.operations.advance_clock(NOW)
        for model_id, tier in (("air_time", 1), ("departure_delay", 2), ("arrival_delay", 1)):
            runway.registry.register_model(
                messages.Model(
                    model_id=model_id,
                    owner="ada@example.com",
                    team="ops",
                    tier=messages.Tier.ValueType(tier),
                    task_type=messages.TASK_TYPE_BINARY,
                    consumers=["gate_desk"] if model_id == "arrival_delay" else [],
                    policies=messages.Policies(
                        staleness=messages.StalenessPolicy(age_backstop_days=30),
                        retraining=messages.RetrainingPolicy(
                            cascade_cooldown=to_duration(timedelta(0)),
                            cooldown=to_duration(timedelta(0)),
                            attempts_max=2,
                        ),
                        rollout=messages.RolloutPolicy(approvals=0),
                    ),
                )
            )
        runway.graph.declare_nodes([messages.Node(node_id="dataset:weather", team="data", owner="team:data")])
        runway.graph.declare_dependencies(
            messages.Dependency(upstream_id=upstream, downstream_id=downstream)
            for upstream, downstream in (
                ("dataset:weather", "model:air_time"),
                ("model:air_time", "model:departure_delay"),
                ("model:departure_delay", "model:arrival_delay"),
            )
        )
        self.fleet = self.connect().fleet()
        self.following = Following(self.connect, self.fleet.revision)
        self.defs = build_definitions(
            self.fleet,
            self.connect,
            {"flights": lambda: self.trainer},
            news=self.following,
            linger_s=0,
            checks=[fairness],
        )

    def connect(self) -> GrpcPlane:
        return GrpcPlane(self.served.address, retry_for_s=0.0)

    def tick(self, name: str, cursor: str | None = None) -> dg.SensorResult:
        assert self.following.wait_for(self.served.plane.node.revision, 20)
        repository = self.defs.get_repository_def()
        context = dg.build_sensor_context(self.instance, cursor=cursor, repository_def=repository, sensor_name=name)
        found = repository.get_sensor_def(name)(context)
        assert isinstance(found, dg.SensorResult)
        return found

    def run(self) -> list[tuple[str, bool]]:
        """Lease and execute until nothing is released; (attempt, success) in order."""
        done = []
        while requests := self.tick("lease_retrains").run_requests:
            for request in requests:
                job = self.defs.resolve_implicit_global_asset_job_def()
                result = job.execute_in_process(
                    instance=self.instance,
                    asset_selection=list(request.asset_selection or ()),
                    tags=dict(request.tags),
                    raise_on_error=False,
                )
                done.append((request.run_key or "", result.success))
        return done


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealWorld]:
    monkeypatch.setattr(limits, "WATCH_PROGRESS_S", 0.05)
    served = ServedPlane(tmp_path, monkeypatch)
    try:
        served.start()
        with dg.DagsterInstance.ephemeral() as instance, connect(served.address, "tests") as runway:
            world = RealWorld(instance, served, runway)
            yield world
            world.following.close()
        served.stop()
    finally:
        served.close()


def test_the_fleet_is_read_whole(real: RealWorld) -> None:
    assert [model.model_id for model in real.fleet.models] == ["air_time", "arrival_delay", "departure_delay"]
    assert {f"{node.kind}:{node.slug}" for node in real.fleet.nodes} == {"dataset:weather", "consumer:gate_desk"}
    assert {(edge.upstream, edge.downstream) for edge in real.fleet.dependencies} == {
        ("dataset:weather", "model:air_time"),
        ("model:air_time", "model:departure_delay"),
        ("model:departure_delay", "model:arrival_delay"),
        ("model:arrival_delay", "consumer:gate_desk"),
    }
    model = real.fleet.models[0]
    assert (model.tier, model.task_type, model.team, model.age_backstop_days) == (1, "binary", "ops", 30.0)


def test_a_cascade_is_promoted_in_order(real: RealWorld) -> None:
    for model_id in ("arrival_delay", "air_time", "departure_delay"):
        real.runway.retraining.request_retrain(model_id)
    assert real.run() == [("rt_000002_a1", True), ("rt_000003_a1", True), ("rt_000001_a1", True)]
    with_alias = {model.model_id: model.aliases.get("production", 0) for model in real.runway.registry.list_models()}
    assert with_alias == {"air_time": 1, "departure_delay": 1, "arrival_delay": 1}
    version = real.runway.registry.get_version("air_time", version=1)
    assert version.attempt_id == "rt_000002_a1"
    assert [metric.name for metric in version.metrics] == ["auc"]


def test_a_refused_candidate_leaves_production_as_it_was(real: RealWorld) -> None:
    real.runway.retraining.request_retrain("air_time")
    real.run()
    real.trainer.candidate, real.trainer.production = 0.5, 0.8
    retrain = real.runway.retraining.request_retrain("air_time", ignore_cooldown=True).retrain
    assert real.run() == [(f"{retrain.retrain_id}_a1", False)]
    ended = real.runway.retraining.get_retrain(retrain.retrain_id)
    assert ended.state == messages.RETRAIN_STATE_REFUSED
    assert real.runway.registry.get_model("air_time").aliases["production"] == 1
    assert len(real.instance.fetch_materializations(dg.AssetKey(["air_time"]), limit=10).records) == 1


def test_evidence_is_judged_by_the_gate_and_what_it_found_is_shown_in_dagster(real: RealWorld) -> None:
    real.runway.retraining.request_retrain("air_time")
    real.run()
    real.trainer.evidence = Evidence(
        metric="auc",
        candidate=0.81,
        production=0.80,
        standard_error=0.002,
        sample_size=20_000,
        slices=(
            Slice(slice="carrier=UA", candidate=0.85, production=0.80, standard_error=0.003, sample_size=15_000),
            Slice(slice="carrier=VX", candidate=0.60, production=0.80, standard_error=0.01, sample_size=5_000),
        ),
        latency_p99_ms=12.0,
        loads=True,
    )
    real.runway.policies.set_policies(
        "model:air_time",
        messages.Policies(
            validation=messages.ValidationPolicy(slice_margin=0.02, latency_ms_max=10.0),
            rollout=messages.RolloutPolicy(approvals=0),
        ),
    )
    retrain = real.runway.retraining.request_retrain("air_time", ignore_cooldown=True).retrain
    assert real.run() == [(f"{retrain.retrain_id}_a1", False)]
    (refused, _) = real.runway.rollouts.list_rollouts(model_id="air_time")
    assert refused.state == messages.ROLLOUT_STATE_REFUSED
    assert {check.name for check in refused.validation.checks if not check.passed} == {"slice:carrier=VX", "latency"}
    assert real.runway.registry.get_model("air_time").aliases["production"] == 1
    key = dg.AssetCheckKey(dg.AssetKey(["air_time"]), "offline_validation")
    (check,) = real.instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).values()
    assert check.event is not None
    assert check.event.dagster_event is not None
    evaluation = check.event.dagster_event.asset_check_evaluation_data
    assert not evaluation.passed
    assert "carrier=VX" in str(evaluation.metadata["check slice:carrier=VX"].value)
    # The same candidate where the policy tolerates both.
    real.runway.policies.set_policies("model:air_time", messages.Policies(rollout=messages.RolloutPolicy(approvals=0)))
    again = real.runway.retraining.request_retrain("air_time", ignore_cooldown=True).retrain
    assert real.run() == [(f"{again.retrain_id}_a1", True)]
    assert real.runway.registry.get_model("air_time").aliases["production"] == 3


def test_evidence_that_cannot_be_judged_refuses_at_once_and_says_why(real: RealWorld) -> None:
    real.runway.retraining.request_retrain("air_time")
    real.run()
    good = Evidence(metric="auc", candidate=0.8, production=0.8, standard_error=0.001, sample_size=9_000)
    for spoiled, words in (
        ({"candidate": float("nan")}, "evidence.candidate"),
        ({"metric": "ndcg@10"}, "say whether a higher ndcg@10 is better"),
        ({"production": None}, "version 1 is in production and was not measured"),
    ):
        real.trainer.evidence = msgspec.structs.replace(good, **spoiled)
        retrain = real.runway.retraining.request_retrain("air_time", ignore_cooldown=True).retrain
        assert real.run() == [(f"{retrain.retrain_id}_a1", False)]
        ended = real.runway.retraining.get_retrain(retrain.retrain_id)
        assert (ended.state, words in ended.conclusion) == (messages.RETRAIN_STATE_REFUSED, True), ended.conclusion
    assert real.runway.registry.get_model("air_time").aliases["production"] == 1


def test_what_dagster_holds_is_held_in_its_name(real: RealWorld) -> None:
    retrain = real.runway.retraining.request_retrain("air_time").retrain
    plane = real.connect()
    plane.hold_retrain(retrain.retrain_id, "backfill join-again of ground_truth_daily is under way")
    (waits,) = plane.waiting()
    assert (waits.model_id, waits.held_by, waits.ignore_cooldown) == ("air_time", "dagster", False)
    assert real.run() == []
    words = " ".join(real.runway.retraining.get_retrain(retrain.retrain_id).waiting_for)
    assert "dagster holds it: backfill join-again" in words
    assert "Nothing is being backfilled" not in str(real.tick("wait_for_backfills").skip_reason)
    assert real.run() == [(f"{retrain.retrain_id}_a1", True)]


def test_crashes_are_counted_to_a_clear_end(real: RealWorld) -> None:
    def crash(order: object) -> None:
        raise ValueError("no flights in the window")

    real.trainer.before = crash
    retrain = real.runway.retraining.request_retrain("air_time").retrain
    assert real.run() == [(f"{retrain.retrain_id}_a1", False)]
    real.runway.operations.advance_clock(NOW + timedelta(days=2))
    assert real.run() == [(f"{retrain.retrain_id}_a2", False)]
    ended = real.runway.retraining.get_retrain(retrain.retrain_id)
    assert ended.state == messages.RETRAIN_STATE_FAILED
    assert "ValueError: no flights in the window" in ended.conclusion


@pytest.mark.parametrize(
    ("cause", "failure_class"),
    [
        (MemoryError(), messages.FAILURE_CLASS_OUT_OF_MEMORY),
        (DataMissingError("the labels of March are not there yet"), messages.FAILURE_CLASS_DATA_MISSING),
        (ValueError("x"), messages.FAILURE_CLASS_UNKNOWN),
    ],
)
def test_the_cause_of_a_failure_decides_how_it_goes_on(real: RealWorld, cause: Exception, failure_class: int) -> None:
    def crash(order: object) -> None:
        raise RuntimeError("training failed") from cause

    real.trainer.before = crash
    retrain = real.runway.retraining.request_retrain("air_time").retrain
    real.run()
    (attempt,) = real.runway.retraining.get_retrain(retrain.retrain_id).attempts
    assert attempt.failure_class == failure_class


@pytest.mark.parametrize(
    ("code", "failure_class"),
    [("-9", messages.FAILURE_CLASS_OUT_OF_MEMORY), ("-15", messages.FAILURE_CLASS_PREEMPTED)],
)
def test_a_worker_that_was_killed_says_by_what(real: RealWorld, code: str, failure_class: int) -> None:
    retrain = real.runway.retraining.request_retrain("air_time").retrain
    (lease,) = real.connect().lease([], 10)
    tags = dict(run_request(lease).tags) | {WORKER_TAG: "4711", EXIT_TAG: code}
    real.instance.add_run(dg.DagsterRun(job_name="__ASSET_JOB", status=dg.DagsterRunStatus.FAILURE, tags=tags))
    real.tick("report_ended_runs")
    (attempt,) = real.runway.retraining.get_retrain(retrain.retrain_id).attempts
    assert attempt.failure_class == failure_class


def test_a_lease_whose_answer_was_lost_comes_again(real: RealWorld) -> None:
    real.runway.retraining.request_retrain("air_time")
    (lost,) = real.connect().lease([], 10)
    (request,) = real.tick("lease_retrains").run_requests or []
    assert request.run_key == lost.attempt_id
    assert request.tags == run_request(lost).tags


def test_a_killed_worker_is_reported_by_the_sensor(real: RealWorld) -> None:
    retrain = real.runway.retraining.request_retrain("air_time").retrain
    (lease,) = real.connect().lease([], 10)
    tags = dict(run_request(lease).tags) | {WORKER_TAG: "4711"}
    run = real.instance.add_run(dg.DagsterRun(job_name="__ASSET_JOB", status=dg.DagsterRunStatus.FAILURE, tags=tags))
    real.tick("report_ended_runs")
    (attempt,) = real.runway.retraining.get_retrain(retrain.retrain_id).attempts
    assert attempt.state == messages.ATTEMPT_STATE_FAILED
    assert attempt.run == run.run_id
    assert "ended without a word" in attempt.failure


def test_a_candidate_left_behind_is_refused_by_the_sensor(real: RealWorld) -> None:
    retrain = real.runway.retraining.request_retrain("air_time").retrain
    plane = real.connect()
    (lease,) = plane.lease([], 10)
    trained = real.trainer.train(
        TrainingOrder(model_id="air_time", attempt_id=lease.attempt_id, retrain_id="rt", data_until=NOW), print
    )
    plane.report_success(lease, plane.register_version(lease, trained, "run"), "run", 1.0)
    tags = dict(run_request(lease).tags)
    real.instance.add_run(dg.DagsterRun(job_name="__ASSET_JOB", status=dg.DagsterRunStatus.FAILURE, tags=tags))
    real.tick("report_ended_runs")
    ended = real.runway.retraining.get_retrain(retrain.retrain_id)
    assert ended.state == messages.RETRAIN_STATE_REFUSED
    assert "before the validation was reported" in ended.conclusion


def test_verdicts_limits_and_versions_are_read(real: RealWorld) -> None:
    plane = real.connect()
    assert {verdict.verdict for verdict in plane.verdicts()} == {"UNKNOWN"}
    real.runway.operations.set_limits(running_max=2, running_per_team_max=1)
    assert plane.status().limits.running_per_team_max == 1
    real.runway.retraining.request_retrain("air_time")
    real.run()
    assert plane.productions() == {"air_time": 1}
    assert plane.version("air_time", 1).metrics[0].value == 0.9
    assert plane.evaluate("air_time").version == 1
    real.tick("show_staleness")
    assert real.instance.fetch_observations(dg.AssetKey(["air_time"]), limit=1).records


def test_changes_are_heard_through_a_restart(real: RealWorld) -> None:
    following, loaded = real.following, real.fleet
    assert following.wait_for(loaded.revision, 20)
    assert following.changed(Topic.FLEET, loaded.revision) is None
    real.served.stop()
    real.served.start()
    real.runway.registry.register_model(
        messages.Model(model_id="newcomer", team="net", tier=messages.TIER_3, task_type=messages.TASK_TYPE_BINARY)
    )
    real.runway.graph.declare_dependencies(
        [messages.Dependency(upstream_id="model:newcomer", downstream_id="model:air_time")]
    )
    assert following.wait_for(real.served.plane.node.revision, 20)
    changed = following.changed(Topic.FLEET, loaded.revision)
    assert changed is not None
    assert changed > loaded.revision
    assert following.changed(Topic.PRODUCTION, loaded.revision) is None
    drawn = real.connect().fleet()
    (newcomer,) = [model for model in drawn.models if model.model_id == "newcomer"]
    assert (newcomer.owner, newcomer.deprecated) == ("", False)
    real.runway.registry.set_lifecycle("newcomer", messages.LIFECYCLE_STATE_DEPRECATED, why=Why(reason="old"))
    assert [model.model_id for model in real.connect().fleet().models if model.deprecated] == ["newcomer"]
    real.runway.registry.set_lifecycle(
        "newcomer", messages.LIFECYCLE_STATE_RETIRED, force=True, why=Why(reason="a test")
    )
    after = real.connect().fleet()
    assert "newcomer" not in {model.model_id for model in after.models}
    assert "newcomer" not in {node.slug for node in after.nodes}
    assert not [edge for edge in after.dependencies if "model:newcomer" in (edge.upstream, edge.downstream)]
