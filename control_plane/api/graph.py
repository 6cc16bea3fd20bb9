"""GraphService."""

from collections.abc import Iterable

from runway.v1 import graph_pb2, graph_pb2_grpc

from control_plane.api.convert.graph import (
    KINDS_FROM,
    dependency,
    dependency_from,
    node,
    node_from,
)
from control_plane.api.convert.impact_rows import ImpactRows
from control_plane.api.interceptors import Context
from control_plane.api.plane import Plane
from control_plane.core.commands import DeclareDependencies, DeclareNodes, RetractDependencies
from control_plane.core.graph.facts import NodeKind
from control_plane.core.graph.impact import impact, upstream
from control_plane.core.ids import NodeId, parse_node_id


class GraphServicer(graph_pb2_grpc.GraphServiceServicer):
    """Parse, submit or read, render."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._rows = ImpactRows()

    async def DeclareNodes(  # noqa: N802
        self, request: graph_pb2.DeclareNodesRequest, context: Context
    ) -> graph_pb2.DeclareNodesResponse:
        """Add or change nodes."""
        command = DeclareNodes(nodes=tuple(node_from(one, index) for index, one in enumerate(request.nodes)))
        outcome = await self._plane.submit(command, request.mutation)
        return graph_pb2.DeclareNodesResponse(changed=outcome.result.changed, revision=outcome.revision)

    async def DeclareDependencies(  # noqa: N802
        self, request: graph_pb2.DeclareDependenciesRequest, context: Context
    ) -> graph_pb2.DeclareDependenciesResponse:
        """Add edges."""
        dependencies = tuple(dependency_from(one, index) for index, one in enumerate(request.dependencies))
        outcome = await self._plane.submit(DeclareDependencies(dependencies=dependencies), request.mutation)
        return graph_pb2.DeclareDependenciesResponse(changed=outcome.result.changed, revision=outcome.revision)

    async def RetractDependencies(  # noqa: N802
        self, request: graph_pb2.RetractDependenciesRequest, context: Context
    ) -> graph_pb2.RetractDependenciesResponse:
        """Remove edges."""
        dependencies = tuple(dependency_from(one, index) for index, one in enumerate(request.dependencies))
        outcome = await self._plane.submit(RetractDependencies(dependencies=dependencies), request.mutation)
        return graph_pb2.RetractDependenciesResponse(changed=outcome.result.changed, revision=outcome.revision)

    async def GetImpact(  # noqa: N802
        self, request: graph_pb2.GetImpactRequest, context: Context
    ) -> graph_pb2.GetImpactResponse:
        """Everything downstream."""
        state = await self._plane.read(request.read)
        answer = impact(
            state.graph,
            _asked(request.node_id),
            max_depth=request.depth_max or None,
            kinds=_kinds(request.kinds),
            include_paths=request.include_paths,
        )
        reply = graph_pb2.GetImpactResponse(
            waves=answer.wave_count,
            complete=answer.complete,
            incomplete_reason=answer.why_incomplete,
            revision=state.revision,
        )
        reply.MergeFromString(self._rows.encode(state.graph, answer))
        return reply

    async def GetUpstream(  # noqa: N802
        self, request: graph_pb2.GetUpstreamRequest, context: Context
    ) -> graph_pb2.GetUpstreamResponse:
        """Everything upstream."""
        state = await self._plane.read(request.read)
        answer = upstream(
            state.graph,
            _asked(request.node_id),
            max_depth=request.depth_max or None,
            kinds=_kinds(request.kinds),
            include_paths=request.include_paths,
        )
        reply = graph_pb2.GetUpstreamResponse(
            waves=answer.wave_count,
            complete=answer.complete,
            incomplete_reason=answer.why_incomplete,
            revision=state.revision,
        )
        reply.MergeFromString(self._rows.encode(state.graph, answer))
        return reply

    async def GetGraph(  # noqa: N802
        self, request: graph_pb2.GetGraphRequest, context: Context
    ) -> graph_pb2.GetGraphResponse:
        """The whole graph."""
        state = await self._plane.read(request.read)
        kinds = _kinds(request.kinds)
        return graph_pb2.GetGraphResponse(
            nodes=[node(one) for one in state.graph.nodes(kinds)],
            dependencies=[dependency(one) for one in state.graph.dependencies(kinds)],
            revision=state.revision,
        )


def _asked(text: str) -> NodeId:
    """A node id; a bare name is taken for a model, because that is what people type."""
    return parse_node_id(text if ":" in text else f"model:{text}")


def _kinds(numbers: "Iterable[graph_pb2.NodeKind.ValueType]") -> list[NodeKind]:
    return [KINDS_FROM[number] for number in numbers if number in KINDS_FROM]
