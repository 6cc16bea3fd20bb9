"""The fleet as one manifest: FleetService. For YAML files see `runway_client.fleet_files`."""

from runway.v1 import common_pb2, fleet_pb2
from runway.v1.fleet_pb2_grpc import FleetServiceStub

from runway_client.connection import NO_REASON, Connection, Why

APPLY_DEADLINE_S = 120.0
"""A manifest of many megabytes on a busy machine; 5,000 models with 50,000 dependencies take seconds."""


class Fleet:
    """Plan, apply and export everything that people declare."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = FleetServiceStub(connection.channel)

    def plan(
        self, manifest: fleet_pb2.Manifest, *, prune: bool = False, why: Why = NO_REASON
    ) -> fleet_pb2.ApplyFleetResponse:
        """What applying would change, or all that is wrong (`problems`); nothing is changed."""
        why = Why(reason=why.reason, validate_only=True)
        return self.apply(manifest, prune=prune, why=why)

    def apply(
        self,
        manifest: fleet_pb2.Manifest,
        *,
        prune: bool = False,
        plan_etag: str = "",
        why: Why = NO_REASON,
    ) -> fleet_pb2.ApplyFleetResponse:
        """Make the fleet what the manifest says, all or nothing.

        Args:
            manifest: everything that should be there.
            prune: remove declared nodes, dependencies, policies and rules that it does not have; models never.
            plan_etag: of the plan that somebody agreed to; refused with ETAG_MISMATCH if it would be another one now.
            why: the reason for the audit log.
        """
        request = fleet_pb2.ApplyFleetRequest(manifest=manifest, prune=prune, plan_etag=plan_etag)
        return self._connection.change(
            self.stub.ApplyFleet, request, method="FleetService/ApplyFleet", why=why, deadline_s=APPLY_DEADLINE_S
        )

    def export(self, *, team: str = "", read: common_pb2.ReadOptions | None = None) -> fleet_pb2.Manifest:
        """Everything that is declared, or one team's part of it: applies without a change."""
        request = fleet_pb2.ExportFleetRequest(team=team, read=read)
        return self._connection.read(self.stub.ExportFleet, request, method="FleetService/ExportFleet").manifest
