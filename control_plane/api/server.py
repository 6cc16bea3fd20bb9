"""The gRPC server: services, health, reflection, limits, and a drain that loses nothing.

Drain, in order: health says NOT_SERVING, watchers are told to go elsewhere, calls under way end or run out of time,
then the port closes.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # not in the stubs
from grpc_reflection.v1alpha import reflection
from runway.v1 import (
    alerts_pb2,
    alerts_pb2_grpc,
    backtest_pb2,
    backtest_pb2_grpc,
    facts_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    graph_pb2,
    graph_pb2_grpc,
    ground_truth_pb2,
    ground_truth_pb2_grpc,
    lineage_pb2,
    lineage_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    policies_pb2,
    policies_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    retraining_pb2,
    retraining_pb2_grpc,
    rollout_pb2,
    rollout_pb2_grpc,
    rules_pb2,
    rules_pb2_grpc,
    schedulers_pb2,
    schedulers_pb2_grpc,
    staleness_pb2,
    staleness_pb2_grpc,
)

from control_plane.api.alerts import AlertsServicer
from control_plane.api.backtest import BacktestServicer
from control_plane.api.facts import FactsServicer
from control_plane.api.fleet import FleetServicer
from control_plane.api.graph import GraphServicer
from control_plane.api.ground_truth import GroundTruthServicer
from control_plane.api.interceptors import Chain
from control_plane.api.lineage import LineageServicer
from control_plane.api.operations import OperationsServicer
from control_plane.api.policies import PolicyServicer
from control_plane.api.registry import RegistryServicer
from control_plane.api.retraining import RetrainingServicer
from control_plane.api.rollout import RolloutServicer
from control_plane.api.rules import RulesServicer
from control_plane.api.schedulers import SchedulersServicer
from control_plane.api.staleness import StalenessServicer
from control_plane.telemetry import Metrics

log = structlog.get_logger()

KEEPALIVE_MS = 20_000
"""How often an idle connection is probed: a vanished watcher is noticed within a minute."""

STREAMS_MAX = 4_096
"""Concurrent calls on one connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servicers:
    """The services."""

    registry: RegistryServicer
    graph: GraphServicer
    staleness: StalenessServicer
    ground_truth: GroundTruthServicer
    retraining: RetrainingServicer
    rollout: RolloutServicer
    operations: OperationsServicer
    policies: PolicyServicer
    rules: RulesServicer
    facts: FactsServicer
    fleet: FleetServicer
    lineage: LineageServicer
    backtest: BacktestServicer
    alerts: AlertsServicer
    schedulers: SchedulersServicer


class Server:
    """Listens on `address`; `port` is known after `start`."""

    def __init__(
        self,
        *,
        servicers: Servicers,
        metrics: Metrics,
        release: Callable[[], Awaitable[None]],
        address: str,
        message_bytes_max: int,
        serve_reflection: bool,
        drain_s: float,
    ) -> None:
        self._servicers = servicers
        self._address = address
        self._drain_s = drain_s
        self._health = health.HealthServicer()
        self._server = grpc.aio.server(interceptors=(Chain(metrics, release),), options=_options(message_bytes_max))
        self.port = 0
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(servicers.registry, self._server)
        graph_pb2_grpc.add_GraphServiceServicer_to_server(servicers.graph, self._server)
        staleness_pb2_grpc.add_StalenessServiceServicer_to_server(servicers.staleness, self._server)
        ground_truth_pb2_grpc.add_GroundTruthServiceServicer_to_server(servicers.ground_truth, self._server)
        retraining_pb2_grpc.add_RetrainingServiceServicer_to_server(servicers.retraining, self._server)
        rollout_pb2_grpc.add_RolloutServiceServicer_to_server(servicers.rollout, self._server)
        operations_pb2_grpc.add_OperationsServiceServicer_to_server(servicers.operations, self._server)
        lineage_pb2_grpc.add_LineageServiceServicer_to_server(servicers.lineage, self._server)
        policies_pb2_grpc.add_PolicyServiceServicer_to_server(servicers.policies, self._server)
        rules_pb2_grpc.add_RulesServiceServicer_to_server(servicers.rules, self._server)
        facts_pb2_grpc.add_FactsServiceServicer_to_server(servicers.facts, self._server)
        fleet_pb2_grpc.add_FleetServiceServicer_to_server(servicers.fleet, self._server)
        backtest_pb2_grpc.add_BacktestServiceServicer_to_server(servicers.backtest, self._server)
        alerts_pb2_grpc.add_AlertsServiceServicer_to_server(servicers.alerts, self._server)
        schedulers_pb2_grpc.add_SchedulersServiceServicer_to_server(servicers.schedulers, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if serve_reflection:
            reflection.enable_server_reflection(
                (*_names(), "grpc.health.v1.Health", reflection.SERVICE_NAME), self._server
            )

    async def start(self) -> None:
        """Listen; health says SERVING. Raises OSError when the port is taken."""
        try:
            self.port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(
                f"cannot listen on {self._address}: another program holds the port. Stop it, or set RUNWAY_ADDRESS"
            ) from error
        await self._server.start()
        await self._say(health_pb2.HealthCheckResponse.SERVING)
        host = self._address.rpartition(":")[0]
        log.info("server.listening", address=f"{host}:{self.port}")

    async def stop(self) -> None:
        """Drain, then stop."""
        log.info("server.draining", seconds_max=self._drain_s)
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._servicers.operations.end_watches()
        await self._server.stop(self._drain_s)
        log.info("server.stopped")

    async def _say(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        for name in ("", *_names()):
            await self._health.set(name, status)


def _names() -> Sequence[str]:
    files = (
        registry_pb2,
        graph_pb2,
        staleness_pb2,
        ground_truth_pb2,
        retraining_pb2,
        rollout_pb2,
        operations_pb2,
        policies_pb2,
        rules_pb2,
        fleet_pb2,
        lineage_pb2,
        backtest_pb2,
        alerts_pb2,
        schedulers_pb2,
    )
    return [service.full_name for file in files for service in file.DESCRIPTOR.services_by_name.values()]


def _options(message_bytes_max: int) -> list[tuple[str, int]]:
    return [
        # Two servers on one port would split the calls between them unseen.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.max_send_message_length", message_bytes_max),
        ("grpc.max_concurrent_streams", STREAMS_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
