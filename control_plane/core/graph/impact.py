"""What a change reaches: the impact set of a node, by wave, and the same question asked upwards.

Depth is unbounded unless the caller bounds it, and an answer says whether it is complete. Answers come in
columns rather than as one object per node: a set may hold thousands of nodes and is asked for in
milliseconds.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np

from control_plane.core.errors import Invalid, NotFound, Reason, Violation
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import NodeKind
from control_plane.core.graph.layout import Bools, Ints, Layout
from control_plane.core.ids import NodeId

PATH_NODES_MAX = 1_000_000
"""Node ids over all shortest paths of one answer: about 10 MB. On a chain of 100,000 it would be 5e9."""

PATHS_MAX = 1_000
"""Paths enumerated between two nodes unless the caller asks otherwise; more than a person reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedNode:
    """One row of an `Impact`. `path` is empty unless paths were asked for."""

    node_id: NodeId
    wave: int
    distance: int
    path: tuple[NodeId, ...]
    path_count: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """Everything a node reaches, the node itself left out; columns of equal length, ordered by wave, then id.

    `waves` counts topological layers within the answer from 1: all upstreams a node has in the answer are in
    earlier waves, and a node of wave w > 1 has one in wave w - 1. `distances` are hops of the shortest path.
    With paths, each node has one shortest path, both ends included, and the number of all its paths: exact
    below 2**53, rounded above, infinite beyond 1e308. `complete` is False if anything was left out that was
    not excluded by kind.
    """

    node_id: NodeId
    node_ids: tuple[NodeId, ...]
    waves: tuple[int, ...]
    distances: tuple[int, ...]
    paths: tuple[tuple[NodeId, ...], ...] = ()
    path_counts: tuple[float, ...] = ()
    complete: bool = True
    why_incomplete: str = ""

    def __len__(self) -> int:
        return len(self.node_ids)

    @property
    def wave_count(self) -> int:
        """Number of waves."""
        return self.waves[-1] if self.waves else 0

    def by_wave(self) -> tuple[tuple[NodeId, ...], ...]:
        """The node ids, one tuple per wave."""
        bounds = np.searchsorted(np.array(self.waves), np.arange(1, self.wave_count + 2)).tolist()
        return tuple(self.node_ids[first:end] for first, end in pairwise(bounds))

    def reached(self) -> Iterator[ReachedNode]:
        """Row by row, for whoever wants few of them or does not mind the time."""
        for i, (node_id, wave, distance) in enumerate(zip(self.node_ids, self.waves, self.distances, strict=True)):
            yield ReachedNode(
                node_id=node_id,
                wave=wave,
                distance=distance,
                path=self.paths[i] if self.paths else (),
                path_count=self.path_counts[i] if self.path_counts else None,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Paths between two nodes, both ends included, in the order of their ids; `total` is exact."""

    paths: tuple[tuple[NodeId, ...], ...]
    total: int
    complete: bool
    why_incomplete: str = ""


def impact(
    graph: DependencyGraph,
    node_id: NodeId,
    *,
    max_depth: int | None = None,
    kinds: Collection[NodeKind] = (),
    include_paths: bool = False,
    path_nodes_max: int = PATH_NODES_MAX,
) -> Impact:
    """Everything downstream of a node.

    Args:
        graph: where to look.
        node_id: the node that changes.
        max_depth: hops at most, >= 1; None for no bound. Nodes left out by it make the answer incomplete.
        kinds: only these in the answer; none means all. Paths run through every kind.
        include_paths: also find one shortest path and the number of paths for each node.
        path_nodes_max: node ids over all paths at most; nodes beyond have an empty path and the answer is
            incomplete.
    Raises:
        NotFound: there is no such node.
        Invalid: `max_depth` < 1.
    """
    return _reach(graph, node_id, max_depth, kinds, path_nodes_max if include_paths else None, reverse=False)


def upstream(
    graph: DependencyGraph,
    node_id: NodeId,
    *,
    max_depth: int | None = None,
    kinds: Collection[NodeKind] = (),
    include_paths: bool = False,
    path_nodes_max: int = PATH_NODES_MAX,
) -> Impact:
    """Everything a node depends on; waves and paths start at the node and go up. Otherwise as `impact`."""
    return _reach(graph, node_id, max_depth, kinds, path_nodes_max if include_paths else None, reverse=True)


def all_paths(graph: DependencyGraph, source: NodeId, target: NodeId, *, paths_max: int = PATHS_MAX) -> Paths:
    """Paths from `source` downstream to `target`, at most `paths_max`, and how many there are.

    The search enters only nodes that lead to the target, so its cost is that of the paths it returns.

    Raises:
        NotFound: either is not a node.
    """
    for end in (source, target):
        if not graph.has_node(end):
            raise NotFound(Reason.NODE_NOT_FOUND, f"there is no node {end}", node_id=end)
    # Turned round, so that positions ascend from the target back to the source and `sources_of` looks
    # downstream.
    layout = graph.layout(reverse=True)
    first, last = layout.position[source], layout.position[target]
    ways = _ways_to_target(layout, first, last)
    total = ways.get(first, 0)
    walks = islice(_walks(layout, ways, first, last), paths_max)
    paths = tuple(tuple(layout.node_ids[list(walk)].tolist()) for walk in walks)
    complete = len(paths) == total
    why = "" if complete else f"{total - len(paths)} of {total} paths left out: the limit is {paths_max}"
    return Paths(paths=paths, total=total, complete=complete, why_incomplete=why)


def _reach(
    graph: DependencyGraph,
    node_id: NodeId,
    max_depth: int | None,
    kinds: Collection[NodeKind],
    path_nodes_max: int | None,
    *,
    reverse: bool,
) -> Impact:
    if max_depth is not None and max_depth < 1:
        violation = Violation(field="depth_max", rule="gte", message="ask for a depth of at least 1, or none at all")
        raise Invalid(Reason.INVALID_ARGUMENT, violation)
    graph.node(node_id)
    layout = graph.layout(reverse=reverse)
    start = layout.position[node_id]
    distance = layout.shortest(start)
    members: Bools = distance >= 0
    why: list[str] = []
    if max_depth is not None:
        near = members & (distance <= max_depth)
        if left_out := int(members.sum() - near.sum()):
            why.append(f"{left_out} nodes lie deeper than {max_depth}")
        members = near
    answered = members.copy()
    answered[start] = False
    if kinds:
        answered &= layout.kinds_mask(sorted(kinds))
    wave = layout.longest(start, answered.astype(np.int64), members if max_depth is not None else None)
    order = layout.in_order(np.flatnonzero(answered), wave)
    paths: tuple[tuple[NodeId, ...], ...] = ()
    counts: tuple[float, ...] = ()
    if path_nodes_max is not None:
        paths, dropped = _shortest_paths(layout, start, order, distance, path_nodes_max)
        counts = tuple(layout.path_counts(start, members)[order].tolist())
        if dropped:
            why.append(f"paths of {dropped} nodes left out: the limit is {path_nodes_max} node ids")
    return Impact(
        node_id=node_id,
        node_ids=tuple(layout.node_ids[order].tolist()),
        waves=tuple(wave[order].tolist()),
        distances=tuple(distance[order].tolist()),
        paths=paths,
        path_counts=counts,
        complete=not why,
        why_incomplete="; ".join(why),
    )


def _shortest_paths(
    layout: Layout, start: int, positions: Ints, distance: Ints, path_nodes_max: int
) -> tuple[tuple[tuple[NodeId, ...], ...], int]:
    """One shortest path to each position, nearest first until the limit; and how many were dropped."""
    ids = layout.node_ids
    known: dict[int, tuple[NodeId, ...]] = {start: (ids[start],)}

    def path_to(position: int) -> tuple[NodeId, ...]:
        """Step back along the predecessor nearest to the start, the first by id among equals."""
        trail: list[int] = []
        while position not in known:
            trail.append(position)
            sources = layout.sources_of(position)
            nearest = sources[distance[sources] == distance[position] - 1]
            position = int(nearest[np.argmin(layout.rank[nearest])])
        for later in reversed(trail):
            known[later] = (*known[position], ids[later])
            position = later
        return known[position]

    by_distance = positions[np.argsort(distance[positions], kind="stable")]
    within = np.cumsum(distance[by_distance] + 1) <= path_nodes_max
    found = {position: path_to(position) for position in by_distance[within].tolist()}
    return tuple(found.get(p, ()) for p in positions.tolist()), len(positions) - len(found)


def _ways_to_target(layout: Layout, first: int, last: int) -> dict[int, int]:
    """For each position on a path between the two: how many paths lead on to `last`. Python integers, always
    exact.
    """
    leads_on = layout.reached(last)
    if not leads_on[first]:
        return {}
    needed, pending = {first}, [first]
    while pending:
        for after in layout.sources_of(pending.pop()).tolist():
            if leads_on[after] and after not in needed:
                needed.add(after)
                pending.append(after)
    ways = {last: 1}
    for position in sorted(needed - {last}):
        ways[position] = sum(ways.get(after, 0) for after in layout.sources_of(position).tolist())
    return ways


def _walks(layout: Layout, ways: dict[int, int], first: int, last: int) -> Iterator[tuple[int, ...]]:
    """Every path from `first` to `last` in the order of their ids; depth first, without recursion."""
    stack: list[tuple[int, ...]] = [(first,)] if ways else []
    while stack:
        walk = stack.pop()
        if walk[-1] == last:
            yield walk
            continue
        after = [p for p in layout.sources_of(walk[-1]).tolist() if p in ways]
        stack += [(*walk, p) for p in sorted(after, key=layout.rank.__getitem__, reverse=True)]
