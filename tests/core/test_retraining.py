"""Rules of retraining, by example and by property."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.core.commands import (
    CancelRetrain,
    CloseHealed,
    ExpireAttempt,
    HoldRetrain,
    HoldRetraining,
    LeaseRetrains,
    ReleaseRetrain,
    RenewLease,
    ReportFailure,
    ReportSuccess,
    RequestRetrain,
    SetLimits,
)
from control_plane.core.decide import decide
from control_plane.core.errors import Invalid, Reason
from control_plane.core.ids import AttemptId, LeaseToken, ModelId, RetrainId
from control_plane.core.plan import plan
from control_plane.core.retraining.failures import BACKOFF_DOUBLINGS_MAX, classify, retry_at
from control_plane.core.retraining.limits import Claim, Usage
from control_plane.core.retraining.rules import (
    AGING,
    BACKOFF_MAX,
    SPAN_MAX,
    Asking,
    policy_violations,
    priority,
    releasable,
)
from control_plane.core.retraining.types import (
    Attempt,
    AttemptState,
    FailureClass,
    Retrain,
    RetrainCause,
    RetrainingLimits,
    RetrainingPolicy,
    RetrainState,
)
from control_plane.core.snapshots import encode_snapshot
from tests.core.fleets import HOUR, MINUTE, START, Fleet, reason_of

POLICY = RetrainingPolicy(lease_ttl=10 * MINUTE, attempt_timeout=HOUR, attempts_max=3, retry_backoff=5 * MINUTE)


def a_retrain(number: int, *, score: float = 0.5, requested_s: int = 0, model_id: str = "") -> Retrain:
    """A waiting one."""
    at = START + timedelta(seconds=requested_s)
    return Retrain(
        retrain_id=RetrainId(f"rt_{number:06d}"),
        model_id=ModelId(model_id or f"m{number}"),
        state=RetrainState.WAITING,
        causes=(RetrainCause.STALE,),
        score=score,
        requested_at=at,
        requested_by="runway",
        reason="",
        not_before=at,
    )


# Requests


def test_one_live_retrain_per_model() -> None:
    fleet = Fleet()
    fleet.model("m")
    first = fleet.request("m")
    assert first.created
    second = fleet.request("m")
    assert (second.created, second.retrain_id) == (False, first.retrain_id)
    stale = RequestRetrain(model_id=ModelId("m"), cause=RetrainCause.STALE)
    assert fleet.new_events(stale) == ["RetrainJoined"]
    assert fleet.new_events(stale) == []
    assert fleet.state.retrains[RetrainId("rt_000001")].causes == (RetrainCause.OPERATOR, RetrainCause.STALE)


def test_a_retrain_waits_for_the_models_own_cooldown_which_an_operator_may_lift() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.request("m", ignore_cooldown=False)
    assert fleet.lease() == ()
    fleet.request("m", ignore_cooldown=True)
    assert len(fleet.lease()) == 1


def test_a_backoff_is_kept_though_the_cooldown_is_lifted() -> None:
    fleet = Fleet()
    fleet.model("m", policy=POLICY)
    fleet.request("m", ignore_cooldown=False)
    [attempt] = fleet.lease()
    fleet.do(ReportFailure(attempt_id=attempt, lease_token=fleet.token(attempt), failure="x"))
    fleet.request("m", ignore_cooldown=True)
    assert fleet.lease() == ()
    fleet.pass_time(5 * MINUTE)
    assert len(fleet.lease()) == 1


def test_stale_models_are_asked_for_once_and_healed_ones_are_let_go() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.look("m", stale=True)
    assert fleet.pass_time(25 * HOUR) == ["RetrainRequested"]
    assert fleet.pass_time(MINUTE) == []
    fleet.look("m", stale=False)
    assert fleet.pass_time(MINUTE) == ["RetrainEnded"]
    assert fleet.state.retrains[RetrainId("rt_000002")].conclusion.startswith("no longer needed")


def test_a_retrain_that_somebody_asked_for_is_not_let_go_when_the_model_heals() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.look("m", stale=True)
    fleet.pass_time(25 * HOUR)
    fleet.request("m")
    fleet.look("m", stale=False)
    assert fleet.pass_time(MINUTE) == []
    assert fleet.new_events(CloseHealed(retrain_id=RetrainId("rt_000002"))) == []


def test_a_model_that_does_not_retrain_by_itself_waits_for_a_person() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True, policy=RetrainingPolicy(automatic=False))
    fleet.look("m", stale=True)
    assert fleet.pass_time(100 * HOUR) == []


# Leases


def test_what_is_upstream_goes_first_even_through_models_that_are_not_retrained() -> None:
    fleet = Fleet()
    for name in "abc":
        fleet.model(name)
    fleet.edge("a", "b")
    fleet.edge("b", "c")
    fleet.request("c")
    fleet.request("a")
    [first] = fleet.lease()
    assert fleet.leased_models((first,)) == ["a"]
    version = fleet.train(first)
    assert fleet.lease(known=(first,)) == ()
    fleet.validate("a", version, passed=False)
    assert fleet.leased_models(fleet.lease()) == ["c"]


def test_a_promotion_cools_everything_downstream_down() -> None:
    fleet = Fleet()
    for name in "abc":
        fleet.model(name)
    fleet.edge("a", "b")
    fleet.edge("b", "c")
    fleet.promote(ModelId("a"))
    for name in "bc":
        fleet.request(name, ignore_cooldown=False)
    assert fleet.lease() == ()
    fleet.pass_time(4 * HOUR)
    assert fleet.leased_models(fleet.lease()) == ["b"]


def test_a_hold_gives_back_what_was_leased_but_nothing_new() -> None:
    fleet = Fleet()
    fleet.model("a")
    fleet.model("b")
    fleet.request("a")
    lost = fleet.lease()
    fleet.request("b")
    fleet.do(HoldRetraining())
    assert fleet.lease() == lost
    assert fleet.lease(known=lost) == ()


def test_a_token_that_was_not_given_is_worth_nothing() -> None:
    fleet = Fleet()
    fleet.model("m")
    fleet.request("m")
    [attempt] = fleet.lease()
    wrong, right = LeaseToken("guess"), fleet.token(attempt)
    for act in (
        lambda: fleet.do(RenewLease(attempt_id=attempt, lease_token=wrong)),
        lambda: fleet.do(ReportSuccess(attempt_id=attempt, lease_token=wrong, version=1)),
        lambda: fleet.do(ReportFailure(attempt_id=attempt, lease_token=wrong, failure="x")),
    ):
        assert reason_of(act) is Reason.LEASE_LOST
    assert fleet.new_events(RenewLease(attempt_id=attempt, lease_token=right)) == ["LeaseRenewed"]
    missing = ReportSuccess(attempt_id=AttemptId("rt_000009_a1"), lease_token=right, version=1)
    assert reason_of(lambda: fleet.do(missing)) is Reason.ATTEMPT_NOT_FOUND


def test_a_lease_counts_until_its_last_instant() -> None:
    fleet = Fleet()
    fleet.model("m", policy=POLICY)
    fleet.request("m")
    [attempt] = fleet.lease()
    fleet.now += 10 * MINUTE
    expire = ExpireAttempt(attempt_id=attempt)
    assert fleet.new_events(expire) == []
    fleet.do(RenewLease(attempt_id=attempt, lease_token=fleet.token(attempt)))
    fleet.now += 10 * MINUTE + timedelta(microseconds=1)
    assert plan(fleet.state, fleet.now) == [expire]
    assert fleet.new_events(expire) == ["AttemptEnded"]
    assert fleet.new_events(expire) == []


def test_attempts_are_counted_whatever_ends_them() -> None:
    fleet = Fleet()
    fleet.model("m", policy=POLICY)
    fleet.request("m")
    [first] = fleet.lease()
    fleet.do(ReportFailure(attempt_id=first, lease_token=fleet.token(first), failure="x"))
    fleet.pass_time(5 * MINUTE)
    fleet.lease()
    fleet.pass_time(11 * MINUTE)
    fleet.pass_time(10 * MINUTE)
    [third] = fleet.lease()
    assert third == "rt_000001_a3"
    fleet.do(ReportFailure(attempt_id=third, lease_token=fleet.token(third), failure="y", run="run-3"))
    retrain = fleet.state.retrains[RetrainId("rt_000001")]
    assert (retrain.state, retrain.conclusion) == (RetrainState.FAILED, "failed after 3 attempts: y (log: run-3)")
    assert not fleet.state.live_retrains


def test_cancelling_ends_whatever_state_it_is_in() -> None:
    fleet = Fleet()
    for name in ("waiting", "running", "validating"):
        fleet.model(name)
    cancel = [CancelRetrain(retrain_id=RetrainId(f"rt_00000{n}")) for n in (1, 2, 3)]
    fleet.request("validating")
    fleet.train(fleet.lease()[0])
    fleet.request("running")
    fleet.lease()
    fleet.request("waiting")
    assert fleet.new_events(cancel[0]) == ["AliasMoved", "RolloutEnded", "RetrainEnded"]
    assert fleet.new_events(cancel[1]) == ["AttemptEnded", "RetrainEnded"]
    assert fleet.new_events(cancel[2]) == ["RetrainEnded"]
    assert reason_of(lambda: fleet.do(cancel[2])) is Reason.RETRAIN_FINISHED
    assert not fleet.state.live_retrains
    assert fleet.state.models[ModelId("validating")].aliases == {}


# The queue


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.integers(0, 400_000), st.integers(1, 4)), min_size=2, max_size=8
    ),
    st.integers(0, 1_000_000),
)
def test_the_order_of_the_queue_is_total(facts: list[tuple[float, int, int]], now_s: int) -> None:
    now = START + timedelta(seconds=now_s)
    keys = [
        priority(a_retrain(number, score=score, requested_s=at), tier, now)
        for number, (score, at, tier) in enumerate(facts)
    ]
    assert len(set(keys)) == len(keys)
    # The twin: a full sort by the sentence in the docstring.
    by_hand = sorted(
        range(len(facts)),
        key=lambda n: (
            facts[n][2] - max(now_s - facts[n][1], 0) // 86_400,
            -facts[n][0],
            facts[n][1],
            n,
        ),
    )
    assert sorted(range(len(keys)), key=lambda n: keys[n]) == by_hand


def test_nobody_starves_however_many_important_requests_come() -> None:
    """One slot, one day of training each, and every day a fresh request of tier 1: the tier 4 still gets its turn."""
    patient = a_retrain(0, score=0.0, model_id="patient")
    waited = 0
    while True:
        now = START + waited * AGING
        fresh = a_retrain(1 + waited, score=1.0, requested_s=waited * 86_400, model_id="urgent")
        [chosen] = _released([patient, fresh], now, {"patient": 4, "urgent": 1}, running_max=1)
        if chosen is patient:
            break
        waited += 1
    assert waited == 4


def _released(
    retrains: list[Retrain], now: datetime, tiers: dict[str, int], *, running_max: int, per_team: int = 100
) -> list[Retrain]:
    usage = Usage(limits=RetrainingLimits(running_max=running_max, running_per_team_max=per_team))

    def claim(retrain: Retrain) -> Claim:
        return Claim(
            tier=tiers.get(retrain.model_id, 2), team=retrain.model_id[:1], resource_class="default", gpu_hours=0.0
        )

    for retrain in retrains:
        if retrain.state is RetrainState.RUNNING:
            usage.take(claim(retrain), "dagster")
    asking = Asking(
        scheduler="dagster",
        now=now,
        tier=lambda model_id: tiers.get(model_id, 2),
        claim=claim,
        scheduler_of=lambda _: "",
        wave_of=lambda _: 1,
        cooling_until=lambda _: None,
        unsettled=lambda _: False,
    )
    return releasable(retrains, asking, usage, 1000)


@given(
    teams=st.lists(st.sampled_from("abc"), max_size=12),
    running=st.lists(st.booleans(), min_size=12, max_size=12),
    running_max=st.integers(1, 6),
    per_team=st.integers(1, 4),
)
def test_limits_are_kept_exactly_and_no_slot_stays_free_for_nothing(
    teams: list[str], running: list[bool], running_max: int, per_team: int
) -> None:
    busy = 0
    retrains: list[Retrain] = []
    for number, team in enumerate(teams):
        retrain = a_retrain(number, model_id=f"{team}{number}")
        of_team = sum(r.state is RetrainState.RUNNING and r.model_id[0] == team for r in retrains)
        if running[number] and busy < running_max and of_team < per_team:
            busy += 1
            retrain = _running(retrain)
        retrains.append(retrain)
    chosen = _released(retrains, START, {}, running_max=running_max, per_team=per_team)
    after = [r for r in retrains if r.state is RetrainState.RUNNING] + chosen
    by_team = {team: sum(r.model_id[0] == team for r in after) for team in "abc"}
    assert len(after) <= running_max
    assert max(by_team.values()) <= per_team
    left = [r for r in retrains if r not in after]
    assert len(after) == running_max or all(by_team[r.model_id[0]] == per_team for r in left)


def _running(retrain: Retrain) -> Retrain:
    attempt = Attempt(
        attempt_id=AttemptId(f"{retrain.retrain_id}_a1"),
        number=1,
        state=AttemptState.RUNNING,
        scheduler="dagster",
        lease_token=LeaseToken("t"),
        leased_at=START,
        expires_at=START + HOUR,
    )
    return Retrain(
        retrain_id=retrain.retrain_id,
        model_id=retrain.model_id,
        state=RetrainState.RUNNING,
        causes=retrain.causes,
        score=retrain.score,
        requested_at=retrain.requested_at,
        requested_by="",
        reason="",
        not_before=START,
        attempts=(attempt,),
    )


# Policies and limits


@given(st.integers(1, 20), st.timedeltas(timedelta(0), BACKOFF_MAX))
def test_backoff_doubles_and_never_leaves_the_calendar(number: int, backoff: timedelta) -> None:
    retrain = _running(a_retrain(1))
    tried = replace(retrain, attempts=tuple(_numbered(retrain.attempts[0], one + 1) for one in range(number)))
    policy = RetrainingPolicy(retry_backoff=backoff, attempts_max=20)
    at = retry_at(policy, tried, FailureClass.UNKNOWN, START)
    if number == 20:
        assert at is None
    else:
        assert at == START + backoff * 2 ** min(number - 1, BACKOFF_DOUBLINGS_MAX)


def _numbered(attempt: Attempt, number: int) -> Attempt:
    return Attempt(
        attempt_id=attempt.attempt_id,
        number=number,
        state=attempt.state,
        scheduler="",
        lease_token=attempt.lease_token,
        leased_at=START,
        expires_at=START,
    )


def test_the_limits_of_spans_keep_time_on_the_calendar() -> None:
    assert BACKOFF_MAX * 2**BACKOFF_DOUBLINGS_MAX <= SPAN_MAX
    endless = timedelta.max
    names = {"cooldown", "cascade_cooldown", "lease_ttl", "attempt_timeout", "retry_backoff"}
    for name in names:
        found = policy_violations(replace(RetrainingPolicy(), **{name: endless}))
        assert f"retraining.{name}" in {violation.field for violation in found}
    wrong = RetrainingPolicy(
        cooldown=-MINUTE,
        cascade_cooldown=-MINUTE,
        retry_backoff=-MINUTE,
        lease_ttl=timedelta(0),
        attempt_timeout=-MINUTE,
        attempts_max=0,
    )
    assert {violation.field.partition(".")[2] for violation in policy_violations(wrong)} == {*names, "attempts_max"}
    assert policy_violations(RetrainingPolicy()) == []
    short = policy_violations(RetrainingPolicy(lease_ttl=HOUR, attempt_timeout=MINUTE))
    assert [violation.field for violation in short] == ["retraining.attempt_timeout"]


def test_limits_that_let_nothing_run_are_refused_with_every_violation() -> None:
    fleet = Fleet()
    with pytest.raises(Invalid) as caught:
        fleet.do(SetLimits(limits=RetrainingLimits(running_max=0, running_per_team_max=-1)))
    assert [violation.field for violation in caught.value.violations] == [
        "limits.running_max",
        "limits.running_per_team_max",
    ]


def test_deciding_changes_nothing() -> None:
    fleet = Fleet()
    fleet.model("m")
    fleet.request("m")
    before = encode_snapshot(fleet.state)
    lease = LeaseRetrains(scheduler="dagster", lease_tokens=(LeaseToken("t"),))
    first, second = decide(fleet.state, lease, fleet.now), decide(fleet.state, lease, fleet.now)
    assert first == second
    assert encode_snapshot(fleet.state) == before


# Requests, failures, budgets


def test_a_retrain_is_held_and_goes_on_when_it_is_released() -> None:
    fleet = Fleet()
    fleet.model("m")
    retrain_id = fleet.request("m").retrain_id
    assert retrain_id is not None
    fleet.do(HoldRetrain(retrain_id=retrain_id))
    assert fleet.lease() == ()
    assert fleet.pass_time(timedelta(days=100)) == []
    fleet.do(ReleaseRetrain(retrain_id=retrain_id))
    assert fleet.pass_time(MINUTE) == []
    assert fleet.leased_models(fleet.lease()) == ["m"]


def test_a_superseding_request_takes_the_place_of_a_running_one() -> None:
    fleet = Fleet()
    fleet.model("m")
    first = fleet.request("m").retrain_id
    [attempt] = fleet.lease()
    token = fleet.token(attempt)
    again = RequestRetrain(model_id=ModelId("m"), cause=RetrainCause.OPERATOR, supersede=True, ignore_cooldown=True)
    second = fleet.do(again).retrain_id
    assert first is not None
    assert second is not None
    assert (fleet.state.retrains[first].state, fleet.state.retrains[first].superseded_by) == (
        RetrainState.SUPERSEDED,
        second,
    )
    late = ReportFailure(attempt_id=attempt, lease_token=token, failure="x")
    assert reason_of(lambda: fleet.do(late)) is Reason.LEASE_LOST
    assert fleet.leased_models(fleet.lease()) == ["m"]


def fail(fleet: Fleet, failure: str, failure_class: FailureClass | None = None) -> Retrain:
    """The running attempt fails; its retrain after that."""
    [attempt] = fleet.lease()
    retrain = fleet.state.retrain_of_attempt(attempt)
    fleet.do(
        ReportFailure(
            attempt_id=attempt, lease_token=fleet.token(attempt), failure=failure, failure_class=failure_class
        )
    )
    return fleet.state.retrains[retrain.retrain_id]


def test_what_is_nobodys_fault_does_not_count_as_an_attempt() -> None:
    fleet = Fleet()
    fleet.model("m", policy=replace(POLICY, preemptions_max=4))
    fleet.request("m")
    for _ in range(4):
        assert fail(fleet, "spot instance was preempted").state is RetrainState.WAITING
    for _ in range(6):
        assert fail(fleet, "503", FailureClass.SCHEDULER).state is RetrainState.WAITING
    assert "preempted too often" in fail(fleet, "node was drained").conclusion


def test_out_of_memory_asks_for_more_and_a_bug_is_not_tried_again() -> None:
    fleet = Fleet()
    fleet.model("m", policy=replace(POLICY, attempts_max=4))
    fleet.request("m")
    scales = []
    for _ in range(3):
        after = fail(fleet, "CUDA out of memory. Tried to allocate 20.00 MiB")
        scales.append(after.attempts[-1].memory_scale)
        fleet.now += HOUR
    assert scales == [1, 2, 4]
    ended = fail(fleet, "KeyError: 'distance'")
    assert (ended.state, ended.attempts[-1].failure_class) == (RetrainState.FAILED, FailureClass.BUG)


@pytest.mark.parametrize(
    ("failure", "failure_class"),
    [
        ("Container killed: exit code 137", FailureClass.OUT_OF_MEMORY),
        ("java.lang.OutOfMemoryError: Java heap space", FailureClass.OUT_OF_MEMORY),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'x.parquet'", FailureClass.DATA_MISSING),
        ("partition ds=2026-01-01 of table clicks not found", FailureClass.DATA_MISSING),
        ("pod was evicted", FailureClass.PREEMPTED),
        ("deadline exceeded after 6h", FailureClass.TIMEOUT),
        ("TypeError: unsupported operand", FailureClass.BUG),
        ("loss is 0.3, nothing to see", FailureClass.UNKNOWN),
        ("the training room of bloomington", FailureClass.UNKNOWN),
    ],
)
def test_failures_are_told_apart_by_what_they_say(failure: str, failure_class: FailureClass) -> None:
    assert classify(failure) is failure_class


def test_a_budget_is_never_exceeded_by_what_was_expected_and_begins_anew_on_monday() -> None:
    fleet = Fleet()
    for name in "abc":
        fleet.model(name, policy=replace(POLICY, gpus=2.0, duration_expected=HOUR))
        fleet.request(name)
    fleet.do(SetLimits(limits=RetrainingLimits(gpu_hours_per_week={"flights": 4.5})))
    assert len(fleet.lease()) == 2
    for retrain in fleet.state.running():
        attempt = retrain.running_attempt
        assert attempt is not None
        fleet.do(ReportFailure(attempt_id=attempt.attempt_id, lease_token=attempt.lease_token, failure="TypeError"))
    # They ran for no time and spent nothing: the third has room.
    assert len(fleet.lease()) == 1
    [third] = fleet.state.running()
    attempt = third.running_attempt
    assert attempt is not None
    fleet.do(
        ReportFailure(
            attempt_id=attempt.attempt_id, lease_token=attempt.lease_token, failure="TypeError", gpu_hours=4.0
        )
    )
    fleet.request("a")
    assert fleet.lease() == ()
    monday = fleet.now.replace(hour=0, minute=0) + timedelta(days=7 - fleet.now.weekday())
    fleet.now = monday - MINUTE
    assert fleet.lease() == ()
    fleet.now = monday
    assert len(fleet.lease()) == 1


def test_a_reserve_is_for_tier_1_alone() -> None:
    fleet = Fleet()
    for number in range(6):
        fleet.model(f"m{number}", tier=2, team=f"t{number}")
        fleet.request(f"m{number}")
    fleet.do(SetLimits(limits=RetrainingLimits(running_max=4, tier1_reserve=2)))
    assert len(fleet.lease()) == 2
    fleet.model("urgent", tier=1)
    fleet.request("urgent")
    assert fleet.leased_models(
        fleet.lease(known=tuple(a.attempt_id for r in fleet.state.running() for a in r.attempts))
    ) == ["urgent"]


def test_a_schedulers_models_are_its_own_and_its_slots_are_counted() -> None:
    fleet = Fleet()
    for number in range(4):
        fleet.model(f"m{number}", policy=replace(POLICY, scheduler="airflow"))
        fleet.request(f"m{number}")
    fleet.do(SetLimits(limits=RetrainingLimits(by_scheduler={"airflow": 3})))
    assert fleet.lease() == ()
    tokens = tuple(LeaseToken(f"x{number}") for number in range(10))
    assert fleet.do(LeaseRetrains(scheduler="airflow", lease_tokens=tokens)).changed == 3


def test_a_model_that_nobody_retrained_for_long_is_asked_for_by_its_schedule() -> None:
    fleet = Fleet()
    fleet.model("m", policy=replace(POLICY, cooldown=HOUR, every=timedelta(days=30)), serving=True)
    assert fleet.pass_time(timedelta(days=29)) == []
    assert fleet.pass_time(timedelta(days=1)) == ["RetrainRequested"]
    [retrain] = fleet.state.living()
    assert retrain.causes == (RetrainCause.SCHEDULE,)
