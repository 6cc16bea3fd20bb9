"""What every store of cursors promises."""

from datetime import UTC, datetime

import pytest

from control_plane.adapters.memory.cursors import MemoryCursors
from control_plane.adapters.postgres.cursors import PostgresCursors
from control_plane.app.delivery import Cursor, Cursors, Told
from control_plane.core.alerts.types import Alert, Severity
from control_plane.core.errors import Reason, Unavailable
from tests.contract.worlds import MemoryWorld, PostgresWorld, World

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)


def client(world: World) -> Cursors:
    """A client of the world's cursors."""
    if isinstance(world, MemoryWorld):
        return MemoryCursors(world.server)
    assert isinstance(world, PostgresWorld)
    return PostgresCursors(world.url)


def told(key: str, summary: str = "it broke") -> Told:
    """An alert as a destination knows it."""
    return Told(alert=Alert(key=key, kind="rule", severity=Severity.PAGE, since=AT, summary=summary), at=AT)


async def test_a_cursor_comes_back_whole_to_another_client(world: World, epoch: int) -> None:
    cursors, other = client(world), client(world)
    assert await cursors.load() == {}
    first = Cursor(
        destination="hook", since=3, low=7, above=((9, 12), (14, 14)), last_failure="no", last_delivered_at=AT
    )
    await cursors.save(epoch, first)
    await cursors.save(epoch, Cursor(destination="other", since=1, low=1))
    assert await other.load() == {"hook": first, "other": Cursor(destination="other", since=1, low=1)}
    again = Cursor(destination="hook", since=3, low=20)
    await cursors.save(epoch, again)
    assert (await other.load())["hook"] == again
    await cursors.close()
    await other.close()


async def test_whoever_leads_no_more_changes_nothing(world: World, epoch: int) -> None:
    cursors = client(world)
    await cursors.save(epoch, Cursor(destination="hook", since=1, low=5))
    await cursors.tell(epoch, "page", [told("a")], [])
    for late in (
        cursors.save(epoch - 1, Cursor(destination="hook", since=1, low=9)),
        cursors.tell(epoch - 1, "page", [told("b")], ["a"]),
        cursors.forget(epoch - 1, "page"),
    ):
        with pytest.raises(Unavailable) as refused:
            await late
        assert refused.value.reason is Reason.NOT_LEADER
    assert (await cursors.load())["hook"].low == 5
    assert await cursors.told("page") == {"a": told("a")}
    await cursors.close()


async def test_what_was_told_is_kept_until_it_is_over(world: World, epoch: int) -> None:
    cursors = client(world)
    await cursors.tell(epoch, "page", [told("a"), told("b")], [])
    await cursors.tell(epoch, "page", [told("b", "it broke more")], ["a", "never told"])
    await cursors.tell(epoch, "slack", [told("c")], [])
    assert await cursors.told("page") == {"b": told("b", "it broke more")}
    assert await cursors.told("slack") == {"c": told("c")}
    assert await cursors.told("nobody") == {}
    await cursors.close()


async def test_forgetting_a_destination_leaves_the_others(world: World, epoch: int) -> None:
    cursors = client(world)
    for name in ("one", "two"):
        await cursors.save(epoch, Cursor(destination=name, since=1, low=1))
        await cursors.tell(epoch, name, [told("a")], [])
    await cursors.forget(epoch, "one")
    assert list(await cursors.load()) == ["two"]
    assert await cursors.told("one") == {}
    assert list(await cursors.told("two")) == ["a"]
    await cursors.close()
