"""GraphService."""

import asyncio
from datetime import datetime
from typing import TypeVar, cast

from runway.v1 import common_pb2, graph_pb2, graph_pb2_grpc

from control_plane.api.convert.graph import (
    change_from,
    common_cause,
    completeness,
    dependency,
    dependency_from,
    filter_from,
    graph_diff,
    kinds_from,
    node,
    node_from,
    summary,
)
from control_plane.api.convert.impact_rows import ImpactRows
from control_plane.api.interceptors import Context
from control_plane.api.plane import Plane
from control_plane.core.commands import DeclareDependencies, DeclareNodes, RemoveNodes, RenameNode, RetractDependencies
from control_plane.core.errors import Reason, Refused
from control_plane.core.graph.causes import common_causes
from control_plane.core.graph.diff import diff
from control_plane.core.graph.impact import Impact, impact, upstream
from control_plane.core.graph.paths import PATHS_MAX, all_paths
from control_plane.core.graph.preview import preview
from control_plane.core.graph.summary import summarise
from control_plane.core.ids import NodeId, parse_node_id
from control_plane.core.state import State

T = TypeVar("T", graph_pb2.GetImpactResponse, graph_pb2.GetUpstreamResponse, graph_pb2.PreviewChangeResponse)
"""Responses whose rows are written on the wire directly."""

WHOLE_DEPENDENCIES_MAX = 200_000
"""Of a graph that is read whole: 15 MB, and a third of a second in which nobody else is served."""


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

    async def RemoveNodes(  # noqa: N802
        self, request: graph_pb2.RemoveNodesRequest, context: Context
    ) -> graph_pb2.RemoveNodesResponse:
        """Remove nodes."""
        ids = tuple(parse_node_id(text, f"node_ids[{place}]") for place, text in enumerate(request.node_ids))
        outcome = await self._plane.submit(RemoveNodes(node_ids=ids), request.mutation)
        return graph_pb2.RemoveNodesResponse(changed=outcome.result.changed, revision=outcome.revision)

    async def RenameNode(  # noqa: N802
        self, request: graph_pb2.RenameNodeRequest, context: Context
    ) -> graph_pb2.RenameNodeResponse:
        """Give a node another id."""
        command = RenameNode(
            node_id=parse_node_id(request.node_id), new_node_id=parse_node_id(request.new_node_id, "new_node_id")
        )
        outcome = await self._plane.submit(command, request.mutation)
        graph = outcome.state.graph
        # Checked only, the node still has its old id; and who asks late may find it gone again.
        shown = next((one for one in (command.new_node_id, command.node_id) if graph.has_node(one)), None)
        renamed = graph_pb2.Node(node_id=command.new_node_id) if shown is None else node(graph.node(shown))
        renamed.node_id = command.new_node_id
        return graph_pb2.RenameNodeResponse(
            node=renamed, dependencies=outcome.result.dependencies, revision=outcome.revision
        )

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
        answer = impact(state.graph, _asked(state, request.node_id), filter_from(request.filter))
        return self._answer(graph_pb2.GetImpactResponse, state, answer, self._moment(state, request.read))

    async def GetUpstream(  # noqa: N802
        self, request: graph_pb2.GetUpstreamRequest, context: Context
    ) -> graph_pb2.GetUpstreamResponse:
        """Everything upstream."""
        state = await self._plane.read(request.read)
        answer = upstream(state.graph, _asked(state, request.node_id), filter_from(request.filter))
        return self._answer(graph_pb2.GetUpstreamResponse, state, answer, self._moment(state, request.read))

    async def ListPaths(  # noqa: N802
        self, request: graph_pb2.ListPathsRequest, context: Context
    ) -> graph_pb2.ListPathsResponse:
        """Paths between two nodes."""
        state = await self._plane.read(request.read)
        source = _asked(state, request.from_node_id, "from_node_id")
        target = _asked(state, request.to_node_id, "to_node_id")
        found = all_paths(state.graph, source, target, paths_max=request.paths_max or PATHS_MAX)
        return graph_pb2.ListPathsResponse(
            paths=[graph_pb2.Path(node_ids=path) for path in found.paths],
            total=str(found.total),
            complete=found.complete,
            incomplete_reason=found.why_incomplete,
            revision=state.revision,
        )

    async def GetCommonCauses(  # noqa: N802
        self, request: graph_pb2.GetCommonCausesRequest, context: Context
    ) -> graph_pb2.GetCommonCausesResponse:
        """What several nodes have upstream in common."""
        state = await self._plane.read(request.read)
        asked = [_asked(state, text, f"node_ids[{place}]") for place, text in enumerate(request.node_ids)]
        found = common_causes(state.graph, asked, kinds_from(request.kinds))
        return graph_pb2.GetCommonCausesResponse(
            causes=[common_cause(one, state.graph.node(one.node_id)) for one in found], revision=state.revision
        )

    async def PreviewChange(  # noqa: N802
        self, request: graph_pb2.PreviewChangeRequest, context: Context
    ) -> graph_pb2.PreviewChangeResponse:
        """What a change would reach."""
        state = await self._plane.read(request.read)
        change = change_from(request)
        found = preview(state.graph, change, filter_from(request.filter))
        numbering = found.affected.layout.numbering
        rest = graph_pb2.PreviewChangeResponse(
            waves=found.affected.wave_count,
            completeness=self._completeness(state, found.affected, self._moment(state, request.read)),
            summary=summary(summarise(state.graph, numbering, found.affected.used, spared=found.retired)),
            orphaned=found.orphaned,
            refusals=found.refusals,
            directly_hit=found.directly_hit,
            revision=state.revision,
        )
        return self._joined(rest, state, found.affected)

    async def GetGraph(  # noqa: N802
        self, request: graph_pb2.GetGraphRequest, context: Context
    ) -> graph_pb2.GetGraphResponse:
        """The whole graph, if one message holds it."""
        state = await self._plane.read(request.read)
        kinds = kinds_from(request.kinds)
        if state.graph.dependency_count > WHOLE_DEPENDENCIES_MAX:
            raise Refused(
                Reason.LIMIT_EXCEEDED,
                f"the graph has {state.graph.dependency_count:,} dependencies and one answer holds "
                f"{WHOLE_DEPENDENCIES_MAX:,}: page through LineageService.ListEdges, or ask for the impact of a node",
            )
        return graph_pb2.GetGraphResponse(
            nodes=[node(one) for one in state.graph.nodes(kinds)],
            dependencies=[dependency(one) for one in state.graph.dependencies(kinds)],
            revision=state.revision,
        )

    async def DiffGraph(  # noqa: N802
        self, request: graph_pb2.DiffGraphRequest, context: Context
    ) -> graph_pb2.DiffGraphResponse:
        """How the graph of one moment differs from that of another."""
        before = await self._plane.read(getattr(request, "from"))
        after = await self._plane.read(request.to)
        # The present goes on changing while it is compared in another thread, so what is compared is held fast first.
        graphs = [state.graph.captured() for state in (before, after)]
        revisions = before.revision, after.revision
        found = await asyncio.to_thread(lambda: diff(graphs[0](), graphs[1]()))
        return graph_diff(found, *revisions)

    def _answer(self, response: type[T], state: State, answer: Impact, now: datetime) -> T:
        """An answer on the wire."""
        rest = response(
            waves=answer.wave_count,
            completeness=self._completeness(state, answer, now),
            summary=summary(summarise(state.graph, answer.layout.numbering, answer.others)),
            revision=state.revision,
        )
        return self._joined(rest, state, answer)

    def _joined(self, rest: T, state: State, answer: Impact) -> T:
        """All of a response but its rows as a message, the rows joined to it as they are."""
        return cast("T", self._rows.encode(state.graph, answer, rest.SerializeToString()))

    def _completeness(self, state: State, answer: Impact, now: datetime) -> graph_pb2.Completeness:
        oldest = state.edge_times.oldest(answer.layout, answer.used)
        suspect = state.edge_times.suspect(answer.layout, answer.used)
        return completeness(answer.reasons, oldest=oldest, suspect=suspect, now=now)

    def _moment(self, state: State, options: common_pb2.ReadOptions) -> datetime:
        """The moment an answer speaks of: now, or that of the past state."""
        return self._plane.moment(state, options)


def _asked(state: State, text: str, field: str = "node_id") -> NodeId:
    """A node id; a bare name is taken for a model, because that is what people type. An id that a node had before it
    was renamed still stands for it."""
    node_id = parse_node_id(text if ":" in text else f"model:{text}", field)
    return node_id if state.graph.has_node(node_id) else state.lineage.at(node_id)
