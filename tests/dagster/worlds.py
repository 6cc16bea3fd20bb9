"""A Dagster instance, a control plane in memory and a trainer whose behaviour a test sets."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import dagster as dg

from assets.following import Following
from assets.location import build_definitions
from assets.plane import Evidence, Lease, Metric, Read, TrainedVersion, Validation
from assets.sensors.lease import run_request
from assets.trainer import Trainer, TrainingOrder
from tests.dagster.fake_plane import FakePlane, small_fleet


@dataclass
class FakeTrainer:
    """Trains at once; what it does first, and how its candidate compares, a test says."""

    before: Callable[[TrainingOrder], None] = lambda order: None
    before_validation: Callable[[TrainingOrder], None] = lambda order: None
    candidate: float = 0.8
    production: float | None = 0.7
    evidence: Evidence | None = None
    """Reported instead of a verdict."""
    reads: tuple[Read, ...] = (Read(node_id="feature:temp"),)
    orders: list[TrainingOrder] = field(default_factory=list)

    def train(self, order: TrainingOrder, say: Callable[[str], None]) -> TrainedVersion:
        self.orders.append(order)
        self.before(order)
        say("fitted")
        return TrainedVersion(
            artifact_uri=f"file:///artifacts/{order.attempt_id}",
            artifact_sha256=hashlib.sha256(order.attempt_id.encode()).hexdigest(),
            artifact_size_bytes=10,
            trained_until=order.data_until,
            metrics=(Metric(name="auc", value=0.9),),
            rows=1000,
            reads=self.reads,
        )

    def validate(self, order: TrainingOrder, version: int, say: Callable[[str], None]) -> Validation | Evidence:
        self.before_validation(order)
        if self.evidence is not None:
            return self.evidence
        return Validation(
            passed=self.production is None or self.candidate >= self.production,
            metric="auc",
            candidate=self.candidate,
            production=self.production,
            sample_size=500,
            explanation=f"auc {self.candidate} against {self.production}",
        )


class World:
    """All of it together."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.plane = FakePlane(small_fleet())
        self.trainer = FakeTrainer()
        self.following: Following | None = None
        self.now_s = 1_000.0
        self.load()

    def load(self) -> None:
        """Load the code location again."""
        self.close()
        fleet = self.plane.fleet()
        self.following = Following(self.plane.session, fleet.revision)
        trainers: dict[str, Callable[[], Trainer]] = {"flights": lambda: self.trainer}
        self.defs = build_definitions(
            fleet,
            lambda: self.plane,
            trainers,
            news=self.following,
            clock=lambda: self.now_s,
            linger_s=0,
        )

    def close(self) -> None:
        """Stop following."""
        if self.following is not None:
            self.following.close()

    def settle(self) -> None:
        """Wait until everything that happened has been heard of; nothing is heard of a control plane that is away."""
        assert self.following is not None
        assert self.plane.away or self.following.wait_for(self.plane.revision, 10)

    def tick(self, name: str, cursor: str | None = None) -> dg.SensorResult:
        """Evaluate a sensor as it would be next."""
        self.settle()
        repository = self.defs.get_repository_def()
        context = dg.build_sensor_context(self.instance, cursor=cursor, repository_def=repository, sensor_name=name)
        found = repository.get_sensor_def(name)(context)
        assert isinstance(found, dg.SensorResult)
        return found

    def leases(self) -> list[Lease]:
        """What a tick leases, as leases."""
        self.tick("lease_retrains")
        running = [r for r in self.plane.retrains.values() if r.state == "RUNNING"]
        return [retrain.attempts[-1].lease for retrain in running]

    def execute(self, lease: Lease) -> dg.ExecuteInProcessResult:
        """Run what a lease's run request says."""
        request = run_request(lease)
        job = self.defs.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=list(request.asset_selection or ()),
            tags=dict(request.tags),
            raise_on_error=False,
        )

    def launch_by_hand(self, *model_ids: str) -> dg.ExecuteInProcessResult:
        """A person presses Materialize."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey([model_id]) for model_id in model_ids]
        return job.execute_in_process(instance=self.instance, asset_selection=keys, raise_on_error=False)

    def materialized(self, model_id: str) -> dg.AssetMaterialization | None:
        """The newest materialization of a model."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey([model_id]))
        return event.asset_materialization if event else None
