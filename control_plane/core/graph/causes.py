"""What several nodes have upstream in common: where to look when they all went bad at once."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from control_plane.core.errors import NotFound, Reason
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import NodeKind
from control_plane.core.graph.layout import Counts, Layout
from control_plane.core.ids import NodeId

STARTS_AT_ONCE = 64
"""Nodes asked about in one fold: 64 numbers per node are a few cache lines, and 25 MB at 100,000 nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonCause:
    """A node that all asked nodes stand on. `distance`: hops to the farthest of them along shortest paths.

    `nearest`: no other common cause lies between it and the asked nodes. `root`: it has no upstream.
    """

    node_id: NodeId
    distance: int
    nearest: bool
    root: bool


def common_causes(
    graph: DependencyGraph, node_ids: Collection[NodeId], kinds: Collection[NodeKind] = ()
) -> tuple[CommonCause, ...]:
    """Nodes upstream of every asked node, nearest first, then by id.

    An asked node itself is among them if all others stand on it. Kinds choose from the answer; what is nearest is
    judged among what was chosen.

    Args:
        graph: where to look.
        node_ids: two or more; repeated ones count once.
        kinds: only these in the answer; none means all.
    Raises:
        NotFound: one of them is not a node; all that are missing are named.
    """
    asked = sorted(set(node_ids))
    missing = [node_id for node_id in asked if not graph.has_node(node_id)]
    if missing:
        raise NotFound(Reason.NODE_NOT_FOUND, f"there is no node {', '.join(missing)}", node_id=missing[0])
    layout = graph.layout(reverse=True)
    position = layout.numbering.position
    starts = [position[node_id] for node_id in asked if node_id in position]
    if len(starts) < len(asked):  # one that has no edges stands on nothing
        return ()
    farthest = _farthest(layout, starts)
    common = farthest >= 0
    if len(starts) == 1:
        common[starts] = False
    if kinds:
        common &= graph.kinds_mask(layout, sorted(kinds))
    # Whatever has another common cause between itself and the asked nodes is upstream of that one.
    nearest = common & ~layout.after_any(common)
    node_ids_of, downstream = layout.numbering.node_ids, graph.layout()
    found = [
        CommonCause(
            node_id=node_ids_of[place],
            distance=int(farthest[place]),
            nearest=bool(nearest[place]),
            root=not len(downstream.sources_of(place)),
        )
        for place in np.flatnonzero(common).tolist()
    ]
    return tuple(sorted(found, key=lambda cause: (cause.distance, cause.node_id)))


def _farthest(layout: Layout, starts: list[int]) -> Counts:
    """For each node the hops to the farthest start along shortest paths; < 0 if a start does not reach it."""
    farthest = np.zeros(len(layout.numbering), np.int32)
    for first in range(0, len(starts), STARTS_AT_ONCE):
        distances = layout.shortest_of_each(starts[first : first + STARTS_AT_ONCE])
        unreached = (distances < 0).any(axis=1) | (farthest < 0)
        farthest = np.where(unreached, np.int32(-1), np.maximum(farthest, distances.max(axis=1)))
    return farthest
