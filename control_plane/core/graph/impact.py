"""What a change reaches: the impact set of a node, by wave, and the same question asked upwards.

Depth is unbounded unless the caller bounds it, and an answer says whether it is complete. Answers come in
columns rather than as one object per node: a set may hold a hundred thousand nodes and is asked for in
milliseconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np

from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import DependencyType, NodeKind
from control_plane.core.graph.layout import Bools, Counts, Floats, Ints, Layout
from control_plane.core.graph.paths import (
    PATH_NODES_MAX,
    PATHS_MAX,
    by_end,
    count_paths,
    left_out,
    limited,
    shortest_paths,
    walks_by_length,
)
from control_plane.core.ids import NodeId


class PathsWanted(StrEnum):
    """What of the paths an answer shows."""

    NONE = "none"
    SHORTEST = "shortest"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpactFilter:
    """What to look at, and what of it to show. Empty sets mean all.

    `depth_max` (hops, None for no bound) and `types` bound the walk. `kinds`, `tiers` and `teams` choose from what it
    reached; paths still run through everything.
    """

    depth_max: int | None = None
    kinds: frozenset[NodeKind] = frozenset()
    tiers: frozenset[int] = frozenset()
    teams: frozenset[str] = frozenset()
    types: frozenset[DependencyType] = frozenset()
    paths: PathsWanted = PathsWanted.NONE
    paths_max: int = PATHS_MAX
    path_nodes_max: int = PATH_NODES_MAX


EVERYTHING = ImpactFilter()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedNode:
    """One row of an `Impact`. Paths are empty unless they were asked for."""

    node_id: NodeId
    wave: int
    distance: int
    path: tuple[NodeId, ...] = ()
    path_count: float | None = None
    all_paths: tuple[tuple[NodeId, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Impact:
    """Everything a node reaches, the node itself left out; columns of equal length, ordered by wave, then id.

    `waves` counts topological layers within the answer from 1: all upstreams a node has in the answer are in
    earlier waves, and a node of wave w > 1 has one in wave w - 1. `distances` are hops of the shortest path.
    With paths, each node has one shortest path, both ends included, and the number of all its paths: exact
    below 2**53, rounded above, infinite beyond 1e308.
    """

    node_id: NodeId
    layout: Layout
    used: Bools
    """True at each position that was walked, the asked node included, whatever was chosen from it; shape (N,)."""
    positions: Ints
    """Of the answer, in order; shape (R,)."""
    waves: Counts
    distances: Counts
    paths: tuple[tuple[NodeId, ...], ...] = ()
    path_counts: Floats | None = None
    all_paths: tuple[tuple[tuple[NodeId, ...], ...], ...] = ()
    reasons: tuple[str, ...] = ()
    """What was left out that no filter asked to leave out, each in a sentence."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def node_ids(self) -> tuple[NodeId, ...]:
        """Ids of the answer, in order."""
        return tuple(self.layout.numbering.node_ids[self.positions].tolist())

    @property
    def others(self) -> Bools:
        """True at each position that was reached: all that was walked but the asked node."""
        others = self.used.copy()
        asked = self.layout.numbering.position.get(self.node_id)
        if asked is not None:
            others[asked] = False
        return others

    @property
    def complete(self) -> bool:
        """Whether nothing was left out but by a filter."""
        return not self.reasons

    @property
    def wave_count(self) -> int:
        """Number of waves."""
        return int(self.waves[-1]) if len(self.waves) else 0

    def by_wave(self) -> tuple[tuple[NodeId, ...], ...]:
        """The node ids, one tuple per wave."""
        bounds = np.searchsorted(self.waves, np.arange(1, self.wave_count + 2)).tolist()
        ids = self.node_ids
        return tuple(ids[first:end] for first, end in pairwise(bounds))

    def reached(self) -> Iterator[ReachedNode]:
        """Row by row, for whoever wants few of them or does not mind the time."""
        columns = zip(self.node_ids, self.waves.tolist(), self.distances.tolist(), strict=True)
        for i, (node_id, wave, distance) in enumerate(columns):
            yield ReachedNode(
                node_id=node_id,
                wave=wave,
                distance=distance,
                path=self.paths[i] if self.paths else (),
                path_count=None if self.path_counts is None else float(self.path_counts[i]),
                all_paths=self.all_paths[i] if self.all_paths else (),
            )


def impact(graph: DependencyGraph, node_id: NodeId, wanted: ImpactFilter = EVERYTHING) -> Impact:
    """Everything downstream of a node.

    Nodes deeper than `depth_max` and paths beyond the limits make an answer incomplete.

    Raises:
        NotFound: there is no such node.
        Invalid: `depth_max` < 1.
    """
    return _reach(graph, node_id, wanted, reverse=False)


def upstream(graph: DependencyGraph, node_id: NodeId, wanted: ImpactFilter = EVERYTHING) -> Impact:
    """Everything a node depends on; waves and paths start at the node and go up. Otherwise as `impact`."""
    return _reach(graph, node_id, wanted, reverse=True)


def chosen_mask(graph: DependencyGraph, layout: Layout, wanted: ImpactFilter) -> Bools | None:
    """True at each position that kinds, tiers and teams choose; None if they choose all."""
    if not (wanted.kinds or wanted.tiers or wanted.teams):
        return None
    index, columns = layout.numbering.index, graph.columns
    mask = np.ones(len(index), np.bool_)
    if wanted.kinds:
        mask &= graph.kinds_mask(layout, wanted.kinds)
    if wanted.tiers:
        mask &= np.isin(columns.tier[index], sorted(wanted.tiers))
    if wanted.teams:
        codes = [code for team in sorted(wanted.teams) if (code := columns.teams.known(team)) is not None]
        mask &= np.isin(columns.team[index], codes)
    return mask


def _reach(graph: DependencyGraph, node_id: NodeId, wanted: ImpactFilter, *, reverse: bool) -> Impact:
    if wanted.depth_max is not None and wanted.depth_max < 1:
        violation = Violation(field="depth_max", rule="gte", message="ask for a depth of at least 1, or none at all")
        raise Invalid(Reason.INVALID_ARGUMENT, violation)
    graph.node(node_id)
    layout = graph.layout(reverse=reverse, types=wanted.types)
    start = layout.numbering.position.get(node_id)
    if start is None:
        return _nothing(node_id, layout)
    distance = layout.shortest(start)
    used: Bools = distance >= 0
    reasons: list[str] = []
    if wanted.depth_max is not None:
        near = used & (distance <= wanted.depth_max)
        if deeper := int(used.sum() - near.sum()):
            verb = "lies" if deeper == 1 else "lie"
            reasons.append(f"{deeper:,} {'node' if deeper == 1 else 'nodes'} {verb} deeper than {wanted.depth_max}")
        used = near
    answered = used.copy()
    answered[start] = False
    chosen = chosen_mask(graph, layout, wanted)
    if chosen is not None:
        answered &= chosen
    wave = layout.longest(start, answered.astype(np.int32), used if wanted.depth_max is not None else None)
    order = layout.in_order(answered, wave)
    paths: tuple[tuple[NodeId, ...], ...] = ()
    every: tuple[tuple[tuple[NodeId, ...], ...], ...] = ()
    counts: Floats | None = None
    if wanted.paths is not PathsWanted.NONE:
        paths, dropped = shortest_paths(layout, {start: (node_id,)}, order, distance, wanted.path_nodes_max)
        counts = layout.path_counts(start, used)[order]
        if dropped:
            reasons.append(f"paths of {dropped:,} nodes left out: the limit is {wanted.path_nodes_max:,} node ids")
    if wanted.paths is PathsWanted.ALL:
        every, why = _every_path(graph, layout, start, order, used, wanted)
        reasons += [why] if why else []
    return Impact(
        node_id=node_id,
        layout=layout,
        used=used,
        positions=order,
        waves=wave[order],
        distances=distance[order],
        paths=paths,
        path_counts=counts,
        all_paths=every,
        reasons=tuple(reasons),
    )


def _nothing(node_id: NodeId, layout: Layout) -> Impact:
    """A node that has no edges yet, and therefore no position."""
    none = np.zeros(0, np.int32)
    used = np.zeros(len(layout.numbering), np.bool_)
    return Impact(
        node_id=node_id, layout=layout, used=used, positions=np.zeros(0, np.int64), waves=none, distances=none
    )


def _every_path(
    graph: DependencyGraph, layout: Layout, start: int, order: Ints, used: Bools, wanted: ImpactFilter
) -> tuple[tuple[tuple[tuple[NodeId, ...], ...], ...], str]:
    """All paths to each node of the answer within the limit, and what was left out."""
    onward = graph.layout(reverse=not layout.reverse, types=wanted.types)
    ends = np.zeros(len(used), np.bool_)
    ends[order] = True
    walks = list(limited(walks_by_length(layout, onward, start, ends, used), wanted.paths_max, wanted.path_nodes_max))
    total = count_paths(layout, start, used, order)
    ids, grouped = layout.numbering.node_ids, by_end(walks)
    every = tuple(tuple(tuple(ids[list(walk)].tolist()) for walk in grouped.get(p, ())) for p in order.tolist())
    missing = total - len(walks)
    return every, left_out(missing, total, len(walks), wanted.paths_max) if missing else ""
