"""What every snapshot store promises."""

from control_plane.app.ports import Kept, Snapshot
from tests.contract.worlds import World


def snapshot(seq: int, blob: bytes = b"\x00\xff state") -> Snapshot:
    return Snapshot(seq=seq, hash=bytes(32), codec=1, blob=blob)


async def test_there_is_none_at_first(world: World, epoch: int) -> None:
    store = world.snapshots()
    assert await store.newest() is None
    await store.close()


async def test_the_newest_comes_back_whole(world: World, epoch: int) -> None:
    store = world.snapshots()
    await store.save(snapshot(5, blob=bytes(range(256)) * 4096))
    await store.save(snapshot(9, blob=b""))
    assert await store.newest() == snapshot(9, blob=b"")
    assert await store.newest(before_seq=9) == snapshot(5, blob=bytes(range(256)) * 4096)
    assert await store.newest(before_seq=5) is None
    await store.close()


async def test_the_same_seq_is_replaced(world: World, epoch: int) -> None:
    store = world.snapshots()
    await store.save(snapshot(5, blob=b"old"))
    await store.save(snapshot(5, blob=b"new"))
    assert await store.newest() == snapshot(5, blob=b"new")
    assert await store.newest(before_seq=5) is None
    await store.close()


async def test_what_is_kept_is_listed_until_it_is_dropped(world: World, epoch: int) -> None:
    store = world.snapshots()
    assert await store.kept() == []
    for seq in (4, 1, 9, 2):
        await store.save(snapshot(seq, blob=bytes(100 * seq)))
    assert await store.kept() == [Kept(seq=seq, size_bytes=100 * seq) for seq in (1, 2, 4, 9)]
    await store.drop([2, 3, 9])
    await store.drop([])
    assert [kept.seq for kept in await store.kept()] == [1, 4]
    assert await store.newest() == snapshot(4, blob=bytes(400))
    await store.close()
