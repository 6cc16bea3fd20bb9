"""The dependency graph of the fleet, keyed by node id.

rustworkx holds nodes and edges. Its indices are reused after removals, so they never leave this class:
callers see node ids only, and every answer is sorted, because the order inside depends on what was added and
removed before. A node pair may carry several dependencies of different types.

The class keeps facts and answers simple questions; it does not judge. Whether a dependency may be declared is
asked of `rules.check_dependencies` first; declaring a cycle here breaks the layouts that every larger
question is answered from (`impact.py`, `order.py`).
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
import rustworkx as rx

from control_plane.core.errors import Invalid, NotFound, Reason, Violation
from control_plane.core.graph.columns import KIND_CODES, Columns
from control_plane.core.graph.facts import Dependency, DependencyType, GraphSnapshot, Node, NodeKind
from control_plane.core.graph.layout import Bools, Layout
from control_plane.core.graph.layouts import Layouts
from control_plane.core.ids import NodeId, node_kind

TYPE_NUMBERS = {edge_type: number for number, edge_type in enumerate(DependencyType)}


class DependencyGraph:
    """Nodes, dependencies, their facts in columns, and layouts of the edges (see `layout.py`)."""

    def __init__(self) -> None:
        self._graph: rx.PyDiGraph[Node, Dependency] = rx.PyDiGraph(check_cycle=False, multigraph=True)
        self._index: dict[NodeId, int] = {}
        self._layouts = Layouts()
        self.columns = Columns()
        """Facts by index; for this package and whoever renders its answers."""
        self.topology_version = 0
        """Counts changes of the node set and the edges. Only for caches in this process; never kept."""
        self.nodes_version = 0
        """Counts changes of the nodes and their facts. Only for caches in this process; never kept."""

    def __len__(self) -> int:
        return len(self._index)

    def has_node(self, node_id: NodeId) -> bool:
        """Whether there is such a node."""
        return node_id in self._index

    @property
    def dependency_count(self) -> int:
        """Number of dependencies; several types between the same two nodes count separately."""
        return self._graph.num_edges()

    # -- changes ---------------------------------------------------------------------------------------------

    def put_node(self, node: Node) -> bool:
        """Add a node, or replace its facts. Returns whether anything changed."""
        index = self._index.get(node.node_id)
        if index is None:
            index = self._index[node.node_id] = self._graph.add_node(node)
            self._layouts.add_node()
            self.topology_version += 1
        elif self._graph[index] == node:
            return False
        else:
            self._graph[index] = node
        self.nodes_version += 1
        self.columns.put(index, node, self.nodes_version)
        return True

    def put_retrain_cost(self, node_id: NodeId, gpu_hours: float) -> None:
        """Say what retraining a model costs; 0 when it is not known. It is no fact of the node and not kept in
        snapshots of the graph: the model's record has it.

        Raises:
            NotFound: there is no such node.
        """
        self.columns.gpu_hours[self._find(node_id)] = gpu_hours

    def remove_node(self, node_id: NodeId) -> tuple[Dependency, ...]:
        """Remove a node with every dependency that touches it; returns those, sorted.

        Raises:
            NotFound: there is no such node.
        """
        index = self._find(node_id)
        touching = [edge for _, _, edge in self._graph.in_edges(index)]
        touching += [edge for _, _, edge in self._graph.out_edges(index)]
        self._layouts.remove_edges(touching, {edge.key[:2] for edge in touching})
        self._layouts.remove_node(node_id)
        self._graph.remove_node(index)
        del self._index[node_id]
        self.columns.forget(index)
        self.topology_version += 1
        self.nodes_version += 1
        return tuple(sorted(touching, key=_key))

    def add_dependencies(self, dependencies: Iterable[Dependency]) -> int:
        """Add dependencies, or replace their notes and origins. Returns how many changed anything.

        Raises:
            NotFound: an end is not a node; then nothing was changed.
        """
        batch = [(self._find(d.upstream), self._find(d.downstream), d) for d in dependencies]
        new: dict[tuple[int, int, DependencyType], Dependency] = {}
        changed = 0
        for upstream, downstream, dependency in batch:
            edge_index, known = self._edge(upstream, downstream, dependency.edge_type)
            if edge_index is None:
                key = (upstream, downstream, dependency.edge_type)
                changed += new.get(key) != dependency
                new[key] = dependency
            elif known != dependency:
                self._graph.update_edge_by_index(edge_index, dependency)
                changed += 1
        if new:
            self._graph.add_edges_from([(*key[:2], dependency) for key, dependency in new.items()])
            self._layouts.add_edges(tuple(new.values()))
            self.topology_version += 1
        return changed

    def remove_dependencies(self, dependencies: Iterable[Dependency]) -> int:
        """Remove the dependencies with these keys, whatever their notes. Returns how many were there."""
        removed: list[Dependency] = []
        for dependency in dependencies:
            source, target = self._index.get(dependency.upstream), self._index.get(dependency.downstream)
            if source is None or target is None:
                continue
            edge_index, known = self._edge(source, target, dependency.edge_type)
            if edge_index is not None and known is not None:
                self._graph.remove_edge_from_index(edge_index)
                removed.append(known)
        if removed:
            left = {(e.upstream, e.downstream) for e in removed if not self.between(e.upstream, e.downstream)}
            self._layouts.remove_edges(removed, left)
            self.topology_version += 1
        return len(removed)

    # -- facts -----------------------------------------------------------------------------------------------

    def node(self, node_id: NodeId) -> Node:
        """Facts of a node.

        Raises:
            NotFound: there is no such node.
        """
        return self._graph[self._find(node_id)]

    def at(self, index: int) -> Node:
        """Facts of the node at an index of the columns, as a layout's numbering gives it."""
        return self._graph[index]

    def nodes(self, kinds: Collection[NodeKind] = ()) -> tuple[Node, ...]:
        """All nodes, or those of some kinds, sorted by id."""
        wanted = {kind.value for kind in kinds}
        ids = sorted(i for i in self._index if not wanted or node_kind(i) in wanted)
        return tuple(self._graph[self._index[node_id]] for node_id in ids)

    def between(self, upstream: NodeId, downstream: NodeId) -> tuple[Dependency, ...]:
        """The dependencies of one node on another, sorted by type; empty if there are none or a node is
        unknown.
        """
        source, target = self._index.get(upstream), self._index.get(downstream)
        if source is None or target is None or not self._graph.has_edge(source, target):
            return ()
        return tuple(sorted(self._graph.get_all_edge_data(source, target), key=_key))

    def dependency(self, key: tuple[NodeId, NodeId, DependencyType]) -> Dependency | None:
        """The dependency with a key, if it is there."""
        source, target = self._index.get(key[0]), self._index.get(key[1])
        return None if source is None or target is None else self._edge(source, target, key[2])[1]

    def dependencies(self, kinds: Collection[NodeKind] = ()) -> tuple[Dependency, ...]:
        """All dependencies, or those with both ends of some kinds, sorted by upstream, downstream, type."""
        wanted = {kind.value for kind in kinds}
        edges: Iterable[Dependency] = self._graph.edges()
        if wanted:
            edges = (e for e in edges if node_kind(e.upstream) in wanted and node_kind(e.downstream) in wanted)
        return tuple(sorted(edges, key=_key))

    def upstream_of(self, node_id: NodeId) -> tuple[Dependency, ...]:
        """Dependencies of which the node is the downstream end, sorted."""
        return tuple(sorted((edge for _, _, edge in self._graph.in_edges(self._find(node_id))), key=_key))

    def downstream_of(self, node_id: NodeId) -> tuple[Dependency, ...]:
        """Dependencies of which the node is the upstream end, sorted."""
        return tuple(sorted((edge for _, _, edge in self._graph.out_edges(self._find(node_id))), key=_key))

    # -- reach -----------------------------------------------------------------------------------------------

    def reaches(self, upstream: NodeId, downstream: NodeId) -> bool:
        """Whether `downstream` depends on `upstream`, directly or not; a node reaches itself.

        Raises:
            NotFound: either is not a node.
        """
        source, target = self._find(upstream), self._find(downstream)
        return source == target or rx.has_path(self._graph, source, target)

    def shortest_path(self, upstream: NodeId, downstream: NodeId) -> tuple[NodeId, ...] | None:
        """A shortest path, both ends included; among equals the same one always. None if there is none.

        Raises:
            NotFound: either is not a node.
        """
        if not self.reaches(upstream, downstream):
            return None
        came_from: dict[NodeId, NodeId] = {}
        frontier = [upstream]
        while downstream not in came_from and downstream != upstream:
            reached: list[NodeId] = []
            for node_id in frontier:
                for after in sorted({n.node_id for n in self._graph.successors(self._index[node_id])}):
                    if after not in came_from:
                        came_from[after] = node_id
                        reached.append(after)
            frontier = reached
        path = [downstream]
        while path[-1] != upstream:
            path.append(came_from[path[-1]])
        return tuple(reversed(path))

    def upstream_models(self, node_id: NodeId) -> tuple[NodeId, ...]:
        """Every model that a node depends on, directly or through anything, sorted by id.

        Raises:
            NotFound: there is no such node.
        """
        return self._models_reached(node_id, reverse=True)

    def downstream_models(self, node_id: NodeId) -> tuple[NodeId, ...]:
        """Every model that depends on a node, directly or through anything, sorted by id.

        Raises:
            NotFound: there is no such node.
        """
        return self._models_reached(node_id, reverse=False)

    def upstream_among(self, node_id: NodeId, candidates: Collection[NodeId]) -> tuple[NodeId, ...]:
        """Those candidates that a node depends on, directly or through anything, sorted by id; not itself.

        Candidates that are not nodes are not upstream of anything. For few candidates far cheaper than a list
        of everything upstream.

        Raises:
            NotFound: there is no such node.
        """
        target = self._find(node_id)
        asked = sorted({c for c in candidates if c in self._index and c != node_id})
        return tuple(c for c in asked if rx.has_path(self._graph, self._index[c], target))

    def find_cycle(self, upstream: NodeId, downstream: NodeId) -> tuple[NodeId, ...] | None:
        """The cycle that a dependency `upstream` -> `downstream` would close, or None.

        Only the new edge is looked at: the graph has no cycle, so a new one must run through it. The path
        starts and ends with `upstream`.

        Raises:
            NotFound: either is not a node.
        """
        back = self.shortest_path(downstream, upstream)
        return None if back is None else (upstream, *back)

    def layout(self, *, reverse: bool = False, types: Collection[DependencyType] = ()) -> Layout:
        """The arrays that larger questions are answered from, of edges of some types or all; for this package only.

        A node without any edge may be missing from its numbering.
        """
        return self._layouts.get(self._graph, self._index, frozenset(types), reverse=reverse)

    def place(self, node_ids: Iterable[NodeId]) -> None:
        """Make sure that these nodes have a position in every layout from now on, even without an edge."""
        self._layouts.place(node_ids)

    def kinds_mask(self, layout: Layout, kinds: Iterable[NodeKind]) -> Bools:
        """True at the position of each node of one of these kinds."""
        return np.isin(self.columns.kind[layout.numbering.index], [KIND_CODES[kind.value] for kind in kinds])

    def scratch(self, *, layouts: bool = False) -> "DependencyGraph":
        """A copy to try changes on, with its layouts if larger questions will be asked of it. The nodes and edges
        themselves are shared: they are frozen.
        """
        copy = DependencyGraph()
        copy._graph = self._graph.copy()
        copy._index = dict(self._index)
        copy.columns = self.columns.copy()
        if layouts:
            copy._layouts = self._layouts.copy()
        return copy

    def add_if_acyclic(self, batch: Sequence[Dependency]) -> bool:
        """Add new dependencies unless there would be a cycle; one sort for all. Both ends of each must be
        nodes.
        """
        edges = [(self._index[d.upstream], self._index[d.downstream], d) for d in batch]
        added = self._graph.add_edges_from(edges)
        if rx.is_directed_acyclic_graph(self._graph):
            self._layouts.add_edges(batch)
            self.topology_version += 1
            return True
        for index in added:
            self._graph.remove_edge_from_index(index)
        return False

    # -- snapshots -------------------------------------------------------------------------------------------

    def captured(self) -> Callable[[], GraphSnapshot]:
        """The same as `to_snapshot`, out of reach of later changes; putting it in order is left for later, on any
        thread, since it takes a hundred times longer.
        """
        nodes, edges = list(self._graph.nodes()), list(self._graph.edges())

        def ordered() -> GraphSnapshot:
            # Small sorts instead of a large one: in one sort no other thread gets a turn.
            leaving: dict[NodeId, list[Dependency]] = {}
            for edge in edges:
                leaving.setdefault(edge.upstream, []).append(edge)
            dependencies = [edge for source in sorted(leaving) for edge in sorted(leaving[source], key=_key)]
            return GraphSnapshot(nodes=sorted(nodes, key=lambda node: node.node_id), dependencies=dependencies)

        return ordered

    def to_snapshot(self) -> GraphSnapshot:
        """Everything, as plain lists in a fixed order."""
        return GraphSnapshot(nodes=list(self.nodes()), dependencies=list(self.dependencies()))

    @classmethod
    def from_snapshot(cls, snapshot: GraphSnapshot) -> "DependencyGraph":
        """Rebuild a graph.

        Raises:
            Invalid: the snapshot is damaged: an unknown end, a node or a dependency twice, or a cycle.
        """
        built = cls()
        ids = [node.node_id for node in snapshot.nodes]
        built._index = index = dict(zip(ids, built._graph.add_nodes_from(snapshot.nodes), strict=True))
        if len(index) != len(ids):
            raise _damaged("nodes", "a node appears twice")
        edges = snapshot.dependencies
        try:
            upstream = [index[edge.upstream] for edge in edges]
            downstream = [index[edge.downstream] for edge in edges]
        except KeyError as unknown:
            raise _damaged("dependencies", f"{unknown.args[0]} is not among the nodes") from None
        types = np.array([TYPE_NUMBERS[edge.edge_type] for edge in edges], np.int64)
        keys = np.sort(
            (np.array(upstream, np.int64) * len(ids) + np.array(downstream, np.int64)) * len(TYPE_NUMBERS) + types
        )
        if (np.diff(keys) == 0).any():
            raise _damaged("dependencies", "a dependency appears twice")
        built._graph.add_edges_from(list(zip(upstream, downstream, edges, strict=True)))
        if not rx.is_directed_acyclic_graph(built._graph):
            raise _damaged("dependencies", "they contain a cycle")
        built.columns.fill(snapshot.nodes)
        return built

    # -- inside ----------------------------------------------------------------------------------------------

    def _find(self, node_id: NodeId) -> int:
        index = self._index.get(node_id)
        if index is None:
            raise NotFound(Reason.NODE_NOT_FOUND, f"there is no node {node_id}", node_id=node_id)
        return index

    def _models_reached(self, node_id: NodeId, *, reverse: bool) -> tuple[NodeId, ...]:
        self._find(node_id)
        layout = self.layout(reverse=reverse)
        start = layout.numbering.position.get(node_id)
        if start is None:
            return ()
        reached = np.flatnonzero(layout.reached(start))
        models = reached[self.columns.kind[layout.numbering.index[reached]] == KIND_CODES[NodeKind.MODEL.value]]
        return tuple(sorted(layout.numbering.node_ids[models].tolist()))

    def _edge(
        self, upstream: int, downstream: int, edge_type: DependencyType
    ) -> tuple[int, Dependency] | tuple[None, None]:
        if not self._graph.has_edge(upstream, downstream):
            return None, None
        for index in self._graph.edge_indices_from_endpoints(upstream, downstream):
            known = self._graph.get_edge_data_by_index(index)
            if known.edge_type == edge_type:
                return index, known
        return None, None


def _key(dependency: Dependency) -> tuple[NodeId, NodeId, DependencyType]:
    return dependency.upstream, dependency.downstream, dependency.edge_type


def _damaged(field: str, message: str) -> Invalid:
    return Invalid(
        Reason.INVALID_ARGUMENT,
        Violation(field=f"snapshot.graph.{field}", rule="consistent", message=message),
    )
