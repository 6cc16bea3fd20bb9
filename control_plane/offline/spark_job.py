"""The two jobs of the Spark engine.

    python -m control_plane.offline.spark_job stream --tables URL --brokers HOST:PORT [--once]
    python -m control_plane.offline.spark_job batch --tables URL --from 2026-11-01T00 --to 2026-11-02T00

`stream` takes both topics. Every micro-batch first writes its rows to the Delta tables, under the application
transaction (`runway-stream`, number of the micro-batch), so that one that is done again after a crash changes nothing;
then it joins the hours that it touched from the tables, and hands their partials over, absolute. So nothing is joined
in a stream's own state: what a restart, a late row or a silent partition could lose there is all in the tables.

`batch` joins every hour of a stretch from all rows.
"""

import argparse
import sys
import time
from datetime import UTC, datetime

import msgspec
from google.protobuf.message import DecodeError
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it
from runway.v1 import ground_truth_pb2

from control_plane.adapters.spark.joining import HANDED_OVER, ID_HOUR, Label, joined_partials
from control_plane.adapters.spark.rows import parse
from control_plane.api.convert.ingest import outcomes_ipc, predictions_ipc
from control_plane.app.arrivals import PROTOBUF, Arrival
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.tables import COLUMNS, KINDS, LABELS_FILE, PARTIALS

STREAM_ID = "runway-stream"
OFFSETS_AT_ONCE_MAX = 2_000
"""Records of a micro-batch: 130 M rows at most."""
FAILURES_MAX = 3
"""Failures in a row, without a micro-batch between them, after which the job ends and its supervisor is asked."""
DEAD_LETTERS = "dead_letters"
_ROWS_DDL = (
    "kind string, prediction_id binary, at_us long, number double, version int, revision int, label_type string, "
    "model_id string, hour int, bucket short, arrival long, source string, slices string, entity_id string, day date, "
    "fault string, payload binary"
)


class Engine:
    """A Spark session and the tables of one deployment."""

    def __init__(self, spark: SparkSession, tables: str, predictions_topic: str) -> None:
        self.spark = spark
        self.tables = tables.rstrip("/")
        self._predictions_topic = predictions_topic
        self._prepare()

    def _prepare(self) -> None:
        """Tables that are not there yet are made empty, so that both can be read from the start."""
        for kind in KINDS:
            columns = ", ".join(f"{name} {'int' if of == 'integer' else of}" for name, of in COLUMNS[kind])
            self.spark.sql(
                f"CREATE TABLE IF NOT EXISTS delta.`{self.tables}/{kind}` ({columns}) USING delta PARTITIONED BY (day)"
            )
        self.spark.sql(f"CREATE TABLE IF NOT EXISTS delta.`{self.tables}/{PARTIALS}` ({HANDED_OVER}) USING delta")

    def table(self, name: str) -> DataFrame:
        """A table as it is now."""
        return self.spark.read.format("delta").load(f"{self.tables}/{name}")

    def labels(self, now_us: int) -> dict[str, list[Label]]:
        """The labels of each model, as the control plane wrote them last; others have the default one."""
        try:
            [text] = self.spark.read.text(f"{self.tables}/{LABELS_FILE}", wholetext=True).first() or ("{}",)
        except Exception as error:
            if "PATH_NOT_FOUND" not in str(error):
                raise
            return {}
        known = msgspec.json.decode(text or "{}", type=dict[str, list[LabelSpec]])
        return {model_id: [_label(model_id, spec, now_us) for spec in specs] for model_id, specs in known.items()}

    def labels_of(self, models: list[str], now_us: int) -> list[Label]:
        """The labels of some models."""
        known = self.labels(now_us)
        return [
            label for model_id in models for label in known.get(model_id) or [_label(model_id, LabelSpec(), now_us)]
        ]

    def take(self, records: DataFrame, number: int) -> None:
        """One micro-batch: store its rows, then join what they touch."""
        topic = self._predictions_topic
        rows = records.select("topic", "partition", "offset", "value", "headers").mapInArrow(
            lambda batches: parse(batches, topic, decoded), _ROWS_DDL
        )
        rows = self._with_label_types(rows).persist()
        try:
            good = rows.where("fault IS NULL")
            predictions = good.where("kind = 'predictions'").selectExpr(
                "prediction_id", "timestamp_micros(at_us) AS predicted_at", "number AS score", "version", "model_id",
                "hour", "bucket", "arrival", "source", "slices", "entity_id", "day",
            )  # fmt: skip
            outcomes = good.where("kind = 'outcomes'").selectExpr(
                "prediction_id", "timestamp_micros(at_us) AS observed_at", "number AS value", "revision", "label_type",
                "false AS late", "model_id", "hour", "bucket", "arrival", "source", "day",
            )  # fmt: skip
            self._append(predictions, "predictions", number)
            self._append(outcomes, "outcomes", number)
            faults = rows.where("fault IS NOT NULL").select("kind", "model_id", "source", "fault", "payload")
            self._append(faults, DEAD_LETTERS, number)
            touched = good.select("model_id", F.col("hour").cast("int").alias("hour")).distinct().collect()
        finally:
            rows.unpersist()
        if touched:
            self._join([(row["model_id"], row["hour"]) for row in touched], layer="speed")

    def _with_label_types(self, rows: DataFrame) -> DataFrame:
        """An outcome without a label type is of its model's first label."""
        first = {model_id: labels[0].spec.label_type for model_id, labels in self.labels(0).items() if labels}
        names = self.spark.createDataFrame(sorted(first.items()), "model_id string, first_label string")
        default = F.coalesce("first_label", F.lit(LabelSpec().label_type))
        named = F.when((F.col("kind") == "outcomes") & (F.col("label_type") == ""), default)
        return (
            rows.join(F.broadcast(names), "model_id", "left")
            .withColumn("label_type", F.coalesce(named, F.col("label_type")))
            .drop("first_label")
        )

    def _append(self, rows: DataFrame, table: str, number: int) -> None:
        writer = rows.write.format("delta").mode("append")
        writer = writer.option("txnAppId", STREAM_ID).option("txnVersion", number).option("mergeSchema", "true")
        writer.save(f"{self.tables}/{table}")

    def _join(self, touched: list[tuple[str, int]], *, layer: str) -> None:
        """Join all predictions of the touched hours, and those whose ids carry one of them."""
        wanted = self.spark.createDataFrame(touched, "model_id string, wanted int")
        everything = self.table("predictions").withColumn("id_hour", F.expr(ID_HOUR).cast("int"))
        models = sorted({model_id for model_id, _ in touched})
        hours = sorted({hour for _, hour in touched})
        near = everything.where(F.col("model_id").isin(models))
        direct = near.where(F.col("hour").isin(hours) | F.col("id_hour").isin(hours))
        asked = direct.join(
            F.broadcast(wanted),
            (direct["model_id"] == wanted["model_id"])
            & ((direct["hour"] == wanted["wanted"]) | (direct["id_hour"] == wanted["wanted"])),
            "left_semi",
        )
        whole = asked.select("model_id", "hour").distinct()
        self.hand_over(near.join(F.broadcast(whole), ["model_id", "hour"], "left_semi"), models, touched, layer)

    def join_range(self, first: int, last: int, models: list[str]) -> int:
        """Join hours first <= hour < last again from all rows; the number of (model, hour) joined."""
        predictions = self.table("predictions").withColumn("id_hour", F.expr(ID_HOUR).cast("int"))
        predictions = predictions.where((F.col("hour") >= first) & (F.col("hour") < last))
        outcomes = self.table("outcomes").where((F.col("hour") >= first) & (F.col("hour") < last))
        if models:
            predictions = predictions.where(F.col("model_id").isin(models))
            outcomes = outcomes.where(F.col("model_id").isin(models))
        both = predictions.select("model_id", "hour").union(outcomes.select("model_id", "hour")).distinct()
        touched = [(row["model_id"], int(row["hour"])) for row in both.collect()]
        if touched:
            names = sorted({model_id for model_id, _ in touched})
            touched += [(name, -1) for name in names]
            self.hand_over(predictions, names, touched, "batch")
        return len(touched)

    def hand_over(self, predictions: DataFrame, models: list[str], touched: list[tuple[str, int]], layer: str) -> None:
        """Join predictions with all outcomes that could be theirs, and append the partials."""
        now_us = time.time_ns() // 1_000
        predictions = predictions.persist()
        try:
            in_ids = [row[0] for row in predictions.select("id_hour").distinct().collect()]
            hours = sorted({*in_ids, *(hour for _, hour in touched)})
            outcomes = self.table("outcomes").where(F.col("model_id").isin(models) & F.col("hour").isin(hours))
            joined = joined_partials(
                self.spark,
                predictions.drop("id_hour"),
                outcomes,
                self.labels_of(models, now_us),
                layer=layer,
                computed_us=now_us,
            )
            joined.coalesce(1).write.format("delta").mode("append").save(f"{self.tables}/{PARTIALS}")
        finally:
            predictions.unpersist()


def decoded(arrival: Arrival) -> Arrival:
    """A protobuf payload as Arrow; on the workers."""
    if arrival.content_type != PROTOBUF:
        fault = Violation(field="content-type", rule="known", message=f"{arrival.content_type[:100]!r} is unknown")
        raise Invalid(Reason.INVALID_BATCH, fault)
    try:
        if arrival.kind == "predictions":
            said = ground_truth_pb2.IngestPredictionsRequest.FromString(arrival.payload)
            ipc, version, label_type = predictions_ipc(said), said.version, ""
        else:
            told = ground_truth_pb2.IngestOutcomesRequest.FromString(arrival.payload)
            ipc, version, label_type = outcomes_ipc(told), 0, told.label_type
    except DecodeError as error:
        fault = Violation(field="payload", rule="protobuf", message=f"not such a message: {error}")
        raise Invalid(Reason.INVALID_BATCH, fault) from error
    message = said if arrival.kind == "predictions" else told
    return msgspec.structs.replace(
        arrival,
        payload=ipc,
        model_id=arrival.model_id or message.model_id,
        version=arrival.version or version,
        label_type=arrival.label_type or label_type,
        source=message.source or arrival.source,
    )


def _label(model_id: str, spec: LabelSpec, now_us: int) -> Label:
    return Label(model_id, spec, (now_us - spec.window_us) // MICROSECONDS_PER_HOUR)


def session(name: str) -> SparkSession:
    """A session with Delta; master, jars and memory are said to spark-submit or in the environment."""
    builder = SparkSession.builder.appName(name)
    for key, value in (
        ("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension"),
        ("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog"),
        ("spark.sql.session.timeZone", "UTC"),
        ("spark.sql.execution.arrow.maxRecordsPerBatch", "1000000"),
    ):
        builder = builder.config(key, value)
    return builder.getOrCreate()


def stream(arguments: argparse.Namespace) -> None:
    """Take records until stopped; with `--once` all that are there."""
    engine = Engine(session("runway stream"), arguments.tables, arguments.predictions_topic)
    records = (
        engine.spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", arguments.brokers)
        .option("subscribe", f"{arguments.predictions_topic},{arguments.outcomes_topic}")
        .option("startingOffsets", "earliest")
        .option("includeHeaders", "true")
        .option("maxOffsetsPerTrigger", OFFSETS_AT_ONCE_MAX)
        .option("failOnDataLoss", "true")
        .load()
    )
    writer = records.writeStream.foreachBatch(engine.take).option(
        "checkpointLocation", f"{engine.tables}/_checkpoints/{STREAM_ID}"
    )
    writer = writer.trigger(availableNow=True) if arguments.once else writer.trigger(processingTime="1 second")
    failures = 0
    while True:
        query = writer.start()
        try:
            query.awaitTermination()
        except StreamingQueryException as error:
            # A micro-batch that is done again after a crash ends the query once it is committed: Spark's report of its
            # progress stumbles over offsets that it has not asked for yet (seen with 4.1.1).
            failures = failures + 1 if query.lastProgress is None else 1
            if failures >= FAILURES_MAX:
                raise
            print(f"the query ended and is started again: {str(error)[:500]}", file=sys.stderr, flush=True)
        else:
            return


def batch(arguments: argparse.Namespace) -> None:
    """Join a stretch of time."""
    engine = Engine(session("runway batch"), arguments.tables, arguments.predictions_topic)
    first, last = (int(_instant(text).timestamp()) // 3600 for text in (arguments.since, arguments.until))
    print(f"joined {engine.join_range(first, last, arguments.model)} hours of models")


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def main() -> int:
    """Run one job."""
    parser = argparse.ArgumentParser(prog="control_plane.offline.spark_job", description=__doc__)
    jobs = parser.add_subparsers(dest="job", required=True)
    streaming = jobs.add_parser("stream", help="take records from Kafka and join what they touch")
    streaming.add_argument("--brokers", required=True)
    streaming.add_argument("--once", action="store_true", help="take all that is there, then end")
    joining = jobs.add_parser("batch", help="join a stretch of time from all rows")
    joining.add_argument("--from", dest="since", required=True)
    joining.add_argument("--to", dest="until", required=True)
    joining.add_argument("--model", action="append", default=[])
    for parser_of in (streaming, joining):
        parser_of.add_argument("--tables", required=True)
        parser_of.add_argument("--predictions-topic", default="runway.predictions")
        parser_of.add_argument("--outcomes-topic", default="runway.outcomes")
    arguments = parser.parse_args()
    (stream if arguments.job == "stream" else batch)(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
