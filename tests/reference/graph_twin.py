"""The dependency graph, dumb: a dict of edges, every question answered by walking it from scratch.

Slow and obvious on purpose; the real graph must agree with it after every change.
"""

from collections.abc import Callable, Collection
from functools import cache

from control_plane.core.graph.facts import Dependency, DependencyType, GraphSnapshot, Node
from control_plane.core.ids import NodeId

Key = tuple[NodeId, NodeId, DependencyType]


class GraphTwin:
    """Nodes and edges in dicts."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, Node] = {}
        self.edges: dict[Key, Dependency] = {}

    def add(self, dependency: Dependency) -> None:
        """Add or replace an edge; both ends must be nodes."""
        assert dependency.upstream in self.nodes
        assert dependency.downstream in self.nodes
        self.edges[dependency.key] = dependency

    def remove_node(self, node_id: NodeId) -> None:
        """Remove a node and its edges."""
        del self.nodes[node_id]
        self.edges = {key: edge for key, edge in self.edges.items() if node_id not in key[:2]}

    def copy(self) -> "GraphTwin":
        """An independent copy."""
        twin = GraphTwin()
        twin.nodes, twin.edges = dict(self.nodes), dict(self.edges)
        return twin

    def after(self, node_id: NodeId) -> list[NodeId]:
        """Direct downstreams, sorted."""
        return sorted({down for up, down, _ in self.edges if up == node_id})

    def turned_round(self) -> "GraphTwin":
        """The same graph with every edge reversed."""
        twin = GraphTwin()
        twin.nodes = dict(self.nodes)
        for (up, down, edge_type), edge in self.edges.items():
            twin.edges[down, up, edge_type] = edge
        return twin

    def reached(self, node_id: NodeId) -> set[NodeId]:
        """Everything downstream, by depth-first search."""
        seen: set[NodeId] = set()

        def visit(at: NodeId) -> None:
            for after in self.after(at):
                if after not in seen:
                    seen.add(after)
                    visit(after)

        visit(node_id)
        return seen

    def paths(self, source: NodeId, target: NodeId) -> list[tuple[NodeId, ...]]:
        """Every path of at least one hop, in the order of their ids."""
        found: list[tuple[NodeId, ...]] = []

        def visit(walk: tuple[NodeId, ...]) -> None:
            for after in self.after(walk[-1]):
                if after == target:
                    found.append((*walk, after))
                else:
                    visit((*walk, after))

        visit((source,))
        return found

    def distance(self, source: NodeId, target: NodeId) -> int:
        """Hops of a shortest path, by looking one hop further each time; the target must be reached."""
        seen, hops = {source}, 0
        while target not in seen:
            seen |= {down for up, down, _ in self.edges if up in seen}
            hops += 1
        return hops

    def along(self, types: Collection[DependencyType]) -> "GraphTwin":
        """The same nodes with the edges of some types; none means all."""
        twin = self.copy()
        twin.edges = {key: edge for key, edge in self.edges.items() if not types or key[2] in types}
        return twin

    def impact_waves(
        self, node_id: NodeId, *, chosen: Callable[[Node], bool], max_depth: int | None = None
    ) -> dict[NodeId, int]:
        """Answer nodes and their waves: the most answer nodes on any path through nodes near enough."""
        near = {n for n in self.reached(node_id) if max_depth is None or self.distance(node_id, n) <= max_depth}
        answer = {n for n in near if chosen(self.nodes[n])}
        return {
            n: max(
                sum(step in answer for step in path[1:]) for path in self.paths(node_id, n) if near.issuperset(path[1:])
            )
            for n in answer
        }

    def common_causes(self, asked: Collection[NodeId]) -> dict[NodeId, tuple[int, bool, bool]]:
        """Nodes that all asked ones stand on, with hops to the farthest, whether nearest, whether root."""
        common = {
            n for n in self.nodes if all(n == a or a in self.reached(n) for a in asked) and self.reached(n) & set(asked)
        }
        return {
            n: (
                max(self.distance(n, a) for a in asked if a != n),
                not self.reached(n) & common,
                not any(down == n for _, down, _ in self.edges),
            )
            for n in common
        }

    def above(self, node_id: NodeId) -> set[Key]:
        """Every edge that a node stands on, at any distance."""
        if node_id not in self.nodes:
            return set()
        below = {node_id}
        while more := {up for up, down, _ in self.edges if down in below} - below:
            below |= more
        return {key for key in self.edges if key[1] in below}

    def layers(self, answer: Collection[NodeId]) -> dict[NodeId, int]:
        """The most answer nodes on any path that ends in each node, itself included."""

        @cache
        def most(at: NodeId) -> int:
            return (at in answer) + max((most(up) for up, down, _ in self.edges if down == at), default=0)

        return {node_id: most(node_id) for node_id in self.nodes}

    def closes_cycle(self, dependency: Dependency) -> bool:
        """Whether this edge would close a cycle."""
        return dependency.upstream == dependency.downstream or dependency.upstream in self.reached(
            dependency.downstream
        )

    def snapshot(self) -> GraphSnapshot:
        """What the real graph's snapshot must equal."""
        return GraphSnapshot(
            nodes=[self.nodes[node_id] for node_id in sorted(self.nodes)],
            dependencies=[self.edges[key] for key in sorted(self.edges)],
        )
