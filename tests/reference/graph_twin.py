"""The dependency graph, dumb: a dict of edges, every question answered by walking it from scratch.

Slow and obvious on purpose; the real graph must agree with it after every change.
"""

from control_plane.core.graph.facts import Dependency, DependencyType, GraphSnapshot, Node
from control_plane.core.ids import NodeId, node_kind

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
        """Hops of a shortest path; the target must be reached."""
        return min(len(path) - 1 for path in self.paths(source, target))

    def impact_waves(
        self, node_id: NodeId, *, max_depth: int | None = None, kinds: frozenset[str] = frozenset()
    ) -> dict[NodeId, int]:
        """Answer nodes and their waves: the most answer nodes on any path through nodes near enough."""
        near = {n for n in self.reached(node_id) if max_depth is None or self.distance(node_id, n) <= max_depth}
        answer = {n for n in near if not kinds or node_kind(n) in kinds}
        return {
            n: max(
                sum(step in answer for step in path[1:]) for path in self.paths(node_id, n) if near.issuperset(path[1:])
            )
            for n in answer
        }

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
