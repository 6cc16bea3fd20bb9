"""The graph laid out in arrays, so that a question about thousands of nodes costs a few dozen numpy calls.

Theory of operation. Nodes are numbered by (level, id), where a node's level is the length of the longest path
that ends in it. All upstreams of a node then have smaller positions, and the nodes of one level are one
slice. Incoming edges are sorted by the position of the node they enter, so those of one level are one slice
too, cut into one segment per node. A fold over the graph (longest path, shortest path, number of paths) is
then, level by level,

    value[level] = combine.reduceat(value[source of each edge], start of each segment) + step[level]

with no Python per edge. Measured on 2 cores: 0.14 ms per fold at 5,000 nodes / 50,000 edges and 2.4 ms at
100,000 / 1,000,000, where copying the subgraph and sorting it topologically takes 1.7 and 25 ms.

A layout is built once per change of the graph (6 ms and 0.2 s at those sizes), on first use. A `reverse`
layout has every edge turned round: "downstream" in here then means upstream in the graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import rustworkx as rx

from control_plane.core.graph.facts import Dependency, Node, NodeKind
from control_plane.core.ids import NodeId, node_kind

KIND_CODES = {kind.value: code for code, kind in enumerate(NodeKind)}
"""Kinds as small integers, only ever compared within one layout."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

UNREACHED = -(1 << 60)
"""Value of a node that the start does not reach: so low that no number of steps lifts it to 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Nodes `first` to `end` (exclusive), sources of their incoming edges, where each node's edges start."""

    first: int
    end: int
    sources: Ints
    segments: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Positions 0..N-1 of all nodes; `levels[0]` has no edges. Positions change with every edit."""

    node_ids: npt.NDArray[np.object_]
    position: dict[NodeId, int]
    rank: Ints
    """Position -> place of the node among all ids in text order."""
    kind_code: npt.NDArray[np.int8]
    level_of: npt.NDArray[np.int32]
    levels: tuple[Level, ...]

    def kinds_mask(self, kinds: Sequence[NodeKind]) -> Bools:
        """True for each node of one of these kinds."""
        return np.isin(self.kind_code, [KIND_CODES[kind.value] for kind in kinds])

    def in_order(self, positions: Ints, major: Ints) -> Ints:
        """Sort positions by `major` (one value per node of the layout), then by id."""
        return positions[np.argsort(major[positions] * len(self.rank) + self.rank[positions])]

    def longest(self, start: int, step: Ints, members: Bools | None = None) -> Ints:
        """Greatest sum of `step` over the nodes after `start` on a path to each node; < 0 where there is no
        path.

        Args:
            start: position to start from; its own step is not counted.
            step: what each node adds, shape (N,), >= 0.
            members: if given, paths run through these nodes only, shape (N,).
        """
        value = np.full(len(self.rank), UNREACHED, np.int64)
        value[start] = 0
        for level in self.levels[self.level_of[start] + 1 :]:
            here = np.maximum.reduceat(value.take(level.sources), level.segments)
            here += step[level.first : level.end]
            if members is not None:
                here[~members[level.first : level.end]] = UNREACHED
            value[level.first : level.end] = here
        return value

    def reached(self, start: int) -> Bools:
        """True for each node that `start` reaches, not for `start`."""
        reached = self.longest(start, np.zeros(len(self.rank), np.int64)) >= 0
        reached[start] = False
        return reached

    def longest_from_roots(self, step: Ints) -> Ints:
        """Greatest sum of `step` over all nodes of a path that ends in each node, its own step included."""
        value = step.copy()
        for level in self.levels[1:]:
            value[level.first : level.end] += np.maximum.reduceat(value.take(level.sources), level.segments)
        return value

    def shortest(self, start: int) -> Ints:
        """Hops of the shortest path from `start`; < 0 where there is none."""
        value = np.full(len(self.rank), UNREACHED, np.int64)
        value[start] = 0
        for level in self.levels[self.level_of[start] + 1 :]:
            # Kept negated, so that "not reached" loses against every path and one `maximum` does both jobs.
            here = np.maximum.reduceat(value.take(level.sources), level.segments)
            here -= 1
            value[level.first : level.end] = here
        return np.where(value > UNREACHED // 2, -value, UNREACHED)

    def path_counts(self, start: int, members: Bools) -> Floats:
        """Number of paths from `start` through members to each node: exact below 2**53, rounded above."""
        value = np.zeros(len(self.rank), np.float64)
        value[start] = 1.0
        for level in self.levels[self.level_of[start] + 1 :]:
            with np.errstate(over="ignore"):  # beyond 1e308 the count is infinite, and says so
                here = np.add.reduceat(value.take(level.sources), level.segments)
            here[~members[level.first : level.end]] = 0.0
            value[level.first : level.end] = here
        return value

    def sources_of(self, position: int) -> Ints:
        """Positions of the direct upstreams of a node, ascending."""
        level = self.levels[self.level_of[position]]
        begin, *end = level.segments[position - level.first :][:2].tolist() or [0]
        sources: Ints = level.sources[begin : end[0] if end else None]
        return sources


def build_layout(graph: "rx.PyDiGraph[Node, Dependency]", *, reverse: bool) -> Layout:
    """Lay out an acyclic graph; several edges between the same two nodes count once."""
    indices = np.asarray(graph.node_indices(), dtype=np.int64)
    ids = np.empty(len(indices), dtype=object)
    ids[:] = [node.node_id for node in graph.nodes()]
    by_text = sorted(range(len(ids)), key=ids.__getitem__)
    text_rank = np.empty(len(ids), np.int64)
    text_rank[by_text] = np.arange(len(ids))

    # `dense` maps the indices of rustworkx, which have holes after removals, to 0..N-1.
    dense = np.zeros(int(indices.max(initial=-1)) + 1, np.int64)
    dense[indices] = np.arange(len(indices))
    edges = dense[np.asarray(graph.edge_list(), dtype=np.int64).reshape(-1, 2)]
    if reverse:
        edges = edges[:, ::-1]
    level_of = _levels(graph, dense, len(indices), edges, reverse=reverse)

    order = np.lexsort((text_rank, level_of))
    position = np.empty(len(ids), np.int64)
    position[order] = np.arange(len(ids))
    # Sorted and without repeats by hand: `np.unique` hashes, at 20 times the price.
    key = np.sort(position[edges[:, 1]] * max(len(ids), 1) + position[edges[:, 0]])
    key = key[np.diff(key, prepend=-1) > 0]
    targets, sources = np.divmod(key, max(len(ids), 1))
    ordered_ids = ids[order]
    return Layout(
        node_ids=ordered_ids,
        position={node_id: place for place, node_id in enumerate(ordered_ids.tolist())},
        rank=text_rank[order],
        kind_code=np.array([KIND_CODES[node_kind(i)] for i in ordered_ids.tolist()], dtype=np.int8),
        level_of=level_of[order],
        levels=_cut(level_of[order], targets, sources.astype(np.int64)),
    )


def _levels(
    graph: "rx.PyDiGraph[Node, Dependency]", dense: Ints, size: int, edges: Ints, *, reverse: bool
) -> npt.NDArray[np.int32]:
    """Length of the longest path that ends in each node, in the direction of `edges`."""
    level_of = np.zeros(size, np.int32)
    generations = rx.topological_generations(graph)
    for number, generation in enumerate(generations):
        level_of[dense[np.asarray(generation, dtype=np.int64)]] = number
    if not reverse:
        return level_of
    # The library layers from the roots only. Walk them from the far end, each edge lifting its target.
    order = np.argsort(level_of[edges[:, 1]], kind="stable")
    sources, targets = edges[order, 0], edges[order, 1]
    bounds = np.searchsorted(level_of[targets], np.arange(len(generations) + 1))
    turned = np.zeros(size, np.int32)
    for number in range(len(generations) - 2, -1, -1):
        here = slice(bounds[number], bounds[number + 1])
        np.maximum.at(turned, targets[here], turned[sources[here]] + 1)
    return turned


def _cut(level_of: npt.NDArray[np.int32], targets: Ints, sources: Ints) -> tuple[Level, ...]:
    """Cut nodes and edges, both sorted by position, into levels."""
    size = len(level_of)
    node_bounds = np.searchsorted(level_of, np.arange(int(level_of.max(initial=-1)) + 2)).tolist()
    starts = np.searchsorted(targets, np.arange(size + 1))
    levels: list[Level] = []
    for first, end in pairwise(node_bounds):
        begin = starts[first]
        levels.append(
            Level(
                first=first,
                end=end,
                sources=sources[begin : starts[end]],
                segments=(starts[first:end] - begin).astype(np.int64),
            )
        )
    return tuple(levels)
