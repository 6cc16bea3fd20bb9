"""LineageService: what sources tell, what is known of each edge, and who has the last word."""

from collections.abc import Mapping
from weakref import ref

from runway.v1 import lineage_pb2, lineage_pb2_grpc

from control_plane.api.convert.common import instant_from, page
from control_plane.api.convert.graph import dependency_from
from control_plane.api.convert.lineage import (
    EDGE_STATES_FROM,
    NO_LOOKS,
    ORIGINS_FROM,
    disagreement,
    edge,
    policy,
    policy_from,
    quarantined_edge,
    run_from,
)
from control_plane.api.interceptors import Context
from control_plane.api.plane import ANONYMOUS, Plane, require_reason
from control_plane.core.commands import ClearOverride, ReportLineage, SetLineagePolicy, SetOverride
from control_plane.core.graph.facts import Dependency
from control_plane.core.graph.lineage import Ledger
from control_plane.core.graph.lineage_disagreements import disagreements
from control_plane.core.graph.lineage_facts import EdgeKey, EdgeOrigin, EdgeState
from control_plane.core.ids import ModelId, parse_node_id
from control_plane.core.staleness.verdict import Evaluation
from control_plane.core.state import State


class LineageServicer(lineage_pb2_grpc.LineageServiceServicer):
    """Parse, submit or read, render."""

    def __init__(self, plane: Plane, latest: Mapping[ModelId, Evaluation]) -> None:
        self._plane = plane
        self._latest = latest
        self._known: tuple[ref[Ledger], int, list[EdgeKey]] | None = None

    async def ReportLineage(  # noqa: N802
        self, request: lineage_pb2.ReportLineageRequest, context: Context
    ) -> lineage_pb2.ReportLineageResponse:
        """What runs have read and written."""
        runs = tuple(run_from(one, index) for index, one in enumerate(request.runs))
        outcome = await self._plane.submit(ReportLineage(runs=runs), request.mutation)
        return lineage_pb2.ReportLineageResponse(
            changed=outcome.result.changed,
            quarantined=map(quarantined_edge, outcome.result.quarantined),
            revision=outcome.revision,
        )

    async def ListEdges(  # noqa: N802
        self, request: lineage_pb2.ListEdgesRequest, context: Context
    ) -> lineage_pb2.ListEdgesResponse:
        """Edges with all evidence, by upstream, downstream and type."""
        state = await self._plane.read(request.read)
        states = {EDGE_STATES_FROM[number] for number in request.states if number in EDGE_STATES_FROM}
        origins = {ORIGINS_FROM[number] for number in request.origins if number in ORIGINS_FROM}
        found = [
            key
            for key in self._candidates(state, request)
            if _wanted(state.lineage, key, states, origins, request.source)
        ]
        shown, token = page(found, [" ".join(key) for key in found], request.page)
        now = self._plane.moment(state, request.read)
        looks = self._latest if request.read.WhichOneof("as_of") is None else NO_LOOKS
        return lineage_pb2.ListEdgesResponse(
            edges=[edge(state, key, now, looks) for key in shown],
            next_page_token=token,
            revision=state.revision,
            total_size=len(found),
        )

    async def SetOverride(  # noqa: N802
        self, request: lineage_pb2.SetOverrideRequest, context: Context
    ) -> lineage_pb2.SetOverrideResponse:
        """Say that an edge is there, or is not."""
        require_reason(request.mutation, "an override")
        wanted = _dependency(request)
        expires = request.HasField("expires_at")
        command = SetOverride(
            dependency=wanted,
            present=request.present,
            owner=request.mutation.actor or ANONYMOUS,
            reason=request.mutation.reason,
            expires_at=instant_from(request.expires_at, "expires_at") if expires else None,
            replace_revision=request.replace_revision,
        )
        outcome = await self._plane.submit(command, request.mutation)
        return lineage_pb2.SetOverrideResponse(
            edge=edge(outcome.state, wanted.key, self._plane.now()), revision=outcome.revision
        )

    async def ClearOverride(  # noqa: N802
        self, request: lineage_pb2.ClearOverrideRequest, context: Context
    ) -> lineage_pb2.ClearOverrideResponse:
        """Take the last word back."""
        wanted = _dependency(request)
        outcome = await self._plane.submit(ClearOverride(dependency=wanted), request.mutation)
        return lineage_pb2.ClearOverrideResponse(
            edge=edge(outcome.state, wanted.key, self._plane.now()), revision=outcome.revision
        )

    async def ListDisagreements(  # noqa: N802
        self, request: lineage_pb2.ListDisagreementsRequest, context: Context
    ) -> lineage_pb2.ListDisagreementsResponse:
        """Declared against discovered, by node."""
        state = await self._plane.read(request.read)
        now = self._plane.moment(state, request.read)
        found = disagreements(state.graph, state.lineage, now, overridden=request.include_overridden)
        if request.node_id:
            node_id = parse_node_id(request.node_id)
            found = [d for d in found if d.node_id == node_id or (d.key is not None and node_id in d.key[:2])]
        if request.team:
            found = [d for d in found if state.graph.node(d.node_id).team == request.team]
        keys = [" ".join((d.node_id, d.kind, *(d.key or ()))) for d in found]
        shown, token = page(found, keys, request.page)
        return lineage_pb2.ListDisagreementsResponse(
            disagreements=[disagreement(state, one, now) for one in shown],
            next_page_token=token,
            revision=state.revision,
            total_size=len(found),
        )

    async def SetLineagePolicy(  # noqa: N802
        self, request: lineage_pb2.SetLineagePolicyRequest, context: Context
    ) -> lineage_pb2.SetLineagePolicyResponse:
        """When edges that are no longer shown become suspect, and when they are retired."""
        wanted = policy_from(request.policy)
        outcome = await self._plane.submit(SetLineagePolicy(policy=wanted), request.mutation)
        return lineage_pb2.SetLineagePolicyResponse(policy=policy(wanted), revision=outcome.revision)

    async def GetLineagePolicy(  # noqa: N802
        self, request: lineage_pb2.GetLineagePolicyRequest, context: Context
    ) -> lineage_pb2.GetLineagePolicyResponse:
        """The bounds in force."""
        state = await self._plane.read(request.read)
        return lineage_pb2.GetLineagePolicyResponse(policy=policy(state.lineage.policy), revision=state.revision)

    def _candidates(self, state: State, request: lineage_pb2.ListEdgesRequest) -> list[EdgeKey]:
        """Keys that the asked nodes allow, sorted."""
        if not (request.node_id or request.other_node_id):
            return self._all(state)
        node_id = parse_node_id(request.node_id or request.other_node_id)
        keys = set(state.lineage.touching.get(node_id, ()))
        if state.graph.has_node(node_id):
            keys |= {d.key for d in (*state.graph.upstream_of(node_id), *state.graph.downstream_of(node_id))}
        if request.node_id and request.other_node_id:
            other = parse_node_id(request.other_node_id, "other_node_id")
            keys = {key for key in keys if other in key[:2]}
        return sorted(keys)

    def _all(self, state: State) -> list[EdgeKey]:
        """Every edge, sorted; kept for the pages that follow."""
        ledger = state.lineage
        if self._known is not None and self._known[0]() is ledger and self._known[1] == state.revision:
            return self._known[2]
        keys = sorted({*ledger.declared, *ledger.records})
        self._known = (ref(ledger), state.revision, keys)
        return keys


def _wanted(ledger: Ledger, key: EdgeKey, states: set[EdgeState], origins: set[EdgeOrigin], source: str) -> bool:
    record = ledger.records.get(key)
    sightings = record.sightings if record is not None else ()
    if states and ledger.state_of(key) not in states:
        return False
    declared = EdgeOrigin.DECLARED in origins and key in ledger.declared
    if origins and not declared and not any(s.origin in origins for s in sightings):
        return False
    return not source or any(s.source == source for s in sightings)


def _dependency(request: lineage_pb2.SetOverrideRequest | lineage_pb2.ClearOverrideRequest) -> Dependency:
    parse_node_id(request.dependency.upstream_id, "dependency.upstream_id")
    parse_node_id(request.dependency.downstream_id, "dependency.downstream_id")
    return dependency_from(request.dependency, 0)
