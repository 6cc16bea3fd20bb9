"""What destinations are told: once, in time, to whom it concerns, and that it is over."""

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from control_plane.adapters.alerts.channels import (
    TEXT_CHARS_MAX,
    PagerDuty,
    PrometheusAlerts,
    Slack,
    channels,
    dedup_key,
)
from control_plane.adapters.alerts.http import SafePost
from control_plane.adapters.alerts.webhook import Webhook
from control_plane.app.alerts import Teller
from control_plane.app.delivery import Channel, Post, Told, place_of
from control_plane.app.trying import Trial
from control_plane.core.alerts.types import Alert, Destination, DestinationKind, Severity, Silence
from control_plane.core.commands import (
    HoldRetraining,
    ReleaseRetraining,
    RemoveDestination,
    SetDestination,
    SilenceAlert,
    TripBreaker,
)
from control_plane.core.ids import TeamId
from control_plane.core.state import State
from tests.alerts.nodes import Hand, Plane, leading, until
from tests.alerts.receivers import Received, Receiver, Reply, receiving
from tests.contract.worlds import MemoryWorld, World
from tests.core.fleets import START

KEY = "fleet_held/fleet"


async def slack(plane: Plane, url: str, name: str = "slack", **more: object) -> None:
    """Alerts go to a Slack of ours."""
    await plane.do(
        SetDestination(
            destination=Destination(name=name, kind=DestinationKind.SLACK, url=url, allow_private=True, **more)  # type: ignore[arg-type]
        )
    )


async def forget_to_release(plane: Plane) -> None:
    """The fleet is held for longer than a day: an alert."""
    await plane.do(HoldRetraining())
    plane.clock.at += timedelta(days=1, minutes=1)


def texts(receiver: Receiver) -> list[str]:
    """First lines of the messages taken."""
    return [str(one.json()["text"]).splitlines()[0] for one in receiver.taken]


async def ticks(plane: Plane, number: int = 5) -> None:
    """Let it look that often; whatever follows from it has been said."""
    for _ in range(number):
        await plane.alerts.tick()
        await until(lambda: not plane.alerts._talking)


async def test_an_alert_is_told_once_and_that_it_is_over_once_also_by_the_next_leader(world: World) -> None:
    clock = Hand()
    async with receiving() as receiver:
        async with leading(world, clock=clock) as plane:
            await slack(plane, receiver.url)
            await forget_to_release(plane)
            await ticks(plane)
            assert len(texts(receiver)) == 1
        async with leading(world, clock=clock) as plane:
            await ticks(plane)
            assert len(texts(receiver)) == 1
            await plane.do(ReleaseRetraining())
            await ticks(plane)
        assert [text.split(":")[1] for text in texts(receiver)] == ["warning", "white_check_mark"]


async def test_what_is_not_taken_is_said_again_and_the_failure_is_shown() -> None:
    moods = [500, 0, 204]
    async with receiving(lambda _: Reply(status=moods.pop(0))) as receiver, leading(MemoryWorld(), tell=True) as plane:
        await slack(plane, receiver.url)
        await forget_to_release(plane)
        await until(lambda: len(receiver.taken) == 1)
        await until(lambda: (s := plane.alerts.status("slack")) is not None and s.delivered_at is not None)
        status = plane.alerts.status("slack")
        assert status is not None
        assert status.failure == ""


async def test_in_quiet_hours_only_pages_are_told_and_the_rest_afterwards() -> None:
    async with receiving() as receiver, leading(MemoryWorld()) as plane:
        plane.clock.at = plane.clock.at.replace(hour=22, minute=30)
        await slack(plane, receiver.url, quiet_start_hour=22, quiet_end_hour=6)
        await forget_to_release(plane)  # half past ten, one day later
        await ticks(plane)
        assert texts(receiver) == []
        plane.clock.at += timedelta(hours=8)
        await ticks(plane)
        assert len(texts(receiver)) == 1


async def test_what_is_over_before_the_quiet_hours_end_is_never_told() -> None:
    async with receiving() as receiver, leading(MemoryWorld()) as plane:
        plane.clock.at = plane.clock.at.replace(hour=22, minute=30)
        await slack(plane, receiver.url, quiet_start_hour=22, quiet_end_hour=6)
        await forget_to_release(plane)
        await ticks(plane)
        await plane.do(ReleaseRetraining())
        plane.clock.at += timedelta(hours=8)
        await ticks(plane)
        assert texts(receiver) == []


async def test_what_is_silenced_is_told_when_the_silence_ends_if_it_still_stands() -> None:
    async with receiving() as receiver, leading(MemoryWorld()) as plane:
        await slack(plane, receiver.url)
        await forget_to_release(plane)
        silence = Silence(key=KEY, until=plane.clock.at + timedelta(hours=2), by="ada")
        await plane.do(SilenceAlert(silence=silence))
        await ticks(plane)
        assert texts(receiver) == []
        plane.clock.at += timedelta(hours=3)
        await ticks(plane)
        assert len(texts(receiver)) == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, True),
        ({"severity_min": Severity.WARNING}, True),
        ({"severity_min": Severity.PAGE}, False),
        # The fleet concerns every team.
        ({"teams": ("rides",)}, True),
    ],
)
async def test_a_destination_is_told_what_it_asked_for(more: dict[str, Any], told: bool) -> None:
    async with receiving() as receiver, leading(MemoryWorld()) as plane:
        await slack(plane, receiver.url, **more)
        await forget_to_release(plane)
        await ticks(plane)
        assert bool(texts(receiver)) is told


async def test_a_slow_destination_holds_up_no_other() -> None:
    async def never(_: object) -> Reply:
        await plane_gone.wait()
        return Reply()

    plane_gone = asyncio.Event()
    async with receiving(never) as slow, receiving() as quick, leading(MemoryWorld(), tell=True) as plane:
        await slack(plane, slow.url, "slow")
        await slack(plane, quick.url, "quick")
        await forget_to_release(plane)
        await until(lambda: len(quick.taken) == 1)
        plane_gone.set()


async def test_the_secret_part_of_an_address_is_put_in_where_it_is_used() -> None:
    secret: Callable[[str], str] = {"SLACK_HOOK": "T0/B0/x"}.__getitem__
    async with receiving() as receiver, leading(MemoryWorld(), secret=secret) as plane:
        await slack(plane, f"{receiver.url}/{{secret}}", secret_variable="SLACK_HOOK")
        await forget_to_release(plane)
        await ticks(plane)
        assert [one.path for one in receiver.taken] == ["/hook/T0/B0/x"]
        assert "T0" not in plane.node.state.destinations["slack"].url


async def test_a_destination_that_is_gone_is_disabled_until_it_is_set_again() -> None:
    gone = True
    async with (
        receiving(lambda _: Reply(status=410 if gone else 204)) as receiver,
        leading(MemoryWorld(), tell=True) as plane,
    ):
        await slack(plane, receiver.url)
        await forget_to_release(plane)
        await until(lambda: bool(plane.node.state.destinations["slack"].disabled))
        gone = False
        await slack(plane, receiver.url)
        await until(lambda: len(receiver.taken) == 1)


async def test_one_that_was_set_anew_is_told_anew() -> None:
    async with receiving() as receiver, leading(MemoryWorld()) as plane:
        await slack(plane, receiver.url)
        await forget_to_release(plane)
        await ticks(plane)
        await plane.do(RemoveDestination(name="slack"))
        await slack(plane, receiver.url)
        await ticks(plane)
        assert len(texts(receiver)) == 2


async def trouble(plane: Plane, *schedulers: str) -> None:
    """An alert for each."""
    for scheduler in schedulers:
        await plane.do(TripBreaker(scheduler=scheduler, by="ada", reason="a test"))


async def test_an_alert_that_is_refused_holds_up_no_other_and_is_told_once_it_is_taken() -> None:
    strict = True

    def answer(received: Received) -> Reply:
        return Reply(status=400 if strict and "breaker of bad" in str(received.json()["text"]) else 204)

    async with receiving(answer) as receiver, leading(MemoryWorld(), tell=True) as plane:
        await slack(plane, receiver.url)
        await trouble(plane, "bad")
        await until(lambda: len(receiver.requests) >= 3)  # it is tried again
        await trouble(plane, "one", "two")
        await until(lambda: len(receiver.taken) == 2)
        teller = plane.alerts.status("slack")
        assert teller is not None
        assert teller.failure == "it answered 400"  # though others were taken since
        strict = False
        await until(lambda: len(receiver.taken) == 3)
        await until(lambda: teller.failure == "")
        assert "breaker of bad" in texts(receiver)[-1]


async def test_one_that_refuses_everything_is_asked_three_times_and_left_alone() -> None:
    async with receiving(lambda _: Reply(status=403)) as receiver, leading(MemoryWorld()) as plane:
        await slack(plane, receiver.url)
        await trouble(plane, *(f"s{number}" for number in range(20)))
        await plane.alerts.tick()
        await until(lambda: not plane.alerts._talking)
        assert len(receiver.requests) == 3


async def test_what_one_of_many_is_refused_for_is_found_and_the_others_are_told() -> None:
    """Alertmanager is told many at once."""

    def answer(received: Received) -> Reply:
        alerts = msgspec.json.decode(received.body)
        return Reply(status=400 if any(one["labels"]["cause"] == "scheduler:bad" for one in alerts) else 200)

    async with receiving(answer) as receiver, leading(MemoryWorld()) as plane:
        destination = Destination(name="am", kind=DestinationKind.ALERTMANAGER, url=receiver.url, allow_private=True)
        await plane.do(SetDestination(destination=destination))
        await trouble(plane, "bad", "one", "two", "three")
        await plane.alerts.tick()
        await until(lambda: not plane.alerts._talking)
        told = {one["labels"]["cause"] for taken in receiver.taken for one in msgspec.json.decode(taken.body)}
        assert told == {"scheduler:one", "scheduler:two", "scheduler:three"}


async def test_a_destination_that_moved_is_told_what_stands_also_by_the_next_leader() -> None:
    world, clock = MemoryWorld(), Hand()
    async with receiving() as old, receiving() as new, receiving() as newest:
        async with leading(world, clock=clock) as plane:
            await slack(plane, old.url)
            await forget_to_release(plane)
            await ticks(plane)
            await slack(plane, new.url)
            await ticks(plane)
            assert [len(one.taken) for one in (old, new)] == [1, 1]
            await slack(plane, newest.url)
        async with leading(world, clock=clock) as plane:
            await ticks(plane)
            assert [len(one.taken) for one in (old, new, newest)] == [1, 1, 1]
            await slack(plane, newest.url, severity_min=Severity.WARNING)  # the same place
            await ticks(plane)
            assert len(newest.taken) == 1


def told_of(*teams: str, severity: Severity = Severity.WARNING) -> Alert:
    """An alert about so many teams."""
    return Alert(
        key="data_fault/dataset:weather",
        kind="data_fault",
        severity=severity,
        since=START,
        summary="the data is at fault",
        cause="dataset:weather",
        teams=tuple(TeamId(team) for team in teams),
    )


@pytest.mark.parametrize(
    ("channel", "after", "another"),
    [
        (PrometheusAlerts, told_of("flights", "rides"), True),  # the label `team` goes
        (PrometheusAlerts, told_of("flights"), False),
        (PrometheusAlerts, told_of("flights", severity=Severity.PAGE), True),
        (PagerDuty, told_of("flights", "rides"), False),
        (PagerDuty, told_of("flights", severity=Severity.PAGE), True),
        (Slack, told_of("flights", "rides"), False),
        (Slack, told_of("flights", severity=Severity.PAGE), True),
    ],
)
async def test_what_is_another_alert_for_whoever_listens_ends_the_one_before(
    channel: Callable[[Post], Channel], after: Alert, another: bool
) -> None:
    destination = Destination(name="there", kind=DestinationKind.ALERTMANAGER, url="https://x.example/")
    before = told_of("flights")
    told = {before.key: Told(alert=before, at=START, place=place_of(destination))}
    active, over = Teller(channel(SafePost()), destination, told).due([after], State(), START, START)
    assert [one.alert for one in over] == ([before] if another else [])
    assert not another or [one.alert for one in active] == [after]


@pytest.mark.parametrize("secret", ["T0/B0/x\n", "two words", "gl\u00fcck"])
async def test_a_secret_that_no_address_may_hold_is_said_and_sent_nowhere(secret: str) -> None:
    async with receiving() as receiver, leading(MemoryWorld(), secret=lambda _: secret) as plane:
        await slack(plane, f"{receiver.url}/{{secret}}", secret_variable="SLACK_HOOK")
        await forget_to_release(plane)
        await ticks(plane)
        teller = plane.alerts.status("slack")
        assert teller is not None
        assert "SLACK_HOOK of the control plane holds a space" in teller.failure
        assert (secret not in teller.failure, receiver.requests) == (True, [])


async def test_a_redirect_that_names_the_secret_part_of_an_address_gives_nothing_away() -> None:
    secret = "T000/B000/abcdefghijklmnop"

    def elsewhere(received: Received) -> Reply:
        return Reply(status=308, headers={"location": f"https://hooks.example{received.path}"})

    async with receiving(elsewhere) as receiver, leading(MemoryWorld(), secret=lambda _: secret) as plane:
        url = f"{receiver.url}/{'long/' * 34}{{secret}}"  # so that what is told of it is cut within the secret
        for name, address in (("short", f"{receiver.url}/{{secret}}"), ("long", url)):
            await slack(plane, address, name, secret_variable="SLACK_HOOK")
        await forget_to_release(plane)
        await ticks(plane)
        for name in ("short", "long"):
            teller = plane.alerts.status(name)
            assert teller is not None
            assert "a redirect to" in teller.failure
            assert secret[:9] not in teller.failure
            trial = Trial(Webhook(SafePost(), "/runway"), channels(SafePost()), lambda _: secret)
            delivered, words = await trial.tried(plane.node.state.destinations[name])
            assert (delivered, secret[:9] in words) == (False, False)


def test_long_keys_that_begin_alike_are_different_incidents() -> None:
    keys = [f"rule/team:{'t' * 100}/{'r' * 150}/model:{model}" for model in ("a", "b")]
    found = {dedup_key(msgspec.structs.replace(told_of(), key=key)) for key in keys}
    assert len(found) == 2
    assert {len(key) for key in found} == {255}
    assert dedup_key(told_of()) == "runway/data_fault/dataset:weather"


async def test_a_message_of_slack_says_what_to_do_however_long_it_is_and_calls_nobody() -> None:
    async with receiving() as receiver, leading(MemoryWorld()) as plane:
        await slack(plane, receiver.url)
        channel = Slack(SafePost())
        alert = msgspec.structs.replace(
            told_of("flights"), summary="<!channel> & " * 200, detail="<@U1> & co\n" * 900, model_ids=("a", "b")
        )
        one = Told(alert=alert, at=START)
        await channel.tell(plane.node.state.destinations["slack"], "", [one], [one], START)
    fired, over = (str(received.json()["text"]) for received in receiver.taken)
    assert max(len(fired), len(over)) <= TEXT_CHARS_MAX
    assert fired.endswith("`runway alerts silence data_fault/dataset:weather --for 2h` keeps it quiet.")
    for text in (fired, over):
        assert "<" not in text
        assert re.search(r"&(?!amp;|lt;|gt;)", text) is None


async def test_pagerduty_is_given_a_trigger_and_a_resolve_under_one_key() -> None:
    """A contract server by the Events API v2: 202 and a deduplication key, 400 with what is wrong."""
    incidents: dict[str, str] = {}

    def events_v2(received: object) -> Reply:
        event = received.json()  # type: ignore[attr-defined]
        known = {"routing_key", "event_action", "dedup_key", "payload", "client", "client_url", "links", "images"}
        wrong = set(event) - known
        if event.get("event_action") == "trigger":
            payload = event["payload"]
            wrong |= {"payload." + name for name in ("summary", "source", "severity") if not payload.get(name)}
            if payload.get("severity") not in ("critical", "error", "warning", "info"):
                wrong.add("payload.severity")
        if wrong or event.get("routing_key") != "a routing key" or len(event["dedup_key"]) > 255:
            return Reply(status=400, body=str(wrong).encode())
        incidents[event["dedup_key"]] = event["event_action"]
        return Reply(status=202, body=b'{"status":"success"}')

    secret: Callable[[str], str] = {"PAGER_KEY": "a routing key"}.__getitem__
    async with receiving(events_v2) as receiver, leading(MemoryWorld(), secret=secret) as plane:
        await plane.do(
            SetDestination(
                destination=Destination(
                    name="pager",
                    kind=DestinationKind.PAGERDUTY,
                    url=receiver.url,
                    secret_variable="PAGER_KEY",
                    allow_private=True,
                )
            )
        )
        await forget_to_release(plane)
        await ticks(plane)
        assert incidents == {f"runway/{KEY}": "trigger"}
        await plane.do(ReleaseRetraining())
        await ticks(plane)
        assert incidents == {f"runway/{KEY}": "resolve"}
        assert len(receiver.taken) == 2
