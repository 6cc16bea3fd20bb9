"""Was it worth it: what retrains brought in production, against the GPU hours that they took."""

import math
from dataclasses import dataclass

from control_plane.core.ids import ModelId
from control_plane.core.retraining.types import RetrainState
from control_plane.core.state import State

MEASURED_MIN = 3
"""Fewer measured retrains than this say nothing about a policy."""
Z = 1.645
"""One-sided 5 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnTotal:
    """What one model's retrains came to.

    `uplift` is summed, better is positive. `for_nothing` says why it was not worth it; empty if it was, or if too
    little is known.
    """

    model_id: ModelId
    retrains: int
    promoted: int
    measured: int
    uplift: float
    gpu_hours: float
    for_nothing: str


def return_totals(state: State, model_ids: list[ModelId]) -> list[ReturnTotal]:
    """Of models that were retrained at all, the most GPU hours first."""
    found = [one for model_id in model_ids if (one := _total(state, model_id)).retrains]
    return sorted(found, key=lambda one: (-one.gpu_hours, one.model_id))


def _total(state: State, model_id: ModelId) -> ReturnTotal:
    record = state.models[model_id]
    retrains = [state.retrains[retrain_id] for retrain_id in record.retrain_ids]
    ran = [retrain for retrain in retrains if retrain.attempts]
    measured = [state.uplifts[one] for one in record.rollout_ids if one in state.uplifts]
    uplift = sum(one.uplift for one in measured)
    error = math.sqrt(sum(one.standard_error**2 for one in measured))
    gpu_hours = sum(attempt.gpu_hours for retrain in ran for attempt in retrain.attempts)
    return ReturnTotal(
        model_id=model_id,
        retrains=len(ran),
        promoted=sum(retrain.state is RetrainState.PROMOTED for retrain in ran),
        measured=len(measured),
        uplift=uplift,
        gpu_hours=gpu_hours,
        for_nothing=_for_nothing(len(measured), uplift, error, gpu_hours, record.retraining_policy.cooldown.days),
    )


def _for_nothing(measured: int, uplift: float, error: float, gpu_hours: float, cooldown_days: int) -> str:
    if measured < MEASURED_MIN or uplift - Z * error > 0:
        return ""
    cost = f" for {gpu_hours:.1f} GPU hours" if gpu_hours else ""
    longer = max(2 * cooldown_days, 7)
    return (
        f"{measured} retrains brought {uplift:+.4g} together (standard error {error:.2g}){cost}: nothing that can be "
        f"measured. A longer retraining.cooldown ({longer}d), a higher staleness.stale_threshold or a rule that waits "
        "for performance would ask for fewer"
    )
