"""Recordings of one model, made by hand: hourly counts of one feature, hourly partials of a binary label."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np

from control_plane.app.fact_reports import FeatureCells, RecordedCounts, RecordedHours, RecordedPartials
from control_plane.backtest.recorded import RecordedWorld, hour_number
from control_plane.backtest.recording import RecordedModel, RecordedVersion, RecordingHead
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial, Rows, partials_of
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import Metric
from control_plane.core.retraining.types import RetrainingLimits
from tests.backtest.worlds import DAY, START, facts_of

PER_HOUR = 200
LABEL = LabelSpec(window=timedelta(days=2), metric="accuracy")
CELLS = 4
EVEN, UPPER = [50, 50, 100, 0], [10, 10, 180, 0]


def counts_of(
    version: int, first: datetime, last: datetime, at: Callable[[datetime], list[int]], profile: str = "p"
) -> RecordedCounts:
    """Counts of each hour in [first, last)."""
    hours = np.arange(hour_number(first), hour_number(last))
    rows = [at(datetime.fromtimestamp(int(hour) * 3_600, UTC)) for hour in hours]
    return RecordedCounts(
        version=version,
        profile_sha256=profile,
        features=(
            FeatureCells(
                name="wind",
                kind="numeric",
                cells=("low", "middle", "high", "missing"),
                reference=np.array(EVEN) * 10,
                start=0,
                importance=1.0,
            ),
        ),
        prediction=None,
        hours=hours,
        predictions=np.full(len(hours), PER_HOUR),
        counts=np.array(rows, np.int32),
    )


def partials_at(
    version: int, first: datetime, last: datetime, accuracy: Callable[[datetime], float]
) -> RecordedPartials:
    """Of each hour in [first, last), with exactly that share of right answers."""
    hours = np.arange(hour_number(first), hour_number(last))
    return RecordedPartials(
        version=version,
        hours=hours,
        partials=tuple(partial_of(accuracy(datetime.fromtimestamp(int(hour) * 3_600, UTC))) for hour in hours),
    )


def partial_of(accuracy: float) -> Partial:
    """An hour with this share of right answers."""
    right = round(PER_HOUR * accuracy)
    value = (np.arange(PER_HOUR) % 2).astype(np.float64)
    score = np.where(np.arange(PER_HOUR) < right, value, 1 - value) * 0.8 + 0.1
    rows = Rows(
        group=np.zeros(PER_HOUR, np.int64),
        score=score,
        value=value,
        delay_us=np.full(PER_HOUR, 3_600_000_000),
        late=np.zeros(PER_HOUR, np.bool_),
        outside=np.zeros(PER_HOUR, np.bool_),
        mature=np.ones(PER_HOUR, np.bool_),
        imputed=np.zeros(PER_HOUR, np.bool_),
    )
    return partials_of(LABEL, rows, 1)[0]


def version_of(number: int, since: datetime, until: datetime) -> RecordedVersion:
    """Trained when it went into production."""
    baseline = Metric(name="accuracy", value=0.9, standard_error=0.002, sample_size=20_000)
    return RecordedVersion(number=number, trained_until=since, baseline=baseline, served=((since, until),))


def world_of(
    versions: tuple[RecordedVersion, ...],
    counts: tuple[RecordedCounts, ...],
    partials: tuple[RecordedPartials, ...],
    policies: tuple[tuple[str, Overrides], ...] = (),
    days: int = 20,
) -> RecordedWorld:
    """The world of one model, `ranker`."""
    hours = RecordedHours(model_id="ranker", label=LABEL, counts=counts, partials=partials)
    model = RecordedModel(
        facts=facts_of("ranker"), label=LABEL, versions=versions, first=1, training_hours=2.0, hours=hours
    )
    return RecordedWorld(head_of_one(policies, days), [model])


def head_of_one(policies: tuple[tuple[str, Overrides], ...] = (), days: int = 20) -> RecordingHead:
    """Of a fleet of one model."""
    return RecordingHead(
        start=START,
        end=START + days * DAY,
        policies=policies,
        dependencies=(),
        limits=RetrainingLimits(),
        rules=(),
        models=1,
        warnings=(),
    )
