"""A fleet on streams whose concept changes at known times: the world of a backtest.

Each model has a stream of its own, drawn from its seed. Its versions are decision trees that are really trained: on the
labelled past, by several lengths of it (1 to 14 days), of which the one that does best on held-out rows of the newest
labelled day is kept; so the usual trainer copes with a change that is two days old. Every second row is held out, for
ever. Labels of an hour are known `label_delay` later; of a `blind` model they never come in service (whoever trains it
pays for labels), but two labelled consumers act on its score, and their outcomes come.

Truth: the expected accuracy of a version on the concept, share and inputs of each hour of a day, on rows kept for that
alone, against a version that was trained on these. A model is truly stale on days on which it is worse by more than
`TOLERANCE`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np

from bench.streams.concepts import Agrawal, Bools, Hyperplane, Sea, Stream
from bench.streams.timeline import HOURS_PER_DAY
from bench.streams.versions import (
    CELLS,
    CONSUMERS,
    HOUR,
    ROWS_PER_HOUR,
    START,
    TOLERANCE,
    TRAINING_HOURS,
    WARM_DAYS,
    History,
    StreamModel,
    Version,
    drawn_history,
)
from control_plane.backtest.world import Comparison, Trained
from control_plane.core.graph.facts import Dependency
from control_plane.core.ids import ModelId, TeamId
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.staleness.evidence import (
    Evidence,
    PerformanceEvidence,
    PerformanceSource,
    PredictionCounts,
    flat_feature_table,
)
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.statistics.downstream import ConsumerDrop, attribute


@lru_cache(maxsize=16)
def _cached_history(stream_name: str, seed: int, days: int) -> History:
    return drawn_history(stream_named(stream_name, seed), seed, days)


def stream_named(name: str, seed: int = 0) -> Stream:
    """One of the three; a plane moves by its seed."""
    match name:
        case "SEA":
            return Sea()
        case "Agrawal":
            return Agrawal()
        case "Hyperplane":
            return Hyperplane(seed)
        case _:
            raise ValueError(f"there is no stream {name}: it is SEA, Agrawal or Hyperplane")


class StreamsWorld:
    """Implements `control_plane.backtest.world.World`.

    Args:
        label_delay: whole days.
        blind: every second model gets no outcomes in service.
        policy: of the whole fleet, as `SetPolicies` takes it.
        floor_below: each model's `performance_floor`, so much below its first version's holdout; None: no floor.
    """

    def __init__(
        self,
        name: str,
        *,
        models: int = 4,
        days: int = 120,
        label_delay_days: int = 2,
        blind: bool = False,
        policy: Overrides,
        floor_below: float | None = None,
        seed: int = 1,
    ) -> None:
        self.name = name
        self.start = START
        self.end = START + timedelta(days=days)
        self.label_delay_hours = label_delay_days * HOURS_PER_DAY
        self.dependencies: Sequence[Dependency] = ()
        self._models = {}
        for at in range(models):
            model_id = ModelId(f"{name.lower()}_{at}")
            history = _cached_history(name, seed * 100 + at, days)
            self._models[model_id] = StreamModel(model_id, history, self.label_delay_hours, blind=blind and at % 2 == 1)
        self.models: Sequence[ModelFacts] = tuple(
            ModelFacts(
                model_id=model_id, owner="team:streams", team=TeamId("streams"), tier=2, task_type=TaskType.BINARY
            )
            for model_id in self._models
        )
        self.policies: Sequence[tuple[str, Overrides]] = (("fleet", policy), *self._floors(floor_below))

    def _floors(self, below: float | None) -> list[tuple[str, Overrides]]:
        if below is None:
            return []
        return [
            (f"model:{model_id}", {"staleness.performance_floor": round(self.first(model_id).holdout - below, 4)})
            for model_id in self._models
        ]

    def hour_of(self, at: datetime) -> int:
        """Hours since the stream began."""
        return (at - START) // HOUR + WARM_DAYS * HOURS_PER_DAY

    def is_blind(self, model_id: ModelId) -> bool:
        """Do its outcomes never come?"""
        return self._models[model_id].blind

    def errors(self, serving: Trained, first: datetime, end: datetime) -> Bools:
        """Was the version wrong, row by row, in [first, end)? Whoever asks must not ask before labels are there."""
        version = self._models[serving.model_id].version(serving.number)
        offset = serving.number
        return version.wrong[
            (self.hour_of(first) - offset) * ROWS_PER_HOUR : (self.hour_of(end) - offset) * ROWS_PER_HOUR
        ]

    def first(self, model_id: ModelId) -> Trained:
        """Trained on the stream before the start."""
        return self.train(model_id, self.start)

    def train(self, model_id: ModelId, at: datetime) -> Trained:
        """Really trained, on what is labelled at `at`."""
        return self._models[model_id].version(self.hour_of(at)).trained

    def training_hours(self, model_id: ModelId) -> float:
        """Two."""
        return TRAINING_HOURS

    def compare(self, candidate: Trained, production: Trained, at: datetime) -> Comparison:
        """On held-out rows of the newest day whose labels are there, paired."""
        model = self._models[candidate.model_id]
        held = model.held(self.hour_of(at))
        rows, labels = model.history.rows[held], model.history.labels[held]
        new, old = (model.version(one.number).tree.predict(rows) == labels for one in (candidate, production))
        difference = new.astype(np.float64) - old
        return Comparison(
            candidate=float(new.mean()),
            production=float(old.mean()),
            standard_error=float(difference.std(ddof=1) / np.sqrt(len(difference))),
            sample_size=len(difference),
        )

    def evidence(self, serving: Trained, since: datetime, policy: StalenessPolicy, now: datetime) -> Evidence:
        """Counts of the window up to `now`; outcomes of predictions that are older than the label delay."""
        model = self._models[serving.model_id]
        version = model.version(serving.number)
        begin, end = self.hour_of(since), self.hour_of(now)
        window = round(policy.window_days * HOURS_PER_DAY)
        mature = max(end - self.label_delay_hours, begin)
        first = max(mature - window, begin)
        size = (mature - first) * ROWS_PER_HOUR
        reference = model.history.rows[model.held(serving.number)]
        counts, current = version.counts(max(end - window, begin), end, reference)
        features = len(model.history.stream.features)
        own = self._performance(version, first, mature, size) if size and not model.blind else None
        stands_in = self._downstream(model, version, first, mature, size) if size and model.blind else ()
        return Evidence(
            model_version=serving.number,
            trained_until=serving.trained_until,
            features=flat_feature_table(
                names=tuple(model.history.stream.features),
                categorical=np.zeros(features, np.bool_),
                cells=np.full(features, CELLS, np.int64),
                reference=counts[:features].reshape(-1),
                current=current[:features].reshape(-1),
            ),
            prediction=PredictionCounts(reference=counts[features], current=current[features]),
            performance=own,
            coverage=None if not size else 0.0 if model.blind else 1.0,
            fallbacks=stands_in,
        )

    def _performance(self, version: Version, first: int, end: int, size: int) -> PerformanceEvidence:
        current = version.right_between(first, end) / size
        return PerformanceEvidence(
            metric="accuracy",
            higher_is_better=True,
            baseline=version.trained.holdout,
            baseline_error=version.trained.holdout_error,
            current=current,
            current_error=float(np.sqrt(current * (1 - current) / size)),
            sample_size=size,
        )

    def _downstream(
        self, model: StreamModel, version: Version, first: int, end: int, size: int
    ) -> tuple[PerformanceEvidence, ...]:
        """What the labelled consumers lost since this version serves, as Runway attributes it to the model."""
        acts = model.acts()
        held = model.held(version.trained.number)
        score = version.tree.predict_proba(model.history.rows[held])[:, 1:]
        drops = []
        for at, right in enumerate(version.consumers_right(acts, first, end)):
            baseline = float((acts[at].predict(score) == model.history.consumers[at][held]).mean())
            current = right / size
            variance = baseline * (1 - baseline) / version.trained.holdout_size + current * (1 - current) / size
            drops.append(
                ConsumerDrop(
                    consumer=f"consumer_{at}",
                    drop=(baseline - current) / TOLERANCE,
                    standard_error=float(np.sqrt(variance)) / TOLERANCE,
                    upstream={model.model_id},
                )
            )
        found = attribute(drops, {model.model_id})[model.model_id]
        return (
            PerformanceEvidence(
                metric="accuracy",
                higher_is_better=True,
                baseline=version.trained.holdout,
                baseline_error=0.0,
                current=version.trained.holdout - found.drop * TOLERANCE,
                current_error=found.standard_error * TOLERANCE,
                sample_size=size,
                source=PerformanceSource.DOWNSTREAM,
                detail=f"read off {CONSUMERS} labelled consumers",
            ),
        )

    def quality(self, serving: Trained, hour: datetime) -> float | None:
        """Expected accuracy on the day."""
        model = self._models[serving.model_id]
        return model.quality(model.version(serving.number), self.hour_of(hour) // HOURS_PER_DAY)

    def fresh_quality(self, model_id: ModelId, hour: datetime) -> float | None:
        """Of a version trained on rows of what holds on that day."""
        return self._models[model_id].fresh_quality(self.hour_of(hour) // HOURS_PER_DAY)

    def truly_stale(self, serving: Trained, hour: datetime) -> bool:
        """Worse than that by more than the tolerance."""
        now, best = self.quality(serving, hour), self.fresh_quality(serving.model_id, hour)
        return now is not None and best is not None and best - now > TOLERANCE
