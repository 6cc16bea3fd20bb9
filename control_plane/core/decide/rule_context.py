"""What the names of the rules' context hold for one look at one model.

Only names that some rule looks at are found out: who uses a model is a walk over the graph, and most rules do not ask.
`VALUES` has a function for every name of `core.rules.context`; a test proves it complete.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from control_plane.core.ids import ModelId, node_kind, node_name
from control_plane.core.registry.types import TaskType
from control_plane.core.relations import consumers_of
from control_plane.core.retraining.types import RetrainState
from control_plane.core.rules.cel import Content
from control_plane.core.rules.context import FAR_DAYS, ITEMS_MAX, LONG_HOURS
from control_plane.core.staleness.evidence import MetricRole
from control_plane.core.staleness.verdict import SEVERITY, Confidence, Evaluation, Level, Signal
from control_plane.core.state import ModelRecord, State

CONFIDENCES = {Confidence.LOW: 1, Confidence.MEDIUM: 2, Confidence.HIGH: 3}


@dataclass(frozen=True, slots=True)
class Look:
    """What rules are asked about: an evaluation of a model's production version, and the verdict after it."""

    state: State
    record: ModelRecord
    evaluation: Evaluation
    verdict: Level

    @property
    def at(self) -> datetime:
        """When it was taken."""
        return self.evaluation.at

    def signal(self, name: str) -> Signal | None:
        """A signal that is known."""
        return next((one for one in self.evaluation.signals if one.name == name and not one.missing), None)


def values_of(look: Look, names: Iterable[str]) -> dict[str, Content]:
    """What some names of the context hold."""
    return {name: VALUES[name](look) for name in names}


def _signal(name: str) -> Callable[[Look], Content]:
    return lambda look: signal.value if (signal := look.signal(name)) is not None else 0.0


def _known(name: str) -> Callable[[Look], Content]:
    return lambda look: look.signal(name) is not None


def _age_days(look: Look) -> float:
    age = look.signal("age")
    return age.raw if age is not None else 0.0


def _drops(look: Look) -> dict[str, float]:
    found = {one.name: one.drop for one in look.evaluation.metrics if not one.slice}
    return dict(list(found.items())[:ITEMS_MAX])


def _performance_drop(look: Look) -> float:
    for one in look.evaluation.metrics:
        if one.role is MetricRole.PRIMARY and not one.slice:
            return one.drop
    signal = look.signal("performance")
    return signal.raw if signal is not None else 0.0


def _performance_source(look: Look) -> str:
    signal = look.signal("performance")
    return signal.source.value if signal is not None and signal.source is not None else ""


def _drifted(look: Look) -> list[str]:
    return [one.name for one in look.evaluation.top_features if one.drifted][:ITEMS_MAX]


def _slices(look: Look) -> dict[str, float]:
    return {one.slice: one.value for one in look.evaluation.slices[:ITEMS_MAX]}


def _forecast_days(look: Look) -> float:
    evaluation = look.evaluation
    if evaluation.level is Level.STALE or evaluation.score >= evaluation.threshold:
        return 0.0
    if evaluation.crosses_at is None:
        return FAR_DAYS
    return max((evaluation.crosses_at - evaluation.at).total_seconds() / 86_400, 0.0)


def _tier1_consumers(look: Look) -> int:
    models = (node_name(one) for one in consumers_of(look.state, look.record.model_id) if node_kind(one) == "model")
    records = (look.state.models.get(ModelId(name)) for name in models)
    return sum(record is not None and record.facts.tier == 1 for record in records)


def _hours_since(look: Look) -> float:
    ended_at = look.record.retrain_ended_at
    return LONG_HOURS if ended_at is None else max((look.at - ended_at).total_seconds() / 3_600, 0.0)


def _failed_in_a_row(look: Look) -> int:
    count = 0
    for retrain_id in reversed(look.record.retrain_ids):
        state = look.state.retrains[retrain_id].state
        if state in (RetrainState.FAILED, RetrainState.REFUSED):
            count += 1
        elif state is RetrainState.PROMOTED:
            break
    return count


def _task(look: Look) -> str:
    task: TaskType = look.record.facts.task_type
    return task.value


VALUES: dict[str, Callable[[Look], Content]] = {
    "verdict": lambda look: SEVERITY[look.verdict],
    "level": lambda look: SEVERITY[look.evaluation.level],
    "confidence": lambda look: CONFIDENCES[look.evaluation.confidence],
    "score": lambda look: look.evaluation.score,
    "score_low": lambda look: look.evaluation.score_low,
    "score_high": lambda look: look.evaluation.score_high,
    "threshold": lambda look: look.evaluation.threshold,
    "action": lambda look: look.evaluation.recommended_action.value,
    "hard_trigger": lambda look: bool(look.evaluation.hard_triggers),
    "data_quality": lambda look: len(look.evaluation.data_quality),
    "tier": lambda look: look.record.facts.tier,
    "team": lambda look: str(look.record.facts.team),
    "owner": lambda look: look.record.facts.owner,
    "model": lambda look: str(look.record.model_id),
    "task": _task,
    "tags": lambda look: look.record.facts.tags,
    "lifecycle": lambda look: look.record.lifecycle.value,
    "version": lambda look: look.evaluation.version,
    "gpu_hours": lambda look: look.record.facts.retrain_gpu_hours,
    "age_days": _age_days,
    "performance.drop": _performance_drop,
    "performance.source": _performance_source,
    "metric_drop": _drops,
    "drifted_features": _drifted,
    "psi": lambda look: {one.name: one.psi_debiased for one in look.evaluation.top_features[:ITEMS_MAX]},
    "psi_raw": lambda look: {one.name: one.psi for one in look.evaluation.top_features[:ITEMS_MAX]},
    "slice_drift": _slices,
    "season.expected": lambda look: look.evaluation.season is not None and look.evaluation.season.expected,
    "season.known": lambda look: look.evaluation.season is not None,
    "embeddings.incompatible": lambda look: any(not one.compatible for one in look.evaluation.upstreams),
    "coverage.alert": lambda look: look.record.coverage_alert,
    "forecast.days": _forecast_days,
    "consumers.count": lambda look: len(consumers_of(look.state, look.record.model_id)),
    "consumers.tier1": _tier1_consumers,
    "retrain.live": lambda look: look.record.live_retrain is not None,
    "retrain.hours_since": _hours_since,
    "retrain.failed_in_a_row": _failed_in_a_row,
    "now": lambda look: look.at,
    "hour_utc": lambda look: look.at.hour,
    "weekday": lambda look: look.at.isoweekday(),
    **{
        name: of(name.partition(".")[0])
        for signal in ("age", "input_drift", "prediction_drift", "concept_drift", "performance")
        for name, of in ((signal, _signal), (f"{signal}.known", _known))
    },
}
"""Name of the context -> what it holds."""
