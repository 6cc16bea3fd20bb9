"""The port to a world: what would have been known at a time, and how good each version truly was.

A world is deterministic: the same questions get the same answers in any order. Virtual time moves in whole hours.
Evidence at `now` holds only what had arrived by then (labels come late); `quality` may look into the future, and only
scoring and the oracle ask it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from control_plane.core.graph.facts import Dependency
from control_plane.core.ids import ModelId
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import ModelFacts
from control_plane.core.staleness.evidence import Evidence
from control_plane.core.staleness.policy import StalenessPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A version that came out of a training, first or again."""

    model_id: ModelId
    number: int
    """As the world counts them; 1 served at the start."""
    trained_until: datetime
    metric: str
    higher_is_better: bool
    holdout: float
    """The metric on the holdout at training time; NaN if it was not measured."""
    holdout_error: float
    holdout_size: int
    estimated: bool
    """True: nobody trained it; how well it does is an estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A candidate and production on the same holdout, as a validation reports it."""

    candidate: float
    production: float
    standard_error: float
    sample_size: int


class World(Protocol):
    """What a backtest asks."""

    start: datetime
    """The first hour, whole and UTC."""
    end: datetime
    """Exclusive."""
    models: Sequence[ModelFacts]
    policies: Sequence[tuple[str, Overrides]]
    """What the scopes said at the start, `model:<id>` included: the current policy."""
    dependencies: Sequence[Dependency]

    def first(self, model_id: ModelId) -> Trained:
        """The version that serves at the start."""
        ...

    def train(self, model_id: ModelId, at: datetime) -> Trained:
        """The version a retrain that starts at `at` would bring; asked for the same hour again, the same one."""
        ...

    def training_hours(self, model_id: ModelId) -> float:
        """How long a training takes, in hours of virtual time."""
        ...

    def compare(self, candidate: Trained, production: Trained, at: datetime) -> Comparison:
        """Both on the holdout that a validation at `at` would use."""
        ...

    def evidence(self, serving: Trained, since: datetime, policy: StalenessPolicy, now: datetime) -> Evidence:
        """What was known at `now` about a version that serves `since` then."""
        ...

    def quality(self, serving: Trained, hour: datetime) -> float | None:
        """The true metric of a version on the predictions of the day of `hour`; None if there were none."""
        ...

    def fresh_quality(self, model_id: ModelId, hour: datetime) -> float | None:
        """The same of a version trained on everything until then: what the model could be."""
        ...

    def truly_stale(self, serving: Trained, hour: datetime) -> bool:
        """Is it worse than a fresh one by what its owner does not tolerate, on the whole day of `hour`?"""
        ...
