"""A world whose every outcome can be worked out by hand: the inputs of a model jump at one known hour.

Each model has one feature of ten bins and 100 predictions an hour. Until `drift_at` they lie evenly; from then on all
lie in the upper half. A version trained on nothing from after the jump loses 0.2 of its accuracy from then on. Labels
come `label_delay` late. A training takes `training` hours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from control_plane.backtest.world import Comparison, Trained
from control_plane.core.graph.facts import Dependency
from control_plane.core.ids import ModelId, TeamId
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.staleness.evidence import (
    Evidence,
    FeatureCounts,
    FeatureKind,
    PerformanceEvidence,
    feature_table,
)
from control_plane.core.staleness.policy import StalenessPolicy

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EVEN = np.array([10] * 10 + [0])
UPPER = np.array([0] * 5 + [20] * 5 + [0])
GOOD, BAD = 0.9, 0.7


def facts_of(name: str, tier: int = 2, gpu_hours: float = 0.0) -> ModelFacts:
    return ModelFacts(
        model_id=ModelId(name),
        owner="ana@example.org",
        team=TeamId("search"),
        tier=tier,
        task_type=TaskType.BINARY,
        retrain_gpu_hours=gpu_hours,
    )


@dataclass
class StepWorld:
    """Implements `World`."""

    drift_at: datetime | None
    start: datetime = START
    end: datetime = START + 30 * DAY
    models: Sequence[ModelFacts] = (facts_of("ranker"),)
    policies: Sequence[tuple[str, Overrides]] = ()
    dependencies: Sequence[Dependency] = ()
    label_delay: timedelta = 2 * DAY
    training: float = 2.0
    drifting: frozenset[str] | None = None
    """Models that drift; None: all."""
    trained: dict[tuple[ModelId, datetime], Trained] = field(default_factory=dict)

    def first(self, model_id: ModelId) -> Trained:
        return self._trained(model_id, 1, self.start - DAY)

    def train(self, model_id: ModelId, at: datetime) -> Trained:
        return self._trained(model_id, 1 + (at - self.start) // HOUR + 24, at)

    def _trained(self, model_id: ModelId, number: int, until: datetime) -> Trained:
        return Trained(
            model_id=model_id,
            number=number,
            trained_until=until,
            metric="accuracy",
            higher_is_better=True,
            holdout=GOOD,
            holdout_error=0.001,
            holdout_size=100_000,
            estimated=False,
        )

    def training_hours(self, model_id: ModelId) -> float:
        return self.training

    def compare(self, candidate: Trained, production: Trained, at: datetime) -> Comparison:
        return Comparison(
            candidate=self._accuracy(candidate, at),
            production=self._accuracy(production, at),
            standard_error=0.001,
            sample_size=10_000,
        )

    def _drifted(self, model_id: ModelId, hour: datetime) -> bool:
        drifts = self.drifting is None or model_id in self.drifting
        return drifts and self.drift_at is not None and hour >= self.drift_at

    def _accuracy(self, trained: Trained, hour: datetime) -> float:
        return BAD if self.truly_stale(trained, hour) else GOOD

    def _hours_after(self, model_id: ModelId, now: datetime, hours: int) -> int:
        """Of the last hours, those after the jump."""
        if self.drift_at is None or not self._drifted(model_id, now):
            return 0
        return min((now - self.drift_at) // HOUR, hours)

    def evidence(self, serving: Trained, since: datetime, policy: StalenessPolicy, now: datetime) -> Evidence:
        model_id = serving.model_id
        hours = int(policy.window_days * 24)
        after = self._hours_after(model_id, now, hours)
        reference = UPPER if self._drifted(model_id, serving.trained_until - HOUR) else EVEN
        bad = 0 if reference is UPPER else self._hours_after(model_id, now - self.label_delay, hours)
        accuracy = (bad * BAD + (hours - bad) * GOOD) / hours
        return Evidence(
            model_version=serving.number,
            trained_until=serving.trained_until,
            features=feature_table(
                [
                    FeatureCounts(
                        name="price",
                        kind=FeatureKind.NUMERIC,
                        reference=reference * 1_000,
                        current=after * UPPER + (hours - after) * EVEN,
                    )
                ]
            ),
            performance=PerformanceEvidence(
                metric="accuracy",
                higher_is_better=True,
                baseline=GOOD,
                baseline_error=0.001,
                current=accuracy,
                current_error=0.002,
                sample_size=hours * 100,
            ),
            coverage=1.0,
        )

    def quality(self, serving: Trained, hour: datetime) -> float | None:
        return self._accuracy(serving, hour)

    def fresh_quality(self, model_id: ModelId, hour: datetime) -> float | None:
        return GOOD

    def truly_stale(self, serving: Trained, hour: datetime) -> bool:
        drifted = self._drifted(serving.model_id, hour)
        return drifted and not self._drifted(serving.model_id, serving.trained_until - HOUR)
