"""Who must be retrained before whom: waves among some models, and the nearest models of one.

A model depends on another also through what lies between them (model -> feature -> model), whether or not
that is among the models asked about.
"""

from collections.abc import Collection, Sequence

import numpy as np

from control_plane.core.errors import NotFound, Reason
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import NodeKind
from control_plane.core.ids import NodeId, node_kind


def topological_waves(graph: DependencyGraph, node_ids: Collection[NodeId]) -> tuple[tuple[NodeId, ...], ...]:
    """Split nodes into waves: none depends, even through others, on a node of its own wave or a later one.

    Each node is in the earliest wave that allows; waves are sorted by id.

    Raises:
        NotFound: one of them is not in the graph.
    """
    asked = sorted(set(node_ids))
    missing = [node_id for node_id in asked if not graph.has_node(node_id)]
    if missing:
        raise NotFound(Reason.NODE_NOT_FOUND, f"there is no node {', '.join(missing)}", node_id=missing[0])
    if not asked:
        return ()
    depth = wave_numbers(graph, asked)
    waves: list[list[NodeId]] = [[] for _ in range(max(depth))]
    for node_id, wave in zip(asked, depth, strict=True):
        waves[wave - 1].append(node_id)
    return tuple(tuple(wave) for wave in waves)


def wave_numbers(graph: DependencyGraph, node_ids: Sequence[NodeId]) -> list[int]:
    """For each node the wave it belongs to among them, from 1: 1 has none of the others upstream. All are nodes."""
    if not node_ids:
        return []
    layout = graph.layout()
    # One that has no edges may have no position; nothing is before it.
    position = layout.numbering.position
    positions = np.array([position.get(node_id, -1) for node_id in node_ids])
    step = np.zeros(len(layout.numbering) + 1, np.int32)
    step[positions] = 1
    numbers: list[int] = np.append(layout.longest_from_roots(step[:-1]), np.int32(1))[positions].tolist()
    return numbers


def nearest_upstream_models(graph: DependencyGraph, node_id: NodeId) -> tuple[NodeId, ...]:
    """Models that a node depends on with no other model in between, sorted by id.

    Raises:
        NotFound: there is no such node.
    """
    return _nearest_models(graph, node_id, reverse=True)


def nearest_downstream_models(graph: DependencyGraph, node_id: NodeId) -> tuple[NodeId, ...]:
    """Models that depend on a node with no other model in between, sorted by id.

    Raises:
        NotFound: there is no such node.
    """
    return _nearest_models(graph, node_id, reverse=False)


def _nearest_models(graph: DependencyGraph, node_id: NodeId, *, reverse: bool) -> tuple[NodeId, ...]:
    """Breadth first through what is not a model. Looks the other way round: a node's sources are one hop
    away.
    """
    graph.node(node_id)
    layout = graph.layout(reverse=not reverse)
    node_ids = layout.numbering.node_ids
    start = layout.numbering.position.get(node_id)
    if start is None:
        return ()
    seen, pending, models = {start}, [start], []
    while pending:
        for position in layout.sources_of(pending.pop()).tolist():
            if position in seen:
                continue
            seen.add(position)
            if node_kind(node_ids[position]) == NodeKind.MODEL:
                models.append(position)
            else:
                pending.append(position)
    return tuple(sorted(node_ids[models].tolist()))
