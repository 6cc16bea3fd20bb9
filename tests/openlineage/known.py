"""What a control plane has made of what it was told, in the names of who told it."""

from runway.v1 import graph_pb2, graph_pb2_grpc, lineage_pb2, lineage_pb2_grpc

from tests.api.worlds import Api
from tests.openlineage.http import Sender

Edges = dict[tuple[str, str], str]
"""State by (upstream, downstream), in the names of the source where there are any."""


class Known:
    """Asks through gRPC, as anybody would."""

    def __init__(self, api: Api, sender: Sender) -> None:
        self.api = api
        self.sender = sender
        self._graph: graph_pb2_grpc.GraphServiceAsyncStub = graph_pb2_grpc.GraphServiceStub(api.channel)
        self._lineage: lineage_pb2_grpc.LineageServiceAsyncStub = lineage_pb2_grpc.LineageServiceStub(api.channel)

    async def nodes(self) -> dict[str, graph_pb2.Node]:
        """All nodes by name: the first of the source, else our id."""
        answer = await self._graph.GetGraph(graph_pb2.GetGraphRequest())
        return {(node.external_ids[0] if node.external_ids else node.node_id): node for node in answer.nodes}

    async def edges(self) -> Edges:
        """All edges that anything is known of."""
        names = {node.node_id: name for name, node in (await self.nodes()).items()}
        answer = await self._lineage.ListEdges(lineage_pb2.ListEdgesRequest())
        found = {}
        for edge in answer.edges:
            ends = edge.dependency.upstream_id, edge.dependency.downstream_id
            state = lineage_pb2.EdgeState.Name(edge.state).removeprefix("EDGE_STATE_")
            found[names[ends[0]], names[ends[1]]] = state
        return found

    async def evidence(self, upstream: str, downstream: str) -> list[lineage_pb2.Sighting]:
        """What has been seen of an edge."""
        nodes = await self.nodes()
        request = lineage_pb2.ListEdgesRequest(node_id=nodes[upstream].node_id, other_node_id=nodes[downstream].node_id)
        answer = await self._lineage.ListEdges(request)
        return [sighting for edge in answer.edges for sighting in edge.sightings]
