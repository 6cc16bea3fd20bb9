"""[metric_query_p99_ms, auc_error] Metrics of 30 days of any of 500 models from mergeable partials; what binning costs.

The store holds a partial for every hour of 40 days of 500 models (METRIC_QUERY_MODELS), 300 predictions each: 144 M
joined rows. A query is the whole answer for one model over 30 days that begin at an odd hour, by day and in total: four
metrics with intervals, histogram of delays, arrival curve. Models come in random order, so that nearly every query
finds nothing in memory. Also measured: the same with provisional hours, and all models one after the other.

Side by side: the same numbers recomputed from joined rows, with the model's 30 days in a Parquet file of their own (the
best case for them): DuckDB in SQL, pandas with scikit-learn. All must agree.

The second row: how far the AUC of 1,024 logit bins is from the exact one at 1 % positives, the worst of twelve samples
of a million rows in three shapes of score; beside it the 100 and 1,024 linear bins that people take.
"""

import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn import metrics as sk

from bench.table import Row
from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.settling import Settling
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.metrics import auc
from control_plane.core.ground_truth.partials import Rows, pack, partials_of, score_bins

IDS = ("metric_query_p99_ms", "auc_error")

MODELS = int(os.environ.get("METRIC_QUERY_MODELS", "500"))
DAYS, ASKED_DAYS = 40, 30
PER_HOUR = 300
QUERIES = 500
PEER_QUERIES = 15
MONTHS = 4
"""Different recordings that models take turns with: making them is no part of the measurement."""
START = datetime(2013, 1, 1, tzinfo=UTC)
FIRST = int(START.timestamp()) // 3600
NOW = START + timedelta(days=DAYS)
SPEC = LabelSpec(window=timedelta(days=2))
AUC_ROWS = 1_000_000
AUC_SEEDS = 4

Floats = npt.NDArray[np.float64]


def run() -> list[Row]:
    """Both rows."""
    return [_metric_query(), _auc_error()]


def _metric_query() -> Row:
    rng = np.random.default_rng(7)
    with tempfile.TemporaryDirectory(prefix="runway-bench-") as directory:
        store = ParquetFactStore(Path(directory) / "facts", StoreConfig())
        try:
            recordings = [_rows(seed) for seed in range(MONTHS)]
            begun = time.perf_counter()
            _fill(store, recordings)
            filled_s = time.perf_counter() - begun
            starts = rng.integers(0, 24 * (DAYS - ASKED_DAYS) - 48, QUERIES)
            begun_cpu = time.process_time()
            final = [_ask(store, int(rng.integers(MODELS)), int(at)) for at in starts]
            cpu_ms = (time.process_time() - begun_cpu) * 1e3 / QUERIES
            again = [_ask(store, 0, int(at)) for at in starts]
            young = [_ask(store, int(rng.integers(MODELS)), 24 * (DAYS - ASKED_DAYS), True) for _ in starts]
            whole = _timed(lambda: [_performance(store, model, 5) for model in range(MODELS)])
            peers = _peers(store, recordings, Path(directory))
            size = (Path(directory) / "facts" / "catalog.sqlite").stat().st_size
        finally:
            store.close()
    p99 = float(np.percentile(final, 99))
    return Row(
        id="metric_query_p99_ms",
        value=p99,
        unit="ms",
        peers={
            "ours p50": float(np.median(final)),
            "ours CPU, mean": cpu_ms,
            "ours p99, the same model again": float(np.percentile(again, 99)),
            "ours p99, provisional": float(np.percentile(young, 99)),
            f"ours, all {MODELS} models": whole,
            **peers,
        },
        note=f"{MODELS} models x {DAYS} days x 24 partials of {PER_HOUR} rows, {size / 2**20:,.0f} MiB, filled in "
        f"{filled_s:.0f} s; DuckDB / ours = {peers['DuckDB from rows, p50'] / float(np.median(final)):.1f}x",
    )


def _rows(seed: int) -> Rows:
    """Every hour of one model."""
    rng = np.random.default_rng(seed)
    hours = 24 * DAYS
    n = hours * PER_HOUR
    score = 1 / (1 + np.exp(-rng.normal(-1.5, 1.4, n)))
    value = (rng.random(n) < score).astype(np.float64)
    return Rows(
        group=np.repeat(np.arange(hours), PER_HOUR),
        score=score,
        value=np.where(rng.random(n) < 0.6, value, np.nan),
        delay_us=(np.exp(rng.normal(9, 1.0, n)) * 1e6).clip(0, 1.7e11).astype(np.int64),
        late=np.zeros(n, np.bool_),
        outside=np.zeros(n, np.bool_),
        mature=np.ones(n, np.bool_),
        imputed=np.zeros(n, np.bool_),
    )


def _fill(store: ParquetFactStore, recordings: list[Rows]) -> None:
    """As the batch join stores partials, and a pass merges days."""
    facts = store._facts
    packed = [[pack(partial) for partial in partials_of(SPEC, rows, 24 * DAYS)] for rows in recordings]
    for model in range(MODELS):
        store.set_label(f"m{model}", SPEC)
        with facts.lock, facts.catalog.transaction():
            for hour, blob in enumerate(packed[model % MONTHS]):
                version = 1 + (hour > 24 * DAYS // 2)
                at = (FIRST + hour + 1) * 3_600_000_000
                facts.catalog.put_partials(
                    f"m{model}", SPEC.label_type, FIRST + hour, "batch", {version: blob}, computed_us=at
                )
    settling = Settling(facts)
    for _ in range(1 + MODELS * DAYS // 4_096):
        settling.settle(int(NOW.timestamp()) * 1_000_000)


def _performance(store: ParquetFactStore, model: int, hour: int, provisional: bool = False) -> dict[str, float]:
    start = START + timedelta(hours=hour)
    found = store.performance(
        f"m{model}", None, start, start + timedelta(days=ASKED_DAYS), NOW, provisional=provisional
    )
    return {metric.name: metric.value for metric in found.total.metrics}


def _ask(store: ParquetFactStore, model: int, hour: int, provisional: bool = False) -> float:
    return _timed(lambda: _performance(store, model, hour, provisional))


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e3


_SQL = """
WITH ranked AS (
    SELECT score, value, sum(1) OVER (ORDER BY score RANGE UNBOUNDED PRECEDING) AS upto,
           count(*) OVER (PARTITION BY score) AS ties
    FROM read_parquet($1) WHERE value IS NOT NULL AND hour >= $2 AND hour < $3)
SELECT (sum(CASE WHEN value = 1 THEN upto - (ties - 1) / 2.0 END) - sum(value) * (sum(value) + 1) / 2.0)
           / (sum(value) * (count(*) - sum(value))) AS auc,
       avg(((score >= 0.5) = (value = 1))::INT) AS accuracy,
       avg(-CASE WHEN value = 1 THEN ln(score) ELSE ln(1 - score) END) AS log_loss,
       avg((score - value) ** 2) AS brier
FROM ranked
"""


def _peers(store: ParquetFactStore, recordings: list[Rows], directory: Path) -> dict[str, float]:
    """From joined rows."""
    files = []
    for number, rows in enumerate(recordings):
        path = directory / f"joined{number}.parquet"
        value = pa.array(rows.value, from_pandas=True)
        pq.write_table(pa.table({"hour": rows.group, "score": rows.score, "value": value}), path)
        files.append(str(path))
    db = duckdb.connect(":memory:", config={"threads": 2})
    found: dict[str, list[float]] = {"DuckDB from rows, p50": [], "pandas and scikit-learn from rows, p50": []}
    for query in range(PEER_QUERIES):
        model, first = query % MONTHS, 7 + query
        last = first + 24 * ASKED_DAYS
        ours = _performance(store, model, first)
        begun = time.perf_counter()
        theirs = db.execute(_SQL, [files[model], first, last]).fetchone()
        found["DuckDB from rows, p50"].append((time.perf_counter() - begun) * 1e3)
        assert theirs is not None
        _agree(ours, dict(zip(("auc", "accuracy", "log_loss", "brier"), theirs, strict=True)))
        begun = time.perf_counter()
        table = pd.read_parquet(files[model])
        table = table[(table.hour >= first) & (table.hour < last)].dropna()
        exact = {
            "auc": float(sk.roc_auc_score(table.value, table.score)),
            "accuracy": float(sk.accuracy_score(table.value, table.score >= 0.5)),
            "log_loss": float(sk.log_loss(table.value, table.score)),
            "brier": float(sk.brier_score_loss(table.value, table.score)),
        }
        found["pandas and scikit-learn from rows, p50"].append((time.perf_counter() - begun) * 1e3)
        _agree(ours, exact)
    db.close()
    return {name: float(np.median(times)) for name, times in found.items()}


def _agree(ours: dict[str, float], theirs: dict[str, float]) -> None:
    for name, value in theirs.items():
        if abs(ours[name] - value) > 1e-4:
            raise AssertionError(f"{name}: {ours[name]} from partials, {value} from rows")


def _auc_error() -> Row:
    shapes = {"calibrated": (1.0, 0.0), "overconfident": (2.0, 0.0), "timid": (0.4, -2.0)}
    worst = {"ours": 0.0, "100 linear bins": 0.0, "1,024 linear bins": 0.0}
    for stretch, shift in shapes.values():
        for seed in range(AUC_SEEDS):
            rng = np.random.default_rng(seed)
            logit = rng.normal(np.log(0.01 / 0.99) - 0.9, 1.4, AUC_ROWS)
            value = (rng.random(AUC_ROWS) < 1 / (1 + np.exp(-logit))).astype(np.int64)
            score = 1 / (1 + np.exp(-(logit * stretch + shift)))
            exact = float(sk.roc_auc_score(value, score))
            for name, bins, count in (
                ("ours", score_bins(score), 1_024),
                ("100 linear bins", (score * 100).astype(np.int64).clip(0, 99), 100),
                ("1,024 linear bins", (score * 1_024).astype(np.int64).clip(0, 1_023), 1_024),
            ):
                by_label = np.stack([np.bincount(bins[value == one], minlength=count) for one in (0, 1)])
                area = auc(by_label)
                assert area is not None
                worst[name] = max(worst[name], abs(area[0] - exact))
    ours = worst.pop("ours")
    return Row(
        id="auc_error",
        value=ours,
        unit="",
        peers=worst,
        note=f"the worst of {len(shapes)} shapes x {AUC_SEEDS} samples of {AUC_ROWS:,} rows, 1 % positives",
    )
