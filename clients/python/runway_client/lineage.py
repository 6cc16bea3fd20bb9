"""Where edges come from, and who has the last word on them: LineageService."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from runway.v1 import common_pb2, graph_pb2, lineage_pb2
from runway.v1.lineage_pb2_grpc import LineageServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.moments import Moment, read_options
from runway_client.times import to_timestamp

PAGE_SIZE = 1000
"""The contract's maximum; fewest round trips."""


class Lineage:
    """What sources have seen, beside what people declared."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = LineageServiceStub(connection.channel)

    def report_lineage(
        self, runs: Sequence[lineage_pb2.LineageRun], *, why: Why = NO_REASON
    ) -> lineage_pb2.ReportLineageResponse:
        """Tell what up to 1,000 runs have read and written; idempotent, in any order.

        Only runs that are COMPLETE confirm edges. An edge that would close a cycle is not applied; it is in
        `quarantined`, with the cycle.
        """
        request = lineage_pb2.ReportLineageRequest(runs=runs)
        return self._connection.change(self.stub.ReportLineage, request, method="LineageService/ReportLineage", why=why)

    def list_edges(
        self,
        node_id: str = "",
        *,
        other_node_id: str = "",
        states: Iterable[lineage_pb2.EdgeState.ValueType] = (),
        origins: Iterable[lineage_pb2.EdgeOrigin.ValueType] = (),
        source: str = "",
        min_revision: int = 0,
        as_of: Moment = None,
    ) -> Iterator[lineage_pb2.Edge]:
        """Edges with all evidence for and against them, whatever their state; pages are fetched as they are read.

        Args:
            node_id: edges that touch this node.
            other_node_id: the other end, for the edges between two nodes.
            states: only in these states; empty means any.
            origins: only of these origins; empty means any.
            source: only those that this source has shown.
        """
        token = ""
        while True:
            request = lineage_pb2.ListEdgesRequest(
                page=common_pb2.PageRequest(page_size=PAGE_SIZE, page_token=token),
                read=read_options(min_revision=min_revision, as_of=as_of),
                node_id=node_id,
                other_node_id=other_node_id,
                states=states,
                origins=origins,
                source=source,
            )
            response = self._connection.read(self.stub.ListEdges, request, method="LineageService/ListEdges")
            yield from response.edges
            token = response.next_page_token
            if not token:
                return

    def set_override(
        self,
        dependency: graph_pb2.Dependency,
        *,
        present: bool,
        expires_at: datetime | None = None,
        replace_revision: int = 0,
        why: Why = NO_REASON,
    ) -> lineage_pb2.Edge:
        """Say that an edge is there, or is not, whatever sources and declarations say.

        Args:
            expires_at: until when; None until somebody clears it.
            replace_revision: revision of somebody else's override that is to be replaced; refused if it changed.
            why: its reason is required.
        """
        request = lineage_pb2.SetOverrideRequest(
            dependency=dependency,
            present=present,
            expires_at=None if expires_at is None else to_timestamp(expires_at),
            replace_revision=replace_revision,
        )
        return self._connection.change(
            self.stub.SetOverride, request, method="LineageService/SetOverride", why=why
        ).edge

    def clear_override(self, dependency: graph_pb2.Dependency, *, why: Why = NO_REASON) -> lineage_pb2.Edge:
        """Let sources and declarations decide again; the edge as it then stands."""
        request = lineage_pb2.ClearOverrideRequest(dependency=dependency)
        return self._connection.change(
            self.stub.ClearOverride, request, method="LineageService/ClearOverride", why=why
        ).edge

    def list_disagreements(
        self,
        *,
        team: str = "",
        node_id: str = "",
        include_overridden: bool = False,
        min_revision: int = 0,
        as_of: Moment = None,
    ) -> Iterator[lineage_pb2.Disagreement]:
        """Where declarations and discovery contradict each other and nobody has decided."""
        token = ""
        while True:
            request = lineage_pb2.ListDisagreementsRequest(
                page=common_pb2.PageRequest(page_size=PAGE_SIZE, page_token=token),
                read=read_options(min_revision=min_revision, as_of=as_of),
                team=team,
                node_id=node_id,
                include_overridden=include_overridden,
            )
            response = self._connection.read(
                self.stub.ListDisagreements, request, method="LineageService/ListDisagreements"
            )
            yield from response.disagreements
            token = response.next_page_token
            if not token:
                return

    def get_lineage_policy(self, *, min_revision: int = 0, as_of: Moment = None) -> lineage_pb2.LineagePolicy:
        """When an edge that its source no longer shows becomes suspect, and when it is retired."""
        request = lineage_pb2.GetLineagePolicyRequest(read=read_options(min_revision=min_revision, as_of=as_of))
        return self._connection.read(
            self.stub.GetLineagePolicy, request, method="LineageService/GetLineagePolicy"
        ).policy

    def set_lineage_policy(
        self, policy: lineage_pb2.LineagePolicy, *, why: Why = NO_REASON
    ) -> lineage_pb2.LineagePolicy:
        """Replace it; a bound of 0 is switched off."""
        request = lineage_pb2.SetLineagePolicyRequest(policy=policy)
        return self._connection.change(
            self.stub.SetLineagePolicy, request, method="LineageService/SetLineagePolicy", why=why
        ).policy
