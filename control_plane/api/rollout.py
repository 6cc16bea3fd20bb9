"""RolloutService."""

from runway.v1 import rollout_pb2, rollout_pb2_grpc

from control_plane.api.convert.common import newest_first_key, page
from control_plane.api.convert.registry import model_id_from
from control_plane.api.convert.rollout import rollout, validation_from
from control_plane.api.interceptors import Context
from control_plane.api.plane import Outcome, Plane, require_reason
from control_plane.core.commands import PromoteVersion, ReportValidation, RollBack
from control_plane.core.ids import RolloutId


class RolloutServicer(rollout_pb2_grpc.RolloutServiceServicer):
    """Parse, submit or read, render."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def ReportValidation(  # noqa: N802
        self, request: rollout_pb2.ReportValidationRequest, context: Context
    ) -> rollout_pb2.ReportValidationResponse:
        """The result of a validation."""
        command = ReportValidation(
            model_id=model_id_from(request.model_id),
            version=request.version,
            validation=validation_from(request.validation),
        )
        outcome = await self._plane.submit(command, request.mutation)
        return rollout_pb2.ReportValidationResponse(rollout=_shown(outcome), revision=outcome.revision)

    async def GetRollout(  # noqa: N802
        self, request: rollout_pb2.GetRolloutRequest, context: Context
    ) -> rollout_pb2.GetRolloutResponse:
        """One rollout."""
        state = await self._plane.read(request.read)
        found = state.rollout(RolloutId(request.rollout_id))
        return rollout_pb2.GetRolloutResponse(rollout=rollout(found), revision=state.revision)

    async def ListRollouts(  # noqa: N802
        self, request: rollout_pb2.ListRolloutsRequest, context: Context
    ) -> rollout_pb2.ListRolloutsResponse:
        """Rollouts, newest first."""
        state = await self._plane.read(request.read)
        model_id = state.model(model_id_from(request.model_id)).model_id if request.model_id else None
        found = [one for one in reversed(state.rollouts.values()) if model_id in (None, one.model_id)]
        keys = [newest_first_key(int(one.rollout_id.removeprefix("ro_"))) for one in found]
        shown, token = page(found, keys, request.page)
        return rollout_pb2.ListRolloutsResponse(
            rollouts=[rollout(one) for one in shown], next_page_token=token, revision=state.revision
        )

    async def PromoteVersion(  # noqa: N802
        self, request: rollout_pb2.PromoteVersionRequest, context: Context
    ) -> rollout_pb2.PromoteVersionResponse:
        """Promote by hand."""
        if request.force:
            require_reason(request.mutation, "a promotion without validation")
        command = PromoteVersion(model_id=model_id_from(request.model_id), version=request.version, force=request.force)
        outcome = await self._plane.submit(command, request.mutation)
        return rollout_pb2.PromoteVersionResponse(rollout=_shown(outcome), revision=outcome.revision)

    async def RollBack(  # noqa: N802
        self, request: rollout_pb2.RollBackRequest, context: Context
    ) -> rollout_pb2.RollBackResponse:
        """Go back to the version before."""
        outcome = await self._plane.submit(RollBack(model_id=model_id_from(request.model_id)), request.mutation)
        return rollout_pb2.RollBackResponse(rollout=_shown(outcome), revision=outcome.revision)


def _shown(outcome: Outcome) -> rollout_pb2.Rollout | None:
    rollout_id = outcome.result.rollout_id
    found = outcome.state.rollouts.get(rollout_id) if rollout_id is not None else None
    return None if found is None or outcome.dry else rollout(found)
