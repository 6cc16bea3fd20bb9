"""Events from the log reach webhooks at least once and in order for each model, whatever happens."""

import asyncio
from contextlib import suppress

import numpy as np
import pytest

from control_plane.core.alerts.types import Destination, DestinationKind
from control_plane.core.commands import RemoveDestination, SetDestination
from control_plane.core.errors import Invalid, Reason, Refused, RunwayError
from tests.alerts.nodes import SECRET, Plane, check_delivery, check_signed, leading, seqs, until
from tests.alerts.receivers import Received, Reply, receiving
from tests.contract.worlds import MemoryWorld, World


async def test_an_event_arrives_as_a_signed_cloud_event() -> None:
    async with receiving() as receiver, leading(MemoryWorld()) as plane:
        since = (await plane.hook(receiver.url)).revision
        await plane.model("eta")
        await until(lambda: len(receiver.taken) == 1)
        [received] = receiver.taken
        check_signed(received)
        assert received.headers["content-type"].startswith("application/cloudevents+json")
        event = received.json()
        data = event.pop("data")
        assert event == {
            "specversion": "1.0",
            "id": str(since + 1),
            "source": "/runway",
            "type": "dev.runway.ModelRegistered.v1",
            "subject": "eta",
            "time": "2013-03-01T12:00:00Z",
            "datacontenttype": "application/json",
            "sequence": f"{since + 1:020d}",
        }
        assert isinstance(data, dict)
        assert data["payload"]["facts"]["model_id"] == "eta"
        assert "eta" in data["sentence"]
        assert received.headers["webhook-id"] == event["id"]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_at_least_once_and_in_order_while_the_receiver_fails_at_random_and_leaders_come_and_go(
    seed: int, world: World
) -> None:
    rng = np.random.default_rng(seed)

    async def moody(_: Received) -> Reply:
        mood = rng.random()
        if mood < 0.1:
            return Reply(status=0)
        if mood < 0.3:
            return Reply(status=int(rng.choice([400, 404, 429, 500, 503])))
        await asyncio.sleep(rng.random() * 0.003)
        return Reply()

    async with receiving(moody) as receiver:
        since = 0
        for term in range(3):
            async with leading(world) as plane:
                if not since:
                    since = (await plane.hook(receiver.url)).revision
                for number in range(25):
                    await plane.model(f"m{number}", team=f"t{term}") if not term else await plane.do(
                        SetDestination(
                            destination=Destination(
                                name="other", kind=DestinationKind.SLACK, url=f"http://x.example/{term}/{number}"
                            )
                        )
                    )
                if term == 2:
                    newest = plane.node.revision
                    await until(lambda n=newest: (s := plane.outbox.status("hook")) is not None and s.low >= n)  # type: ignore[misc]
                    check_delivery(await plane.node.events(0, 10_000), receiver.taken, since)


async def test_nothing_is_lost_when_leaders_are_deposed_while_they_send(world: World) -> None:
    """Two control planes on one database take turns, each cut off in the middle."""

    async def slow(_: Received) -> Reply:
        await asyncio.sleep(0.004)
        return Reply()

    async with receiving(slow) as receiver, leading(world) as first:
        since = (await first.hook(receiver.url)).revision
        registered = 0

        async def one_after_the_other(plane: Plane, whole: int) -> None:
            nonlocal registered
            while registered < whole:
                try:
                    await plane.model(f"m{registered}")
                    registered += 1
                except RunwayError:
                    await asyncio.sleep(0.01)  # the other leads now, or nobody does yet

        async def second() -> None:
            async with leading(world) as plane:
                await one_after_the_other(plane, 45)
                await until(lambda: len(set(seqs(receiver.taken))) >= plane.node.revision - since)
                check_delivery(await plane.node.events(0, 10_000), receiver.taken, since)

        await one_after_the_other(first, 15)
        other = asyncio.ensure_future(second())
        while registered == 15 and not other.done():  # the first may be the faster one to lead again
            world.depose()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await until(lambda: registered > 15 or other.done())
        await other


async def test_a_model_whose_event_is_not_taken_holds_up_nobody_else() -> None:
    well = False

    def answer(received: Received) -> Reply:
        return Reply(status=500 if received.json().get("subject") == "bad" and not well else 204)

    async with receiving(answer) as receiver, leading(MemoryWorld()) as plane:
        since = (await plane.hook(receiver.url)).revision
        await plane.model("bad")
        for number in range(5):
            await plane.model(f"good_{number}")
        await until(lambda: len(receiver.taken) == 5)
        status = plane.outbox.status("hook")
        assert status is not None
        assert status.low == since
        assert status.last_failure in ("it answered 500", "")
        well = True
        await until(lambda: len(receiver.taken) == 6)
        await until(lambda: (s := plane.outbox.status("hook")) is not None and s.low == plane.node.revision)


@pytest.mark.parametrize(("models", "shut"), [(1, False), (2, False), (4, True)])
async def test_only_silence_about_several_models_lets_all_of_them_wait(models: int, shut: bool) -> None:
    """One event that makes a receiver fall over, again and again, says nothing of the events of other models."""
    async with receiving(lambda _: Reply(status=500)) as receiver, leading(MemoryWorld()) as plane:
        await plane.hook(receiver.url)
        for number in range(models):
            await plane.model(f"m{number}")
        await until(lambda: len(receiver.requests) >= 4 * models)
        assert (plane.outbox._deliveries["hook"]._open_s > 0) is shut


async def test_a_receiver_that_repeats_what_it_was_sent_gives_no_secret_away() -> None:
    """Failures are shown to everybody who may list destinations."""

    def echo(received: Received) -> Reply:
        return Reply(status=400, body=" ".join(received.headers.values()).encode() + SECRET.encode())

    async with receiving(echo) as receiver, leading(MemoryWorld()) as plane:
        await plane.hook(receiver.url)
        await plane.model("eta")
        await until(lambda: bool((s := plane.outbox.status("hook")) and s.last_failure))
        status = plane.outbox.status("hook")
        assert status is not None
        assert status.last_failure.startswith("it answered 400")
        assert SECRET[:10] not in status.last_failure


async def test_a_receiver_that_is_gone_is_disabled_and_goes_on_where_it_was_when_set_anew() -> None:
    gone = True
    async with (
        receiving(lambda _: Reply(status=410 if gone else 204)) as receiver,
        leading(MemoryWorld()) as plane,
    ):
        since = (await plane.hook(receiver.url)).revision
        await plane.model("eta")
        await until(lambda: bool(plane.node.state.destinations["hook"].disabled))
        assert "410" in plane.node.state.destinations["hook"].disabled
        await plane.model("wait")
        gone = False
        await plane.hook(receiver.url)
        await until(lambda: len(receiver.taken) >= 4)
        check_delivery(await plane.node.events(0, 100), receiver.taken, since)


async def test_kinds_and_teams_choose() -> None:
    async with receiving() as chosen, receiving() as everything, leading(MemoryWorld()) as plane:
        await plane.hook(chosen.url, "chosen", teams=("rides",), kinds=("ModelRegistered",))
        await plane.hook(everything.url, "everything")
        await plane.model("eta", team="flights")
        wanted = (await plane.model("fare", team="rides")).revision
        await until(lambda: len(everything.taken) == 2)
        newest = plane.node.revision
        await until(lambda: (s := plane.outbox.status("chosen")) is not None and s.low == newest)
        assert seqs(chosen.taken) == [wanted]


async def test_without_its_secret_nothing_is_sent_and_the_reason_is_shown() -> None:
    secrets = {"HOOK_SECRET": ""}
    async with receiving() as receiver, leading(MemoryWorld(), secret=lambda name: secrets[name]) as plane:
        await plane.hook(receiver.url)
        await plane.model("eta")
        await until(lambda: "HOOK_SECRET" in (((s := plane.outbox.status("hook")) and s.last_failure) or ""))
        assert receiver.requests == []
        secrets["HOOK_SECRET"] = SECRET
        await until(lambda: len(receiver.taken) == 1)


async def test_one_that_was_removed_is_sent_nothing_and_one_of_its_name_begins_anew() -> None:
    async with receiving() as receiver, leading(MemoryWorld()) as plane:
        await plane.hook(receiver.url)
        await plane.do(RemoveDestination(name="hook"))
        await plane.model("unheard")
        since = (await plane.hook(receiver.url)).revision
        heard = (await plane.model("heard")).revision
        await until(lambda: heard in seqs(receiver.taken))
        assert heard == since + 1
        assert "unheard" not in {one.json().get("subject") for one in receiver.taken}


async def test_all_that_is_wrong_with_a_destination_is_said_at_once() -> None:
    async with leading(MemoryWorld()) as plane:
        with pytest.raises(Invalid) as error:
            await plane.do(
                SetDestination(
                    destination=Destination(
                        name="No", kind=DestinationKind.WEBHOOK, url="ftp://x", kinds=("Nothing",), quiet_end_hour=24
                    )
                )
            )
        fields = {violation.field.removeprefix("destination.") for violation in error.value.violations}
        assert fields == {"name", "url", "kinds", "secret_variable", "quiet_end_hour"}
        with pytest.raises(Refused) as missing:
            await plane.do(RemoveDestination(name="nobody"))
        assert missing.value.reason is Reason.DESTINATION_NOT_FOUND


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "file:///etc/passwd",
        "gopher://x/",
        "//x/y",
        "http://u:p@x/",
        "http://x:99999/",
        "http://x:0/",
        "http://x/\r\nhost: y",
        "http://x y/",
        "http://x\\@y/",
        "http://ex\u00e4mple.com/",
        "http://x/#f",
        "http://[::1/",
        "http://x..y/",
        "http://.x/",
        f"http://{'a' * 64}.example/",
        f"http://{'a.' * 130}example/",
        "http://x/" + "a" * 3000,
    ],
)
async def test_no_such_address_is_taken(url: str) -> None:
    async with leading(MemoryWorld()) as plane:
        with pytest.raises(Invalid) as error:
            await plane.hook(url)
        assert [violation.field for violation in error.value.violations] == ["destination.url"]


@pytest.mark.parametrize(
    "variable",
    ["RUNWAY_DATABASE_URL", "RUNWAY_APPROVAL_KEY", "RUNWAY_SERVING_SECRET", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"],
)
async def test_a_secret_of_something_else_is_never_given_away(variable: str) -> None:
    async with leading(MemoryWorld()) as plane:
        with pytest.raises(Invalid, match="a secret of something else"):
            await plane.do(
                SetDestination(
                    destination=Destination(
                        name="pager",
                        kind=DestinationKind.PAGERDUTY,
                        url="https://x.example/",
                        secret_variable=variable,
                    )
                )
            )
