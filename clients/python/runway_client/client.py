"""`connect()` and what it returns."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from runway_client.alerts import Alerts
from runway_client.backtest import Backtest
from runway_client.connection import RETRY_FOR_S, Connection
from runway_client.errors import RunwayRpcError
from runway_client.facts import Facts
from runway_client.fleet import Fleet
from runway_client.graph import Graph
from runway_client.ground_truth import GroundTruth
from runway_client.ingest import BatchAnswer, HistogramBatch, OutcomeBatch, PredictionBatch
from runway_client.lineage import Lineage
from runway_client.operations import Operations
from runway_client.policies import Policies
from runway_client.registry import Registry
from runway_client.retraining import Retraining
from runway_client.rollout import Rollouts
from runway_client.rules import Rules
from runway_client.schedulers import Schedulers
from runway_client.staleness import Staleness
from runway_client.watching import WatchItem


class Runway:
    """The control plane, one attribute per service. Safe to share between threads; close it, or use `with`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.registry = Registry(connection)
        self.graph = Graph(connection)
        self.fleet = Fleet(connection)
        self.lineage = Lineage(connection)
        self.staleness = Staleness(connection)
        self.ground_truth = GroundTruth(connection)
        self.facts = Facts(connection)
        self.retraining = Retraining(connection)
        self.rollouts = Rollouts(connection)
        self.operations = Operations(connection)
        self.policies = Policies(connection)
        self.backtest = Backtest(connection)
        self.rules = Rules(connection)
        self.alerts = Alerts(connection)
        self.schedulers = Schedulers(connection)

    @property
    def address(self) -> str:
        """Where the control plane listens."""
        return self.connection.address

    @property
    def revision(self) -> int:
        """The newest revision any reply carried; as `min_revision` of a read it means "at least what I have seen"."""
        return self.connection.revision

    def watch(
        self,
        after_revision: int = 0,
        *,
        include_snapshot: bool = False,
        model_ids: Iterable[str] = (),
        kinds: Iterable[str] = (),
        teams: Iterable[str] = (),
        give_up_after_s: float | None = None,
        on_interruption: Callable[[RunwayRpcError], None] | None = None,
    ) -> Iterator[WatchItem]:
        """Changes as they become durable; see `Operations.watch`."""
        return self.operations.watch(
            after_revision,
            include_snapshot=include_snapshot,
            model_ids=model_ids,
            kinds=kinds,
            teams=teams,
            give_up_after_s=give_up_after_s,
            on_interruption=on_interruption,
        )

    def ingest_predictions(self, batches: Iterable[PredictionBatch]) -> Iterator[BatchAnswer]:
        """Store predictions; see `GroundTruth.ingest_predictions`."""
        return self.ground_truth.ingest_predictions(batches)

    def ingest_histograms(self, batches: Iterable[HistogramBatch]) -> Iterator[BatchAnswer]:
        """Store hours that the producer counted itself; see `GroundTruth.ingest_histograms`."""
        return self.ground_truth.ingest_histograms(batches)

    def ingest_outcomes(self, batches: Iterable[OutcomeBatch]) -> Iterator[BatchAnswer]:
        """Store outcomes; see `GroundTruth.ingest_outcomes`."""
        return self.ground_truth.ingest_outcomes(batches)

    def close(self) -> None:
        """End all calls; watches in other threads end quietly."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(address: str | None = None, actor: str | None = None, *, retry_for_s: float = RETRY_FOR_S) -> Runway:
    """A client of the control plane; nothing is sent before the first call.

    Args:
        address: host:port; default RUNWAY_ADDRESS, then 127.0.0.1:7433.
        actor: who asks for changes, for the audit log; default RUNWAY_ACTOR, then anonymous.
        retry_for_s: how long an unavailable control plane is tried again.
    """
    return Runway(Connection(address, actor, retry_for_s=retry_for_s))
