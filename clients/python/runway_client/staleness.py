"""Is a model still good, and why: StalenessService."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from runway.v1 import common_pb2, staleness_pb2
from runway.v1.staleness_pb2_grpc import StalenessServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.moments import Moment, read_options
from runway_client.registry import PAGE_SIZE
from runway_client.times import to_timestamp


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

    def list_evaluations(
        self, model_id: str, *, start: datetime | None = None, end: datetime | None = None, points_max: int = 0
    ) -> Iterator[staleness_pb2.Evaluation]:
        """Every look made in [start, end), newest first, page by page.

        With `points_max` at most so many: of each of that many equal stretches of the time the newest.
        """
        request = staleness_pb2.ListEvaluationsRequest(
            model_id=model_id,
            start_time=to_timestamp(start) if start is not None else None,
            end_time=to_timestamp(end) if end is not None else None,
            points_max=points_max,
            page=common_pb2.PageRequest(page_size=PAGE_SIZE),
        )
        while True:
            response = self._connection.read(
                self.stub.ListEvaluations, request, method="StalenessService/ListEvaluations"
            )
            yield from response.evaluations
            if not response.next_page_token:
                return
            request.page.page_token = response.next_page_token

    def replay_evaluation(
        self, model_id: str, *, revision: int | None = None, evaluated_at: datetime | Timestamp | None = None
    ) -> staleness_pb2.ReplayEvaluationResponse:
        """Make a look again from its evidence: that of a verdict change, by its revision, or that of exactly a time."""
        if (revision is None) == (evaluated_at is None):
            raise ValueError("name the look by a revision or by a time: one of the two")
        at = to_timestamp(evaluated_at) if isinstance(evaluated_at, datetime) else evaluated_at
        request = staleness_pb2.ReplayEvaluationRequest(model_id=model_id, evaluated_at=at)
        if revision is not None:
            request.revision = revision
        return self._connection.read(self.stub.ReplayEvaluation, request, method="StalenessService/ReplayEvaluation")
