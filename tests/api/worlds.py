"""A whole control plane in this process behind a real port: memory for the log, Parquet on disk for the facts."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from runway.v1 import (
    common_pb2,
    facts_pb2_grpc,
    graph_pb2,
    graph_pb2_grpc,
    ground_truth_pb2_grpc,
    lineage_pb2_grpc,
    operations_pb2_grpc,
    policies_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    retraining_pb2,
    retraining_pb2_grpc,
    rollout_pb2,
    rollout_pb2_grpc,
    rules_pb2_grpc,
    staleness_pb2_grpc,
)

from control_plane.adapters.memory.cursors import MemoryCursors
from control_plane.adapters.memory.server import MemoryEventLog, MemoryLeadership, MemoryServer, MemorySnapshotStore
from control_plane.app.chain import first_bad
from control_plane.bootstrap import ControlPlane, Stores
from control_plane.config import Config

START = datetime(2013, 3, 1, tzinfo=UTC)
SHA = "a" * 64
MESSAGE_BYTES_MAX = 4 * 1024 * 1024


class HandClock:
    """Stands where it is put; may jump either way, as a broken wall clock does."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        """Where it stands."""
        return self.at


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """How a call was refused."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]
    violations: dict[str, str]
    """Rule by field, of every violation."""
    described: tuple[str, ...] = ()
    """`field: description`, of every violation."""


def refusal_of(status: status_pb2.Status) -> Refusal:
    """Read a status; it must carry exactly one ErrorInfo of ours."""
    infos: list[error_details_pb2.ErrorInfo] = []
    violations: dict[str, str] = {}
    described: list[str] = []
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            infos.append(info)
        elif detail.Unpack(bad):
            violations.update({violation.field: violation.reason for violation in bad.field_violations})
            described.extend(f"{violation.field}: {violation.description}" for violation in bad.field_violations)
    assert len(infos) == 1, f"{len(infos)} ErrorInfo in {status}"
    assert infos[0].domain == "runway"
    return Refusal(
        code=next(code for code in grpc.StatusCode if code.value[0] == status.code),
        reason=infos[0].reason,
        message=status.message,
        metadata=dict(infos[0].metadata),
        violations=violations,
        described=tuple(described),
    )


def refusal_in(error: grpc.aio.AioRpcError) -> Refusal:
    """The refusal that a failed call carries in its trailers."""
    details = next((each[1] for each in error.trailing_metadata() if each[0] == "grpc-status-details-bin"), None)  # type: ignore[index]
    assert isinstance(details, bytes), f"{error.code()} {error.details()} carries no status"
    found = refusal_of(status_pb2.Status.FromString(details))
    assert found.code is error.code()
    assert found.message == error.details()
    return found


async def refused(call: Awaitable[Any]) -> Refusal:
    """Await a call that must fail."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return refusal_in(error)
    raise AssertionError(f"not refused: {answer}")


@dataclass(slots=True)
class Api:
    """A client of all seven services, and the parts behind them."""

    plane: ControlPlane
    clock: HandClock
    channel: grpc.aio.Channel
    registry: "registry_pb2_grpc.RegistryServiceAsyncStub" = field(init=False)
    graph: "graph_pb2_grpc.GraphServiceAsyncStub" = field(init=False)
    staleness: "staleness_pb2_grpc.StalenessServiceAsyncStub" = field(init=False)
    ground_truth: "ground_truth_pb2_grpc.GroundTruthServiceAsyncStub" = field(init=False)
    retraining: "retraining_pb2_grpc.RetrainingServiceAsyncStub" = field(init=False)
    rollout: "rollout_pb2_grpc.RolloutServiceAsyncStub" = field(init=False)
    operations: "operations_pb2_grpc.OperationsServiceAsyncStub" = field(init=False)
    policies: "policies_pb2_grpc.PolicyServiceAsyncStub" = field(init=False)
    rules: "rules_pb2_grpc.RulesServiceAsyncStub" = field(init=False)
    facts: "facts_pb2_grpc.FactsServiceAsyncStub" = field(init=False)
    lineage: "lineage_pb2_grpc.LineageServiceAsyncStub" = field(init=False)
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.registry = registry_pb2_grpc.RegistryServiceStub(self.channel)
        self.graph = graph_pb2_grpc.GraphServiceStub(self.channel)
        self.staleness = staleness_pb2_grpc.StalenessServiceStub(self.channel)
        self.ground_truth = ground_truth_pb2_grpc.GroundTruthServiceStub(self.channel)
        self.retraining = retraining_pb2_grpc.RetrainingServiceStub(self.channel)
        self.rollout = rollout_pb2_grpc.RolloutServiceStub(self.channel)
        self.operations = operations_pb2_grpc.OperationsServiceStub(self.channel)
        self.policies = policies_pb2_grpc.PolicyServiceStub(self.channel)
        self.rules = rules_pb2_grpc.RulesServiceStub(self.channel)
        self.facts = facts_pb2_grpc.FactsServiceStub(self.channel)
        self.lineage = lineage_pb2_grpc.LineageServiceStub(self.channel)

    async def pass_time(self, span: timedelta) -> None:
        """Let time pass, and what is due happen."""
        self.clock.at += span
        await self.plane.node.tick()

    async def revision(self) -> int:
        """The newest durable revision."""
        return self.plane.node.revision

    # What most tests begin with

    async def model(self, model_id: str, **changes: Any) -> registry_pb2.Model:
        """Register a model."""
        request = registry_pb2.RegisterModelRequest(mutation=by(), model=a_model(model_id, **changes))
        return (await self.registry.RegisterModel(request)).model

    async def version(self, model_id: str, **changes: Any) -> int:
        """Register a version."""
        profile = changes.pop("reference_profile", b"")
        request = registry_pb2.RegisterVersionRequest(
            mutation=by(), version=a_version(model_id, **changes), reference_profile=profile
        )
        return int((await self.registry.RegisterVersion(request)).version.version)

    async def serving(self, model_id: str, **changes: Any) -> int:
        """Register a model with a version in production."""
        profile = changes.pop("reference_profile", b"")
        await self.model(model_id, **changes)
        number = await self.version(model_id, reference_profile=profile)
        await self.promote(model_id, number)
        return number

    async def promote(self, model_id: str, version: int) -> rollout_pb2.Rollout:
        """Promote by force."""
        request = rollout_pb2.PromoteVersionRequest(
            mutation=by(reason="a test wants it"), model_id=model_id, version=version, force=True
        )
        return (await self.rollout.PromoteVersion(request)).rollout

    async def edge(self, upstream: str, downstream: str) -> None:
        """Declare a dependency."""
        await self.graph.DeclareDependencies(
            graph_pb2.DeclareDependenciesRequest(
                dependencies=[graph_pb2.Dependency(upstream_id=upstream, downstream_id=downstream)]
            )
        )

    async def retrain(self, model_id: str, *, ignore_cooldown: bool = True) -> retraining_pb2.Retrain:
        """Ask for a retrain."""
        request = retraining_pb2.RequestRetrainRequest(
            mutation=by(reason="a test"), model_id=model_id, ignore_cooldown=ignore_cooldown
        )
        return (await self.retraining.RequestRetrain(request)).retrain

    async def lease(self, leases_max: int = 10, known: tuple[str, ...] = ()) -> list[retraining_pb2.Lease]:
        """Lease as the scheduler `dagster`."""
        request = retraining_pb2.LeaseRetrainsRequest(
            scheduler="dagster", leases_max=leases_max, known_attempt_ids=known
        )
        return list((await self.retraining.LeaseRetrains(request)).leases)

    async def trained(self, lease: retraining_pb2.Lease) -> int:
        """Register the version of an attempt and report success."""
        version = await self.registry.RegisterVersion(
            registry_pb2.RegisterVersionRequest(
                version=a_version(lease.model_id), attempt_id=lease.attempt_id, lease_token=lease.lease_token
            )
        )
        await self.retraining.ReportAttempt(
            retraining_pb2.ReportAttemptRequest(
                attempt_id=lease.attempt_id,
                lease_token=lease.lease_token,
                succeeded_version=version.version.version,
                run="run-1",
            )
        )
        return int(version.version.version)

    async def find_retrain(self, retrain_id: str) -> retraining_pb2.Retrain:
        """One retrain."""
        request = retraining_pb2.GetRetrainRequest(retrain_id=retrain_id)
        return (await self.retraining.GetRetrain(request)).retrain


def by(*, request_id: str = "", reason: str = "", validate_only: bool = False) -> common_pb2.Mutation:
    """Who asks for a change."""
    return common_pb2.Mutation(request_id=request_id, actor="tester", reason=reason, validate_only=validate_only)


def a_model(model_id: str, **changes: Any) -> registry_pb2.Model:
    """A model that needs nothing else."""
    facts: dict[str, Any] = {
        "owner": "team:flights",
        "team": "flights",
        "tier": common_pb2.TIER_2,
        "task_type": common_pb2.TASK_TYPE_BINARY,
    }
    return registry_pb2.Model(model_id=model_id, **(facts | changes))


def a_version(model_id: str, **changes: Any) -> registry_pb2.ModelVersion:
    """A version trained until the day the tests begin."""
    facts: dict[str, Any] = {
        "artifact_uri": f"file:///artifacts/{model_id}",
        "artifact_sha256": SHA,
        "trained_until": instant(START),
    }
    return registry_pb2.ModelVersion(model_id=model_id, **(facts | changes))


def instant(at: datetime) -> Timestamp:
    """A time on the wire."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


def span(length: timedelta) -> Duration:
    """A span on the wire."""
    message = Duration()
    message.FromTimedelta(length)
    return message


@dataclass(slots=True)
class Host:
    """What survives a control plane: its log and its facts."""

    home: Path
    database: MemoryServer = field(default_factory=lambda: MemoryServer(first_bad))
    clock: HandClock = field(default_factory=HandClock)
    settings: dict[str, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def life(self, **settings: Any) -> AsyncIterator[Api]:
        """A control plane from its start to its clean stop."""
        plane = await self.born(**settings)
        try:
            async with grpc.aio.insecure_channel(
                f"127.0.0.1:{plane.server.port}", options=[("grpc.max_send_message_length", -1)]
            ) as channel:
                yield Api(plane=plane, clock=self.clock, channel=channel)
        finally:
            await plane.stop()

    async def born(self, **settings: Any) -> ControlPlane:
        """A control plane that leads and listens."""
        config = Config(
            **{
                "database_url": "memory:",
                "home": self.home,
                "address": "127.0.0.1:0",
                "lineage_address": "127.0.0.1:0",
                "drain_s": 5.0,
                "message_bytes_max": MESSAGE_BYTES_MAX,
                **self.settings,
                **settings,
            }
        )
        stores = Stores(
            event_log=MemoryEventLog(self.database),
            snapshots=MemorySnapshotStore(self.database),
            leadership=MemoryLeadership(self.database),
            cursors=MemoryCursors(self.database),
        )
        plane = ControlPlane(config, stores=stores, clock=None if config.clock == "driven" else self.clock)
        await plane.start()
        return plane
