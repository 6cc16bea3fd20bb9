"""RolloutService."""

from collections.abc import Iterable

from runway.v1 import common_pb2, rollout_pb2, rollout_pb2_grpc

from control_plane.api.convert.common import newest_first_key, page
from control_plane.api.convert.registry import model_id_from
from control_plane.api.convert.rollout import (
    STATES_FROM,
    check_from,
    evidence_from,
    freeze,
    freeze_from,
    judgement,
    look_from,
    rollout,
    rollout_id_from,
    validation_from,
)
from control_plane.api.interceptors import Context
from control_plane.api.plane import ANONYMOUS, Outcome, Plane, require_reason
from control_plane.core.commands import (
    AbortRollout,
    AdvanceRollout,
    ApproveRollout,
    DeclineRollout,
    GroupRollouts,
    HoldRollout,
    PromoteVersion,
    RecordLook,
    ReleaseRollout,
    RemoveFreeze,
    ReportCheck,
    ReportValidation,
    RollBack,
    SetFreeze,
)
from control_plane.core.decide.canary import judged_look
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.ids import RolloutId
from control_plane.core.rollout.types import Rollout


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
            validation=validation_from(request.validation) if request.HasField("validation") else None,
            evidence=evidence_from(request.evidence) if request.HasField("evidence") else None,
        )
        outcome = await self._plane.submit(command, request.mutation)
        return rollout_pb2.ReportValidationResponse(rollout=self._shown(outcome), revision=outcome.revision)

    async def ReportCheck(  # noqa: N802
        self, request: rollout_pb2.ReportCheckRequest, context: Context
    ) -> rollout_pb2.ReportCheckResponse:
        """One check of a candidate."""
        command = ReportCheck(
            model_id=model_id_from(request.model_id), version=request.version, check=check_from(request.check)
        )
        outcome = await self._plane.submit(command, request.mutation)
        return rollout_pb2.ReportCheckResponse(rollout=self._shown(outcome), revision=outcome.revision)

    async def GetRollout(  # noqa: N802
        self, request: rollout_pb2.GetRolloutRequest, context: Context
    ) -> rollout_pb2.GetRolloutResponse:
        """One rollout."""
        state = await self._plane.read(request.read)
        found = state.rollout(RolloutId(request.rollout_id))
        now = self._plane.moment(state, request.read)
        return rollout_pb2.GetRolloutResponse(rollout=rollout(state, found, now), revision=state.revision)

    async def ListRollouts(  # noqa: N802
        self, request: rollout_pb2.ListRolloutsRequest, context: Context
    ) -> rollout_pb2.ListRolloutsResponse:
        """Rollouts, newest first."""
        state = await self._plane.read(request.read)
        model_id = state.model(model_id_from(request.model_id)).model_id if request.model_id else None
        ids = state.models[model_id].rollout_ids if model_id is not None else list(state.rollouts)
        wanted = {STATES_FROM[number] for number in request.states if number in STATES_FROM}
        found = [
            one
            for one in (state.rollouts[rollout_id] for rollout_id in reversed(ids))
            if (not wanted or one.state in wanted) and request.group_id in ("", one.group_id)
        ]
        keys = [newest_first_key(int(one.rollout_id.removeprefix("ro_"))) for one in found]
        shown, token = page(found, keys, request.page)
        now = self._plane.moment(state, request.read)
        return rollout_pb2.ListRolloutsResponse(
            rollouts=[rollout(state, one, now) for one in shown], next_page_token=token, revision=state.revision
        )

    async def PromoteVersion(  # noqa: N802
        self, request: rollout_pb2.PromoteVersionRequest, context: Context
    ) -> rollout_pb2.PromoteVersionResponse:
        """Promote by hand."""
        if request.force:
            require_reason(request.mutation, "a promotion without validation")
        command = PromoteVersion(
            model_id=model_id_from(request.model_id),
            version=request.version,
            force=request.force,
            by=_who(request.mutation),
        )
        outcome = await self._plane.submit(command, request.mutation)
        return rollout_pb2.PromoteVersionResponse(rollout=self._shown(outcome), revision=outcome.revision)

    async def RollBack(  # noqa: N802
        self, request: rollout_pb2.RollBackRequest, context: Context
    ) -> rollout_pb2.RollBackResponse:
        """Go back to the version before."""
        outcome = await self._plane.submit(RollBack(model_id=model_id_from(request.model_id)), request.mutation)
        return rollout_pb2.RollBackResponse(rollout=self._shown(outcome), revision=outcome.revision)

    async def ApproveRollout(  # noqa: N802
        self, request: rollout_pb2.ApproveRolloutRequest, context: Context
    ) -> rollout_pb2.ApproveRolloutResponse:
        """Somebody says yes."""
        approver = _somebody(request.mutation, "an approval")
        command = ApproveRollout(rollout_id=rollout_id_from(request.rollout_id), approver=approver)
        outcome = await self._plane.submit(command, request.mutation)
        return rollout_pb2.ApproveRolloutResponse(rollout=self._shown(outcome), revision=outcome.revision)

    async def DeclineRollout(  # noqa: N802
        self, request: rollout_pb2.DeclineRolloutRequest, context: Context
    ) -> rollout_pb2.DeclineRolloutResponse:
        """Somebody says no."""
        command = DeclineRollout(
            rollout_id=rollout_id_from(request.rollout_id),
            by=_who(request.mutation),
            why=request.mutation.reason,
        )
        outcome = await self._plane.submit(command, request.mutation)
        return rollout_pb2.DeclineRolloutResponse(rollout=self._shown(outcome), revision=outcome.revision)

    async def AbortRollout(  # noqa: N802
        self, request: rollout_pb2.AbortRolloutRequest, context: Context
    ) -> rollout_pb2.AbortRolloutResponse:
        """End a rollout by hand."""
        command = AbortRollout(
            rollout_id=rollout_id_from(request.rollout_id),
            by=_who(request.mutation),
            why=request.mutation.reason,
        )
        outcome = await self._plane.submit(command, request.mutation)
        return rollout_pb2.AbortRolloutResponse(rollout=self._shown(outcome), revision=outcome.revision)

    async def HoldRollout(  # noqa: N802
        self, request: rollout_pb2.HoldRolloutRequest, context: Context
    ) -> rollout_pb2.HoldRolloutResponse:
        """Stay at the present step."""
        command = HoldRollout(
            rollout_id=rollout_id_from(request.rollout_id),
            by=_who(request.mutation),
            why=request.mutation.reason,
        )
        outcome = await self._plane.submit(command, request.mutation)
        return rollout_pb2.HoldRolloutResponse(rollout=self._shown(outcome), revision=outcome.revision)

    async def ReleaseRollout(  # noqa: N802
        self, request: rollout_pb2.ReleaseRolloutRequest, context: Context
    ) -> rollout_pb2.ReleaseRolloutResponse:
        """Go on."""
        command = ReleaseRollout(rollout_id=rollout_id_from(request.rollout_id))
        outcome = await self._plane.submit(command, request.mutation)
        return rollout_pb2.ReleaseRolloutResponse(rollout=self._shown(outcome), revision=outcome.revision)

    async def AdvanceRollout(  # noqa: N802
        self, request: rollout_pb2.AdvanceRolloutRequest, context: Context
    ) -> rollout_pb2.AdvanceRolloutResponse:
        """The next step by hand."""
        require_reason(request.mutation, "a step against the judge")
        command = AdvanceRollout(
            rollout_id=rollout_id_from(request.rollout_id),
            by=_who(request.mutation),
            why=request.mutation.reason,
        )
        outcome = await self._plane.submit(command, request.mutation)
        return rollout_pb2.AdvanceRolloutResponse(rollout=self._shown(outcome), revision=outcome.revision)

    async def ReportCanary(  # noqa: N802
        self, request: rollout_pb2.ReportCanaryRequest, context: Context
    ) -> rollout_pb2.ReportCanaryResponse:
        """Numbers of a canary from whoever has them."""
        look = look_from(request, self._plane.now())
        command = RecordLook(rollout_id=rollout_id_from(request.rollout_id), look=look)
        outcome = await self._plane.submit(command, request.mutation)
        found = outcome.state.rollout(command.rollout_id)
        return rollout_pb2.ReportCanaryResponse(
            rollout=self._shown(outcome),
            judgement=judgement(judged_look(found, look, look.at)),
            revision=outcome.revision,
        )

    async def GroupRollouts(  # noqa: N802
        self, request: rollout_pb2.GroupRolloutsRequest, context: Context
    ) -> rollout_pb2.GroupRolloutsResponse:
        """Models that move together."""
        ids = tuple(rollout_id_from(text) for text in request.rollout_ids)
        outcome = await self._plane.submit(GroupRollouts(group_id=request.group_id, rollout_ids=ids), request.mutation)
        return rollout_pb2.GroupRolloutsResponse(rollouts=self._all_shown(outcome, ids), revision=outcome.revision)

    async def SetFreeze(  # noqa: N802
        self, request: rollout_pb2.SetFreezeRequest, context: Context
    ) -> rollout_pb2.SetFreezeResponse:
        """A window in which nothing goes forward."""
        wanted = freeze_from(request.freeze, _who(request.mutation))
        outcome = await self._plane.submit(SetFreeze(freeze=wanted), request.mutation)
        return rollout_pb2.SetFreezeResponse(freeze=freeze(wanted), revision=outcome.revision)

    async def RemoveFreeze(  # noqa: N802
        self, request: rollout_pb2.RemoveFreezeRequest, context: Context
    ) -> rollout_pb2.RemoveFreezeResponse:
        """Take a window back."""
        outcome = await self._plane.submit(RemoveFreeze(name=request.name), request.mutation)
        return rollout_pb2.RemoveFreezeResponse(revision=outcome.revision)

    async def ListFreezes(  # noqa: N802
        self, request: rollout_pb2.ListFreezesRequest, context: Context
    ) -> rollout_pb2.ListFreezesResponse:
        """Windows that are not over, by start."""
        state = await self._plane.read(request.read)
        now = self._plane.moment(state, request.read)
        found = sorted((one for one in state.freezes.values() if one.ends_at > now), key=lambda one: one.starts_at)
        return rollout_pb2.ListFreezesResponse(freezes=[freeze(one) for one in found], revision=state.revision)

    def _shown(self, outcome: Outcome) -> rollout_pb2.Rollout | None:
        rollout_id = outcome.result.rollout_id
        found = outcome.state.rollouts.get(rollout_id) if rollout_id is not None else None
        return None if found is None or outcome.dry else self._render(outcome, found)

    def _all_shown(self, outcome: Outcome, ids: Iterable[RolloutId]) -> list[rollout_pb2.Rollout]:
        return [] if outcome.dry else [self._render(outcome, outcome.state.rollouts[one]) for one in ids]

    def _render(self, outcome: Outcome, found: Rollout) -> rollout_pb2.Rollout:
        return rollout(outcome.state, found, self._plane.now())


def _who(mutation: common_pb2.Mutation) -> str:
    return mutation.actor or ANONYMOUS


def _somebody(mutation: common_pb2.Mutation, what: str) -> str:
    """The caller's name; `Invalid` if there is none."""
    if mutation.actor:
        return mutation.actor
    raise Invalid(
        Reason.INVALID_ARGUMENT,
        Violation(field="mutation.actor", rule="required", message=f"{what} needs a name: say who you are"),
    )
