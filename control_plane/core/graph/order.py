"""Who must be retrained before whom: waves among some models, and the nearest models of one.

A model depends on another also through what lies between them (model -> feature -> model), whether or not
that is among the models asked about.
"""

from collections.abc import Collection

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
    layout = graph.layout()
    positions = np.array([layout.position[node_id] for node_id in asked])
    step = np.zeros(len(graph), np.int64)
    step[positions] = 1
    depth = layout.longest_from_roots(step)[positions].tolist()
    waves: list[list[NodeId]] = [[] for _ in range(max(depth))]
    for node_id, wave in zip(asked, depth, strict=True):
        waves[wave - 1].append(node_id)
    return tuple(tuple(wave) for wave in waves)


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
    start = layout.position[node_id]
    seen, pending, models = {start}, [start], []
    while pending:
        for position in layout.sources_of(pending.pop()).tolist():
            if position in seen:
                continue
            seen.add(position)
            if node_kind(layout.node_ids[position]) == NodeKind.MODEL:
                models.append(position)
            else:
                pending.append(position)
    return tuple(sorted(layout.node_ids[models].tolist()))
