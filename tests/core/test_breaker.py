"""Circuit breakers: the machine against a dumb twin, and what they let through."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.commands import (
    BypassBreaker,
    LeaseRetrains,
    OpenBreaker,
    RecordProbe,
    ReportFailure,
    ResetBreaker,
    TripBreaker,
)
from control_plane.core.errors import Reason
from control_plane.core.ids import LeaseToken
from control_plane.core.retraining.breaker import (
    DRAIN_FOR,
    DRAIN_PER_MINUTE,
    JITTER,
    OPEN_FOR,
    OPEN_FOR_MAX,
    Call,
    CallOutcome,
    open_for,
    tripped,
)
from control_plane.core.retraining.types import BreakerState, FailureClass
from tests.core.fleets import MINUTE, START, Fleet, reason_of

SECOND = timedelta(seconds=1)


def calls(words: str, every: timedelta = SECOND) -> list[Call]:
    """`s`, `f`, `r`: succeeded, failed, refused; one after the other, the last now."""
    outcomes = {"s": CallOutcome.SUCCEEDED, "f": CallOutcome.FAILED, "r": CallOutcome.REFUSED}
    return [Call(START - (len(words) - 1 - at) * every, outcomes[word], "503") for at, word in enumerate(words)]


@pytest.mark.parametrize(
    ("words", "opens"),
    [
        ("", False),
        ("ffff", False),
        ("fffff", True),
        ("ffsfff", False),
        ("ffrfrff", True),  # refusals are our fault: they neither break a row nor count
        ("rrrrrrrrrrrrrrrrrrrrrr", False),
        ("sf" * 9 + "s", False),
        ("sf" * 10, True),
        ("ssf" * 10, False),
    ],
)
def test_five_in_a_row_or_half_of_twenty_open_it(words: str, opens: bool) -> None:
    assert bool(tripped(calls(words), START)) is opens


def test_what_is_older_than_a_minute_does_not_count_as_a_share() -> None:
    assert tripped(calls("sf" * 10, every=4 * SECOND), START) == ""
    assert tripped(calls("sf" * 10, every=2 * SECOND), START) != ""


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_open_time_doubles_to_a_bound_with_its_jitter(openings: int, jitter: float) -> None:
    plain = OPEN_FOR * 2 ** min(openings - 1, 20)
    found = open_for(openings, jitter)
    if plain * (1 + JITTER) <= OPEN_FOR_MAX:
        assert plain * (1 - JITTER) <= found <= plain * (1 + JITTER)
    else:
        assert OPEN_FOR_MAX * (1 - JITTER) / (1 + JITTER) <= found <= OPEN_FOR_MAX
    # It stays a spread, also at the bound.
    assert open_for(openings, 0) < open_for(openings, 1)


def leased(fleet: Fleet, scheduler: str = "dagster", most: int = 100) -> int:
    """How many leases a scheduler gets now."""
    tokens = tuple(LeaseToken(f"t{number}") for number in range(most))
    known = tuple(r.running_attempt.attempt_id for r in fleet.state.running() if r.running_attempt)
    return fleet.do(LeaseRetrains(scheduler=scheduler, lease_tokens=tokens, known_attempt_ids=known)).changed


def waiting(models: int) -> Fleet:
    """So many retrains that could run."""
    fleet = Fleet()
    for number in range(models):
        fleet.model(f"m{number}", team=f"t{number % 30}")
        fleet.request(f"m{number}")
    return fleet


def test_an_outage_is_ridden_out_and_nothing_is_lost() -> None:
    fleet = waiting(40)
    fleet.do(OpenBreaker(scheduler="dagster", reason="503", jitter=0.5))
    assert leased(fleet) == 0
    assert leased(fleet, "airflow") == 40 - leased(fleet)
    assert fleet.state.breakers["dagster"].open_until == fleet.now + OPEN_FOR


def test_one_probe_at_a_time_three_successes_and_a_bounded_drain() -> None:
    fleet = waiting(40)
    fleet.do(OpenBreaker(scheduler="dagster", reason="503", jitter=0.5))
    assert fleet.pass_time(OPEN_FOR - SECOND) == []
    assert fleet.pass_time(SECOND) == ["BreakerChanged"]
    for _ in range(3):
        assert (leased(fleet), leased(fleet)) == (1, 0)
        [probe] = [r.running_attempt for r in fleet.state.running() if r.running_attempt and r.running_attempt.probe]
        fleet.train(probe.attempt_id)
    assert fleet.state.breakers["dagster"].state is BreakerState.CLOSED
    assert (leased(fleet), leased(fleet)) == (DRAIN_PER_MINUTE, 0)
    fleet.now += MINUTE + SECOND
    assert leased(fleet) == DRAIN_PER_MINUTE
    fleet.now += DRAIN_FOR
    assert leased(fleet) == 40 - 3 - 2 * DRAIN_PER_MINUTE


def test_the_drain_counts_what_has_ended_within_its_minute_too() -> None:
    fleet = waiting(40)
    fleet.do(TripBreaker(scheduler="dagster", by="anna", reason="upgrade"))
    fleet.do(ResetBreaker(scheduler="dagster"))
    assert leased(fleet) == DRAIN_PER_MINUTE
    for retrain in list(fleet.state.running()):
        assert retrain.running_attempt is not None
        fleet.train(retrain.running_attempt.attempt_id)
    assert not fleet.state.running()
    fleet.now += MINUTE - SECOND
    assert leased(fleet) == 0
    fleet.now += SECOND
    assert leased(fleet) == DRAIN_PER_MINUTE


@pytest.mark.parametrize("succeeded", [True, False])
def test_a_bypass_outlasts_what_trying_out_comes_to_until_it_is_reset(succeeded: bool) -> None:
    fleet = waiting(4)
    fleet.do(OpenBreaker(scheduler="dagster", reason="503", jitter=0.5))
    fleet.do(BypassBreaker(scheduler="dagster", by="anna"))
    fleet.pass_time(OPEN_FOR)
    for _ in range(3 if succeeded else 1):
        fleet.do(RecordProbe(scheduler="dagster", succeeded=succeeded, detail="", jitter=0.5))
    breaker = fleet.state.breakers["dagster"]
    assert breaker.state is (BreakerState.CLOSED if succeeded else BreakerState.OPEN)
    assert breaker.bypassed_by == "anna"
    assert leased(fleet, most=4) == 4
    fleet.do(ResetBreaker(scheduler="dagster"))
    assert fleet.state.breakers["dagster"].bypassed_by == ""


def test_a_probe_that_cannot_be_started_opens_it_for_twice_as_long_and_its_retrain_waits_on() -> None:
    fleet = waiting(1)
    fleet.do(OpenBreaker(scheduler="dagster", reason="503", jitter=0.5))
    fleet.pass_time(OPEN_FOR)
    assert leased(fleet) == 1
    [attempt] = [r.running_attempt for r in fleet.state.running() if r.running_attempt]
    fleet.do(
        ReportFailure(
            attempt_id=attempt.attempt_id,
            lease_token=attempt.lease_token,
            failure="connection refused",
            failure_class=FailureClass.SCHEDULER,
        )
    )
    breaker = fleet.state.breakers["dagster"]
    assert breaker.state is BreakerState.OPEN
    assert breaker.open_until is not None
    assert 2 * OPEN_FOR * (1 - JITTER) <= breaker.open_until - fleet.now <= 2 * OPEN_FOR * (1 + JITTER)
    assert len(fleet.state.live_retrains) == 1
    assert leased(fleet) == 0


def test_a_probe_that_nobody_hears_of_any_more_opens_it_again() -> None:
    fleet = waiting(1)
    fleet.do(OpenBreaker(scheduler="dagster", reason="503", jitter=0.5))
    fleet.pass_time(OPEN_FOR)
    assert leased(fleet) == 1
    assert "BreakerChanged" in fleet.pass_time(timedelta(minutes=11))  # longer than a lease
    breaker = fleet.state.breakers["dagster"]
    assert (breaker.state, breaker.openings) == (BreakerState.OPEN, 2)
    assert "nothing was heard of its retrain" in breaker.reason


def test_by_hand_it_stays_open_until_it_is_reset_and_a_bypass_leases_all_the_same() -> None:
    fleet = waiting(4)
    assert reason_of(lambda: fleet.do(ResetBreaker(scheduler="dagster"))) is Reason.SCHEDULER_NOT_FOUND
    fleet.do(TripBreaker(scheduler="dagster", by="anna", reason="upgrade"))
    fleet.pass_time(timedelta(days=1))
    assert leased(fleet, most=1) == 0
    fleet.do(BypassBreaker(scheduler="dagster", by="anna"))
    assert leased(fleet, most=1) == 1
    fleet.do(ResetBreaker(scheduler="dagster"))
    assert fleet.state.breakers["dagster"].state is BreakerState.CLOSED


@given(st.lists(st.sampled_from(["open", "good", "bad", "time", "reset", "trip"]), max_size=30))
def test_the_machine_is_the_twins(words: list[str]) -> None:
    """The twin knows a state, a count of successes and a count of openings, and nothing of the code."""
    fleet = Fleet()
    state, successes, openings, until = "CLOSED", 0, 0, None
    for word in words:
        match word:
            case "open":
                fleet.do(OpenBreaker(scheduler="x", reason="503", jitter=0.5))
                if state == "CLOSED":
                    openings += 1
                    state, until = "OPEN", fleet.now + min(OPEN_FOR * 2 ** (openings - 1), OPEN_FOR_MAX)
            case "good" | "bad":
                fleet.do(RecordProbe(scheduler="x", succeeded=word == "good", detail="", jitter=0.5))
                if state == "HALF_OPEN" and word == "good":
                    successes += 1
                    if successes == 3:
                        state, openings = "CLOSED", 0
                elif state == "HALF_OPEN":
                    openings += 1
                    state, until = "OPEN", fleet.now + min(OPEN_FOR * 2 ** (openings - 1), OPEN_FOR_MAX)
            case "time":
                fleet.pass_time(timedelta(minutes=2))
                if state == "OPEN" and until is not None and fleet.now >= until:
                    state, successes = "HALF_OPEN", 0
            case "reset" if "x" in fleet.state.breakers:
                fleet.do(ResetBreaker(scheduler="x"))
                state, openings = "CLOSED", 0
            case "trip":
                fleet.do(TripBreaker(scheduler="x", by="anna", reason=""))
                state, until, openings = "OPEN", None, 0
        found = fleet.state.breakers.get("x")
        assert (found.state.value if found else "CLOSED") == state
