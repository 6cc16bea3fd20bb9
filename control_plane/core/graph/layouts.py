"""The layouts that a graph keeps, and how a change of it reaches them.

A change that fits the numbering is made in each layout at once, one that does not throws all away; the next question
builds anew. Layouts of some edge types only are kept for the sets asked for last: there are 31 sets, people use two.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np
import rustworkx as rx

from control_plane.core.graph.facts import Dependency, DependencyType, Node
from control_plane.core.graph.layout import Ints, Layout, Numbering, build_layout, build_numbering, edges_of
from control_plane.core.ids import NodeId

FILTERED_KEPT_MAX = 8
"""Layouts of some types at once; each is some 10 MB at a million edges."""

PATCHED_MAX = 200
"""Edges changed one by one at most, about 30 us each and layout; for more a new layout is cheaper."""

Types = frozenset[DependencyType]
Key = tuple[Types, bool]


class Layouts:
    """Layouts by edge types (empty: all) and direction, all on one numbering."""

    def __init__(self) -> None:
        self._numbering: Numbering | None = None
        self._kept: dict[Key, Layout] = {}
        self._sorted: list[NodeId] = []
        """Ids of the last numbering in text order: a list that is nearly sorted sorts in no time."""
        self._borrowed = False
        """Whether the numbering is another's, so that nothing may be written to it."""

    def copy(self) -> "Layouts":
        """The same, to change apart. Layouts are frozen; of the numbering only `position` is ever written."""
        copy = Layouts()
        copy._kept = dict(self._kept)
        copy._numbering = self._numbering
        copy._sorted = self._sorted
        copy._borrowed = True
        return copy

    def clear(self) -> None:
        """Forget all; the next question builds anew."""
        self._numbering = None
        self._kept.clear()

    def place(self, node_ids: Iterable[NodeId]) -> None:
        """Number anew at the next question if one of these nodes has no position."""
        if self._numbering is not None and not all(node_id in self._numbering.position for node_id in node_ids):
            self.clear()

    def get(
        self, graph: "rx.PyDiGraph[Node, Dependency]", index: dict[NodeId, int], types: Types, *, reverse: bool
    ) -> Layout:
        """The layout of some types and a direction, built if it is not there."""
        layout = self._kept.pop((types, reverse), None)
        if layout is None:
            layout = self._build(graph, index, types, reverse=reverse)
            filtered = [key for key in self._kept if key[0]]
            if types and len(filtered) >= FILTERED_KEPT_MAX:
                del self._kept[filtered[0]]
        self._kept[types, reverse] = layout  # the last asked for is last
        return layout

    def add_edges(self, edges: Collection[Dependency]) -> None:
        """Dependencies came."""
        if not self._kept:
            return
        if len(edges) > PATCHED_MAX:
            self.clear()
            return
        patched: dict[Key, Layout] = {}
        for key, before in self._kept.items():
            layout: Layout | None = before
            for edge in edges:
                layout = _with(layout, edge) if not key[0] or edge.edge_type in key[0] else layout
            if layout is None:
                self.clear()
                return
            patched[key] = layout
        self._kept = patched

    def remove_edges(self, edges: Collection[Dependency], parted: Collection[tuple[NodeId, NodeId]]) -> None:
        """Dependencies went. `parted` are the pairs that have none left, of whatever type."""
        if not self._kept:
            return
        if len(edges) > PATCHED_MAX:
            self.clear()
            return
        for key, before in list(self._kept.items()):
            layout = before
            if key[0] and any(e.edge_type in key[0] and (e.upstream, e.downstream) not in parted for e in edges):
                del self._kept[key]  # whether another of its types is left, the graph would have to say
                continue
            for upstream, downstream in sorted(parted):
                layout = _without(layout, upstream, downstream)
            self._kept[key] = layout

    def remove_node(self, node_id: NodeId) -> None:
        """A node went, after its edges. Its place stays empty; it must not be found there if it comes again."""
        if self._numbering is None or node_id not in self._numbering.position:
            return
        if self._borrowed:
            self._numbering = replace(self._numbering, position=dict(self._numbering.position))
            self._kept = {key: replace(layout, numbering=self._numbering) for key, layout in self._kept.items()}
            self._borrowed = False
        del self._numbering.position[node_id]

    def _build(
        self, graph: "rx.PyDiGraph[Node, Dependency]", index: dict[NodeId, int], types: Types, *, reverse: bool
    ) -> Layout:
        numbering = self._numbering
        if numbering is None:
            self._sorted = [*(node_id for node_id in self._sorted if node_id in index)]
            known = set(self._sorted)
            self._sorted += [node_id for node_id in index if node_id not in known]
            self._sorted.sort()
            places = np.fromiter(map(index.__getitem__, self._sorted), np.int64, len(self._sorted))
            numbering = self._numbering = build_numbering(graph, self._sorted, places)
            self._borrowed = False
        other = self._kept.get((types, not reverse))
        edges = edges_of(other) if other is not None else _edges(graph, numbering, types)
        return build_layout(numbering, edges, reverse=reverse, types=types)


def _edges(graph: "rx.PyDiGraph[Node, Dependency]", numbering: Numbering, types: Types) -> Ints:
    """Positions of the ends of all edges of some types, shape (E, 2)."""
    pairs = np.asarray(graph.edge_list(), dtype=np.int64).reshape(-1, 2)
    if types:
        pairs = pairs[np.fromiter((edge.edge_type in types for edge in graph.edges()), np.bool_, len(pairs))]
    position = np.zeros(int(numbering.index.max(initial=-1)) + 1, np.int64)
    position[numbering.index] = np.arange(len(numbering))
    return position[pairs]


def _with(layout: Layout | None, edge: Dependency) -> Layout | None:
    if layout is None:
        return None
    upstream = layout.numbering.position.get(edge.upstream)
    downstream = layout.numbering.position.get(edge.downstream)
    return None if upstream is None or downstream is None else layout.with_edge(upstream, downstream)


def _without(layout: Layout, upstream: NodeId, downstream: NodeId) -> Layout:
    source, target = layout.numbering.position.get(upstream), layout.numbering.position.get(downstream)
    return layout if source is None or target is None else layout.without_edge(source, target)
