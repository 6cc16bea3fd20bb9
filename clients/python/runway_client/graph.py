"""What depends on what: GraphService."""

from collections.abc import Iterable

from runway.v1 import common_pb2, graph_pb2
from runway.v1.graph_pb2_grpc import GraphServiceStub

from runway_client.connection import NO_REASON, Connection, Why


class Graph:
    """What breaks if this changes, and in which order to retrain."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = GraphServiceStub(connection.channel)

    def declare_nodes(self, nodes: Iterable[graph_pb2.Node], *, why: Why = NO_REASON) -> int:
        """Add datasets, features and consumers or change their facts; how many were new or changed."""
        request = graph_pb2.DeclareNodesRequest(nodes=nodes)
        return self._connection.change(
            self.stub.DeclareNodes, request, method="GraphService/DeclareNodes", why=why
        ).changed

    def declare_dependencies(self, dependencies: Iterable[graph_pb2.Dependency], *, why: Why = NO_REASON) -> int:
        """Add edges, all or none; a cycle is refused with its path. How many were new."""
        request = graph_pb2.DeclareDependenciesRequest(dependencies=dependencies)
        return self._connection.change(
            self.stub.DeclareDependencies, request, method="GraphService/DeclareDependencies", why=why
        ).changed

    def retract_dependencies(self, dependencies: Iterable[graph_pb2.Dependency], *, why: Why = NO_REASON) -> int:
        """Remove edges, all or none; how many."""
        request = graph_pb2.RetractDependenciesRequest(dependencies=dependencies)
        return self._connection.change(
            self.stub.RetractDependencies, request, method="GraphService/RetractDependencies", why=why
        ).changed

    def get_impact(
        self,
        node_id: str,
        *,
        depth_max: int = 0,
        kinds: Iterable[graph_pb2.NodeKind.ValueType] = (),
        include_paths: bool = False,
        min_revision: int = 0,
    ) -> graph_pb2.GetImpactResponse:
        """Everything downstream of a node, by wave; depth 0 is unbounded."""
        request = graph_pb2.GetImpactRequest(
            node_id=node_id,
            depth_max=depth_max,
            kinds=kinds,
            include_paths=include_paths,
            read=common_pb2.ReadOptions(min_revision=min_revision),
        )
        return self._connection.read(self.stub.GetImpact, request, method="GraphService/GetImpact")

    def get_upstream(
        self,
        node_id: str,
        *,
        depth_max: int = 0,
        kinds: Iterable[graph_pb2.NodeKind.ValueType] = (),
        include_paths: bool = False,
        min_revision: int = 0,
    ) -> graph_pb2.GetUpstreamResponse:
        """Everything upstream of a node; depth 0 is unbounded."""
        request = graph_pb2.GetUpstreamRequest(
            node_id=node_id,
            depth_max=depth_max,
            kinds=kinds,
            include_paths=include_paths,
            read=common_pb2.ReadOptions(min_revision=min_revision),
        )
        return self._connection.read(self.stub.GetUpstream, request, method="GraphService/GetUpstream")

    def get_graph(
        self, *, kinds: Iterable[graph_pb2.NodeKind.ValueType] = (), min_revision: int = 0
    ) -> graph_pb2.GetGraphResponse:
        """All nodes and edges; only those between the given kinds if any are given."""
        request = graph_pb2.GetGraphRequest(kinds=kinds, read=common_pb2.ReadOptions(min_revision=min_revision))
        return self._connection.read(self.stub.GetGraph, request, method="GraphService/GetGraph")
