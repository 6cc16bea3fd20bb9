"""Which of several new edges would close a cycle, asked of a graph that is not changed."""

from collections.abc import Iterable, Sequence

from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Dependency, Node
from control_plane.core.graph.rules import acyclic_prefix
from control_plane.core.ids import NodeId

ONE_BY_ONE_MAX = 8
"""So few edges are each looked for a way back; more are added to a copy of the graph and sorted at once."""


def cycles_closed(
    graph: DependencyGraph, edges: Sequence[Dependency], nodes: Iterable[Node] = ()
) -> dict[tuple[NodeId, NodeId], tuple[NodeId, ...]]:
    """The (upstream, downstream) of edges that may not be added, with the cycle each would close.

    Edges are added one by one in the order given, leaving out those that close a cycle. Ends must be nodes of the graph
    or be among `nodes`, which have no edges yet.
    """
    known = [edge for edge in edges if graph.has_node(edge.upstream) and graph.has_node(edge.downstream)]
    if not edges or (len(edges) == 1 and not known):
        return {}
    if len(edges) == 1:
        cycle = graph.find_cycle(edges[0].upstream, edges[0].downstream)
        return {} if cycle is None else {edges[0].key[:2]: cycle}
    if len(edges) <= ONE_BY_ONE_MAX and not _may_meet(graph, edges):
        return {}
    trial = graph.scratch()
    for node in nodes:
        trial.put_node(node)
    found: dict[tuple[NodeId, NodeId], tuple[NodeId, ...]] = {}
    rest = list(edges)
    while rest:
        accepted = acyclic_prefix(trial, rest)
        if accepted < len(rest):
            blamed = rest[accepted]
            cycle = trial.find_cycle(blamed.upstream, blamed.downstream)
            assert cycle is not None  # with this edge the sort failed, without it it did not
            found[blamed.key[:2]] = cycle
        rest = rest[accepted + 1 :]
    return found


def _may_meet(graph: DependencyGraph, edges: Sequence[Dependency]) -> bool:
    """Whether a cycle through some of these edges is possible: one of them leads to the upstream end of one of them."""
    starts = {edge.upstream for edge in edges}
    for edge in edges:
        for start in starts:
            if start == edge.downstream:
                return True
            both = graph.has_node(start) and graph.has_node(edge.downstream)
            if both and graph.reaches(edge.downstream, start):
                return True
    return False
