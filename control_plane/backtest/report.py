"""What a backtest says: one result per contender. The names are those of the contract's `BacktestReport`.

All numbers are finite, so that JSON can hold them. Metrics are turned so that higher is better: of a metric that is
better low (rmse), they are negative.
"""

from datetime import datetime

import msgspec


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A day of the whole fleet."""

    at: datetime
    quality: float = 0.0
    stale_share: float = 0.0
    """Of model-hours."""
    retrains: int = 0


class RetrainRow(msgspec.Struct, frozen=True, kw_only=True):
    """A retrain that was asked for."""

    at: datetime
    model_id: str
    reason: str = ""
    truly_stale: bool = False
    """When it was asked for."""
    promoted: bool = False


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One contender on the whole fleet; definitions in `scoring`."""

    name: str
    retrains: int = 0
    gpu_hours: float = 0.0
    stale_hours: float = 0.0
    quality: float = 0.0
    quality_fresh: float = 0.0
    false_alarms_per_model_month: float = 0.0
    detection_delay_hours: float | None = None
    recall: float = 0.0
    precision: float = 0.0
    f1: float = 0.0
    regret: float = 0.0
    points: tuple[Point, ...] = ()
    retrain_log: tuple[RetrainRow, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Contenders side by side on the same history."""

    start_time: datetime
    end_time: datetime
    models: int = 0
    results: tuple[Result, ...] = ()
    estimated: bool = False
    """How well retrained models would have done is estimated, not trained."""
    reading: str = ""
    warnings: tuple[str, ...] = ()


def encode_report(report: Report) -> bytes:
    """As JSON."""
    return msgspec.json.encode(report)


def decode_report(text: bytes | str) -> Report:
    """Inverse of `encode_report`; reads the contract's own JSON too (whole numbers as text, zeros left out).

    Raises:
        ValueError: it is no report (msgspec's errors are ValueErrors).
    """
    return msgspec.convert(msgspec.json.decode(text), Report, strict=False)


DEFINITIONS: tuple[tuple[str, str], ...] = (
    (
        "truly stale",
        "on that day production was worse than a version trained on everything until then by more than the model's "
        "performance_tolerance",
    ),
    ("retrains", "trainings that were started, failed and refused ones included"),
    ("GPU hours", "of these trainings: the model's retrain_gpu_hours, else the hours that a training takes"),
    ("stale hours", "model-hours in which production was truly stale"),
    (
        "quality",
        "mean of the primary metric in production, over models and days; of a metric that is better low, its negative",
    ),
    ("quality fresh", "the same of versions trained on everything until each day"),
    ("regret", "quality of the oracle minus quality; negative where more retrains than the oracle's bought more"),
    ("alarm", "a retrain asked for, by a verdict, a clock or a threshold"),
    ("false alarms", "alarms at models that were not truly stale when it rang, by model and 30 days"),
    (
        "delay",
        "median hours from the start of a truly stale stretch to its first alarm; 0 if a retrain was under way already",
    ),
    ("recall", "share of truly stale stretches with an alarm, or a retrain under way"),
    ("precision", "share of alarms at models that were truly stale; F1 is the harmonic mean of the two"),
)
"""What the columns mean, for pages and help."""
