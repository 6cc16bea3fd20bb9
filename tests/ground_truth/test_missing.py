"""Facts about missing truth as the real store tells them: equal to those counted one by one, and their causes."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pytest

from control_plane.adapters.parquet.maintenance import StoreConfig
from control_plane.adapters.parquet.store import ParquetFactStore
from control_plane.core.ground_truth.causes import findings
from control_plane.core.ground_truth.findings import Cause
from control_plane.core.ground_truth.ids import uuid7
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.missing import MissingFacts
from control_plane.core.ground_truth.partials import Partial
from tests.ground_truth.arrows import T0, ipc, outcome_columns, prediction_columns
from tests.reference.join import Outcome, Prediction
from tests.reference.missing_twin import FIRST_HOUR, HOUR_US, Made, Told, facts_of, renamed, share_of, streams

SPEC = LabelSpec(window=timedelta(days=1))
Sent = TypeVar("Sent", Made, Told)
MODEL = "m"
DAYS, NOW, FROM_DAY = 7, 6 * 24, 1
END = T0 + timedelta(hours=NOW)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ParquetFactStore]:
    """A store that joins every hour and holds little in memory."""
    opened = ParquetFactStore(tmp_path, StoreConfig(join_every=timedelta(hours=1), speed_window=timedelta(hours=2)))
    opened.set_label(MODEL, SPEC)
    yield opened
    opened.close()


def send(store: ParquetFactStore, made: Sequence[Made], told: Sequence[Told]) -> None:
    """All that is known at NOW, by sender and day, as it came; then let the store do what is due."""
    now_us = (FIRST_HOUR + NOW) * HOUR_US
    for number, (source, of_source) in enumerate(_by(made)):
        rows = [one for one in of_source if one.at_us < now_us]
        columns = prediction_columns([Prediction(one.id, one.at_us, 0.5) for one in rows])
        columns["slice.part"] = pa.array([one.slice_name.partition("=")[2] for one in rows])
        store.submit_predictions(f"p{number}", MODEL, 1, ipc(columns), source=source).result()
    for number, (source, sent) in enumerate(_by(told)):
        here = [one for one in sent if one.at_us < now_us]
        for part, some in enumerate((here[: len(here) // 2], here[len(here) // 2 :])):
            if some:
                columns = outcome_columns([Outcome(one.id, one.at_us, 1.0) for one in some])
                store.submit_outcomes(f"o{number}-{part}", MODEL, "", ipc(columns), source=source).result()
            store.tick(END, force=True)
    report = store.tick(END, force=True)
    while report.more:
        report = store.tick(END)


def _by(rows: Sequence[Sent]) -> list[tuple[str, list[Sent]]]:
    ordered = sorted(rows, key=lambda one: one.source)
    return [(name, list(group)) for name, group in itertools.groupby(ordered, key=lambda one: one.source)]


def asked(store: ParquetFactStore) -> tuple[MissingFacts, Partial]:
    """What is missing from the second day on."""
    return store.missing_facts(MODEL, None, T0 + timedelta(days=FROM_DAY), END, END)


@pytest.mark.parametrize("seed", range(2))
def test_the_store_tells_what_the_twin_counts(store: ParquetFactStore, seed: int) -> None:
    rng = np.random.default_rng(seed)
    made, told = streams(seed, days=DAYS)
    told = renamed(told, {one.id: one.id[::-1] for one in told if rng.random() < 0.3})
    told = [one for one in told if rng.random() < 0.9]
    send(store, made, told)
    found, partial = asked(store)
    twin = facts_of(made, told, SPEC, first_day=FROM_DAY, until=NOW)
    for name in ("hours", "mature", "known", "outside", "delays"):
        np.testing.assert_array_equal(getattr(found, name), getattr(twin, name), name)
    assert sorted(found.slices, key=lambda one: one.name) == sorted(twin.slices, key=lambda one: one.name)
    assert (found.sources, found.outcomes_ever) == (twin.sources, twin.outcomes_ever)
    assert (found.orphans, found.orphans_timeless) == (twin.orphans, twin.orphans_timeless)
    assert found.ids is not None and twin.ids is not None
    np.testing.assert_array_equal(found.ids.predicted, twin.ids.predicted)
    np.testing.assert_array_equal(found.ids.joined, twin.ids.joined)
    assert found.ids.changed == twin.ids.changed
    assert found.ids.prediction_sources == twin.ids.prediction_sources
    assert partial.of("predicted") == int(twin.mature[twin.hours >= twin.first].sum())


def _stopped(made: list[Made], told: list[Told], rng: np.random.Generator) -> tuple[list[Made], list[Told]]:
    return made, [one for one in told if one.at_us < (FIRST_HOUR + 3 * 24) * HOUR_US]


def _swapped(made: list[Made], told: list[Told], rng: np.random.Generator) -> tuple[list[Made], list[Told]]:
    return made, renamed(told, {one.id: uuid_le(one.id) for one in told})


def _shifted(made: list[Made], told: list[Told], rng: np.random.Generator) -> tuple[list[Made], list[Told]]:
    later = {one.id: (int.from_bytes(one.id[:6]) + 3_600_000).to_bytes(6) + one.id[6:] for one in told}
    return made, renamed(told, later)


def _own(made: list[Made], told: list[Told], rng: np.random.Generator) -> tuple[list[Made], list[Told]]:
    fresh = {one.id: uuid7(one.at_us // 1000, int(rng.integers(0, 2**62))).bytes for one in told}
    return made, renamed(told, fresh)


def _sampled(made: list[Made], told: list[Told], rng: np.random.Generator) -> tuple[list[Made], list[Told]]:
    return [one for one in made if one.share < 0.4], [one for one in told if share_of(one.id) > 0.3]


def _half(made: list[Made], told: list[Told], rng: np.random.Generator) -> tuple[list[Made], list[Told]]:
    return made, [one for one in told if share_of(one.id) < 0.5]


def _silent(made: list[Made], told: list[Told], rng: np.random.Generator) -> tuple[list[Made], list[Told]]:
    return made, [one for one in told if one.source != "truth-us" or one.at_us < (FIRST_HOUR + 48) * HOUR_US]


def _late(made: list[Made], told: list[Told], rng: np.random.Generator) -> tuple[list[Made], list[Told]]:
    slow = rng.random(len(told)) < 0.5
    return made, [
        Told(id=one.id, at_us=one.at_us + 30 * HOUR_US * bool(late), of=one.of, source=one.source)
        for one, late in zip(told, slow, strict=True)
    ]


def _none(made: list[Made], told: list[Told], rng: np.random.Generator) -> tuple[list[Made], list[Told]]:
    return made, []


def _seldom(made: list[Made], told: list[Told], rng: np.random.Generator) -> tuple[list[Made], list[Told]]:
    return made, [one for one in told if rng.random() < (0.3 if one.of.slice_name == "part=c" else 0.75)]


def uuid_le(one: bytes) -> bytes:
    """As some databases store a UUID."""
    return one[3::-1] + one[5:3:-1] + one[7:5:-1] + one[8:]


@pytest.mark.parametrize(
    ("broken", "cause", "words"),
    [
        (
            _stopped,
            Cause.OUTCOMES_STOPPED,
            "the last (truth-eu and truth-us) are of the hour from 2013-03",
        ),
        (_swapped, Cause.IDS_DO_NOT_MATCH, "their first three fields are little-endian"),
        (_shifted, Cause.IDS_DO_NOT_MATCH, "the time in them is another, 3,600 s later"),
        (_own, Cause.IDS_DO_NOT_MATCH, "well formed but unknown"),
        (_sampled, Cause.SAMPLING_MISMATCH, "of ids with other hashes"),
        (_half, Cause.SAMPLING_MISMATCH, "in 50% of its range"),
        (_silent, Cause.SOURCE_SILENT, "truth-us has sent no outcome since 2013-03-03"),
        (_late, Cause.TOO_LATE, "later than the window of 1 day"),
        (_none, Cause.NEVER_ANY, "No outcome of label type default has ever come"),
        (_seldom, Cause.NEVER_LABELLED, "Least have part=c"),
    ],
)
def test_each_way_to_lose_outcomes_is_told_by_its_name(
    store: ParquetFactStore, broken: Callable[..., tuple[list[Made], list[Told]]], cause: Cause, words: str
) -> None:
    send(store, *broken(*streams(11, days=DAYS), np.random.default_rng(1)))
    found = findings(asked(store)[0], 0.8)
    assert found[0].cause is cause, found
    assert words in found[0].explanation


def test_what_is_known_of_senders_outlives_a_restart(tmp_path: Path) -> None:
    made, told = streams(2, days=3)
    config = StoreConfig(join_every=timedelta(hours=1), speed_window=timedelta(hours=2))
    first = ParquetFactStore(tmp_path, config)
    first.set_label(MODEL, SPEC)
    send(first, made, told)
    first.submit_outcomes("again", MODEL, "", ipc(outcome_columns([Outcome(made[0].id, made[0].at_us, 1.0)]))).result()
    sent, before = first.sources(), first.missing_facts(MODEL, None, T0, END, END)[0].sources
    first.close()
    second = ParquetFactStore(tmp_path, config)
    try:
        assert second.sources() == sent
        assert second.missing_facts(MODEL, None, T0, END, END)[0].sources == before
    finally:
        second.close()


def test_the_fleet_is_read_from_the_heads_of_partials_and_equals_a_full_read(store: ParquetFactStore) -> None:
    made, told = streams(4, days=DAYS, labelled=0.7)
    send(store, made, told)
    quick = store.fleet_coverage([MODEL], END - timedelta(days=4), END, END)[MODEL]
    full = store.coverage(MODEL, None, quick.start, quick.end, END).total
    assert (quick.mature, quick.joined, quick.absent) == (full.mature, full.joined, full.absent)
    assert quick.mature > 100
    assert quick.end == END - timedelta(days=1)


def test_rows_by_slice_and_version_leave_out_what_waits_for_the_batch_join(store: ParquetFactStore) -> None:
    made, told = streams(4, days=DAYS)
    send(store, made, told)
    whole = store.coverage(MODEL, None, T0, END, END)
    by_slice = store.coverage(MODEL, None, T0, END, END, grain="slice")
    assert by_slice.total == whole.total
    assert [row.slice_name for row in by_slice.rows] == ["part=a", "part=b", "part=c"]
    assert sum(row.mature for row in by_slice.rows) == whole.total.mature
    [only] = store.coverage(MODEL, None, T0, END, END, grain="version").rows
    assert (only.version, only.mature, only.joined) == (1, whole.total.mature, whole.total.joined)
    part = store.coverage(MODEL, None, T0, END, END, slice_name="part=b").total
    assert (part.mature, part.joined) == (by_slice.rows[1].mature, by_slice.rows[1].joined)
    hours = store.coverage(MODEL, None, T0, END, END, grain="hour").rows
    assert sum(row.joined for row in hours) == whole.total.joined
