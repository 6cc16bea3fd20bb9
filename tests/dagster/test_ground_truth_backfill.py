"""Backfills of joins: Dagster's own backfill daemon, and the whole way down to the real control plane's store."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from dagster._daemon.backfill import execute_backfill_iteration
from dagster_shared.error import SerializableErrorInfo
from runway_client import (
    OutcomeBatch,
    PredictionBatch,
    Runway,
    connect,
    messages,
    outcome_batch,
    prediction_batch,
    prediction_ids,
    to_duration,
    to_timestamp,
)

from assets.fleet import Fleet
from assets.ground_truth import DAILY, HOURLY
from assets.grpc_plane import GrpcPlane
from assets.location import build_worker_definitions
from tests.api.served_plane import ServedPlane
from tests.dagster.test_daemon import RUN_AT_ONCE, Daemon, running

MARCH = datetime(2013, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
PER_HOUR = 4


@pytest.fixture
def daemon(home: object) -> Iterator[Daemon]:
    with running(RUN_AT_ONCE) as found:
        yield found


def numbers(instance: dg.DagsterInstance, name: str) -> dict[str, tuple[int, int]]:
    """Partition -> (predicted, joined) of its newest materialization."""
    found = {}
    for record in reversed(instance.fetch_materializations(dg.AssetKey([name]), limit=1000).records):
        made = record.asset_materialization
        assert made is not None
        found[made.partition or ""] = (int(made.metadata["predicted"].value), int(made.metadata["joined"].value))  # type: ignore[arg-type]
    return found


def backfill_of(daemon: Daemon, name: str, partitions: list[str]) -> PartitionBackfill:
    """A backfill as the web page asks for it."""
    return PartitionBackfill.from_asset_partitions(
        backfill_id="join-again",
        asset_graph=daemon.process.create_request_context().asset_graph,
        partition_names=partitions,
        asset_selection=[dg.AssetKey([name])],
        backfill_timestamp=daemon.world.plane.now.timestamp(),
        tags={},
        dynamic_partitions_store=daemon.instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )


@pytest.mark.filterwarnings("ignore:Function .AssetSelection.sources. is deprecated:DeprecationWarning")
def test_a_backfill_of_days_is_one_run_and_ends_complete(daemon: Daemon) -> None:
    plane = daemon.world.plane
    plane.now = MARCH + 20 * DAY
    for hour in range(24 * 6):
        plane.facts[MARCH + hour * HOUR] = (10, 9)
    days = [f"2013-03-0{day}" for day in range(1, 7)]
    daemon.instance.add_backfill(backfill_of(daemon, DAILY, days))
    for _ in range(6):
        told = list(execute_backfill_iteration(daemon.process, logging.getLogger("backfill")))
        assert [error for error in told if isinstance(error, SerializableErrorInfo)] == []
        daemon.dequeue()
    ended = daemon.instance.get_backfill("join-again")
    assert ended is not None
    assert ended.status is BulkActionStatus.COMPLETED_SUCCESS
    (run,) = daemon.runs()
    assert run.tags[ASSET_PARTITION_RANGE_START_TAG] == "2013-03-01"
    assert run.tags[ASSET_PARTITION_RANGE_END_TAG] == "2013-03-06"
    assert numbers(daemon.instance, DAILY) == dict.fromkeys(days, (240, 216))
    assert [authoritative for _, _, authoritative in plane.joins] == [True] * 6


@pytest.mark.filterwarnings("ignore:Function .AssetSelection.sources. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", [DAILY, HOURLY])
def test_retrains_wait_until_a_backfill_of_ground_truth_has_ended(daemon: Daemon, name: str) -> None:
    plane = daemon.world.plane
    plane.now = MARCH + 20 * DAY
    plane.ask("air_time", "arrival_delay")
    asked = {DAILY: ["2013-03-01", "2013-03-02"], HOURLY: ["2013-03-01-00:00"]}[name]
    backfill = backfill_of(daemon, name, asked)
    daemon.instance.add_backfill(backfill)
    daemon.world.tick("wait_for_backfills")
    retrain = plane.retrain_of("air_time")
    assert retrain.held_by == "dagster"
    assert f"backfill join-again of {name}" in retrain.hold_reason
    for _ in range(2):
        daemon.sensors()
    assert {one.state for one in plane.retrains.values()} == {"WAITING"}
    # What a person holds is theirs to release.
    plane.retrain_of("arrival_delay").held_by = "anna"
    daemon.instance.update_backfill(backfill._replace(status=BulkActionStatus.COMPLETED_SUCCESS))
    daemon.world.tick("wait_for_backfills")
    assert (retrain.held_by, plane.retrain_of("arrival_delay").held_by) == ("", "anna")
    daemon.sensors()
    assert retrain.state != "WAITING"


@pytest.mark.filterwarnings("ignore:Function .AssetSelection.sources. is deprecated:DeprecationWarning")
def test_a_backfill_of_nothing_that_is_learnt_from_holds_nobody(daemon: Daemon) -> None:
    plane = daemon.world.plane
    plane.now = MARCH + 20 * DAY
    plane.ask("air_time")
    ended = backfill_of(daemon, DAILY, ["2013-03-01"])._replace(status=BulkActionStatus.COMPLETED_FAILED)
    daemon.instance.add_backfill(ended)
    daemon.world.tick("wait_for_backfills")
    assert plane.retrain_of("air_time").held_by == ""
    plane.away = True
    assert "cannot reach" in str(daemon.world.tick("wait_for_backfills").skip_reason)


class RealFacts:
    """A control plane with four days of predictions of one model, two thirds of them with an outcome."""

    def __init__(self, instance: dg.DagsterInstance, served: ServedPlane, runway: Runway) -> None:
        self.instance, self.served, self.runway = instance, served, runway
        runway.operations.advance_clock(MARCH)
        runway.registry.register_model(
            messages.Model(
                model_id="air_time",
                owner="ada@example.com",
                team="ops",
                tier=messages.TIER_1,
                task_type=messages.TASK_TYPE_BINARY,
                policies=messages.Policies(label=messages.LabelSpec(window=to_duration(6 * HOUR))),
            )
        )
        runway.registry.register_version(
            messages.ModelVersion(
                model_id="air_time",
                artifact_uri="file:///a",
                artifact_sha256="a" * 64,
                artifact_size_bytes=1,
                trained_until=to_timestamp(MARCH),
            )
        )
        at = np.datetime64("2013-03-01", "us") + np.arange(4 * 24 * PER_HOUR) * np.timedelta64(60 // PER_HOUR, "m")
        self.at, self.ids = at, prediction_ids(at, np.arange(len(at)))
        score = np.linspace(0.01, 0.99, len(at))
        self.send(
            [
                PredictionBatch(
                    batch_id="p", model_id="air_time", version=1, arrow_ipc=prediction_batch(self.ids, at, score)
                )
            ]
        )
        self.known = np.arange(len(at)) % 3 != 0
        self.tell(self.known, "o")
        runway.operations.advance_clock(MARCH + 10 * DAY)
        self.defs = build_worker_definitions(Fleet(), self.connect)

    def connect(self) -> GrpcPlane:
        return GrpcPlane(self.served.address, retry_for_s=0.0)

    def send(self, batches: list[PredictionBatch]) -> None:
        assert [answer.refused for answer in self.runway.ingest_predictions(batches)] == [None]

    def tell(self, which: "np.ndarray[tuple[int], np.dtype[np.bool_]]", batch_id: str) -> None:
        """Send the outcomes of some predictions."""
        known_at = self.at[which] + np.timedelta64(1, "h")
        arrow = outcome_batch(self.ids[which], known_at, np.arange(len(self.at))[which] % 2)
        batch = OutcomeBatch(batch_id=batch_id, model_id="air_time", arrow_ipc=arrow)
        assert [answer.refused for answer in self.runway.ingest_outcomes([batch])] == [None]

    def run(self, name: str, first: str, last: str) -> None:
        job = self.defs.resolve_implicit_global_asset_job_def()
        job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey([name])],
            tags={ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last},
        )


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealFacts]:
    served = ServedPlane(tmp_path, monkeypatch)
    try:
        served.start()
        with dg.DagsterInstance.ephemeral() as instance, connect(served.address, "tests") as runway:
            yield RealFacts(instance, served, runway)
        served.stop()
    finally:
        served.close()


def test_days_joined_for_real_again_and_after_a_late_outcome(real: RealFacts) -> None:
    real.run(DAILY, "2013-03-01", "2013-03-04")
    first = numbers(real.instance, DAILY)
    assert first == {f"2013-03-0{day}": (24 * PER_HOUR, 24 * PER_HOUR * 2 // 3) for day in range(1, 5)}
    real.run(DAILY, "2013-03-01", "2013-03-04")
    assert numbers(real.instance, DAILY) == first
    real.tell((~real.known) & (np.arange(len(real.at)) < 24 * PER_HOUR), "late")  # those of the first day
    real.run(DAILY, "2013-03-01", "2013-03-02")
    assert numbers(real.instance, DAILY) == first | {"2013-03-01": (24 * PER_HOUR, 24 * PER_HOUR)}
    coverage = real.runway.ground_truth.get_coverage("air_time", start=MARCH, end=MARCH + 4 * DAY)
    assert [row.joined for row in coverage.rows] == [joined for _, joined in numbers(real.instance, DAILY).values()]


def test_hours_add_up_to_their_day(real: RealFacts) -> None:
    real.run(HOURLY, "2013-03-02-00:00", "2013-03-02-23:00")
    hours = numbers(real.instance, HOURLY)
    assert len(hours) == 24
    assert sum(predicted for predicted, _ in hours.values()) == 24 * PER_HOUR
    assert sum(joined for _, joined in hours.values()) == 24 * PER_HOUR * 2 // 3
