"""What is stored of predictions and outcomes, for those who run it: FactsService."""

from datetime import datetime

from runway.v1 import facts_pb2
from runway.v1.facts_pb2_grpc import FactsServiceStub

from runway_client.connection import Connection
from runway_client.times import to_timestamp

JOIN_DEADLINE_S = 3600.0
"""A join of a quarter of a large fleet takes minutes, and waits for the one before it."""


class Facts:
    """Joins on demand."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = FactsServiceStub(connection.channel)

    def join_partition(
        self,
        start: datetime,
        end: datetime,
        *,
        model_id: str = "",
        authoritative: bool = False,
        deadline_s: float = JOIN_DEADLINE_S,
    ) -> facts_pb2.JoinPartitionResponse:
        """Join the predictions made in [start, end) again, and wait for it; the same again gives the same numbers.

        Args:
            model_id: of one model; empty is of all.
            authoritative: every hour again (daily); otherwise only hours whose rows have changed (hourly).
        """
        request = facts_pb2.JoinPartitionRequest(
            start_time=to_timestamp(start), end_time=to_timestamp(end), model_id=model_id, authoritative=authoritative
        )
        return self._connection.read(
            self.stub.JoinPartition, request, method="FactsService/JoinPartition", deadline_s=deadline_s
        )
