"""RetrainingService."""

import secrets
from collections.abc import Mapping
from datetime import datetime

from runway.v1 import common_pb2, retraining_pb2

from control_plane.api.convert.common import newest_first_key, page, timestamp
from control_plane.api.convert.registry import model_id_from
from control_plane.api.convert.retraining import FAILURE_CLASSES_FROM, STATES_FROM, lease, retrain
from control_plane.api.interceptors import Context
from control_plane.api.retraining_plans import RetrainingPlans
from control_plane.app.queries import why_waiting
from control_plane.core.commands import (
    CancelRetrain,
    HoldRetrain,
    LeaseRetrains,
    ReleaseRetrain,
    RenewLease,
    ReportFailure,
    ReportSuccess,
    RequestRetrain,
)
from control_plane.core.decide.cascade_plan import PlannedRetrain
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, RetrainId
from control_plane.core.retraining.types import Retrain, RetrainCause
from control_plane.core.state import State

TOKEN_BYTES = 16
"""128 random bits: a lease token cannot be guessed."""


class RetrainingServicer(RetrainingPlans):
    """Parse, submit or read, render."""

    async def RequestRetrain(  # noqa: N802
        self, request: retraining_pb2.RequestRetrainRequest, context: Context
    ) -> retraining_pb2.RequestRetrainResponse:
        """Ask for a retrain."""
        command = RequestRetrain(
            model_id=model_id_from(request.model_id),
            cause=RetrainCause.OPERATOR,
            ignore_cooldown=request.ignore_cooldown,
            supersede=request.supersede,
            off_peak=request.off_peak,
        )
        outcome = await self._plane.submit(command, request.mutation)
        return retraining_pb2.RequestRetrainResponse(
            retrain=self._shown(outcome.state, outcome.result.retrain_id),
            created=outcome.result.created,
            revision=outcome.revision,
        )

    async def CancelRetrain(  # noqa: N802
        self, request: retraining_pb2.CancelRetrainRequest, context: Context
    ) -> retraining_pb2.CancelRetrainResponse:
        """End a live retrain."""
        retrain_id = RetrainId(request.retrain_id)
        outcome = await self._plane.submit(CancelRetrain(retrain_id=retrain_id), request.mutation)
        return retraining_pb2.CancelRetrainResponse(
            retrain=self._shown(outcome.state, retrain_id), revision=outcome.revision
        )

    async def HoldRetrain(  # noqa: N802
        self, request: retraining_pb2.HoldRetrainRequest, context: Context
    ) -> retraining_pb2.HoldRetrainResponse:
        """Let it wait."""
        retrain_id = RetrainId(request.retrain_id)
        outcome = await self._plane.submit(HoldRetrain(retrain_id=retrain_id), request.mutation)
        return retraining_pb2.HoldRetrainResponse(
            retrain=self._shown(outcome.state, retrain_id), revision=outcome.revision
        )

    async def ReleaseRetrain(  # noqa: N802
        self, request: retraining_pb2.ReleaseRetrainRequest, context: Context
    ) -> retraining_pb2.ReleaseRetrainResponse:
        """Let it go on."""
        retrain_id = RetrainId(request.retrain_id)
        outcome = await self._plane.submit(ReleaseRetrain(retrain_id=retrain_id), request.mutation)
        return retraining_pb2.ReleaseRetrainResponse(
            retrain=self._shown(outcome.state, retrain_id), revision=outcome.revision
        )

    async def GetRetrain(  # noqa: N802
        self, request: retraining_pb2.GetRetrainRequest, context: Context
    ) -> retraining_pb2.GetRetrainResponse:
        """One retrain."""
        state = await self._plane.read(request.read)
        found = state.retrain(RetrainId(request.retrain_id))
        now = self._plane.moment(state, request.read)
        return retraining_pb2.GetRetrainResponse(
            retrain=self._render(state, found, now, self._known(state, request.read)), revision=state.revision
        )

    async def ListRetrains(  # noqa: N802
        self, request: retraining_pb2.ListRetrainsRequest, context: Context
    ) -> retraining_pb2.ListRetrainsResponse:
        """Retrains, newest first."""
        state = await self._plane.read(request.read)
        wanted = {STATES_FROM[number] for number in request.states if number in STATES_FROM}
        ids = state.model(model_id_from(request.model_id)).retrain_ids if request.model_id else list(state.retrains)
        found = [
            one
            for one in (state.retrains[i] for i in reversed(ids))
            if (not wanted or one.state in wanted)
            and request.group in ("", one.group)
            and request.team in ("", state.models[one.model_id].facts.team)
        ]
        shown, token = page(found, [newest_first_key(_number(one)) for one in found], request.page)
        now = self._plane.moment(state, request.read)
        known = self._known(state, request.read)
        return retraining_pb2.ListRetrainsResponse(
            retrains=[self._render(state, one, now, known) for one in shown],
            next_page_token=token,
            revision=state.revision,
        )

    async def LeaseRetrains(  # noqa: N802
        self, request: retraining_pb2.LeaseRetrainsRequest, context: Context
    ) -> retraining_pb2.LeaseRetrainsResponse:
        """Take what may run now."""
        command = LeaseRetrains(
            scheduler=request.scheduler,
            lease_tokens=tuple(LeaseToken(secrets.token_hex(TOKEN_BYTES)) for _ in range(request.leases_max)),
            known_attempt_ids=tuple(AttemptId(attempt_id) for attempt_id in request.known_attempt_ids),
        )
        outcome = await self._plane.submit(command, request.mutation)
        leases = []
        for attempt_id in () if outcome.dry else outcome.result.attempt_ids:
            found = outcome.state.retrain_of_attempt(attempt_id)
            held = found.running_attempt
            # A repeated request may name leases that have ended since; those are not given again.
            if held is not None and held.attempt_id == attempt_id:
                leases.append(lease(outcome.state, found, held))
        return retraining_pb2.LeaseRetrainsResponse(leases=leases, revision=outcome.revision)

    async def RenewLease(  # noqa: N802
        self, request: retraining_pb2.RenewLeaseRequest, context: Context
    ) -> retraining_pb2.RenewLeaseResponse:
        """The attempt is still being worked on."""
        command = RenewLease(
            attempt_id=AttemptId(request.attempt_id),
            lease_token=LeaseToken(request.lease_token),
            run=request.run,
        )
        outcome = await self._plane.submit(command, request.mutation)
        held = outcome.state.retrain_of_attempt(command.attempt_id).running_attempt
        return retraining_pb2.RenewLeaseResponse(
            expires_at=timestamp(held.expires_at) if held else None, revision=outcome.revision
        )

    async def ReportAttempt(  # noqa: N802
        self, request: retraining_pb2.ReportAttemptRequest, context: Context
    ) -> retraining_pb2.ReportAttemptResponse:
        """How an attempt ended."""
        attempt_id, token = AttemptId(request.attempt_id), LeaseToken(request.lease_token)
        command: ReportSuccess | ReportFailure
        if request.WhichOneof("result") == "succeeded_version":
            command = ReportSuccess(
                attempt_id=attempt_id,
                lease_token=token,
                version=request.succeeded_version,
                run=request.run,
                gpu_hours=request.gpu_hours if request.HasField("gpu_hours") else None,
                log_url=request.log_url,
            )
        else:
            command = ReportFailure(
                attempt_id=attempt_id,
                lease_token=token,
                failure=request.failure or "no reason given",
                run=request.run,
                permanent=request.permanent,
                failure_class=FAILURE_CLASSES_FROM.get(request.failure_class),
                gpu_hours=request.gpu_hours if request.HasField("gpu_hours") else None,
                log_url=request.log_url,
            )
        outcome = await self._plane.submit(command, request.mutation)
        return retraining_pb2.ReportAttemptResponse(
            retrain=self._render(outcome.state, outcome.state.retrain_of_attempt(attempt_id)),
            revision=outcome.revision,
        )

    def _shown(self, state: State, retrain_id: RetrainId | None) -> retraining_pb2.Retrain | None:
        """None after a dry run, when there is nothing to show yet."""
        found = state.retrains.get(retrain_id) if retrain_id is not None else None
        return None if found is None else self._render(state, found)

    def _known(self, state: State, read: common_pb2.ReadOptions) -> Mapping[ModelId, PlannedRetrain]:
        """What the plan expects now; nothing of the past."""
        return self.expected(state) if read.WhichOneof("as_of") is None else {}

    def _render(
        self,
        state: State,
        found: Retrain,
        now: datetime | None = None,
        known: Mapping[ModelId, PlannedRetrain] | None = None,
    ) -> retraining_pb2.Retrain:
        planned = (known or {}).get(found.model_id) if found.live else None
        return retrain(state, found, why_waiting(state, found, now or self._plane.now()), planned)


def _number(found: Retrain) -> int:
    return int(found.retrain_id.removeprefix("rt_"))
