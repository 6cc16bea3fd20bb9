"""Hours that producers counted themselves: checked against the reference profile, stored once, added to the counts.

Identity is (model, version, profile, hour, producer, slice): the same counts again change nothing, others are refused
unless they are said to replace. Besides, a batch id stands for one content for ever. What is stored is what was sent,
so that a replacement takes exactly that away. Everything happens in one transaction of the catalogue: there is nothing
to recover.
"""

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from control_plane.adapters.parquet.binning import Cells, Int64s
from control_plane.adapters.parquet.facts import Facts, hour_of
from control_plane.adapters.parquet.histograms import Series
from control_plane.adapters.parquet.profile import FeatureBins, Profile
from control_plane.adapters.parquet.schema import pack_counts, unpack_counts
from control_plane.app.fact_reports import Receipt, SentHistogram
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.ground_truth.batch import slice_fault
from control_plane.core.statistics.bins import CategoricalBins, NumericBins
from control_plane.core.statistics.sample import COUNT_MAX

SKEW_MAX = timedelta(hours=1)
"""How far ahead of this clock a producer's hour may begin: more is a clock or a time zone that is wrong."""
SHOWN_MAX = 12
"""Edges or categories shown of each side when they differ."""
VIOLATIONS_MAX = 50
"""Violations reported at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentHour:
    """One hour as it was sent."""

    batch_id: str
    model_id: str
    version: int
    producer: str
    hour: datetime
    predictions: int
    histograms: Sequence[SentHistogram]
    prediction: SentHistogram | None
    slice_name: str
    replace: bool
    now: datetime

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 8 * sum(len(one.counts) for one in self.histograms)


class SentHours:
    """Stores what producers counted. Not safe for concurrent use; its owner serialises."""

    def __init__(self, facts: Facts, *, hours_keep: timedelta, keep: timedelta) -> None:
        self._facts = facts
        self._hours_keep = hours_keep
        self._keep = keep

    def store(self, sent: SentHour) -> Receipt:
        """Add an hour to the counts; call inside a transaction, then `Histograms.settled`.

        Raises:
            Invalid: `INVALID_BATCH` with all violations; nothing was changed.
        """
        profile = self._facts.profile_of(sent.model_id, sent.version)
        found = _Checks()
        hour = self._check_hour(found, sent)
        counts = _check_counts(found, sent, profile)
        found.raise_if_any()
        assert profile is not None
        db = self._facts.catalog.db
        content = _content(sent, profile, counts)
        key = hashlib.blake2b(f"{sent.model_id}\0{sent.batch_id}".encode(), digest_size=16).digest()
        row = db.execute("SELECT content FROM sent_batches WHERE key = ?", (key,)).fetchone()
        if row is not None:
            if row[0] != content:
                says = f"the batch id {sent.batch_id!r} stood for other counts before: give each hour an id of its own"
                raise _refused("batch_id", "unique", says)
            self._facts.duplicate_batches += 1
            return Receipt(rows=sent.predictions, duplicate=True)
        slice_name = self._facts.admitted(sent.model_id, [sent.slice_name])(sent.slice_name) if sent.slice_name else ""
        series = Series(sent.model_id, sent.version, profile.digest, slice_name)
        receipt = self._store(sent, series, hour, Cells(sent.predictions, counts), content)
        db.execute("INSERT INTO sent_batches VALUES (?, ?, ?)", (key, hour, content))
        return receipt

    def _store(self, sent: SentHour, series: Series, hour: int, cells: Cells, content: bytes) -> Receipt:
        facts = self._facts
        number = facts.histograms.number(series)
        key = (number, hour, sent.producer, sent.slice_name)
        row = facts.catalog.db.execute(
            "SELECT rows, content, cells FROM sent_counts WHERE series = ? AND hour = ? AND producer = ? AND slice = ?",
            key,
        ).fetchone()
        added = cells
        if row is not None:
            if row[1] == content:
                facts.duplicate_batches += 1
                return Receipt(rows=sent.predictions, duplicate=True)
            before = Cells(int(row[0]), unpack_counts(row[2]).astype(np.int64))
            if not sent.replace:
                raise _refused("counts", "same_hour", _other_counts(sent, before, cells))
            added = cells.minus(before)
        # What an old hour counted is in its day alone: there is no hour left to take it from.
        hours_from = hour_of(int((sent.now - self._hours_keep).timestamp()) * 1_000_000)
        facts.histograms.store(series, {hour: added}, hours_from=hours_from)
        facts.catalog.db.execute(
            "INSERT OR REPLACE INTO sent_counts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, cells.rows, content, pack_counts(cells.counts)),
        )
        if not sent.slice_name:
            facts.catalog.add_volume(sent.model_id, hour, added.rows)
        return Receipt(rows=sent.predictions, duplicate=False)

    def _check_hour(self, found: "_Checks", sent: SentHour) -> int:
        instant = sent.hour.astimezone(UTC)
        if instant.minute or instant.second or instant.microsecond:
            says = f"{instant.isoformat()} is not the start of an hour in UTC: send {instant:%Y-%m-%dT%H:00:00Z}"
            found.add("hour", "whole", says)
        if instant > sent.now + SKEW_MAX:
            ahead = str(instant - sent.now).split(".", maxsplit=1)[0]
            says = f"{instant.isoformat()} begins {ahead} after now: set the producer's clock and time zone (UTC)"
            found.add("hour", "future", says)
        if instant < sent.now - self._keep:
            says = (
                f"{instant.isoformat()} is older than {self._keep.days} days, for which counts are kept: leave it out"
            )
            found.add("hour", "too_old", says)
        return hour_of(int(instant.timestamp()) * 1_000_000)


def _other_counts(sent: SentHour, before: Cells, after: Cells) -> str:
    where = f"{sent.hour:%Y-%m-%dT%H:00Z} of producer {sent.producer!r}"
    differ = int((before.counts != after.counts).sum())
    return (
        f"{where} was counted before with {before.rows:,} predictions, now {after.rows:,}; {differ} cells differ: "
        "send it with `replace` to correct it, or under another producer to add to it"
    )


class _Checks:
    """Collects violations."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def add(self, field: str, rule: str, message: str) -> None:
        """Note a violation unless there are enough."""
        if len(self._found) < VIOLATIONS_MAX:
            self._found.append(Violation(field=field, rule=rule, message=message))

    def raise_if_any(self) -> None:
        """Refuse if anything was noted."""
        if self._found:
            raise Invalid(Reason.INVALID_BATCH, *self._found)


def _check_counts(found: _Checks, sent: SentHour, profile: Profile | None) -> Int64s:
    """The counts over the cells of the profile, shape (width,)."""
    if sent.slice_name:
        name, equals, value = sent.slice_name.partition("=")
        if not equals or slice_fault(name) or slice_fault(value):
            found.add("slice", "slice", f"{sent.slice_name[:200]!r} is not as `country=US`")
    if profile is None:
        says = (
            f"version {sent.version} of {sent.model_id} has no reference profile, so there are no cells to count by: "
            "register the version with `reference_profile`, or send predictions as rows"
        )
        found.add("version", "reference_profile", says)
        return np.zeros(0, np.int64)
    counts = np.zeros(profile.width, np.int64)
    known = {feature.name: feature for feature in profile.features}
    seen: set[str] = set()
    for one in sent.histograms:
        where = f"features.{one.name}"
        if one.name in seen:
            found.add(where, "unique", "the feature is there more than once")
            continue
        seen.add(one.name)
        feature = known.get(one.name)
        if feature is None:
            shown = _shown(sorted(known))
            found.add(where, "unknown_feature", f"the reference profile has no such feature; it has {shown}")
            continue
        _check_one(found, where, one, feature, sent.predictions, counts)
    if sent.prediction is not None:
        if profile.prediction is None:
            found.add("prediction", "unknown_feature", "the reference profile has no prediction")
        else:
            bins = profile.prediction
            given = sent.prediction
            if len(given.counts) == len(bins.reference) - 1:
                given = SentHistogram(
                    name=given.name, edges=given.edges, categories=given.categories, counts=(*given.counts, 0)
                )
            _check_one(found, "prediction", given, bins, sent.predictions, counts)
    return counts


def _check_one(
    found: _Checks, where: str, one: SentHistogram, feature: FeatureBins, predictions: int, counts: Int64s
) -> None:
    """Check one histogram and put its counts in their place."""
    bins = feature.bins
    if isinstance(bins, NumericBins):
        if one.categories:
            found.add(where, "kind", "categories were sent, the reference is numeric")
        if one.edges != bins.edges:
            says = f"sent {_shown(one.edges)}, the reference has {_shown(bins.edges)}"
            found.add(f"{where}.edges", "same_edges", f"{says}: count over the cells of the reference profile")
    elif isinstance(bins, CategoricalBins):
        if one.edges:
            found.add(where, "kind", "edges were sent, the reference is categorical")
        if one.categories != bins.categories:
            says = f"sent {_shown(one.categories)}, the reference has {_shown(bins.categories)}"
            found.add(
                f"{where}.categories", "same_categories", f"{says}: count over the cells of the reference profile"
            )
    if len(one.counts) != len(feature.reference):
        says = f"{len(one.counts)} counts, the reference has {len(feature.reference)} cells, missing last"
        found.add(f"{where}.counts", "length", says)
        return
    wrong = [at for at, count in enumerate(one.counts) if not 0 <= count <= COUNT_MAX]
    if wrong:
        says = f"cell {wrong[0]} is {one.counts[wrong[0]]}: a count is 0 to 2^53"
        found.add(f"{where}.counts", "count", says)
        return
    total = sum(one.counts)
    if total > predictions:
        says = f"they sum to {total:,}, `predictions` says {predictions:,}: each prediction is in one cell"
        found.add(f"{where}.counts", "sum", says)
        return
    counts[feature.start : feature.end] = one.counts


def _shown(values: Sequence[float] | Sequence[str]) -> str:
    """A list, cut short in its middle of nowhere: what differs first is usually near the start."""
    shown = [value if isinstance(value, str) else f"{value!r}" for value in values[:SHOWN_MAX]]
    more = f", ... {len(values)} in all" if len(values) > SHOWN_MAX else ""
    return f"[{', '.join(shown)}{more}]"


def _content(sent: SentHour, profile: Profile, counts: Int64s) -> bytes:
    """What the batch says, as 16 bytes."""
    head = "\0".join(
        (str(sent.version), profile.digest, sent.hour.astimezone(UTC).isoformat(), sent.producer, sent.slice_name)
    )
    digest = hashlib.blake2b(f"{head}\0{sent.predictions}\0".encode(), digest_size=16)
    digest.update(counts.tobytes())
    return digest.digest()


def _refused(field: str, rule: str, message: str) -> Invalid:
    return Invalid(Reason.INVALID_BATCH, Violation(field=field, rule=rule, message=message))


def recount_sent(facts: Facts, series: Series, db: sqlite3.Connection) -> None:
    """Add again what producers sent for a series that was forgotten; inside a transaction."""
    number = facts.histograms.number(series)
    for hour, rows, cells in db.execute(
        "SELECT hour, rows, cells FROM sent_counts WHERE series = ?", (number,)
    ).fetchall():
        facts.histograms.store(series, {int(hour): Cells(int(rows), unpack_counts(cells).astype(np.int64))})
