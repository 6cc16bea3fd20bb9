"""The join on Spark: the rules of `core.ground_truth.join` as SQL, summed up by `partials_of` itself.

Distinct by first arrival, joined on all 128 bits, the highest revision inside the window wins. An outcome's partition
is the hour in its id; which of those an hour of predictions needs is read off the ids of the predictions. Chunks of
joined rows are summed on the workers by the function that the other engines use, so that counts agree one by one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it

from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Rows, merge, pack, partials_of, unpack

ID_HOUR = (
    "CASE WHEN substring(hex(prediction_id), 13, 1) = '7' "
    "AND substring(hex(prediction_id), 17, 1) IN ('8','9','A','B') "
    "THEN CAST(conv(substring(hex(prediction_id), 1, 12), 16, 10) AS BIGINT) DIV 3600000 ELSE -1 END"
)
"""The hour in an id, -1 if it carries none; as `core.ground_truth.ids.id_hours`."""

SUMMED = "model_id string, label_type string, hour int, version int, packed binary"
VERSIONS = "array<struct<version:int,packed:binary>>"
HANDED_OVER = (
    f"model_id string, label_type string, hour int, layer string, computed_us long, orphans long, versions {VERSIONS}"
)


@dataclass(frozen=True, slots=True)
class Label:
    """A label of a model, and before which hour its predictions are mature."""

    model_id: str
    spec: LabelSpec
    mature_before: int


def joined_partials(
    spark: SparkSession,
    predictions: DataFrame,
    outcomes: DataFrame,
    labels: Sequence[Label],
    *,
    layer: str,
    computed_us: int,
) -> DataFrame:
    """`HANDED_OVER` rows: a row for each (model, label, hour) of which there are predictions or orphans.

    Args:
        predictions: rows of the table `predictions`, of the hours that are asked for.
        outcomes: rows of the table `outcomes` that could be theirs.
    """
    known = spark.createDataFrame(
        [(one.model_id, one.spec.label_type, one.spec.window_us) for one in labels],
        "model_id string, label_type string, window_us long",
    )
    said = (
        predictions.groupBy("model_id", "prediction_id")
        .agg(F.min_by(F.struct("predicted_at", "score", "version", "hour"), "arrival").alias("first"))
        .select("model_id", "prediction_id", "first.*")
        .withColumn("at_us", F.unix_micros("predicted_at"))
    )
    turned = (
        outcomes.groupBy("model_id", "label_type", "prediction_id", "revision", "hour")
        .agg(F.min_by(F.struct("observed_at", "value", "late"), "arrival").alias("first"))
        .select("model_id", "label_type", "prediction_id", "revision", "hour", "first.*")
        .withColumn("seen_us", F.unix_micros("observed_at"))
    )
    matched = turned.join(said.select("model_id", "prediction_id", "at_us"), ["model_id", "prediction_id"]).join(
        F.broadcast(known), ["model_id", "label_type"]
    )
    inside = F.col("seen_us") - F.col("at_us") <= F.col("window_us")
    best = F.struct(
        F.col("revision"), F.col("value"), (F.col("seen_us") - F.col("at_us")).alias("delay_us"), F.col("late")
    )
    winners = matched.groupBy("model_id", "label_type", "prediction_id").agg(
        F.max_by(F.when(inside, best), F.when(inside, F.col("revision"))).alias("best")
    )
    rows = (
        said.join(F.broadcast(known.select("model_id", "label_type")), "model_id")
        .join(winners.withColumn("seen", F.lit(True)), ["model_id", "label_type", "prediction_id"], "left")
        .select(
            "model_id",
            "label_type",
            F.col("hour").cast("int").alias("hour"),
            F.col("version").cast("int").alias("version"),
            "score",
            F.col("best.value").alias("value"),
            F.coalesce("best.delay_us", F.lit(0)).cast("long").alias("delay_us"),
            F.coalesce("best.late", F.lit(False)).alias("late"),
            (F.col("seen").isNotNull() & F.col("best").isNull()).alias("outside"),
            (F.coalesce("best.revision", F.lit(0)) < 0).alias("imputed"),
        )
    )
    plan = msgspec.json.encode([(one.model_id, one.spec, one.mature_before) for one in labels])

    def summed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return _summed(batches, plan)

    by_version = (
        rows.mapInArrow(summed, SUMMED)
        .groupBy("model_id", "label_type", "hour", "version")
        .applyInArrow(_merged, SUMMED)
    )
    orphans = (
        turned.join(said.select("model_id", "prediction_id"), ["model_id", "prediction_id"], "left_anti")
        .select("model_id", "label_type", F.col("hour").cast("int").alias("hour"), "prediction_id")
        .distinct()
        .groupBy("model_id", "label_type", "hour")
        .agg(F.count("*").alias("orphans"))
    )
    return (
        by_version.groupBy("model_id", "label_type", "hour")
        .agg(F.collect_list(F.struct("version", "packed")).alias("versions"))
        .join(orphans, ["model_id", "label_type", "hour"], "full")
        .select(
            "model_id",
            "label_type",
            "hour",
            F.lit(layer).alias("layer"),
            F.lit(computed_us).cast("long").alias("computed_us"),
            F.coalesce("orphans", F.lit(0)).cast("long").alias("orphans"),
            F.coalesce("versions", F.expr("cast(array() as array<struct<version:int,packed:binary>>)")).alias(
                "versions"
            ),
        )
    )


def _summed(batches: Iterable[pa.RecordBatch], plan: bytes) -> Iterator[pa.RecordBatch]:
    """Joined rows to partials, chunk by chunk."""
    labels = {
        (model_id, spec.label_type): (spec, mature_before)
        for model_id, spec, mature_before in msgspec.json.decode(plan, type=list[tuple[str, LabelSpec, int]])
    }
    for batch in batches:
        table = pa.Table.from_batches([batch])
        found: list[tuple[str, str, int, int, bytes]] = []
        keys = table.select(["model_id", "label_type"]).group_by(["model_id", "label_type"]).aggregate([])
        for key in keys.to_pylist():
            label = labels[(key["model_id"], key["label_type"])]
            own = table.filter(
                pa.compute.and_(
                    pa.compute.equal(table.column("model_id"), key["model_id"]),
                    pa.compute.equal(table.column("label_type"), key["label_type"]),
                )
            )
            found += [(*key.values(), *one) for one in _partials(own, *label)]
        yield _packed(found)


def _partials(rows: pa.Table, spec: LabelSpec, mature_before: int) -> Iterator[tuple[int, int, bytes]]:
    """(hour, version, packed partial)."""
    hour = rows.column("hour").to_numpy().astype(np.int64)
    version = rows.column("version").to_numpy().astype(np.int64)
    keys, group = np.unique(np.stack([hour, version]), axis=1, return_inverse=True)
    summed = partials_of(
        spec,
        Rows(
            group=group.reshape(-1).astype(np.int64),
            score=rows.column("score").to_numpy(),
            value=rows.column("value").to_numpy().astype(np.float64),
            delay_us=rows.column("delay_us").to_numpy(),
            late=rows.column("late").to_numpy(),
            outside=rows.column("outside").to_numpy(),
            mature=hour < mature_before,
            imputed=rows.column("imputed").to_numpy(),
        ),
        keys.shape[1],
    )
    for (of_hour, of_version), partial in zip(keys.T.tolist(), summed, strict=True):
        yield of_hour, of_version, pack(partial)


def _merged(table: pa.Table) -> pa.Table:
    """The partials of one key, added up."""
    total = merge(unpack(packed) for packed in table.column("packed").to_pylist())
    first = table.slice(0, 1)
    return first.set_column(first.column_names.index("packed"), "packed", pa.array([pack(total)], pa.binary()))


def _packed(found: list[tuple[str, str, int, int, bytes]]) -> pa.RecordBatch:
    columns = list(zip(*found, strict=True)) or [()] * 5
    types = (pa.string(), pa.string(), pa.int32(), pa.int32(), pa.binary())
    names = ["model_id", "label_type", "hour", "version", "packed"]
    return pa.RecordBatch.from_arrays(
        [pa.array(column, of) for column, of in zip(columns, types, strict=True)], names=names
    )
