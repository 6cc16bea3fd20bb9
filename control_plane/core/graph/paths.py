"""Paths: the shortest to each node, all of them between two, and how many there are.

There may be more paths than atoms, so counting and listing are apart: a count is one fold, a list is bounded. All
lists are ordered by length, then by ids. To list in that order at the price of what is listed, `ends_within` first
finds, for each number of hops, from which nodes an end lies exactly so many hops ahead; the search then never enters
a node from which it could not finish.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from control_plane.core.errors import NotFound, Reason
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.layout import Bools, Counts, Ints, Layout
from control_plane.core.ids import NodeId

PATHS_MAX = 1_000
"""Paths listed unless the caller asks otherwise; more than a person reads."""

PATH_NODES_MAX = 1_000_000
"""Node ids over all paths of one answer: about 10 MB. On a chain of 100,000 it would be 5e9."""

EXACT_MAX = float(1 << 53)
"""Below this a count kept as a float is exact."""

FEW = 2_000
"""Up to so many nodes, asking each for its neighbours beats a pass over all edges."""

Walk = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Paths between two nodes, both ends included, shortest first, then by ids; `total` is exact."""

    paths: tuple[tuple[NodeId, ...], ...]
    total: int
    complete: bool
    why_incomplete: str = ""


def all_paths(graph: DependencyGraph, source: NodeId, target: NodeId, *, paths_max: int = PATHS_MAX) -> Paths:
    """Paths from `source` downstream to `target`, at most `paths_max`, and how many there are.

    Raises:
        NotFound: either is not a node.
    """
    for end in (source, target):
        if not graph.has_node(end):
            raise NotFound(Reason.NODE_NOT_FOUND, f"there is no node {end}", node_id=end)
    layout, onward = graph.layout(), graph.layout(reverse=True)
    start, last = layout.numbering.position.get(source), layout.numbering.position.get(target)
    if start is None or last is None or start == last:
        return Paths(paths=(), total=0, complete=True)
    between = layout.reached(start) & (onward.reached(last) | _only(last, layout))
    total = count_paths(layout, start, between, np.array([last]))
    walks = list(limited(walks_by_length(layout, onward, start, _only(last, layout), between), paths_max))
    paths = tuple(tuple(layout.numbering.node_ids[list(walk)].tolist()) for walk in walks)
    why = "" if len(paths) == total else left_out(total - len(paths), total, len(paths), paths_max)
    return Paths(paths=paths, total=total, complete=not why, why_incomplete=why)


def limited(walks: Iterator[Walk], paths_max: int, nodes_max: int = PATH_NODES_MAX) -> Iterator[Walk]:
    """So many walks at most, and so many nodes over all of them."""
    nodes = 0
    for walk in islice(walks, paths_max):
        nodes += len(walk)
        if nodes > nodes_max:
            return
        yield walk


def left_out(missing: int, total: int, listed: int, paths_max: int) -> str:
    """Why a list of paths is not complete."""
    limit = f"{paths_max:,}" if listed == paths_max else f"{PATH_NODES_MAX:,} nodes over all paths"
    return f"{missing:,} of {total:,} paths left out: the limit is {limit}"


def count_paths(layout: Layout, start: int, members: Bools, ends: Ints) -> int:
    """How many paths lead from `start` through members to any of the ends, exactly."""
    rounded = float(layout.path_counts(start, members)[ends].sum())
    if rounded < EXACT_MAX:
        return int(rounded)
    return int(sum(layout.exact_path_counts(start, members)[ends].tolist()))


def shortest_paths(
    layout: Layout,
    begun: Mapping[int, tuple[NodeId, ...]],
    positions: Ints,
    distance: Counts,
    nodes_max: int = PATH_NODES_MAX,
) -> tuple[tuple[tuple[NodeId, ...], ...], int]:
    """One shortest path to each position, nearest first until the limit; and how many were dropped.

    It comes by the predecessor nearest to a start, the first by id among equals.

    Args:
        layout: where to walk.
        begun: starts, each with the path that ends in it.
        positions: where to go; all are reached.
        distance: of each node from the nearest start, < 0 where none reaches, shape (N,).
        nodes_max: node ids over all paths at most.
    """
    by_distance = positions[np.argsort(distance[positions], kind="stable")]
    within = by_distance[np.cumsum(distance[by_distance].astype(np.int64) + 1) <= nodes_max]
    ids, before = layout.numbering.node_ids, layout.nearest_sources(distance)
    known = dict(begun)
    found: dict[int, tuple[NodeId, ...]] = {}
    for position in within.tolist():
        trail, at = [], position
        while at not in known:
            trail.append(at)
            at = int(before[at])
        for later in reversed(trail):
            known[later] = (*known[at], ids[later])
            at = later
        found[position] = known[position]
    return tuple(found.get(p, ()) for p in positions.tolist()), len(positions) - len(found)


def walks_by_length(layout: Layout, onward: Layout, start: int, ends: Bools, members: Bools) -> Iterator[Walk]:
    """Every walk of at least one hop from `start` through members to an end, shortest first, then by ids.

    Args:
        layout: in the direction of the walks; its sources are what comes before a node.
        onward: the other direction of the same edges; its sources are what comes after a node.
        start: position; not an end.
        ends: where a walk may end, shape (N,); a walk may also pass through.
        members: where it may pass, shape (N,); `start` always.
    """
    allowed = members.copy()
    allowed[start] = True
    hops: list[_Some] = [_Some(ends & members)]
    rank = layout.numbering.rank
    while hops[-1]:
        hops.append(hops[-1].before(layout, onward, allowed))
        length = len(hops) - 1
        stack: list[Walk] = [(start,)] if start in hops[length] else []
        while stack:
            walk = stack.pop()
            rest = length - len(walk) + 1
            if not rest:
                yield walk
                continue
            ahead = [p for p in onward.sources_of(walk[-1]).tolist() if p in hops[rest - 1]]
            stack += [(*walk, p) for p in sorted(ahead, key=rank.__getitem__, reverse=True)]


class _Some:
    """Some nodes: a set while they are few, a mask when they are many."""

    def __init__(self, chosen: Bools | set[int]) -> None:
        if not isinstance(chosen, set) and int(np.count_nonzero(chosen)) <= FEW:
            chosen = set(np.flatnonzero(chosen).tolist())
        self._chosen = chosen

    def __bool__(self) -> bool:
        return bool(self._chosen) if isinstance(self._chosen, set) else bool(self._chosen.any())

    def __contains__(self, position: int) -> bool:
        return position in self._chosen if isinstance(self._chosen, set) else bool(self._chosen[position])

    def before(self, layout: Layout, onward: Layout, allowed: Bools) -> "_Some":
        """Allowed nodes that lead to any of these in one hop."""
        if isinstance(self._chosen, set):
            sources = {p for position in self._chosen for p in layout.sources_of(position).tolist()}
            return _Some({p for p in sources if allowed[p]})
        ahead = np.append(self._chosen, False)  # the value of NOWHERE
        found = np.zeros(len(self._chosen), np.bool_)
        for level in onward.levels[1:]:
            found[level.first : level.end] = np.logical_or.reduceat(ahead.take(level.sources), level.segments)
        return _Some(found & allowed)


def _only(position: int, layout: Layout) -> Bools:
    mask = np.zeros(len(layout.numbering), np.bool_)
    mask[position] = True
    return mask


def by_end(walks: Sequence[Walk]) -> dict[int, list[Walk]]:
    """Walks by their last node, each in their order."""
    found: dict[int, list[Walk]] = {}
    for walk in walks:
        found.setdefault(walk[-1], []).append(walk)
    return found
