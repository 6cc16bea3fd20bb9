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
        self._order: tuple[list[NodeId], Ints] | None = None
        """Ids of all nodes in text order with their indices, until a node comes or goes."""
        self._borrowed = False
        """Whether the numbering is another's, so that nothing may be written to it."""

    def copy(self) -> "Layouts":
        """The same, to change apart. Layouts are frozen; of the numbering only `position` is ever written."""
        copy = Layouts()
        copy._kept = dict(self._kept)
        copy._numbering = self._numbering
        copy._order = self._order
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
        numbering = self._numbering
        if numbering is None:
            return
        # The numbering is of all edges: it must fit also where no layout that is kept has edges of this type.
        if len(edges) > PATCHED_MAX or not all(_fits(numbering, edge) for edge in edges):
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

    def add_node(self) -> None:
        """A node came. It gets a position with the next numbering, which its first edge asks for."""
        self._order = None

    def remove_node(self, node_id: NodeId) -> None:
        """A node went, after its edges. Its place stays empty; it must not be found there if it comes again."""
        self._order = None
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
        numbering, pairs = self._numbering, None
        if numbering is None:
            pairs = _pairs(graph)
            if self._order is None:
                ids = sorted(index)
                self._order = ids, np.fromiter(map(index.__getitem__, ids), np.int64, len(ids))
            numbering = self._numbering = build_numbering(graph, pairs, *self._order)
            self._borrowed = False
        other = self._kept.get((types, not reverse))
        if other is not None:
            edges = edges_of(other)
        else:
            edges = _placed(graph, numbering, _pairs(graph) if pairs is None else pairs, types)
        return build_layout(numbering, edges, reverse=reverse, types=types)


def _pairs(graph: "rx.PyDiGraph[Node, Dependency]") -> Ints:
    """Index of both ends of each edge, shape (E, 2)."""
    return np.asarray(graph.edge_list(), dtype=np.int64).reshape(-1, 2)


def _placed(graph: "rx.PyDiGraph[Node, Dependency]", numbering: Numbering, pairs: Ints, types: Types) -> Ints:
    """Positions of the ends of all edges of some types, shape (E, 2)."""
    if types:
        pairs = pairs[np.fromiter((edge.edge_type in types for edge in graph.edges()), np.bool_, len(pairs))]
    position = np.zeros(int(numbering.index.max(initial=-1)) + 1, np.int64)
    position[numbering.index] = np.arange(len(numbering))
    return position[pairs]


def _fits(numbering: Numbering, edge: Dependency) -> bool:
    """Do both ends have a position, and does the edge lead from a level to a later one?"""
    upstream, downstream = numbering.position.get(edge.upstream), numbering.position.get(edge.downstream)
    if upstream is None or downstream is None:
        return False
    return bool(numbering.level_of[upstream] < numbering.level_of[downstream])


def _with(layout: Layout | None, edge: Dependency) -> Layout | None:
    if layout is None:
        return None
    upstream = layout.numbering.position.get(edge.upstream)
    downstream = layout.numbering.position.get(edge.downstream)
    return None if upstream is None or downstream is None else layout.with_edge(upstream, downstream)


def _without(layout: Layout, upstream: NodeId, downstream: NodeId) -> Layout:
    source, target = layout.numbering.position.get(upstream), layout.numbering.position.get(downstream)
    return layout if source is None or target is None else layout.without_edge(source, target)
