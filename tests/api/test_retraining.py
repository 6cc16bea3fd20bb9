"""RetrainingService: requests, leases, reports, and a scheduler that crashes, hangs, forgets or goes away."""

from datetime import timedelta

import grpc
import pytest
from runway.v1 import common_pb2, operations_pb2, policies_pb2, registry_pb2, retraining_pb2

from tests.api.worlds import START, Api, Host, a_version, by, refused, span

WAITING = retraining_pb2.RETRAIN_STATE_WAITING
RUNNING = retraining_pb2.RETRAIN_STATE_RUNNING
VALIDATING = retraining_pb2.RETRAIN_STATE_VALIDATING
FAILED = retraining_pb2.RETRAIN_STATE_FAILED
CANCELLED = retraining_pb2.RETRAIN_STATE_CANCELLED
MINUTE = timedelta(minutes=1)
POLICY = policies_pb2.RetrainingPolicy(
    lease_ttl=span(10 * MINUTE), attempt_timeout=span(60 * MINUTE), attempts_max=3, retry_backoff=span(5 * MINUTE)
)


def report(
    lease: retraining_pb2.Lease, *, failure: str = "", permanent: bool = False, version: int = 0
) -> retraining_pb2.ReportAttemptRequest:
    """A report of an attempt."""
    request = retraining_pb2.ReportAttemptRequest(
        attempt_id=lease.attempt_id, lease_token=lease.lease_token, permanent=permanent, run="run-7"
    )
    if failure:
        request.failure = failure
    else:
        request.succeeded_version = version
    return request


async def test_a_request_waits_is_leased_and_is_reported(api: Api) -> None:
    await api.model("delay", policies=policies_pb2.Policies(retraining=POLICY))
    retrain = await api.retrain("delay")
    assert (retrain.state, retrain.requested_by, retrain.reason) == (WAITING, "tester", "a test")
    [lease] = await api.lease()
    assert (lease.model_id, lease.wave, lease.team) == ("delay", 1, "flights")
    assert lease.expires_at.ToDatetime().timestamp() == (START + 10 * MINUTE).replace(tzinfo=None).timestamp()
    assert (await api.find_retrain(retrain.retrain_id)).state == RUNNING
    version = await api.trained(lease)
    found = await api.find_retrain(retrain.retrain_id)
    assert (found.state, found.attempts[0].version, found.attempts[0].run) == (VALIDATING, version, "run-1")
    registered = await api.registry.GetVersion(registry_pb2.GetVersionRequest(model_id="delay", alias="candidate"))
    assert registered.version.attempt_id == lease.attempt_id


async def test_a_second_request_joins_the_first(api: Api) -> None:
    await api.model("delay")
    request = retraining_pb2.RequestRetrainRequest(mutation=by(), model_id="delay")
    first = await api.retraining.RequestRetrain(request)
    second = await api.retraining.RequestRetrain(request)
    assert (first.created, second.created) == (True, False)
    assert first.retrain.retrain_id == second.retrain.retrain_id
    unknown = retraining_pb2.RequestRetrainRequest(model_id="nope")
    assert (await refused(api.retraining.RequestRetrain(unknown))).reason == "MODEL_NOT_FOUND"


async def test_validate_only_requests_and_leases_nothing(api: Api) -> None:
    await api.model("delay")
    dry = by(validate_only=True)
    shown = await api.retraining.RequestRetrain(retraining_pb2.RequestRetrainRequest(mutation=dry, model_id="delay"))
    assert not shown.HasField("retrain")
    await api.retrain("delay")
    before = await api.revision()
    leased = await api.retraining.LeaseRetrains(
        retraining_pb2.LeaseRetrainsRequest(mutation=dry, scheduler="dagster", leases_max=1)
    )
    assert not leased.leases
    await api.retraining.CancelRetrain(retraining_pb2.CancelRetrainRequest(mutation=dry, retrain_id="rt_000001"))
    assert await api.revision() == before


async def test_a_retrain_is_cancelled_once(api: Api) -> None:
    await api.model("delay")
    retrain = await api.retrain("delay")
    [lease] = await api.lease()
    cancel = retraining_pb2.CancelRetrainRequest(mutation=by(), retrain_id=retrain.retrain_id)
    ended = (await api.retraining.CancelRetrain(cancel)).retrain
    assert (ended.state, ended.conclusion) == (CANCELLED, "cancelled by request")
    again = await refused(api.retraining.CancelRetrain(cancel))
    assert (again.code, again.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RETRAIN_FINISHED")
    worker = retraining_pb2.RenewLeaseRequest(attempt_id=lease.attempt_id, lease_token=lease.lease_token)
    lost = await refused(api.retraining.RenewLease(worker))
    assert (lost.code, lost.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST")
    assert "cancelled" in lost.message


@pytest.mark.parametrize("retrain_id", ["rt_000009", "nonsense", "rt_"])
async def test_unknown_retrains_and_attempts(api: Api, retrain_id: str) -> None:
    get = retraining_pb2.GetRetrainRequest(retrain_id=retrain_id)
    assert (await refused(api.retraining.GetRetrain(get))).reason == "RETRAIN_NOT_FOUND"
    cancel = retraining_pb2.CancelRetrainRequest(retrain_id=retrain_id)
    assert (await refused(api.retraining.CancelRetrain(cancel))).reason == "RETRAIN_NOT_FOUND"
    renew = retraining_pb2.RenewLeaseRequest(attempt_id=f"{retrain_id}_a1", lease_token="t")
    found = await refused(api.retraining.RenewLease(renew))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "ATTEMPT_NOT_FOUND")


async def test_a_report_says_how_it_ended(api: Api) -> None:
    neither = retraining_pb2.ReportAttemptRequest(attempt_id="rt_000001_a1", lease_token="t")
    refusal = await refused(api.retraining.ReportAttempt(neither))
    assert (refusal.reason, set(refusal.violations)) == ("INVALID_ARGUMENT", {"result"})


async def test_a_version_of_somebody_else_is_not_a_success(api: Api) -> None:
    await api.model("delay")
    await api.version("delay")
    await api.retrain("delay")
    [lease] = await api.lease()
    refusal = await refused(api.retraining.ReportAttempt(report(lease, version=1)))
    assert refusal.violations == {"succeeded_version": "ATTEMPT"}
    missing = await refused(api.retraining.ReportAttempt(report(lease, version=9)))
    assert missing.reason == "VERSION_NOT_FOUND"


async def test_a_version_of_an_attempt_needs_its_lease(api: Api) -> None:
    await api.model("delay")
    await api.model("other")
    await api.retrain("delay")
    [lease] = await api.lease()

    async def register(model_id: str, attempt_id: str, token: str) -> registry_pb2.RegisterVersionResponse:
        return await api.registry.RegisterVersion(
            registry_pb2.RegisterVersionRequest(version=a_version(model_id), attempt_id=attempt_id, lease_token=token)
        )

    assert (await refused(register("delay", lease.attempt_id, ""))).violations == {"lease_token": "REQUIRED"}
    assert (await refused(register("delay", lease.attempt_id, "guess"))).reason == "LEASE_LOST"
    assert (await refused(register("other", lease.attempt_id, lease.lease_token))).violations == {"attempt_id": "MODEL"}
    first = await register("delay", lease.attempt_id, lease.lease_token)
    assert (await register("delay", lease.attempt_id, lease.lease_token)).version == first.version


async def test_a_training_that_crashes_is_tried_again_later_and_later_then_fails(api: Api) -> None:
    await api.model("delay", policies=policies_pb2.Policies(retraining=POLICY))
    retrain = await api.retrain("delay")
    for number, backoff in ((1, 5), (2, 10), (3, 0)):
        [lease] = await api.lease()
        assert lease.attempt_id == f"{retrain.retrain_id}_a{number}"
        found = (await api.retraining.ReportAttempt(report(lease, failure="out of memory"))).retrain
        if backoff:
            assert found.state == WAITING
            assert found.waiting_for == [f"its next try (until {api.clock.at + backoff * MINUTE:%Y-%m-%d %H:%M})"]
            await api.pass_time(backoff * MINUTE - timedelta(seconds=1))
            assert await api.lease() == []
            await api.pass_time(timedelta(seconds=1))
    assert found.state == FAILED
    assert found.conclusion == (
        "failed after 3 attempts (out of memory even with 4 times as much): out of memory (log: run-7)"
    )
    assert [attempt.state for attempt in found.attempts] == [retraining_pb2.ATTEMPT_STATE_FAILED] * 3
    await api.pass_time(timedelta(days=7))
    assert await api.lease() == []


async def test_a_failure_that_is_permanent_is_not_tried_again(api: Api) -> None:
    await api.model("delay", policies=policies_pb2.Policies(retraining=POLICY))
    await api.retrain("delay")
    [lease] = await api.lease()
    request = report(lease, failure="no such table", permanent=True)
    found = (await api.retraining.ReportAttempt(request)).retrain
    assert (found.state, found.conclusion) == (
        FAILED,
        "failed after 1 attempt (trying again would not help): no such table (log: run-7)",
    )
    # Told twice, it is the same failure.
    assert (await api.retraining.ReportAttempt(request)).retrain == found


async def test_a_training_that_never_ends_loses_its_lease_each_time_and_then_fails(api: Api) -> None:
    await api.model("delay", policies=policies_pb2.Policies(retraining=POLICY))
    retrain = await api.retrain("delay")
    for number in (1, 2, 3):
        [lease] = await api.lease()
        await api.pass_time(11 * MINUTE)
        found = await api.find_retrain(retrain.retrain_id)
        assert found.attempts[number - 1].state == retraining_pb2.ATTEMPT_STATE_LEASE_EXPIRED
        late = await refused(api.retraining.ReportAttempt(report(lease, failure="late")))
        assert (late.code, late.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST")
        await api.pass_time(20 * MINUTE)
    assert found.state == FAILED
    assert found.conclusion.startswith("failed after 3 attempts: no sign of life since before ")


async def test_a_late_report_is_refused_even_before_anybody_noticed_that_it_is_late(api: Api) -> None:
    await api.model("delay", policies=policies_pb2.Policies(retraining=POLICY))
    await api.retrain("delay")
    [lease] = await api.lease()
    api.clock.at += 11 * MINUTE
    assert (await refused(api.trained(lease))).reason == "LEASE_LOST"


async def test_a_lease_is_renewed_until_the_attempt_takes_too_long(api: Api) -> None:
    await api.model("delay", policies=policies_pb2.Policies(retraining=POLICY))
    retrain = await api.retrain("delay")
    [lease] = await api.lease()
    renew = retraining_pb2.RenewLeaseRequest(attempt_id=lease.attempt_id, lease_token=lease.lease_token, run="run-9")
    for _ in range(7):
        await api.pass_time(9 * MINUTE)
        found = await api.find_retrain(retrain.retrain_id)
        if found.state != RUNNING:
            break
        await api.retraining.RenewLease(renew)
    [attempt] = found.attempts
    assert attempt.run == "run-9"
    assert attempt.failure == "still running after 1 hour: timed out"


async def test_a_clock_that_jumps_forward_costs_an_attempt_and_one_that_jumps_back_nothing(api: Api) -> None:
    await api.model("delay", policies=policies_pb2.Policies(retraining=POLICY))
    retrain = await api.retrain("delay")
    [lease] = await api.lease()
    await api.pass_time(-timedelta(days=400))
    renew = retraining_pb2.RenewLeaseRequest(attempt_id=lease.attempt_id, lease_token=lease.lease_token)
    assert (await api.retraining.RenewLease(renew)).expires_at == lease.expires_at
    api.clock.at = START
    await api.pass_time(timedelta(days=1))
    assert (await api.find_retrain(retrain.retrain_id)).state == WAITING
    api.clock.at = START
    # Time in the log never runs backwards: the backoff counts from the latest instant ever seen.
    events = await api.operations.ListEvents(operations_pb2.ListEventsRequest())
    instants = [event.at.ToMicroseconds() for event in events.events]
    assert instants == sorted(instants)
    await api.trained((await api.lease() or await _after_backoff(api))[0])


async def _after_backoff(api: Api) -> list[retraining_pb2.Lease]:
    api.clock.at = START + timedelta(days=1, minutes=6)
    return await api.lease()


async def test_requests_wait_for_a_scheduler_that_is_away_and_none_is_lost_or_doubled(api: Api) -> None:
    names = [f"m{number}" for number in range(8)]
    for name in names:
        await api.model(name, team=f"team{name}", policies=policies_pb2.Policies(retraining=POLICY))
        await api.retrain(name)
    for _ in range(60):
        await api.pass_time(MINUTE)
        await api.retrain(names[0])
    first = await api.lease(leases_max=5)
    second = await api.lease(leases_max=5, known=tuple(lease.attempt_id for lease in first))
    assert len(first) == 5
    assert sorted(lease.model_id for lease in (*first, *second)) == names
    third = await api.lease(known=tuple(lease.attempt_id for lease in (*first, *second)))
    assert third == []


async def test_a_lost_reply_heals_because_the_scheduler_says_what_it_knows(api: Api) -> None:
    await api.model("a", policies=policies_pb2.Policies(retraining=POLICY))
    await api.model("b", policies=policies_pb2.Policies(retraining=POLICY))
    await api.retrain("a")
    lost = await api.lease()
    await api.retrain("b")
    again = await api.lease()
    assert again[0] == lost[0]
    assert [lease.model_id for lease in again] == ["a", "b"]
    assert await api.lease(known=tuple(lease.attempt_id for lease in again)) == []
    other = await api.retraining.LeaseRetrains(retraining_pb2.LeaseRetrainsRequest(scheduler="airflow", leases_max=5))
    assert not other.leases


async def test_the_same_lease_request_is_answered_alike_after_a_restart(host: Host) -> None:
    request = retraining_pb2.LeaseRetrainsRequest(mutation=by(request_id="l1"), scheduler="dagster", leases_max=1)
    async with host.life() as api:
        for name in ("a", "b"):
            await api.model(name)
            await api.retrain(name)
        first = await api.retraining.LeaseRetrains(request)
        assert len(first.leases) == 1
    async with host.life() as api:
        assert await api.retraining.LeaseRetrains(request) == first


async def test_the_order_is_topological_then_by_tier(api: Api) -> None:
    for name, tier in (("up", common_pb2.TIER_4), ("down", common_pb2.TIER_1), ("alone", common_pb2.TIER_3)):
        await api.model(name, tier=tier)
    await api.edge("model:up", "model:down")
    for name in ("down", "up", "alone"):
        await api.retrain(name)
    leases = await api.lease()
    assert [lease.model_id for lease in leases] == ["alone", "up"]
    request = retraining_pb2.ListRetrainsRequest(model_id="down")
    [down] = (await api.retraining.ListRetrains(request)).retrains
    assert down.waiting_for == ["upstream retrains to end first: up"]
    assert not await api.lease(known=tuple(lease.attempt_id for lease in leases))


async def test_limits_and_holds_are_kept_exactly(api: Api) -> None:
    for number in range(6):
        await api.model(f"m{number}", team="one" if number < 4 else "two")
        await api.retrain(f"m{number}")
    limits = operations_pb2.RetrainingLimits(running_max=3, running_per_team_max=2)
    await api.operations.SetLimits(operations_pb2.SetLimitsRequest(limits=limits))
    await api.operations.HoldRetraining(operations_pb2.HoldRetrainingRequest())
    assert await api.lease() == []
    held = await api.find_retrain("rt_000001")
    assert held.waiting_for == ["retraining is held for the whole fleet (`runway release` ends that)"]
    await api.operations.ReleaseRetraining(operations_pb2.ReleaseRetrainingRequest())
    leases = await api.lease()
    assert [lease.model_id for lease in leases] == ["m0", "m1", "m4"]
    waiting = await api.find_retrain("rt_000003")
    assert waiting.waiting_for == ["a free slot: 3 of 3 run"]


async def test_retrains_are_listed_newest_first_in_stable_pages(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.model(name)
        await api.retrain(name)
    page = common_pb2.PageRequest(page_size=2)
    first = await api.retraining.ListRetrains(retraining_pb2.ListRetrainsRequest(page=page))
    await api.model("d")
    await api.retrain("d")
    page.page_token = first.next_page_token
    second = await api.retraining.ListRetrains(retraining_pb2.ListRetrainsRequest(page=page))
    assert [one.model_id for one in (*first.retrains, *second.retrains)] == ["c", "b", "a"]
    running = retraining_pb2.ListRetrainsRequest(states=[RUNNING])
    assert not (await api.retraining.ListRetrains(running)).retrains
    unknown = retraining_pb2.ListRetrainsRequest(model_id="nope")
    assert (await refused(api.retraining.ListRetrains(unknown))).reason == "MODEL_NOT_FOUND"


@pytest.mark.parametrize("leases_max", [0, -1, 1001])
async def test_a_scheduler_asks_for_some_leases_but_not_for_all(api: Api, leases_max: int) -> None:
    request = retraining_pb2.LeaseRetrainsRequest(scheduler="Not A Slug", leases_max=leases_max)
    refusal = await refused(api.retraining.LeaseRetrains(request))
    assert set(refusal.violations) == {"scheduler", "leases_max"}


async def test_why_a_retrain_waits_follows_the_clock_though_nothing_happens(api: Api) -> None:
    await api.model("delay", policies=policies_pb2.Policies(retraining=POLICY))
    await api.retrain("delay")
    [lease] = await api.lease()
    await api.retraining.ReportAttempt(report(lease, failure="x"))
    assert (await api.find_retrain("rt_000001")).waiting_for
    await api.pass_time(6 * MINUTE)
    assert (await api.find_retrain("rt_000001")).waiting_for == []
