"""What models said, what turned out, and how much of the truth is here: GroundTruthService."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from runway.v1 import common_pb2, ground_truth_pb2
from runway.v1.ground_truth_pb2_grpc import GroundTruthServiceStub

from runway_client.connection import Connection
from runway_client.ingest import BatchAnswer, Histogram, HistogramBatch, OutcomeBatch, Pipeline, PredictionBatch
from runway_client.times import to_timestamp


class GroundTruth:
    """Send predictions and outcomes; read coverage and performance."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = GroundTruthServiceStub(connection.channel)

    def ingest_predictions(self, batches: Iterable[PredictionBatch]) -> Iterator[BatchAnswer]:
        """Store predictions: one answer per batch, in order; a stored batch is durable. Iterate to the end.

        A refused batch does not end the stream: look at `answer.refused`.
        """
        pipeline: Pipeline[ground_truth_pb2.IngestPredictionsRequest] = Pipeline(
            self._connection, self.stub.IngestPredictions, "GroundTruthService/IngestPredictions", _arrow_bytes
        )
        return pipeline.run(
            ground_truth_pb2.IngestPredictionsRequest(
                batch_id=batch.batch_id,
                model_id=batch.model_id,
                version=batch.version,
                arrow_ipc=batch.arrow_ipc,
                source=batch.source,
            )
            for batch in batches
        )

    def ingest_outcomes(self, batches: Iterable[OutcomeBatch]) -> Iterator[BatchAnswer]:
        """Store outcomes, likewise."""
        pipeline: Pipeline[ground_truth_pb2.IngestOutcomesRequest] = Pipeline(
            self._connection, self.stub.IngestOutcomes, "GroundTruthService/IngestOutcomes", _arrow_bytes
        )
        return pipeline.run(
            ground_truth_pb2.IngestOutcomesRequest(
                batch_id=batch.batch_id,
                model_id=batch.model_id,
                label_type=batch.label_type,
                arrow_ipc=batch.arrow_ipc,
                source=batch.source,
            )
            for batch in batches
        )

    def ingest_histograms(self, batches: Iterable[HistogramBatch]) -> Iterator[BatchAnswer]:
        """Store hours that the producer counted itself, over the cells of the version's reference profile; likewise."""
        pipeline: Pipeline[ground_truth_pb2.IngestHistogramsRequest] = Pipeline(
            self._connection,
            self.stub.IngestHistograms,
            "GroundTruthService/IngestHistograms",
            ground_truth_pb2.IngestHistogramsRequest.ByteSize,
        )
        return pipeline.run(
            ground_truth_pb2.IngestHistogramsRequest(
                batch_id=batch.batch_id,
                model_id=batch.model_id,
                version=batch.version,
                producer=batch.producer,
                hour=to_timestamp(batch.hour),
                predictions=batch.predictions,
                features=[_histogram(feature) for feature in batch.features],
                prediction=_histogram(batch.prediction) if batch.prediction is not None else None,
                slice=batch.slice,
                replace=batch.replace,
            )
            for batch in batches
        )

    def get_coverage(
        self,
        model_id: str,
        *,
        version: int = 0,
        start: datetime | None = None,
        end: datetime | None = None,
        label_type: str = "",
        slice_name: str = "",
        grain: ground_truth_pb2.Grain.ValueType = ground_truth_pb2.GRAIN_DAY,
        min_revision: int = 0,
    ) -> ground_truth_pb2.GetCoverageResponse:
        """How much of the truth has arrived, in total and by day, and why not more; version 0 is all, default the 7
        days that became mature last.

        Args:
            label_type: empty is the model's own.
            slice_name: as `country=US`; empty is all.
            grain: what a row is of: a day, an hour, a version or a slice.
        """
        request = ground_truth_pb2.GetCoverageRequest(
            model_id=model_id,
            version=version,
            start_time=None if start is None else to_timestamp(start),
            end_time=None if end is None else to_timestamp(end),
            read=common_pb2.ReadOptions(min_revision=min_revision),
            label_type=label_type,
            slice=slice_name,
            grain=grain,
        )
        return self._connection.read(self.stub.GetCoverage, request, method="GroundTruthService/GetCoverage")

    def list_coverage(
        self, *, low_only: bool = False, team: str = "", min_revision: int = 0
    ) -> ground_truth_pb2.ListCoverageResponse:
        """How much of the truth has arrived of all models that get outcomes, the worst first."""
        request = ground_truth_pb2.ListCoverageRequest(
            low_only=low_only, team=team, read=common_pb2.ReadOptions(min_revision=min_revision)
        )
        return self._connection.read(self.stub.ListCoverage, request, method="GroundTruthService/ListCoverage")

    def get_performance(
        self,
        model_id: str,
        *,
        version: int = 0,
        start: datetime | None = None,
        end: datetime | None = None,
        label_type: str = "",
        slice_name: str = "",
        grain: ground_truth_pb2.Grain.ValueType = ground_truth_pb2.GRAIN_DAY,
        known_at: datetime | None = None,
        provisional: bool = False,
        min_revision: int = 0,
    ) -> ground_truth_pb2.GetPerformanceResponse:
        """How good the model is on the truth that has arrived; version 0 is all, default the last 7 days.

        Args:
            label_type: empty is the model's own.
            slice_name: as `country=US`; empty is all.
            grain: what a row is of: a day, an hour, a version or a slice.
            known_at: answer with what had been computed by then.
            provisional: also predictions whose label window has not ended, corrected by how fast outcomes arrive.
        """
        request = ground_truth_pb2.GetPerformanceRequest(
            model_id=model_id,
            version=version,
            start_time=None if start is None else to_timestamp(start),
            end_time=None if end is None else to_timestamp(end),
            read=common_pb2.ReadOptions(min_revision=min_revision),
            label_type=label_type,
            slice=slice_name,
            grain=grain,
            known_at=None if known_at is None else to_timestamp(known_at),
            provisional=provisional,
        )
        return self._connection.read(self.stub.GetPerformance, request, method="GroundTruthService/GetPerformance")


def _arrow_bytes(request: ground_truth_pb2.IngestPredictionsRequest | ground_truth_pb2.IngestOutcomesRequest) -> int:
    return len(request.arrow_ipc)


def _histogram(histogram: Histogram) -> ground_truth_pb2.HourHistogram:
    return ground_truth_pb2.HourHistogram(
        name=histogram.name,
        edges=histogram.edges,
        categories=histogram.categories,
        counts=histogram.counts,
    )
