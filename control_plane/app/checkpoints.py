"""Which snapshots are kept, so that any past state is near one and all of them together are bounded. Pure.

The log is divided into stretches of equal length, counted from its beginning so that they never move; of each stretch
the oldest snapshot is kept. No two neighbours are then further apart than two stretches, if snapshots were taken
often enough. Near the end the stretches are short, further back long. Should all that is kept take too much room, the
stretches double until it does not.
"""

from collections.abc import Sequence

from control_plane.app import limits
from control_plane.app.ports import Kept


def to_drop(
    kept: Sequence[Kept],
    *,
    every: int,
    near: int = limits.HISTORY_NEAR_EVENTS,
    far_every: int = limits.HISTORY_FAR_EVERY_EVENTS,
    bytes_max: int = limits.HISTORY_BYTES_MAX,
) -> list[int]:
    """Seqs of the snapshots that are not needed, in order.

    Args:
        kept: all there are, oldest first.
        every: length of a stretch near the end, in events.
        near: how far back from the newest snapshot these short stretches are, in events.
        far_every: length of a stretch further back.
        bytes_max: of all that stay, but for the newest few.
    """
    if not kept:
        return []
    newest = kept[-1].seq
    while True:
        staying = _staying(kept, newest - near, every, max(every, far_every))
        size = sum(one.size_bytes for one in kept if one.seq in staying)
        if size > bytes_max and every <= newest:
            every, far_every = 2 * every, 2 * far_every
            continue
        if size > bytes_max:
            staying = {one.seq for one in kept[-limits.SNAPSHOTS_TO_FALL_BACK :]}
        return [one.seq for one in kept if one.seq not in staying]


def _staying(kept: Sequence[Kept], near_from: int, every: int, far_every: int) -> set[int]:
    staying = {one.seq for one in kept[-limits.SNAPSHOTS_TO_FALL_BACK :]}
    covered: set[tuple[int, int]] = set()
    for one in kept:
        length = every if one.seq > near_from else far_every
        stretch = (length, one.seq // length)
        if stretch not in covered:
            covered.add(stretch)
            staying.add(one.seq)
    return staying
