"""What destinations are told: once, in time, to whom it concerns, and that it is over."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from control_plane.core.alerts.types import Destination, DestinationKind, Severity, Silence
from control_plane.core.commands import (
    HoldRetraining,
    ReleaseRetraining,
    RemoveDestination,
    SetDestination,
    SilenceAlert,
)
from tests.alerts.nodes import Hand, Plane, leading, until
from tests.alerts.receivers import Receiver, Reply, receiving
from tests.contract.worlds import MemoryWorld, World

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
