"""Which snapshots stay: near ones densely, far ones thinly, never too many bytes, and always enough to start from."""

from hypothesis import given
from hypothesis import strategies as st

from control_plane.app import limits
from control_plane.app.checkpoints import to_drop
from control_plane.app.ports import Kept


def run(steps: list[int], *, every: int, near: int, far_every: int, size: int = 1, bytes_max: int = 10**9) -> list[int]:
    """Take a snapshot after each number of events, thinning after each; the seqs that are there in the end."""
    seq, kept = 0, list[int]()
    for step in steps:
        seq += step
        kept.append(seq)
        found = [Kept(seq=one, size_bytes=size) for one in kept]
        dropped = to_drop(found, every=every, near=near, far_every=far_every, bytes_max=bytes_max)
        kept = [one for one in kept if one not in dropped]
    return kept


@given(st.lists(st.integers(1, 10), min_size=1, max_size=300))
def test_any_revision_is_near_a_snapshot_and_there_are_few_of_them(steps: list[int]) -> None:
    kept = run(steps, every=10, near=300, far_every=100)
    newest = sum(steps)
    assert kept[-1] == newest
    for before, after in zip([0, *kept], kept, strict=False):
        # A snapshot every 10 events or sooner: no stretch is left without one.
        assert after - before <= (20 if before > newest - 300 + 20 else 200)
    assert len(kept) <= 300 // 10 + newest // 100 + 2 + limits.SNAPSHOTS_TO_FALL_BACK


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(1, 20))
def test_the_newest_few_stay_whatever_they_take(steps: list[int], most: int) -> None:
    kept = run(steps, every=5, near=100, far_every=20, bytes_max=most)
    assert len(kept) <= max(most, limits.SNAPSHOTS_TO_FALL_BACK)
    taken = [sum(steps[: place + 1]) for place in range(len(steps))]
    assert kept[-limits.SNAPSHOTS_TO_FALL_BACK :] == taken[-limits.SNAPSHOTS_TO_FALL_BACK :]


def test_of_none_none_is_dropped() -> None:
    assert to_drop([], every=10) == []


def test_a_stretch_keeps_its_oldest() -> None:
    kept = [Kept(seq=seq, size_bytes=1) for seq in (11, 12, 13, 21, 22, 31, 32, 33)]
    assert to_drop(kept, every=10, near=100, far_every=100) == [12, 13, 22]
