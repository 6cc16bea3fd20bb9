"""Why truth is missing: simulated streams, broken in one way or two, and what the rules say first."""

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pytest

from control_plane.core.ground_truth.causes import findings
from control_plane.core.ground_truth.coverage import (
    PartCoverage,
    coverage_of,
    is_low,
    low_parts,
    standard_error,
)
from control_plane.core.ground_truth.findings import Cause, Finding
from control_plane.core.ground_truth.ids import uuid7
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.silence import silences
from tests.reference.missing_twin import FIRST_HOUR, HOUR_US, Made, Told, facts_of, renamed, share_of, streams

SPEC = LabelSpec(window=timedelta(days=1))
DAYS, NOW = 13, 12 * 24
SEEDS = range(3)
Broken = tuple[list[Made], list[Told]]


def told_why(made: list[Made], told: list[Told], minimum: float = 0.8) -> tuple[Finding, ...]:
    """Findings about the days from the fifth on."""
    return findings(facts_of(made, told, SPEC, first_day=4, until=NOW), minimum)


def stopped(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """Nothing came since the seventh day."""
    return made, [one for one in told if one.at_us < (FIRST_HOUR + 7 * 24) * HOUR_US]


def paused(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """Nothing came on four days in the middle; that was lost."""
    start, end = (FIRST_HOUR + 5 * 24 + 7) * HOUR_US, (FIRST_HOUR + 9 * 24 + 7) * HOUR_US
    return made, [one for one in told if not start <= one.at_us < end]


def reversed_ids(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """All ids come with their bytes the wrong way round."""
    return made, renamed(told, {one.id: one.id[::-1] for one in told})


def own_ids(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """Each outcome has an id of its own, well formed and of about that time."""
    fresh = {one.id: uuid7(one.at_us // 1000, int(rng.integers(0, 2**62))).bytes for one in told}
    return made, renamed(told, fresh)


def keys(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """Ids are keys of a database: half of the time."""
    fresh = {one.id: rng.bytes(6) + b"\x00" + rng.bytes(9) for one in told if rng.random() < 0.6}
    return made, renamed(told, fresh)


def one_sender_own_ids(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """One of two senders makes up ids."""
    fresh = {
        one.id: uuid7(one.at_us // 1000, int(rng.integers(0, 2**62))).bytes for one in told if one.source == "truth-eu"
    }
    return made, renamed(told, fresh)


def one_sender_silent(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """One of two senders stopped on the sixth day."""
    since = (FIRST_HOUR + 6 * 24) * HOUR_US
    return made, [one for one in told if one.source != "truth-us" or one.at_us < since]


def one_slice_silent(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """One slice has none."""
    return made, [one for one in told if one.of.slice_name != "part=b"]


def senders_predictions_without(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """Predictions of one sender never get any."""
    return made, [one for one in told if one.of.source != "us"]


def half_of_the_hashes(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """Outcomes are sampled at 50 %."""
    return made, [one for one in told if share_of(one.id) < 0.5]


def other_hashes(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """Predictions of the lower third, outcomes of the upper two thirds."""
    return [one for one in made if one.share < 0.4], [one for one in told if share_of(one.id) > 0.3]


def drawn_apart(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """Both sides keep half, by the throw of a coin."""
    return [one for one in made if rng.random() < 0.5], [one for one in told if rng.random() < 0.5]


def too_late(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """Half of the outcomes take a day and a half."""
    slow = rng.random(len(told)) < 0.5
    return made, [
        Told(id=one.id, at_us=one.at_us + (36 * HOUR_US if late else 0), of=one.of, source=one.source)
        for one, late in zip(told, slow, strict=True)
    ]


def none(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """No outcome at all."""
    return made, []


def seldom(made: list[Made], told: list[Told], rng: np.random.Generator) -> Broken:
    """A third never gets one, whatever it is."""
    return made, [one for one in told if rng.random() < 0.66]


BROKEN: dict[Callable[[list[Made], list[Told], np.random.Generator], Broken], Cause] = {
    stopped: Cause.OUTCOMES_STOPPED,
    paused: Cause.OUTCOMES_STOPPED,
    reversed_ids: Cause.IDS_DO_NOT_MATCH,
    own_ids: Cause.IDS_DO_NOT_MATCH,
    keys: Cause.IDS_DO_NOT_MATCH,
    one_sender_own_ids: Cause.IDS_DO_NOT_MATCH,
    one_sender_silent: Cause.SOURCE_SILENT,
    one_slice_silent: Cause.SOURCE_SILENT,
    senders_predictions_without: Cause.SOURCE_SILENT,
    half_of_the_hashes: Cause.SAMPLING_MISMATCH,
    other_hashes: Cause.SAMPLING_MISMATCH,
    drawn_apart: Cause.SAMPLING_MISMATCH,
    too_late: Cause.TOO_LATE,
    none: Cause.NEVER_ANY,
    seldom: Cause.NEVER_LABELLED,
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("broken", BROKEN, ids=lambda one: str(one.__name__))
def test_the_likeliest_cause_is_the_one_that_was_made(
    broken: Callable[[list[Made], list[Told], np.random.Generator], Broken], seed: int
) -> None:
    rng = np.random.default_rng(seed + 100)
    found = told_why(*broken(*streams(seed, days=DAYS), rng))
    assert found[0].cause is BROKEN[broken], [(one.cause, one.share, one.explanation) for one in found]
    assert found[0].share > 0.55, [(one.cause, one.share) for one in found]
    assert sum(one.share for one in found if not one.slice_name) <= 1 + 1e-9
    assert all(one.explanation.endswith((".", ".)")) and one.remedy for one in found)


@pytest.mark.parametrize("seed", range(12))
def test_enough_coverage_needs_no_cause(seed: int) -> None:
    assert told_why(*streams(seed, days=DAYS, labelled=0.9)) == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_two_causes_are_both_found_and_the_larger_is_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    made, told = streams(seed, days=DAYS)
    # Many too late, and then, from the eighth day on, nothing any more.
    late = [
        Told(id=one.id, at_us=one.at_us + 36 * HOUR_US * bool(rng.random() < 0.4), of=one.of, source=one.source)
        for one in told
    ]
    found = told_why(made, [one for one in late if one.at_us < (FIRST_HOUR + 7 * 24) * HOUR_US])
    assert found[0].cause is Cause.OUTCOMES_STOPPED
    assert Cause.TOO_LATE in [one.cause for one in found]
    # Ids of one sender wrong, and a third of the others never labelled.
    fresh = {
        one.id: uuid7(one.at_us // 1000, int(rng.integers(0, 2**62))).bytes for one in told if one.source == "truth-eu"
    }
    some = [one for one in renamed(told, fresh) if one.source == "truth-eu" or rng.random() < 0.66]
    found = told_why(made, some)
    assert [one.cause for one in found][:2] == [Cause.IDS_DO_NOT_MATCH, Cause.NEVER_LABELLED]


def test_a_silent_stream_is_said_before_it_lowers_coverage() -> None:
    made, told = streams(3, days=DAYS)
    fine = facts_of(made, told, SPEC, first_day=4, until=NOW)
    assert silences(fine) == ()
    cut = [one for one in told if one.at_us < (FIRST_HOUR + NOW - 14) * HOUR_US]
    [note] = silences(facts_of(made, cut, SPEC, first_day=4, until=NOW))
    assert note.startswith("no outcome since 2013-03-12 10:00")


def test_a_version_or_slice_that_is_low_by_itself_is_found_though_all_together_is_enough() -> None:
    made, told = streams(5, days=DAYS)
    rng = np.random.default_rng(5)
    found = told_why(made, [one for one in told if one.of.slice_name != "part=c" or rng.random() < 0.5])
    assert [(one.slice_name, one.cause) for one in found] == [("part=c", Cause.NEVER_LABELLED)]


@pytest.mark.parametrize(("known", "mature", "minimum"), [(80, 100, 0.8), (4, 5, 0.8), (55, 100, 0.55), (7, 10, 0.7)])
def test_exactly_the_minimum_is_enough_and_one_less_is_not(known: int, mature: int, minimum: float) -> None:
    assert not is_low(coverage_of(known, mature), minimum)
    assert is_low(coverage_of(known * 1000 - 1, mature * 1000), minimum)


@pytest.mark.parametrize("minimum", [number / 1000 for number in range(1, 1000, 7)])
def test_exactly_any_minimum_is_enough(minimum: float) -> None:
    assert not is_low(coverage_of(round(minimum * 1000), 1000), minimum)


def test_the_standard_error_is_that_of_estimates_from_samples() -> None:
    rng = np.random.default_rng(1)
    whole = rng.random(50_000) < 0.83
    estimates = [float(whole[rng.random(len(whole)) < 0.05].mean()) for _ in range(2_000)]
    told = standard_error(float(whole.sum()), float(len(whole)), 0.05)
    assert abs(np.std(estimates) / told - 1) < 0.06
    assert abs(np.mean(np.abs(np.array(estimates) - whole.mean()) < 1.96 * told) - 0.95) < 0.02
    assert standard_error(8, 10, 1.0) == 0
    assert standard_error(0, 0, 0.5) == 0
    assert standard_error(0, 1000, 0.01) > 0


def test_few_rows_are_never_surely_low() -> None:
    few = [PartCoverage(name="a", mature=20, known=5), PartCoverage(name="b", mature=2_000, known=1_000)]
    assert [part.name for part in low_parts(few, 0.8)] == ["b"]
