"""Streams of predictions and outcomes, and the facts about what is missing of them, counted one by one.

The dumb twin of `adapters/parquet/coverage.py` and `join_facts.py`: dictionaries and loops over rows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from control_plane.core.ground_truth.coverage import PartCoverage
from control_plane.core.ground_truth.ids import hash_shares, id_columns, id_hours
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.missing import SHARE_CELLS, IdFacts, MissingFacts, SourceHours
from control_plane.core.ground_truth.partials import DELAY_CELLS, DELAY_EDGES_S
from tests.ground_truth.arrows import T0_US, prediction_id

HOUR_US = 3_600_000_000
FIRST_HOUR = T0_US // HOUR_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A prediction."""

    id: bytes
    at_us: int
    source: str = ""
    slice_name: str = ""
    version: int = 1

    @property
    def hour(self) -> int:
        return self.at_us // HOUR_US

    @property
    def share(self) -> float:
        return share_of(self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An outcome."""

    id: bytes
    at_us: int
    of: Made
    source: str = ""


def share_of(one: bytes) -> float:
    """The hash of an id that sampling goes by."""
    return float(hash_shares(id_columns(np.frombuffer(one, np.uint8).reshape(1, 16)))[0])


def hour_in(one: bytes) -> int:
    """The hour of a UUIDv7, below 0 of another id."""
    return int(id_hours(id_columns(np.frombuffer(one, np.uint8).reshape(1, 16)))[0])


def carries_time(one: bytes) -> bool:
    """Is it a UUIDv7?"""
    return hour_in(one) >= 0


def streams(seed: int, *, days: int, per_hour: int = 8, labelled: float = 0.97) -> tuple[list[Made], list[Told]]:
    """Predictions of some days, fewer at night, and their outcomes, most within hours."""
    rng = np.random.default_rng(seed)
    made: list[Made] = []
    for hour in range(days * 24):
        for _ in range(int(rng.poisson(per_hour if 6 <= hour % 24 < 23 else per_hour / 8))):
            at_us = T0_US + hour * HOUR_US + int(rng.integers(0, HOUR_US))
            made.append(
                Made(
                    id=prediction_id(at_us, int(rng.integers(1, 2**60))),
                    at_us=at_us,
                    source=str(rng.choice(["eu", "us"])),
                    slice_name=str(rng.choice(["part=a", "part=b", "part=c"], p=[0.5, 0.3, 0.2])),
                )
            )
    told = [
        Told(
            id=one.id,
            at_us=one.at_us + int(rng.lognormal(0.5, 0.8) * HOUR_US),
            of=one,
            source=f"truth-{one.source}",
        )
        for one in made
        if rng.random() < labelled
    ]
    return made, sorted(told, key=lambda one: one.at_us)


def facts_of(
    made: Sequence[Made], told: Sequence[Told], spec: LabelSpec, *, first_day: int, until: int
) -> MissingFacts:
    """Facts about predictions from a day on, at an hour `until` (since the first); what comes later is not known."""
    now = FIRST_HOUR + until
    first = FIRST_HOUR + 24 * first_day
    told = [one for one in told if one.at_us < now * HOUR_US]
    mature_before = now - spec.window_us // HOUR_US
    by_id = {one.id: one for one in made if one.hour < now}
    best: dict[bytes, int] = {}
    for one in told:
        if one.id in by_id:
            delay = one.at_us - by_id[one.id].at_us
            best[one.id] = min(delay, best.get(one.id, delay))
    mature: Counter[int] = Counter()
    known: Counter[int] = Counter()
    outside: Counter[int] = Counter()
    slices: dict[str, list[int]] = {}
    delays = np.zeros(DELAY_CELLS, np.int64)
    for row in by_id.values():
        if row.hour >= mature_before:
            continue
        joined = row.id in best and best[row.id] <= spec.window_us
        mature[row.hour] += 1
        known[row.hour] += joined
        outside[row.hour] += row.id in best and not joined
        if joined:
            delays[int(np.searchsorted(DELAY_EDGES_S, best[row.id] / 1e6))] += 1
        if row.hour >= first:
            of = slices.setdefault(row.slice_name, [0, 0])
            of[0] += 1
            of[1] += joined
    hours = sorted(mature)
    lost = {
        one.id
        for one in told
        if one.id not in by_id and (hour_in(one.id) < 0 or first <= hour_in(one.id) < mature_before)
    }
    by_source: dict[str, Counter[int]] = {}
    for one in told:
        by_source.setdefault(one.source, Counter())[one.at_us // HOUR_US] += 1
    asked = [one for one in by_id.values() if first <= one.hour < mature_before]
    return MissingFacts(
        label=spec,
        first=first,
        last=mature_before,
        until=now,
        hours=np.array(hours, np.int64),
        mature=np.array([mature[hour] for hour in hours], np.int64),
        known=np.array([known[hour] for hour in hours], np.int64),
        outside=np.array([outside[hour] for hour in hours], np.int64),
        orphans=sum(carries_time(one) for one in lost),
        orphans_timeless=sum(not carries_time(one) for one in lost),
        delays=delays,
        outcomes_ever=len(told),
        other_labels=(spec.label_type,) if told else (),
        sources=tuple(
            SourceHours(source=source, hours=tuple(sorted(rows)), rows=tuple(rows[hour] for hour in sorted(rows)))
            for source, rows in sorted(by_source.items())
        ),
        slices=tuple(
            PartCoverage(name=name, mature=both[0], known=both[1], slice_name=name) for name, both in slices.items()
        ),
        ids=_ids(asked, told, by_id, lost),
    )


def _ids(asked: Sequence[Made], told: Sequence[Told], by_id: dict[bytes, Made], lost: set[bytes]) -> IdFacts:
    answered = {one.id for one in told}
    ids = {one.id for one in asked}
    sources: dict[str, list[int]] = {}
    for one in told:
        if one.id not in lost and one.id not in ids:
            continue
        of = sources.setdefault(one.source, [0, 0])
        of[0] += 1
        of[1] += one.id in lost
    senders: dict[str, list[int]] = {}
    for row in asked:
        of = senders.setdefault(row.source, [0, 0])
        of[0] += 1
        of[1] += row.id in answered
    return IdFacts(
        predicted=_cells(ids),
        joined=_cells(ids & answered),
        orphaned=_cells(lost),
        timeless=sum(not carries_time(one) for one in lost),
        predictions_timeless=sum(not carries_time(one) for one in ids),
        changed="their bytes are in reverse order" if any(one[::-1] in by_id for one in lost) else "",
        changed_ids=sum(one[::-1] in by_id for one in lost),
        sources=tuple((name, both[0], both[1]) for name, both in sorted(sources.items())),
        prediction_sources=tuple((name, both[0], both[1]) for name, both in sorted(senders.items())),
    )


def _cells(ids: set[bytes]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    cells = np.zeros(SHARE_CELLS, np.int64)
    for one in ids:
        cells[int(share_of(one) * SHARE_CELLS)] += 1
    return cells


def renamed(told: Sequence[Told], ids: dict[bytes, bytes]) -> list[Told]:
    """The outcomes with other ids."""
    return [replace(one, id=ids.get(one.id, one.id)) for one in told]
