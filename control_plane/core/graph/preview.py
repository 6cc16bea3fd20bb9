"""What a change would reach that is not made yet: this feature retired, this edge added, that one taken away.

The change is made on a scratch copy and both graphs are asked. A node is affected if the edges above it are not what
they were: it is the downstream end of an edge that comes or goes, or downstream of one, in the graph that has the edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from control_plane.core.errors import NotFound, Reason
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Dependency, NodeKind
from control_plane.core.graph.impact import Impact, ImpactFilter, PathsWanted, chosen_mask
from control_plane.core.graph.layout import UNREACHED, Bools, Counts, Ints, Layout
from control_plane.core.graph.paths import shortest_paths
from control_plane.core.graph.rules import dependency_problems
from control_plane.core.ids import NodeId, node_kind

NAMED_MAX = 5
"""Names in one sentence."""

HIT_KINDS = (NodeKind.MODEL, NodeKind.CONSUMER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Nodes to take away with all their edges, edges to add, edges to remove."""

    retire: Sequence[NodeId] = ()
    add: Sequence[Dependency] = ()
    remove: Sequence[Dependency] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a change comes to. Of a change that would be refused, what its sound part comes to."""

    affected: Impact
    """Distances are hops from the nearest change; a retired node has 0, the end of a changed edge 1."""
    retired: Bools
    """True at the positions of retired nodes."""
    orphaned: tuple[NodeId, ...]
    refusals: tuple[str, ...]
    directly_hit: tuple[NodeId, ...]


def preview(graph: DependencyGraph, change: Change, wanted: ImpactFilter) -> Preview:
    """Make a change on a copy and say what it reaches.

    Raises:
        NotFound: a node to retire is not there; all that are missing are named.
    """
    missing = sorted({node_id for node_id in change.retire if not graph.has_node(node_id)})
    if missing:
        raise NotFound(Reason.NODE_NOT_FOUND, f"there is no node {', '.join(missing)}", node_id=missing[0])
    graph.place((*change.retire, *(end for d in change.add for end in d.key[:2] if graph.has_node(end))))
    after = graph.scratch(layouts=True)
    gone, refusals = _take_away(after, change)
    problems = dependency_problems(after, change.add)
    refusals += [problem.message for problem in problems]
    unsound = {problem.index for problem in problems}
    sound = {d.key: d for place, d in enumerate(change.add) if place not in unsound}
    added = [d for key, d in sorted(sound.items()) if key not in {e.key for e in after.between(*key[:2])}]
    after.add_dependencies(added)
    # What is taken away and added again by the same change has not changed.
    again = {d.key for d in gone} & {d.key for d in added}
    gone, added = ([d for d in some if d.key not in again] for some in (gone, added))
    retired = frozenset(change.retire)
    touched = sorted({d.downstream for d in (*gone, *added)} - retired)
    return Preview(
        affected=_affected(graph, after, [*gone, *added], retired, wanted),
        retired=_mask(graph.layout(types=wanted.types), retired),
        orphaned=tuple(n for n in touched if graph.upstream_of(n) and not after.upstream_of(n)),
        refusals=tuple(refusals),
        directly_hit=tuple(n for n in sorted({d.downstream for d in gone} - retired) if node_kind(n) in HIT_KINDS),
    )


def _take_away(after: DependencyGraph, change: Change) -> tuple[list[Dependency], list[str]]:
    """Remove what the change takes away; the edges that were there, and what would be refused."""
    refusals: list[str] = []
    retired = frozenset(change.retire)
    for node_id in sorted(retired):
        users = sorted({d.downstream for d in after.downstream_of(node_id)} - retired)
        if node_kind(node_id) == NodeKind.MODEL and users:
            names = ", ".join(users[:NAMED_MAX]) + (f" and {len(users) - NAMED_MAX} more" if users[NAMED_MAX:] else "")
            refusals.append(f"{node_id} is consumed by {names}: move them off it first, or retire it with force")
    gone: dict[tuple[NodeId, NodeId, str], Dependency] = {}
    for dependency in change.remove:
        known = {d.key: d for d in after.between(dependency.upstream, dependency.downstream)}
        if dependency.key in known:
            gone[dependency.key] = known[dependency.key]
        elif dependency.key not in gone:
            refusals.append(
                f"{dependency.downstream} does not depend on {dependency.upstream} as {dependency.edge_type}: "
                "there is nothing to remove"
            )
    after.remove_dependencies(gone.values())
    for node_id in sorted(retired):
        gone |= {dependency.key: dependency for dependency in after.remove_node(node_id)}
    return [gone[key] for key in sorted(gone)], refusals


def _affected(
    before: DependencyGraph,
    after: DependencyGraph,
    changed: Sequence[Dependency],
    retired: frozenset[NodeId],
    wanted: ImpactFilter,
) -> Impact:
    layout, layout_after = before.layout(types=wanted.types), after.layout(types=wanted.types)
    walked = [d for d in changed if not wanted.types or d.edge_type in wanted.types]
    ends = frozenset(d.downstream for d in walked) - retired
    once, then = _hops(layout, ends), _hops(layout_after, ends)
    moved = _moved(layout_after, layout, then, np.int32(UNREACHED))
    nearest = np.where((moved >= 0) & ((once < 0) | (moved <= once)), moved, once)
    gone = _mask(layout, retired)
    hops = np.where(gone, np.int32(0), np.where(nearest >= 0, nearest + 1, np.int32(UNREACHED)))
    used: Bools = hops >= 0
    reasons: list[str] = []
    if wanted.depth_max is not None:
        near = used & (hops <= wanted.depth_max)
        if deeper := int(used.sum() - near.sum()):
            reasons.append(f"{deeper:,} nodes lie deeper than {wanted.depth_max}")
        used = near
    chosen = chosen_mask(before, layout, wanted)
    answered = used if chosen is None else used & chosen
    step = answered.astype(np.int32)
    wave_before = layout.longest_from_roots(step)
    step_after = _moved(layout, layout_after, step, np.int32(0))
    wave_after = _moved(layout_after, layout, layout_after.longest_from_roots(step_after), np.int32(1))
    wave = np.where(gone, wave_before, wave_after)
    order = layout.in_order(answered, wave)
    paths: tuple[tuple[NodeId, ...], ...] = ()
    if wanted.paths is PathsWanted.ALL:
        reasons.append("a preview shows one path to each node: ask for the impact of the node to see all")
    if wanted.paths is not PathsWanted.NONE:
        paths = _ways((layout, layout_after), order, (once, then), walked, retired)
    return Impact(
        node_id=NodeId(""),
        layout=layout,
        used=used,
        positions=order,
        waves=wave[order],
        distances=hops[order],
        paths=paths,
        path_counts=None,
        reasons=tuple(reasons),
    )


def _hops(layout: Layout, ends: frozenset[NodeId]) -> Counts:
    """Hops from the nearest of some nodes, 0 for themselves; < 0 where none reaches."""
    return layout.shortest_from_any(_mask(layout, ends))


def _mask(layout: Layout, node_ids: frozenset[NodeId]) -> Bools:
    mask = np.zeros(len(layout.numbering), np.bool_)
    mask[[p for node_id in node_ids if (p := layout.numbering.position.get(node_id)) is not None]] = True
    return mask


def _moved(source: Layout, target: Layout, values: Counts, fill: np.int32) -> Counts:
    """Values by position of one layout, by position of another; `fill` where a node has no value."""
    if source.numbering.index is target.numbering.index:
        return values
    size = int(max(source.numbering.index.max(initial=-1), target.numbering.index.max(initial=-1))) + 1
    by_index = np.full(size, fill, np.int32)
    by_index[source.numbering.index] = values
    return by_index[target.numbering.index]


def _ways(
    layouts: tuple[Layout, Layout],
    order: Ints,
    hops: tuple[Counts, Counts],
    walked: Sequence[Dependency],
    retired: frozenset[NodeId],
) -> tuple[tuple[NodeId, ...], ...]:
    """One shortest path to each position from a changed edge, where it is shorter; none to a retired one."""
    begun: dict[NodeId, tuple[NodeId, ...]] = {}
    for dependency in sorted(walked, key=lambda d: d.key, reverse=True):
        if dependency.downstream not in retired:
            begun[dependency.downstream] = (dependency.upstream, dependency.downstream)
    ids = layouts[0].numbering.node_ids[order].tolist()
    found: dict[NodeId, tuple[NodeId, ...]] = {}
    for layout, distance in zip(layouts, hops, strict=True):
        position = layout.numbering.position
        known = {position[end]: way for end, way in begun.items() if end in position}
        reached = [n for n in ids if n not in retired and n in position and distance[position[n]] >= 0]
        ways, _ = shortest_paths(layout, known, np.array([position[n] for n in reached], np.int64), distance)
        for node_id, way in zip(reached, ways, strict=True):
            if way and (node_id not in found or len(way) <= len(found[node_id])):
                found[node_id] = way
    return tuple(found.get(node_id, ()) for node_id in ids)
