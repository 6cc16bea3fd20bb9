"""A fleet's history as data: what the log and the fact store say of it, gathered once, read by another process.

A folder holds a head, and one model after another, each pickled as it is gathered, so that who gathers never holds a
fleet. Only this program writes such files, in a folder that is its user's alone.
"""

import pickle
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from control_plane.app.fact_reports import RecordedHours
from control_plane.core.graph.facts import Dependency
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ids import ModelId, model_node
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import PRODUCTION, Metric, ModelFacts
from control_plane.core.retraining.types import AttemptState, RetrainingLimits
from control_plane.core.rules.types import Rule
from control_plane.core.state import ModelRecord, State

HISTORY = timedelta(days=28)
"""How far before the start is read: what a version that is trained at the start would have been trained on."""

HOUR = timedelta(hours=1)

HEAD_FILE = "head"
MODELS_FILE = "models"

TRAINING_HOURS_USUAL = 1.0
"""Where no training of the model ever succeeded, and nobody said what one costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedVersion:
    """A version that history has, and when it was in production: [since, until), ascending."""

    number: int
    trained_until: datetime
    baseline: Metric | None
    """The primary metric on its holdout, if it was told."""
    served: tuple[tuple[datetime, datetime], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedModel:
    """A model that served at the start."""

    facts: ModelFacts
    label: LabelSpec
    versions: tuple[RecordedVersion, ...]
    first: int
    """The version that served at the start."""
    training_hours: float
    hours: RecordedHours


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingHead:
    """What there is once for a fleet."""

    start: datetime
    end: datetime
    policies: tuple[tuple[str, Overrides], ...]
    dependencies: tuple[Dependency, ...]
    limits: RetrainingLimits
    rules: tuple[Rule, ...]
    models: int
    warnings: tuple[str, ...]


def head_of(
    then: State, start: datetime, end: datetime, models: Sequence[ModelId], warnings: Sequence[str]
) -> RecordingHead:
    """What the state as of the start says of the fleet, narrowed to these models."""
    chosen = set(models)
    nodes = {model_node(model_id) for model_id in chosen}
    others = {model_node(model_id) for model_id in then.models} - nodes
    policies = [
        (scope, dict(then.policies.overrides(scope)))
        for scope in then.policies.scopes()
        if not scope.startswith("model:") or scope.removeprefix("model:") in chosen
    ]
    dependencies = [
        one
        for one in then.graph.to_snapshot().dependencies
        if one.upstream not in others and one.downstream not in others
    ]
    return RecordingHead(
        start=start,
        end=end,
        policies=tuple(policies),
        dependencies=tuple(dependencies),
        limits=then.limits,
        rules=tuple(
            rule
            for rule in then.rules.rules()
            if not rule.scope.startswith("model:") or rule.scope.removeprefix("model:") in chosen
        ),
        models=len(chosen),
        warnings=tuple(warnings),
    )


def model_of(then: ModelRecord, now: ModelRecord, state: State, end: datetime, hours: RecordedHours) -> RecordedModel:
    """A model as it was at the start, with all that history has of its versions.

    Args:
        then: as of the start, with a version in production.
        now: of the newest state, which knows every version and every move since.
    """
    production = then.production
    assert production is not None
    served = served_of(now, end)
    label = then.label_spec
    versions = tuple(
        RecordedVersion(
            number=version.number,
            trained_until=version.facts.trained_until,
            baseline=next((m for m in version.facts.metrics if m.name == label.primary_metric and not m.slice), None),
            served=served.get(version.number, ()),
        )
        for version in now.versions
        if version.number in served
    )
    return RecordedModel(
        facts=then.facts,
        label=label,
        versions=versions,
        first=production.number,
        training_hours=training_hours_of(now, state),
        hours=hours,
    )


def served_of(record: ModelRecord, end: datetime) -> dict[int, tuple[tuple[datetime, datetime], ...]]:
    """When each version was in production, until `end`."""
    found: dict[int, list[tuple[datetime, datetime]]] = {}
    moves = [move for move in record.alias_moves if move.alias == PRODUCTION and move.moved_at < end]
    for at, move in enumerate(moves):
        until = moves[at + 1].moved_at if at + 1 < len(moves) else end
        if move.to_version and until > move.moved_at:
            found.setdefault(move.to_version, []).append((move.moved_at, until))
    return {number: tuple(spans) for number, spans in found.items()}


def training_hours_of(record: ModelRecord, state: State) -> float:
    """Median hours of the attempts that succeeded; else its GPU hours; else one hour."""
    took = [
        (attempt.ended_at - attempt.leased_at) / HOUR
        for retrain_id in record.retrain_ids
        if (retrain := state.retrains.get(retrain_id)) is not None
        for attempt in retrain.attempts
        if attempt.state is AttemptState.SUCCEEDED and attempt.ended_at is not None
    ]
    if took:
        return statistics.median(took)
    return record.facts.retrain_gpu_hours or TRAINING_HOURS_USUAL


def append_model(folder: Path, model: RecordedModel) -> None:
    """Add a model to the folder's recording."""
    with (folder / MODELS_FILE).open("ab") as file:
        pickle.dump(model, file, protocol=5)


def write_head(folder: Path, head: RecordingHead) -> None:
    """Finish the folder's recording."""
    with (folder / HEAD_FILE).open("wb") as file:
        pickle.dump(head, file, protocol=5)


def take_recording(folder: Path) -> tuple[RecordingHead, list[RecordedModel]]:
    """Read the folder's recording and delete it: it is in memory then, and may be gigabytes."""
    with (folder / HEAD_FILE).open("rb") as file:
        head: RecordingHead = pickle.load(file)  # noqa: S301 - written by this program, in a folder of its own
    with (folder / MODELS_FILE).open("rb") as file:
        models = [pickle.load(file) for _ in range(head.models)]  # noqa: S301
    (folder / MODELS_FILE).unlink()
    return head, models
