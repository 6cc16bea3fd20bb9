"""[backtest_500x30d_s] A backtest of one policy over 30 days of 500 models, from the recording to the report.

500 models x 200 features x 10 bins and missing, counted by the hour, 100 predictions and outcomes an hour, labels a day
late; tiers 1 to 4 in shares of 10, 30, 40 and 20 %, so that 200 are looked at every hour. A third of them drift on the
tenth day. Measured is wall time from the recording in memory to the scored report, the oracle for the regret included;
the looks are those of the service: PSI, chi-square, FDR, data quality, prediction drift, AUC, fusion, hysteresis,
retrains.

Many models share a recording (25 different ones), so that measuring does not need 4 GB.

The peer is what one writes in an afternoon: a pandas frame of hourly counts per model, at each look the window's sum,
and a loop over features with scipy's chi-square and PSI. It has no verdicts, retrains or outcomes; a few looks, scaled
up.
"""

import gc
import statistics
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from bench.table import Row
from control_plane.app.fact_reports import FeatureCells, RecordedCounts, RecordedHours, RecordedPartials
from control_plane.backtest.comparison import compare
from control_plane.backtest.contenders import current
from control_plane.backtest.recorded import RecordedWorld
from control_plane.backtest.recording import RecordedModel, RecordedVersion, RecordingHead
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Partial, Rows, partials_of
from control_plane.core.ids import ModelId, TeamId
from control_plane.core.registry.types import Metric, ModelFacts, TaskType
from control_plane.core.retraining.types import RetrainingLimits

IDS = ("backtest_500x30d_s",)

MODELS = 500
RECORDINGS = 25
FEATURES = 200
BINS = 10
PER_HOUR = 100
DAYS = 30
DAYS_BEFORE = 8
DRIFT_DAY = 10
START = datetime(2026, 1, 1, tzinfo=UTC)
LABEL = LabelSpec(window=timedelta(days=1))
TIERS = (1, 2, 2, 2, 3, 3, 3, 3, 4, 4)
PEER_LOOKS = 5

Int64s = npt.NDArray[np.int64]


def run() -> list[Row]:
    """Measure once: a minute is long enough to be steady."""
    recordings = [_recording(seed) for seed in range(RECORDINGS)]
    gc.collect()
    gc.freeze()  # as the process does that runs backtests for the server
    world_from = time.perf_counter()
    world = RecordedWorld(_head(), [_model(at, recordings[at % RECORDINGS]) for at in range(MODELS)])
    report = compare(world, [current()], in_two=True)
    took = time.perf_counter() - world_from
    [result] = report.results
    if not result.retrains or result.recall == 0:
        raise AssertionError("the drift was not seen")
    looks = sum(24 * DAYS // {1: 1, 2: 1, 3: 6, 4: 24}[TIERS[at % len(TIERS)]] for at in range(MODELS))
    peer = statistics.median(_peer_s(recordings[0].counts[0]) for _ in range(3)) * looks
    return [
        Row(
            id=IDS[0],
            value=took,
            unit="s",
            peers={"pandas and scipy, feature by feature": peer},
            note=(
                f"{MODELS} models x {FEATURES} features, {DAYS} days by the hour, {looks:,} looks, {result.retrains} "
                f"retrains, F1 of alarms {result.f1:.2f}; oracle included; asked for < 60. Peer: drift only, "
                f"{PEER_LOOKS} looks, scaled."
            ),
        )
    ]


def _hours() -> Int64s:
    first = int((START - timedelta(days=DAYS_BEFORE)).timestamp()) // 3_600
    return np.arange(first, first + 24 * (DAYS + DAYS_BEFORE), dtype=np.int64)


def _recording(seed: int) -> RecordedHours:
    rng = np.random.default_rng(seed)
    hours = _hours()
    drifts = seed % 3 == 0
    after = np.arange(len(hours)) >= 24 * (DAYS_BEFORE + DRIFT_DAY)
    cells = BINS + 1
    flat = np.full(cells, PER_HOUR / BINS)
    flat[-1] = 0.1
    moved = flat.copy()
    moved[:BINS] *= np.linspace(0.3, 1.7, BINS)
    rates = np.tile(flat, (len(hours), FEATURES + 1))
    if drifts:
        rates[np.ix_(after, np.arange(FEATURES // 2 * cells))] = np.tile(moved, FEATURES // 2)
    features = tuple(_cells(f"feature_{at:03d}", at * cells, flat) for at in range(FEATURES))
    return RecordedHours(
        model_id="",
        label=LABEL,
        counts=(
            RecordedCounts(
                version=1,
                profile_sha256="p",
                features=features,
                prediction=_cells("score", FEATURES * cells, flat),
                hours=hours,
                predictions=np.full(len(hours), PER_HOUR),
                counts=rng.poisson(rates).astype(np.int32),
            ),
        ),
        partials=(RecordedPartials(version=1, hours=hours, partials=_partials(rng, after & drifts)),),
    )


def _cells(name: str, start: int, shares: npt.NDArray[np.float64]) -> FeatureCells:
    labels = (*(str(at) for at in range(BINS)), "missing")
    reference = np.round(shares * 1_000).astype(np.int64)
    return FeatureCells(name=name, kind="numeric", cells=labels, reference=reference, start=start, importance=1.0)


def _partials(rng: np.random.Generator, bad: npt.NDArray[np.bool_]) -> tuple[Partial, ...]:
    """Scores of an AUC of about 0.8, and of about 0.65 where they are bad."""
    n = len(bad) * PER_HOUR
    group = np.repeat(np.arange(len(bad)), PER_HOUR)
    value = (rng.random(n) < 0.3).astype(np.float64)
    signal = np.where(bad[group], 0.55, 1.2) * value
    score = 1 / (1 + np.exp(-(rng.normal(0, 1, n) + signal)))
    rows = Rows(
        group=group,
        score=score,
        value=value,
        delay_us=np.full(n, 3_600_000_000),
        late=np.zeros(n, np.bool_),
        outside=np.zeros(n, np.bool_),
        mature=np.ones(n, np.bool_),
        imputed=np.zeros(n, np.bool_),
    )
    return tuple(partials_of(LABEL, rows, len(bad)))


def _head() -> RecordingHead:
    return RecordingHead(
        start=START,
        end=START + timedelta(days=DAYS),
        policies=(),
        dependencies=(),
        limits=RetrainingLimits(),
        rules=(),
        models=MODELS,
        warnings=(),
    )


def _model(at: int, hours: RecordedHours) -> RecordedModel:
    trained = START - timedelta(days=1 + at % 20)
    facts = ModelFacts(
        model_id=ModelId(f"model_{at:04d}"),
        team=TeamId(f"team_{at % 20}"),
        tier=TIERS[at % len(TIERS)],
        task_type=TaskType.BINARY,
    )
    began = min(trained, START - timedelta(days=DAYS_BEFORE))
    version = RecordedVersion(
        number=1,
        trained_until=trained,
        baseline=Metric(name="auc", value=0.80, standard_error=0.004, sample_size=10_000),
        served=((began, START + timedelta(days=DAYS)),),
    )
    return RecordedModel(facts=facts, label=LABEL, versions=(version,), first=1, training_hours=2.0, hours=hours)


def _peer_s(counts: RecordedCounts) -> float:
    """Seconds a look: sum the window, then PSI and chi-square of each feature."""
    cells = [(feature.name, label) for feature in counts.features for label in feature.cells]
    frame = pd.DataFrame(
        counts.counts[:, : len(cells)],
        index=pd.to_datetime(counts.hours, unit="h", utc=True),
        columns=pd.MultiIndex.from_tuples(cells),
    )
    began = time.perf_counter()
    for look in range(PEER_LOOKS):
        until = START + timedelta(hours=look)
        window = frame[(frame.index >= until - timedelta(days=7)) & (frame.index < until)].sum()
        for feature in counts.features:
            current_counts, reference = window[feature.name].to_numpy(), feature.reference
            p, q = reference + 0.5, current_counts + 0.5
            float(stats.entropy(q, p) + stats.entropy(p, q))
            both = np.stack([reference, current_counts])
            float(stats.chi2_contingency(both[:, both.sum(axis=0) > 0]).pvalue)
    return (time.perf_counter() - began) / PEER_LOOKS
