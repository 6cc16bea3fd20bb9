"""The batch layer of ground truth as partitioned assets: who wants to see, repeat or backfill joins does it in Dagster.

`ground_truth_daily` joins a day of predictions again from all its rows, whatever was computed before: authoritative.
`ground_truth_hourly` joins what has changed since the last join of that hour: incremental. The control plane joins by
itself as well, so nothing here is needed for its numbers to be right; a partition is the proof that they were made,
when, from how much, and by what. The same partition again gives the same numbers.

A stretch of partitions runs as one run (`BackfillPolicy.single_run`): each of its partitions is materialized and
checked by itself. Predictions belong to the day in which they were made, in UTC, whenever their outcomes come.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Literal

import dagster as dg
import msgspec
from runway_client import NoAnswer, RunwayRpcError, Unreachable

from assets.plane import Connect, ControlPlane, Joined, ModelJoined

Grain = Literal["daily", "hourly"]

DAILY = "ground_truth_daily"
HOURLY = "ground_truth_hourly"
NAMES: Mapping[Grain, str] = {"daily": DAILY, "hourly": HOURLY}
GROUND_TRUTH = frozenset(NAMES.values())
COVERAGE = "coverage"

FROM_VARIABLE = "RUNWAY_PARTITIONS_FROM"
UNTIL_VARIABLE = "RUNWAY_PARTITIONS_UNTIL"

MODELS_SHOWN_MAX = 50
"""Rows of the table in a partition's metadata, those with the least coverage first."""

RETRIES_MAX = 5
RETRY_S = 20.0
"""A control plane that restarts is back within this; one that is away longer fails the run."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """From which day on there are partitions, and until when; without an end they go on with the clock on the wall."""

    start: date
    until: date | None = None


def span_of(environment: Mapping[str, str] = os.environ, today: date | None = None) -> Span:
    """The configured span; by default from the first of January of last year.

    Raises:
        ValueError: a variable is no day, or the end is not after the start.
    """
    first = _day(environment, FROM_VARIABLE)
    until = _day(environment, UNTIL_VARIABLE)
    today = today or datetime.now(UTC).date()
    start = first or (until or today).replace(year=(until or today).year - 1, month=1, day=1)
    if until is not None and until <= start:
        raise ValueError(f"{UNTIL_VARIABLE}={until} is not after {FROM_VARIABLE}={start}")
    return Span(start=start, until=until)


def _day(environment: Mapping[str, str], variable: str) -> date | None:
    text = environment.get(variable)
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{variable}={text!r} is not a day: write it as 2026-01-31") from error


def partitions(grain: Grain, span: Span) -> dg.TimeWindowPartitionsDefinition:
    """Days or hours in UTC; a partition is there once it is over."""
    start = datetime(span.start.year, span.start.month, span.start.day, tzinfo=UTC)
    until = None if span.until is None else datetime(span.until.year, span.until.month, span.until.day, tzinfo=UTC)
    if grain == "daily":
        return dg.DailyPartitionsDefinition(start_date=start, end_date=until, end_offset=0, timezone="UTC")
    return dg.HourlyPartitionsDefinition(start_date=start, end_date=until, end_offset=0, timezone="UTC")


def ground_truth_assets(connect: Connect, span: Span) -> list[dg.AssetsDefinition]:
    """Both assets."""
    return [
        _asset("daily", "Every hour of a day joined again from all its rows: authoritative.", connect, span),
        _asset("hourly", "What of an hour has changed since its last join: incremental.", connect, span),
    ]


def _asset(grain: Grain, about: str, connect: Connect, span: Span) -> dg.AssetsDefinition:
    key, pieces = dg.AssetKey([NAMES[grain]]), partitions(grain, span)
    with warnings.catch_warnings():
        # A check by partition is what is wanted here: one bad day must not be hidden by the next good one.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        check = dg.AssetCheckSpec(
            COVERAGE,
            asset=key,
            partitions_def=pieces,
            description="Every model has at least the coverage its policy asks for (coverage_min), of this partition.",
        )

    @dg.multi_asset(
        name=f"join_{NAMES[grain]}",
        specs=[
            dg.AssetSpec(
                key,
                description=about,
                group_name="ground_truth",
                kinds={"join"},
                skippable=True,
                metadata={"the same on the command line": "runway join --from DAY --to DAY --all-again"}
                | {"what has arrived": "runway coverage MODEL"},
            )
        ],
        check_specs=[check],
        partitions_def=pieces,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def join(context: dg.AssetExecutionContext) -> Iterator[Any]:
        plane = connect()
        try:
            for partition in context.partition_keys:
                window = pieces.time_window_for_partition_key(partition)
                joined = joined_or_retried(plane, window.start, window.end, authoritative=grain == "daily")
                context.log.info("%s: %s", partition, sentence(joined))
                for event in events_of(key, partition, joined):
                    context.log_event(event)
        finally:
            plane.close()
        # Each partition was materialized with its own numbers; an output would give all of them the same ones.
        yield from ()

    return join


def joined_or_retried(plane: ControlPlane, start: datetime, end: datetime, *, authoritative: bool) -> Joined:
    """Join, or say how the run goes on.

    Raises:
        dg.RetryRequested: the control plane is away.
        dg.Failure: it refuses; the same again would be refused again.
    """
    try:
        return plane.join_partition(start, end, authoritative=authoritative)
    except (Unreachable, NoAnswer) as error:
        raise dg.RetryRequested(max_retries=RETRIES_MAX, seconds_to_wait=RETRY_S) from error
    except RunwayRpcError as error:
        raise dg.Failure(description=error.message, allow_retries=False) from error


def events_of(key: dg.AssetKey, partition: str, joined: Joined) -> list[dg.AssetMaterialization | Any]:
    """The materialization of a partition, and its check if anything of it is mature."""
    events: list[Any] = [
        dg.AssetMaterialization(key, description=sentence(joined), partition=partition, metadata=metadata_of(joined))
    ]
    known = [model for model in joined.models if model.coverage is not None]
    if known:
        low = short_of(joined.models)
        events.append(
            dg.AssetCheckEvaluation(
                asset_key=key,
                check_name=COVERAGE,
                passed=not low,
                severity=dg.AssetCheckSeverity.WARN,
                description=_low_sentence(low) if low else f"{len(known)} models have what their policies ask for.",
                metadata={
                    "models below their minimum": dg.MetadataValue.int(len(low)),
                    "models mature": dg.MetadataValue.int(len(known)),
                },
                blocking=False,
                partition=partition,
            )
        )
    return events


def short_of(models: Sequence[ModelJoined]) -> list[ModelJoined]:
    """Models with less coverage than their policy asks for, the least first."""
    low = [model for model in models if model.coverage is not None and model.coverage < model.coverage_min]
    return sorted(low, key=lambda model: (model.coverage or 0.0, model.model_id))


def _low_sentence(low: Sequence[ModelJoined]) -> str:
    worst = ", ".join(
        f"{model.model_id} {model.coverage:.1%} of {model.coverage_min:.0%}"
        for model in low[:3]
        if model.coverage is not None
    )
    more = f" and {len(low) - 3} more" if len(low) > 3 else ""
    return f"Too few outcomes: {worst}{more}. `runway coverage {low[0].model_id}` says why."


def sentence(joined: Joined) -> str:
    """What came of a partition."""
    if not joined.predicted:
        return "Nothing was predicted."
    share = "" if joined.coverage is None else f", {joined.coverage:.1%} of what is mature"
    live = f"; {joined.hours_live} hours of models are still live" if joined.hours_live else ""
    return f"{joined.joined:,} of {joined.predicted:,} predictions have their outcome{share}{live}."


def metadata_of(joined: Joined) -> dict[str, Any]:
    """Numbers, because Dagster plots those over partitions, and the models that have the least coverage."""
    found: dict[str, Any] = {
        "predicted": dg.MetadataValue.int(joined.predicted),
        "joined": dg.MetadataValue.int(joined.joined),
        "late": dg.MetadataValue.int(joined.late),
        "orphans": dg.MetadataValue.int(joined.orphans),
        "hours of models joined": dg.MetadataValue.int(joined.hours_joined),
        "hours of models live": dg.MetadataValue.int(joined.hours_live),
        "CPU seconds": dg.MetadataValue.float(round(joined.cpu_s, 3)),
        "engine": joined.engine,
    }
    if joined.coverage is not None:
        found["coverage"] = dg.MetadataValue.float(round(joined.coverage, 4))
    if joined.models:
        shown = sorted(joined.models, key=lambda one: (2.0 if one.coverage is None else one.coverage, one.model_id))
        found["models"] = dg.MetadataValue.table(
            records=[
                dg.TableRecord(
                    {
                        "model": one.model_id,
                        "predicted": one.predicted,
                        "with outcome": one.joined,
                        "coverage": "not mature" if one.coverage is None else f"{one.coverage:.1%}",
                        "wanted": f"{one.coverage_min:.0%}" if one.coverage_min else "none",
                    }
                )
                for one in shown[:MODELS_SHOWN_MAX]
            ]
        )
    return found
