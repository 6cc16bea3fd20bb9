"""FleetService: everything that people declare, planned as a diff, applied in one transaction, and given back."""

import asyncio

from runway.v1 import common_pb2, fleet_pb2, fleet_pb2_grpc

from control_plane.api.convert.fleet import ReadManifest, manifest_of, plan_message, read_manifest
from control_plane.api.interceptors import Context, violations_of
from control_plane.api.plane import Plane, digest_of
from control_plane.core.decide.fleet import FleetPlan, plan_fleet
from control_plane.core.errors import Invalid, Reason, Refused
from control_plane.core.state import State

PLANS_MAX = 3
"""How often a plan is made anew because something else changed the fleet before it could be applied."""


class FleetServicer(fleet_pb2_grpc.FleetServiceServicer):
    """Parse, submit or read, render."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def ApplyFleet(  # noqa: N802
        self, request: fleet_pb2.ApplyFleetRequest, context: Context
    ) -> fleet_pb2.ApplyFleetResponse:
        """Make the fleet what the manifest says; with `validate_only` say what that would change.

        A large manifest takes a while to read; that happens in a thread, so that others are served meanwhile.
        """
        reading = await asyncio.to_thread(_read, request)
        if request.mutation.validate_only or reading.violations:
            plan, state = await self._plan(reading)
            problems = reading.told(plan.violations)
            if not request.mutation.validate_only:
                raise Invalid(Reason.INVALID_ARGUMENT, *problems)
            return plan_message(plan, problems, state.revision)
        plan, revision = await self._applied(request, reading)
        return plan_message(plan, (), revision)

    async def _plan(self, reading: ReadManifest) -> tuple[FleetPlan, State]:
        state = await self._plane.read(common_pb2.ReadOptions())
        return plan_fleet(state, reading.command, self._plane.now()), state

    async def _applied(self, request: fleet_pb2.ApplyFleetRequest, reading: ReadManifest) -> tuple[FleetPlan, int]:
        """Apply; the plan that was applied tells the caller what happened."""
        digest = await asyncio.to_thread(digest_of, request)
        for left in range(PLANS_MAX - 1, -1, -1):
            plan, _ = await self._plan(reading)
            etag = request.plan_etag or (plan.etag if left and not plan.violations else "")
            try:
                outcome = await self._plane.submit(reading.command.agreed(etag), request.mutation, digest=digest)
            except Refused as error:
                if error.reason is not Reason.ETAG_MISMATCH or request.plan_etag or not left:
                    raise
            else:
                if outcome.repeated:  # what it changed is to be told, not what it would change now
                    plan = plan_fleet(await self._plane.before(outcome), reading.command, self._plane.now())
                return plan, outcome.revision
        raise AssertionError("the last try is not checked against a plan")

    async def ExportFleet(  # noqa: N802
        self, request: fleet_pb2.ExportFleetRequest, context: Context
    ) -> fleet_pb2.ExportFleetResponse:
        """Everything that is declared, as a manifest that applies without a change."""
        state = await self._plane.read(request.read)
        return fleet_pb2.ExportFleetResponse(manifest=manifest_of(state, request.team), revision=state.revision)


def _read(request: fleet_pb2.ApplyFleetRequest) -> ReadManifest:
    return read_manifest(request, violations_of(request.manifest))
