"""What is stored of predictions and outcomes, for those who run it: FactsService."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from runway.v1 import facts_pb2
from runway.v1.facts_pb2_grpc import FactsServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.times import to_timestamp

REPLAY_DEADLINE_S = 600.0
"""A gigabyte of dead letters is read, checked and stored."""
ERASE_DEADLINE_S = 3600.0
"""Every file is searched, twice."""
JOIN_DEADLINE_S = 3600.0
"""A join of a quarter of a large fleet takes minutes, and waits for the one before it."""


class Facts:
    """Joins on demand, what could not be used, and where facts come from."""

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

    def erase_facts(
        self,
        prediction_ids: Iterable[bytes] = (),
        *,
        entity_ids: Iterable[str] = (),
        why: Why = NO_REASON,
        deadline_s: float = ERASE_DEADLINE_S,
    ) -> facts_pb2.ErasureReceipt:
        """Erase predictions, by id and by whose they are, and all that hangs on them, from every layer; for good.

        The receipt says what was found in each layer and that a second search found nothing. The same request id again
        gives the same receipt.
        """
        request = facts_pb2.EraseFactsRequest(prediction_ids=prediction_ids, entity_ids=entity_ids)
        return self._connection.change(
            self.stub.EraseFacts, request, method="FactsService/EraseFacts", why=why, deadline_s=deadline_s
        ).receipt

    def list_erasures(self, *, limit: int = 100) -> Sequence[facts_pb2.ErasureReceipt]:
        """Receipts of erasures, newest first."""
        request = facts_pb2.ListErasuresRequest(limit=limit)
        return self._connection.read(self.stub.ListErasures, request, method="FactsService/ListErasures").receipts

    def get_ingest_status(self, model_id: str = "") -> facts_pb2.GetIngestStatusResponse:
        """Where facts come from, what is kept of them, and what is degraded now; of one model, or of all."""
        request = facts_pb2.GetIngestStatusRequest(model_id=model_id)
        return self._connection.read(self.stub.GetIngestStatus, request, method="FactsService/GetIngestStatus")

    def list_orphans(self, model_id: str, *, limit: int = 100) -> facts_pb2.ListOrphansResponse:
        """Outcomes of a model whose prediction was never seen, as of the last joins, newest first, and how many."""
        request = facts_pb2.ListOrphansRequest(model_id=model_id, limit=limit)
        return self._connection.read(self.stub.ListOrphans, request, method="FactsService/ListOrphans")

    def list_dead_letters(self, model_id: str = "", *, limit: int = 100) -> facts_pb2.ListDeadLettersResponse:
        """Batches out of Kafka or a folder that could not be used, newest first, and how many; of one model, or all."""
        request = facts_pb2.ListDeadLettersRequest(model_id=model_id, limit=limit)
        return self._connection.read(self.stub.ListDeadLetters, request, method="FactsService/ListDeadLetters")

    def replay_dead_letters(
        self, ids: Sequence[int] = (), *, model_id: str = "", deadline_s: float = REPLAY_DEADLINE_S
    ) -> facts_pb2.ReplayDeadLettersResponse:
        """Take dead letters in again: these, or all of a model, or all. Those that are still no use stay, with the
        reason of this try; replaying one twice changes nothing."""
        request = facts_pb2.ReplayDeadLettersRequest(ids=ids, model_id=model_id)
        return self._connection.read(
            self.stub.ReplayDeadLetters, request, method="FactsService/ReplayDeadLetters", deadline_s=deadline_s
        )

    def discard_dead_letters(self, ids: Sequence[int] = (), *, model_id: str = "") -> int:
        """Throw dead letters away: these, or all of a model, or all; how many."""
        request = facts_pb2.ReplayDeadLettersRequest(ids=ids, model_id=model_id, discard=True)
        answer = self._connection.read(self.stub.ReplayDeadLetters, request, method="FactsService/ReplayDeadLetters")
        return answer.discarded
