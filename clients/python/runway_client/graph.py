"""What depends on what: GraphService."""

from collections.abc import Iterable

from runway.v1 import graph_pb2
from runway.v1.graph_pb2_grpc import GraphServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.moments import Moment, read_options


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

    def remove_nodes(self, node_ids: Iterable[str], *, why: Why = NO_REASON) -> int:
        """Remove datasets, features and consumers, all or none; one that has edges is refused. How many."""
        request = graph_pb2.RemoveNodesRequest(node_ids=node_ids)
        return self._connection.change(
            self.stub.RemoveNodes, request, method="GraphService/RemoveNodes", why=why
        ).changed

    def rename_node(self, node_id: str, new_node_id: str, *, why: Why = NO_REASON) -> graph_pb2.RenameNodeResponse:
        """Give a node another id, with its edges and evidence; if there is a node of that id, the two become one."""
        request = graph_pb2.RenameNodeRequest(node_id=node_id, new_node_id=new_node_id)
        return self._connection.change(self.stub.RenameNode, request, method="GraphService/RenameNode", why=why)

    def get_impact(
        self,
        node_id: str,
        wanted: graph_pb2.ImpactFilter | None = None,
        *,
        min_revision: int = 0,
        as_of: Moment = None,
    ) -> graph_pb2.GetImpactResponse:
        """Everything downstream of a node, by wave; without `wanted` unbounded and without paths.

        `as_of` is a revision or a time of the past.
        """
        request = graph_pb2.GetImpactRequest(
            node_id=node_id, filter=wanted, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        return self._connection.read(self.stub.GetImpact, request, method="GraphService/GetImpact")

    def get_upstream(
        self,
        node_id: str,
        wanted: graph_pb2.ImpactFilter | None = None,
        *,
        min_revision: int = 0,
        as_of: Moment = None,
    ) -> graph_pb2.GetUpstreamResponse:
        """Everything upstream of a node, otherwise as `get_impact`."""
        request = graph_pb2.GetUpstreamRequest(
            node_id=node_id, filter=wanted, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        return self._connection.read(self.stub.GetUpstream, request, method="GraphService/GetUpstream")

    def list_paths(
        self,
        from_node_id: str,
        to_node_id: str,
        *,
        paths_max: int = 0,
        min_revision: int = 0,
        as_of: Moment = None,
    ) -> graph_pb2.ListPathsResponse:
        """Paths downstream from one node to another, shortest first; `total` is exact however many are listed."""
        request = graph_pb2.ListPathsRequest(
            from_node_id=from_node_id,
            to_node_id=to_node_id,
            paths_max=paths_max,
            read=read_options(min_revision=min_revision, as_of=as_of),
        )
        return self._connection.read(self.stub.ListPaths, request, method="GraphService/ListPaths")

    def get_common_causes(
        self,
        node_ids: Iterable[str],
        *,
        kinds: Iterable[graph_pb2.NodeKind.ValueType] = (),
        min_revision: int = 0,
        as_of: Moment = None,
    ) -> graph_pb2.GetCommonCausesResponse:
        """What two or more nodes all stand on, nearest first."""
        request = graph_pb2.GetCommonCausesRequest(
            node_ids=node_ids, kinds=kinds, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        return self._connection.read(self.stub.GetCommonCauses, request, method="GraphService/GetCommonCauses")

    def preview_change(
        self,
        *,
        retire_node_ids: Iterable[str] = (),
        add: Iterable[graph_pb2.Dependency] = (),
        remove: Iterable[graph_pb2.Dependency] = (),
        wanted: graph_pb2.ImpactFilter | None = None,
        min_revision: int = 0,
        as_of: Moment = None,
    ) -> graph_pb2.PreviewChangeResponse:
        """What a change would reach, and why it would be refused; nothing is changed."""
        request = graph_pb2.PreviewChangeRequest(
            retire_node_ids=retire_node_ids,
            add=add,
            remove=remove,
            filter=wanted,
            read=read_options(min_revision=min_revision, as_of=as_of),
        )
        return self._connection.read(self.stub.PreviewChange, request, method="GraphService/PreviewChange")

    def get_graph(
        self, *, kinds: Iterable[graph_pb2.NodeKind.ValueType] = (), min_revision: int = 0, as_of: Moment = None
    ) -> graph_pb2.GetGraphResponse:
        """All nodes and edges; only those between the given kinds if any are given."""
        request = graph_pb2.GetGraphRequest(kinds=kinds, read=read_options(min_revision=min_revision, as_of=as_of))
        return self._connection.read(self.stub.GetGraph, request, method="GraphService/GetGraph")

    def diff_graph(self, before: Moment, after: Moment = None) -> graph_pb2.DiffGraphResponse:
        """What changed in the graph between two moments; the later one is now unless it is given."""
        request = graph_pb2.DiffGraphRequest(to=read_options(as_of=after))
        getattr(request, "from").CopyFrom(read_options(as_of=before))
        return self._connection.read(self.stub.DiffGraph, request, method="GraphService/DiffGraph")
