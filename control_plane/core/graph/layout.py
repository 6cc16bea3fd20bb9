"""The graph laid out in arrays, so that a question about thousands of nodes costs a few dozen numpy calls.

Theory of operation. Nodes are numbered by (level, id), where a node's level is at least the length of the longest
path that ends in it. All upstreams of a node then have smaller positions, and the nodes of one level are one slice.
Incoming edges are sorted by the position of the node they enter, so those of one level are one slice too, cut into
one segment per node. A fold over the graph (longest path, shortest path, number of paths) is then, level by level,

    value[level] = combine.reduceat(value[source of each edge], start of each segment) + step[level]

with no Python per edge. A layout that looks upstream has the same positions; its levels run the other way, and its
"sources" are what a node feeds.

Any order in which every edge leads to a higher level will do, so most changes need no new numbering: an edge that
already leads upwards is put into its level (some 30 us, whatever the size), an edge that goes away is taken out. A
node of a level above 0 that has no edge is given the source `NOWHERE`, the last place of every array of values,
which nothing ever reaches. Only an edge against the order costs a new layout (see `build_layout`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import rustworkx as rx

from control_plane.core.graph.facts import Dependency, DependencyType, Node
from control_plane.core.ids import NodeId

Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

UNREACHED = -(1 << 30)
"""Value of a node that the start does not reach: so low that no number of steps lifts it to 0."""

NOWHERE = -1
"""Source of a node that has none: the last place of an array of values, one beyond the last position. Hence `wrap`
wherever values are taken, which is also a quarter faster than to check every index.
"""

LAYERS_MAX = 1_000
"""Layers that are found a pass each, about 50 us; beyond that the library walks node by node."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Numbering:
    """Which position each node has, from 0; the same in all layouts until an edge against the order comes.

    Nodes that came after have no position yet (and no edges); those that went keep an empty place.
    """

    node_ids: npt.NDArray[np.object_]
    position: dict[NodeId, int]
    rank: Counts
    """Position -> place of the node among all ids in text order."""
    by_rank: Ints
    """The inverse of `rank`."""
    index: Ints
    """Position -> index of the node in the graph and its columns."""
    level_of: Counts
    bounds: tuple[int, ...]
    """Position of each level's first node, and the number of nodes at the end."""

    def __len__(self) -> int:
        return len(self.rank)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Level:
    """Nodes `first` to `end` (exclusive), sources of their incoming edges, where each node's edges start."""

    first: int
    end: int
    sources: Ints
    segments: Ints

    def of(self, position: int) -> slice:
        """Where the edges of one node are."""
        place = position - self.first
        end = self.segments[place + 1] if place + 1 < len(self.segments) else len(self.sources)
        return slice(int(self.segments[place]), int(end))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Edges of one direction on a numbering; `levels[0]` has no edges."""

    numbering: Numbering
    reverse: bool
    types: frozenset[DependencyType] = frozenset()
    """Types of its edges; empty: all."""
    levels: tuple[Level, ...]

    def place(self, position: int) -> int:
        """Which of `levels` a position is in."""
        level = int(self.numbering.level_of[position])
        return len(self.levels) - 1 - level if self.reverse else level

    def in_order(self, members: Bools, major: Counts) -> Ints:
        """Positions of the members, sorted by `major` (one value per node, >= 0), then by id."""
        positions = self.numbering.by_rank[members[self.numbering.by_rank]]
        keys = major[positions]
        if len(keys) and int(keys.max()) < 1 << 16:
            keys = keys.astype(np.uint16)  # numpy sorts these by radix, in a fifth of the time
        in_order: Ints = positions[np.argsort(keys, kind="stable")]
        return in_order

    def longest(self, start: int, step: Counts, members: Bools | None = None) -> Counts:
        """Greatest sum of `step` over the nodes after `start` on a path to each node; < 0 where there is no
        path.

        Args:
            start: position to start from; its own step is not counted.
            step: what each node adds, shape (N,), >= 0.
            members: if given, paths run through these nodes only, shape (N,).
        """
        value = self._unreached(start)
        for level in self.levels[self.place(start) + 1 :]:
            here = np.maximum.reduceat(value.take(level.sources, mode="wrap"), level.segments)
            here += step[level.first : level.end]
            if members is not None:
                here[~members[level.first : level.end]] = UNREACHED
            value[level.first : level.end] = here
        return value[:-1]

    def shortest(self, start: int) -> Counts:
        """Hops of the shortest path from `start`; < 0 where there is none."""
        value = self._unreached(start)
        for level in self.levels[self.place(start) + 1 :]:
            # Kept negated, so that "not reached" loses against every path and one `maximum` does both jobs.
            here = np.maximum.reduceat(value.take(level.sources, mode="wrap"), level.segments)
            here -= 1
            value[level.first : level.end] = here
        value = value[:-1]
        return np.where(value > UNREACHED // 2, -value, np.int32(UNREACHED))

    def shortest_from_any(self, starts: Bools) -> Counts:
        """Hops of the shortest path from the nearest of some starts, 0 for themselves; < 0 where there is none."""
        value = np.append(np.where(starts, np.int32(0), np.int32(UNREACHED)), np.int32(UNREACHED))
        for level in self.levels[1:]:
            here = np.maximum.reduceat(value.take(level.sources, mode="wrap"), level.segments)
            here -= 1
            value[level.first : level.end] = np.maximum(value[level.first : level.end], here)
        value = value[:-1]
        return np.where(value > UNREACHED // 2, -value, np.int32(UNREACHED))

    def shortest_of_each(self, starts: Sequence[int]) -> Counts:
        """Hops of the shortest path from each of some starts, shape (N, len(starts)); < 0 where there is none."""
        value = np.full((len(self.numbering) + 1, len(starts)), UNREACHED, np.int32)
        value[starts, np.arange(len(starts))] = 0
        for level in self.levels[min(map(self.place, starts), default=0) + 1 :]:
            here = np.maximum.reduceat(value.take(level.sources, axis=0), level.segments, axis=0)
            here -= 1
            # A start within the level keeps its 0.
            value[level.first : level.end] = np.maximum(value[level.first : level.end], here)
        value = value[:-1]
        return np.where(value > UNREACHED // 2, -value, np.int32(UNREACHED))

    def reached(self, start: int) -> Bools:
        """True for each node that `start` reaches, not for `start`."""
        value = np.zeros(len(self.numbering) + 1, np.bool_)
        value[start] = True
        for level in self.levels[self.place(start) + 1 :]:
            value[level.first : level.end] = np.logical_or.reduceat(
                value.take(level.sources, mode="wrap"), level.segments
            )
        value[start] = False
        return value[:-1]

    def after_any(self, starts: Bools) -> Bools:
        """True for each node that any of the starts reaches, starts themselves only if another reaches them."""
        value = np.append(starts, False)  # the value of NOWHERE
        found = np.zeros(len(value), np.bool_)
        for level in self.levels[1:]:
            here = np.logical_or.reduceat(value.take(level.sources, mode="wrap"), level.segments)
            found[level.first : level.end] = here
            value[level.first : level.end] |= here
        return found[:-1]

    def longest_from_roots(self, step: Counts) -> Counts:
        """Greatest sum of `step` over all nodes of a path that ends in each node, its own step included."""
        value = np.append(step, np.int32(0))
        for level in self.levels[1:]:
            value[level.first : level.end] += np.maximum.reduceat(
                value.take(level.sources, mode="wrap"), level.segments
            )
        return value[:-1]

    def path_counts(self, start: int, members: Bools) -> Floats:
        """Number of paths from `start` through members to each node: exact below 2**53, rounded above."""
        value = np.zeros(len(self.numbering) + 1, np.float64)
        value[start] = 1.0
        for level in self.levels[self.place(start) + 1 :]:
            with np.errstate(over="ignore"):  # beyond 1e308 the count is infinite, and says so
                here = np.add.reduceat(value.take(level.sources, mode="wrap"), level.segments)
            here[~members[level.first : level.end]] = 0.0
            value[level.first : level.end] = here
        return value[:-1]

    def exact_path_counts(self, start: int, members: Bools) -> npt.NDArray[np.object_]:
        """The same in integers of any length, at some fifty times the price."""
        value = np.zeros(len(self.numbering) + 1, np.object_)
        value[start] = 1
        for level in self.levels[self.place(start) + 1 :]:
            here = np.add.reduceat(value.take(level.sources, mode="wrap"), level.segments)
            here[~members[level.first : level.end]] = 0
            value[level.first : level.end] = here
        return value[:-1]

    def nearest_sources(self, distance: Counts) -> Ints:
        """For each node the source that is nearest to the start, the first by id among equals.

        Args:
            distance: of each node from the start, < 0 where it is not reached. Only what is said of nodes reached
                by a path means anything.
        """
        # One number orders sources by distance, then id; what is not reached loses.
        size = len(self.numbering)
        order = np.where(distance >= 0, distance.astype(np.int64), size) * size + self.numbering.rank
        order = np.append(order, np.iinfo(np.int64).max)
        best = np.zeros(size, np.int64)
        for level in self.levels[1:]:
            best[level.first : level.end] = np.minimum.reduceat(order.take(level.sources), level.segments)
        nearest: Ints = self.numbering.by_rank[best % max(size, 1)]
        return nearest

    def sources_of(self, position: int) -> Ints:
        """Positions of the direct sources of a node, ascending."""
        level = self.levels[self.place(position)]
        if not len(level.segments):
            return level.sources
        sources = level.sources[level.of(position)]
        return sources[sources >= 0]

    def with_edge(self, upstream: int, downstream: int) -> "Layout | None":
        """This layout with one edge more; None if it leads against the order. An edge that is there is no change."""
        level_of = self.numbering.level_of
        if level_of[upstream] >= level_of[downstream]:
            return None
        source, target = (downstream, upstream) if self.reverse else (upstream, downstream)
        here = self.levels[self.place(target)].of(target)
        level = self.levels[self.place(target)]
        sources = level.sources[here]
        if sources[0] == NOWHERE:
            edited = level.sources.copy()
            edited[here.start] = source
            return self._with_level(replace(level, sources=edited))
        at = int(np.searchsorted(sources, source))
        if at < len(sources) and sources[at] == source:
            return self
        segments = level.segments.copy()
        segments[target - level.first + 1 :] += 1
        edited = np.insert(level.sources, here.start + at, source)
        return self._with_level(replace(level, sources=edited, segments=segments))

    def without_edge(self, upstream: int, downstream: int) -> "Layout":
        """This layout with one edge less, if it is there."""
        source, target = (downstream, upstream) if self.reverse else (upstream, downstream)
        level = self.levels[self.place(target)]
        if not len(level.segments):
            return self
        here = level.of(target)
        sources = level.sources[here]
        at = int(np.searchsorted(sources, source))
        if at == len(sources) or sources[at] != source:
            return self
        if len(sources) == 1:
            edited = level.sources.copy()
            edited[here.start] = NOWHERE
            return self._with_level(replace(level, sources=edited))
        segments = level.segments.copy()
        segments[target - level.first + 1 :] -= 1
        edited = np.delete(level.sources, here.start + at)
        return self._with_level(replace(level, sources=edited, segments=segments))

    def _with_level(self, level: Level) -> "Layout":
        at = self.place(level.first)
        return replace(self, levels=(*self.levels[:at], level, *self.levels[at + 1 :]))

    def _unreached(self, start: int) -> Counts:
        value = np.full(len(self.numbering) + 1, UNREACHED, np.int32)
        value[start] = 0
        return value


def build_numbering(
    graph: "rx.PyDiGraph[Node, Dependency]", pairs: Ints, sorted_ids: Sequence[NodeId], index: Ints
) -> Numbering:
    """Number the nodes of an acyclic graph.

    Args:
        graph: the graph.
        pairs: index of both ends of each edge, shape (E, 2).
        sorted_ids: ids of all nodes in text order.
        index: index in the graph of each of them.
    """
    size = len(sorted_ids)
    level_by_index = _levels(pairs, int(index.max(initial=-1)) + 1)
    if level_by_index is None:
        level_by_index = _levels_of_deep(graph, int(index.max(initial=-1)) + 1)
    level_by_rank = level_by_index[index]
    by_rank = np.empty(size, np.int64)
    ranks = np.argsort(level_by_rank, kind="stable")  # position -> rank: by level, then by id
    by_rank[ranks] = np.arange(size)
    ids = np.empty(size, dtype=object)
    ids[:] = sorted_ids
    level_of = level_by_rank[ranks]
    ordered_ids = ids[ranks]
    return Numbering(
        node_ids=ordered_ids,
        position=dict(zip(ordered_ids.tolist(), range(size), strict=True)),
        rank=ranks.astype(np.int32),
        by_rank=by_rank,
        index=index[ranks],
        level_of=level_of,
        bounds=tuple(np.searchsorted(level_of, np.arange(int(level_of.max(initial=-1)) + 2)).tolist()),
    )


def _levels(pairs: Ints, size: int) -> Counts | None:
    """Length of the longest path that ends in each node: all that have no upstream left, layer by layer. None if there
    are so many layers that a pass for each is too slow.
    """
    # One number per edge sorts in a tenth of the time that an index of the edges takes.
    sources, targets = np.divmod(np.sort(pairs[:, 0] * max(size, 1) + pairs[:, 1]), max(size, 1))
    starts = np.searchsorted(sources, np.arange(size + 1))
    waiting = np.bincount(targets, minlength=size)
    level_of = np.zeros(size, np.int32)
    frontier = np.flatnonzero(waiting == 0)
    for level in range(1, LAYERS_MAX):
        counts = starts[frontier + 1] - starts[frontier]
        ends = np.cumsum(counts)
        if not len(ends) or not ends[-1]:
            return level_of
        reached = targets[np.arange(ends[-1]) + np.repeat(starts[frontier] - ends + counts, counts)]
        np.subtract.at(waiting, reached, 1)
        frontier = np.sort(reached[waiting[reached] == 0])
        frontier = frontier[np.diff(frontier, prepend=-1) > 0]
        level_of[frontier] = level
    return None


def _levels_of_deep(graph: "rx.PyDiGraph[Node, Dependency]", size: int) -> Counts:
    """The same by the library: five times as long on a wide graph, but one step per node on a deep one."""
    level_of = np.zeros(size, np.int32)
    for number, generation in enumerate(rx.topological_generations(graph)):
        level_of[np.asarray(generation, dtype=np.int64)] = number
    return level_of


def build_layout(
    numbering: Numbering, edges: Ints, *, reverse: bool, types: frozenset[DependencyType] = frozenset()
) -> Layout:
    """Lay out edges on a numbering; several between the same two nodes count once.

    Args:
        numbering: the positions.
        edges: positions (upstream, downstream) of each edge, shape (E, 2).
        reverse: look upstream instead of downstream.
        types: of the edges; empty: all.
    """
    size = max(len(numbering), 1)
    source, target = (edges[:, 1], edges[:, 0]) if reverse else (edges[:, 0], edges[:, 1])
    # Sorted and without repeats by hand: `np.unique` hashes, at 20 times the price.
    key = np.sort(target * size + source)
    key = key[np.diff(key, prepend=-1) > 0]
    targets, sources = np.divmod(key, size)
    starts = np.searchsorted(targets, np.arange(len(numbering) + 1))
    bounds = list(pairwise(numbering.bounds))
    levels = [
        _level(first, end, sources, starts, bare=number == 0)
        for number, (first, end) in enumerate(reversed(bounds) if reverse else bounds)
    ]
    return Layout(numbering=numbering, reverse=reverse, types=types, levels=tuple(levels))


def _level(first: int, end: int, sources: Ints, starts: Ints, *, bare: bool) -> Level:
    begin = starts[first]
    here, segments = sources[begin : starts[end]], starts[first:end] - begin
    if bare:
        return Level(first=first, end=end, sources=here, segments=segments[:0])
    lonely = np.flatnonzero(starts[first:end] == starts[first + 1 : end + 1])
    if len(lonely):
        here = np.insert(here, segments[lonely], NOWHERE)
        segments = segments + np.searchsorted(lonely, np.arange(end - first))  # each shifts those after it
    return Level(first=first, end=end, sources=here, segments=segments)


def edges_of(layout: Layout) -> Ints:
    """Positions (upstream, downstream) of all edges of a layout, shape (E, 2), each pair once."""
    pairs: list[Ints] = [np.empty((0, 2), np.int64)]
    for level in layout.levels[1:]:
        ends = np.append(level.segments[1:], len(level.sources))
        targets = np.repeat(np.arange(level.first, level.end), ends - level.segments)
        known = level.sources >= 0
        pairs.append(np.column_stack([level.sources[known], targets[known]]))
    edges = np.concatenate(pairs)
    return edges[:, ::-1] if layout.reverse else edges
