"""The part of RetrainingService that looks ahead, and back: plans, and what retrains brought."""

from runway.v1 import retraining_pb2, retraining_pb2_grpc

from control_plane.api.convert.common import newest_first_key, page
from control_plane.api.convert.registry import model_id_from
from control_plane.api.convert.retraining import plan, total, uplift
from control_plane.api.interceptors import Context
from control_plane.api.plane import Plane
from control_plane.app.returns import return_totals
from control_plane.core.commands import ApplyRetrainPlan
from control_plane.core.decide.cascade_plan import PlannedRetrain, plan_retrains
from control_plane.core.ids import ModelId
from control_plane.core.state import State


class RetrainingPlans(retraining_pb2_grpc.RetrainingServiceServicer):
    """Parse, ask the rules, render."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._planned: tuple[int, dict[ModelId, PlannedRetrain]] = (-1, {})

    async def PlanRetrains(  # noqa: N802
        self, request: retraining_pb2.PlanRetrainsRequest, context: Context
    ) -> retraining_pb2.PlanRetrainsResponse:
        """What would happen."""
        state = await self._plane.read(request.read)
        found = plan_retrains(
            state,
            self._plane.moment(state, request.read),
            [model_id_from(text) for text in request.model_ids],
            cascade=not request.without_cascade,
            ignore_cooldown=request.ignore_cooldown,
            off_peak=request.off_peak,
        )
        return retraining_pb2.PlanRetrainsResponse(plan=plan(found), revision=state.revision)

    async def ApplyRetrainPlan(  # noqa: N802
        self, request: retraining_pb2.ApplyRetrainPlanRequest, context: Context
    ) -> retraining_pb2.ApplyRetrainPlanResponse:
        """Ask for what a plan names."""
        command = ApplyRetrainPlan(
            model_ids=tuple(model_id_from(text) for text in request.model_ids),
            ignore_cooldown=request.ignore_cooldown,
            off_peak=request.off_peak,
            etag=request.etag,
        )
        outcome = await self._plane.submit(command, request.mutation)
        found = plan_retrains(
            outcome.state,
            self._plane.now(),
            command.model_ids,
            ignore_cooldown=command.ignore_cooldown,
            off_peak=command.off_peak,
        )
        return retraining_pb2.ApplyRetrainPlanResponse(
            plan=plan(found),
            retrain_ids=[] if outcome.dry else outcome.result.retrain_ids,
            group="" if outcome.dry else outcome.result.group,
            revision=outcome.revision,
        )

    async def ListReturns(  # noqa: N802
        self, request: retraining_pb2.ListReturnsRequest, context: Context
    ) -> retraining_pb2.ListReturnsResponse:
        """Was it worth it."""
        state = await self._plane.read(request.read)
        if request.model_id:
            wanted = [state.model(model_id_from(request.model_id)).model_id]
        else:
            wanted = [one for one, record in state.models.items() if request.team in ("", record.facts.team)]
        among = set(wanted)
        found = [one for one in reversed(state.uplifts.values()) if one.model_id in among]
        keys = [newest_first_key(int(one.rollout_id.removeprefix("ro_"))) for one in found]
        shown, token = page(found, keys, request.page)
        return retraining_pb2.ListReturnsResponse(
            returns=[
                uplift(one, state.retrains[one.retrain_id].causes if one.retrain_id is not None else ())
                for one in shown
            ],
            totals=[] if request.page.page_token else [total(one) for one in return_totals(state, wanted)],
            next_page_token=token,
            revision=state.revision,
        )

    def expected(self, state: State) -> dict[ModelId, PlannedRetrain]:
        """What is expected of each live retrain; planned once for each revision."""
        revision, known = self._planned
        if revision != state.revision and state.live_retrains:
            found = plan_retrains(state, self._plane.now(), [], cascade=False)
            known = {one.record.model_id: one for one in found.retrains}
        elif not state.live_retrains:
            known = {}
        self._planned = (state.revision, known)
        return known
