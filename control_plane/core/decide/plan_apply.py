"""Apply a plan of retrains: request what it names, as one group, if it is still the plan that was looked at."""

from datetime import datetime

from control_plane.core.commands import ApplyRetrainPlan, RequestRetrain, Result
from control_plane.core.decide.cascade_plan import plan_retrains
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.requests import request_retrain
from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.events import Event
from control_plane.core.ids import RetrainId
from control_plane.core.retraining.types import RetrainCause
from control_plane.core.state import State


def apply_retrain_plan(state: State, command: ApplyRetrainPlan, now: datetime) -> Decision:
    """Request every model of the plan; live retrains are joined. ABORTED if the plan would be another one by now."""
    model_ids = tuple(dict.fromkeys(command.model_ids))
    if not model_ids:
        missing = Violation(field="model_ids", rule="required", message="name at least one model to retrain")
        raise Invalid(Reason.INVALID_ARGUMENT, missing)
    plan = plan_retrains(state, now, model_ids, ignore_cooldown=command.ignore_cooldown, off_peak=command.off_peak)
    if command.etag and command.etag != plan.etag:
        raise Refused(
            Reason.PLAN_CHANGED,
            "the plan would be another one by now: models, dependencies, limits or live retrains have changed. Look at "
            "it again (`runway retrains plan`) and apply that",
            etag=plan.etag,
        )
    group = f"plan_{state.revision}"
    events: list[Event] = []
    retrain_ids: list[RetrainId] = []
    for model_id in model_ids:
        request = RequestRetrain(
            model_id=model_id,
            cause=RetrainCause.OPERATOR,
            ignore_cooldown=command.ignore_cooldown,
            off_peak=command.off_peak,
            group=group,
        )
        decided = request_retrain(state, request, now, made=len(retrain_ids) - _joined(retrain_ids, state))
        events.extend(decided.events)
        if decided.result.retrain_id is not None:
            retrain_ids.append(decided.result.retrain_id)
    created = len(retrain_ids) - _joined(retrain_ids, state)
    return Decision(events=tuple(events), result=Result(retrain_ids=tuple(retrain_ids), group=group, changed=created))


def _joined(retrain_ids: list[RetrainId], state: State) -> int:
    """How many of these were there already."""
    return sum(retrain_id in state.retrains for retrain_id in retrain_ids)
