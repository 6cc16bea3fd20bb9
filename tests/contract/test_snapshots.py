"""What every snapshot store promises."""

from control_plane.app.ports import Snapshot
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


async def test_three_are_kept(world: World, epoch: int) -> None:
    store = world.snapshots()
    for seq in (1, 2, 3, 4, 5):
        await store.save(snapshot(seq))
    found = []
    below = None
    while (kept := await store.newest(before_seq=below)) is not None:
        found.append(kept.seq)
        below = kept.seq
    assert found == [5, 4, 3]
    await store.close()
