"""Nothing is sent where nothing may be sent, whatever the address looks like or turns into."""

import asyncio
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.alerts.addresses import fault_of
from control_plane.adapters.alerts.http import SafePost
from control_plane.app.delivery import Undelivered
from tests.alerts.receivers import Received, Reply, receiving

FORBIDDEN = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.1.1",
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "224.0.0.1",
    "239.1.1.1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b::7f00:1",
    "2002:0a00:0001::1",
    "2002:7f00:0001::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    "2001:db8::1",
    "3fff::1",
    "fec0::1",
    "192.0.0.192",
    "192.88.99.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b:1::7f00:1",
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_no_address_of_ours_is_taken(address: str) -> None:
    assert fault_of(address, allow_private=False)


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_taken(address: str) -> None:
    assert fault_of(address, allow_private=False) == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "fc00::1", "::ffff:192.168.0.1"])
def test_private_addresses_are_taken_where_that_is_allowed(address: str) -> None:
    assert fault_of(address, allow_private=True) == ""


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "224.0.0.1"),
        *("169.254.170.2", "169.254.170.23", "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
    ],
)
def test_what_hands_out_credentials_is_never_taken(address: str) -> None:
    assert fault_of(address, allow_private=True)


@given(st.ip_addresses(v=4))
def test_an_address_in_another_dress_is_judged_alike(address: object) -> None:
    number = int(ip_address(str(address)))
    mapped = str(ip_address((0xFFFF << 32) | number if number else 0xFFFF << 32))
    assert bool(fault_of(mapped, allow_private=False)) >= bool(fault_of(str(address), allow_private=False))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0", "127.1"]
)
async def test_nothing_is_sent_to_this_machine_however_it_is_written(host: str) -> None:
    async with receiving() as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        with pytest.raises(Undelivered):
            await SafePost()(f"http://{host}:{port}/", b"{}", {}, allow_private=False)
        assert receiver.requests == []


async def test_it_is_sent_there_where_that_is_allowed() -> None:
    async with receiving() as receiver:
        assert await SafePost()(receiver.url + "?a=b", b"{}", {"x-a": "1"}, allow_private=True) == "204"
        [request] = receiver.requests
        assert (request.path, request.body, request.headers["x-a"]) == ("/hook?a=b", b"{}", "1")


async def test_a_name_with_one_private_address_among_public_ones_is_refused() -> None:
    async def both(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.1"]

    with pytest.raises(Undelivered, match="private network"):
        await SafePost(resolve=both)("http://hooks.example.com/", b"{}", {}, allow_private=False)


async def test_a_name_that_changes_after_the_check_leads_nowhere_else() -> None:
    """DNS rebinding: the name is asked once, and the connection goes to what was checked."""
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["192.0.2.1"] if len(asked) == 1 else ["127.0.0.1"]

    async with receiving() as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        with pytest.raises(Undelivered):
            await SafePost(resolve=rebinding, timeout_s=0.2)(
                f"http://hooks.example.com:{port}/", b"{}", {}, allow_private=True
            )
        assert asked == ["hooks.example.com"]
        assert receiver.requests == []


async def test_the_connection_goes_to_the_address_that_was_checked_under_the_name_that_was_meant() -> None:
    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with receiving() as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        await SafePost(resolve=here)(f"http://hooks.example.com:{port}/x", b"{}", {}, allow_private=True)
        assert receiver.requests[0].headers["host"] == f"hooks.example.com:{port}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with receiving() as inner:
        async with receiving(lambda _: Reply(status=status, headers={"location": inner.url})) as outer:
            with pytest.raises(Undelivered, match="redirect"):
                await SafePost()(outer.url, b"{}", {}, allow_private=True)
        assert inner.requests == []


async def test_what_came_back_is_told() -> None:
    def answer(received: Received) -> Reply:
        match received.path:
            case "/gone":
                return Reply(status=410)
            case "/busy":
                return Reply(status=429, headers={"retry-after": "7"})
            case "/bad":
                return Reply(status=400, body=b"no such\n\x1bkey")
            case _:
                return Reply(status=0)

    async with receiving(answer) as receiver:
        base = receiver.url.removesuffix("/hook")

        async def failure(path: str) -> Undelivered:
            with pytest.raises(Undelivered) as error:
                await SafePost()(base + path, b"{}", {}, allow_private=True)
            return error.value

        assert (await failure("/gone")).gone
        assert (await failure("/busy")).retry_after_s == 7
        assert not (await failure("/busy")).refused
        bad = await failure("/bad")
        assert bad.refused
        assert str(bad) == "it answered 400: no such key"
        assert not (await failure("/silent")).refused


async def test_a_receiver_that_never_answers_is_given_up() -> None:
    async def never(_: Received) -> Reply:
        await asyncio.Event().wait()
        return Reply()

    async with receiving(never) as receiver:
        with pytest.raises(Undelivered, match="did not answer within"):
            await SafePost(timeout_s=0.1)(receiver.url, b"{}", {}, allow_private=True)
