"""Is a model still good, and why: StalenessService."""

from collections.abc import Iterable, Iterator

from runway.v1 import common_pb2, staleness_pb2
from runway.v1.staleness_pb2_grpc import StalenessServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.moments import Moment, read_options
from runway_client.registry import PAGE_SIZE


class Staleness:
    """Verdicts with their evidence."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = StalenessServiceStub(connection.channel)

    def get_staleness(self, model_id: str, *, min_revision: int = 0, as_of: Moment = None) -> staleness_pb2.Staleness:
        """A model's verdict with its latest evaluation."""
        request = staleness_pb2.GetStalenessRequest(
            model_id=model_id, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        return self._connection.read(self.stub.GetStaleness, request, method="StalenessService/GetStaleness").staleness

    def list_staleness(
        self,
        *,
        team: str = "",
        verdicts: Iterable[staleness_pb2.Verdict.ValueType] = (),
        min_revision: int = 0,
        as_of: Moment = None,
    ) -> Iterator[staleness_pb2.Staleness]:
        """The verdicts of the fleet, worst first, page by page."""
        request = staleness_pb2.ListStalenessRequest(
            page=common_pb2.PageRequest(page_size=PAGE_SIZE),
            read=read_options(min_revision=min_revision, as_of=as_of),
            team=team,
            verdicts=verdicts,
        )
        while True:
            response = self._connection.read(self.stub.ListStaleness, request, method="StalenessService/ListStaleness")
            yield from response.staleness
            if not response.next_page_token:
                return
            request.page.page_token = response.next_page_token

    def explain_staleness(
        self, model_id: str, *, min_revision: int = 0, as_of: Moment = None
    ) -> staleness_pb2.ExplainStalenessResponse:
        """Why, how sure and what to do, in sentences."""
        request = staleness_pb2.ExplainStalenessRequest(
            model_id=model_id, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        return self._connection.read(self.stub.ExplainStaleness, request, method="StalenessService/ExplainStaleness")

    def evaluate_model(self, model_id: str, *, why: Why = NO_REASON) -> staleness_pb2.Staleness:
        """Evaluate now instead of waiting for the cadence."""
        request = staleness_pb2.EvaluateModelRequest(model_id=model_id)
        return self._connection.change(
            self.stub.EvaluateModel, request, method="StalenessService/EvaluateModel", why=why
        ).staleness

    def list_verdict_changes(
        self, model_id: str, *, min_revision: int = 0, as_of: Moment = None
    ) -> list[staleness_pb2.VerdictChange]:
        """Every change of a model's verdict, newest first."""
        request = staleness_pb2.ListVerdictChangesRequest(
            model_id=model_id, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        response = self._connection.read(
            self.stub.ListVerdictChanges, request, method="StalenessService/ListVerdictChanges"
        )
        return list(response.changes)
