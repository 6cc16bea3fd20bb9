"""The door for facts that nobody waits for: stored once, or kept as a dead letter that can be replayed."""

import asyncio
import hashlib
import os
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs
from runway.v1 import common_pb2, facts_pb2, ground_truth_pb2, policies_pb2

from control_plane.adapters.inbox import Inbox
from control_plane.app.arrivals import PROTOBUF, Arrival, Taken
from control_plane.app.ground_truth import GroundTruth
from tests.api.test_ground_truth import ROWS, coverage, made, outcomes, predictions, sent
from tests.api.worlds import START, Api, instant, refusal_of, refused, span
from tests.ground_truth.arrows import ipc, outcome_columns, outcomes_for, prediction_columns, some_predictions, us
from tests.ground_truth.objects import object_store

DAY = timedelta(days=1)


@pytest.fixture
async def serving(api: Api) -> Api:
    """A binary model in production whose outcomes count for a day."""
    await api.serving("delay", policies=policies_pb2.Policies(label=policies_pb2.LabelSpec(window=span(DAY))))
    api.clock.at = START + timedelta(hours=2)
    return api


def arrival(**changes: object) -> Arrival:
    """A batch as Kafka brings it."""
    said: dict[str, object] = {
        "kind": "predictions",
        "batch_id": "kafka/p/0/1",
        "source": "kafka/p",
        "model_id": "delay",
        "version": 1,
        "payload": ipc(prediction_columns(made())),
    }
    return Arrival(**(said | changes))  # type: ignore[arg-type]


def why(taken: Taken) -> tuple[str, str]:
    assert taken.letter is not None, taken
    return taken.letter.reason, taken.letter.message


async def letters(api: Api, model_id: str = "") -> facts_pb2.ListDeadLettersResponse:
    return await api.facts.ListDeadLetters(facts_pb2.ListDeadLettersRequest(model_id=model_id))


async def replay(api: Api, **asked: object) -> facts_pb2.ReplayDeadLettersResponse:
    return await api.facts.ReplayDeadLetters(facts_pb2.ReplayDeadLettersRequest(**asked))  # type: ignore[arg-type]


async def test_a_batch_is_stored_once_whichever_way_it_comes(serving: Api) -> None:
    taken = await serving.plane.intake.take(arrival())
    assert taken.receipt is not None
    assert (taken.receipt.rows, taken.receipt.duplicate) == (ROWS, False)
    again = await serving.plane.intake.take(arrival())
    assert again.receipt is not None
    assert again.receipt.duplicate
    # The same id over gRPC is the same batch.
    assert (await sent(serving, [predictions(batch_id="kafka/p/0/1")]))[0].accepted.duplicate
    assert (await coverage(serving)).total.predicted == ROWS


async def test_a_model_that_is_not_registered_yet_is_a_letter_until_it_is(serving: Api) -> None:
    early = arrival(model_id="late_to_the_party")
    assert why(await serving.plane.intake.take(early))[0] == "MODEL_NOT_FOUND"
    await serving.plane.intake.take(early)  # redelivered
    listed = await letters(serving, "late_to_the_party")
    assert (listed.total, listed.letters[0].kind, listed.letters[0].bytes) == (1, "predictions", len(early.payload))
    assert listed.letters[0].source == "kafka/p"
    # A replay before the cause is mended leaves it, and says so.
    still = await replay(serving)
    assert (still.replayed, [one.replays for one in still.left]) == (0, [1])
    await serving.serving("late_to_the_party")
    done = await replay(serving, ids=[listed.letters[0].id])
    assert (done.replayed, list(done.left)) == (1, [])
    assert (await letters(serving)).total == 0
    duplicate = await serving.plane.intake.take(early)
    assert duplicate.receipt is not None
    assert duplicate.receipt.duplicate


async def test_malformed_batches_say_row_and_column_and_can_be_thrown_away(serving: Api) -> None:
    columns = prediction_columns(made())
    bad_score = ipc(columns | {"score": pa.array([0.5, 7.0, *[0.5] * (ROWS - 2)])})
    cases: list[tuple[dict[str, object], str]] = [
        ({"payload": bad_score}, "score: row 1"),
        ({"payload": b"nonsense"}, "not one Arrow IPC stream"),
        ({"payload": b""}, "arrow_ipc"),
        ({"version": 9}, "no version 9"),
        ({"model_id": "Not An Id!"}, "model_id"),
        ({"kind": "weather"}, "neither predictions nor outcomes"),
        ({"fault": "header model_id: missing"}, "header model_id: missing"),
        ({"content_type": "text/csv"}, "'text/csv' is unknown"),
        ({"batch_id": ""}, "1 to 200 characters"),
    ]
    for number, (changes, says) in enumerate(cases):
        bad = arrival(**{"batch_id": f"bad{number}", **changes})
        assert says in why(await serving.plane.intake.take(bad))[1], changes
    assert (await letters(serving)).total == 9
    assert (await coverage(serving)).total.predicted == 0
    status = await serving.facts.GetIngestStatus(facts_pb2.GetIngestStatusRequest())
    assert status.dead_letters == 9
    gone = await replay(serving, discard=True)
    assert (gone.discarded, gone.replayed) == (9, 0)
    assert (await letters(serving)).total == 0


async def test_protobuf_payloads_say_themselves_what_headers_leave_open(serving: Api) -> None:
    plain = ground_truth_pb2.IngestPredictionsRequest(
        batch_id="own", model_id="delay", version=1, source="scorer", predictions=plain_predictions()
    )
    bare = arrival(
        content_type=PROTOBUF, payload=plain.SerializeToString(), batch_id="kafka/p/0/7", model_id="", version=0
    )
    taken = await serving.plane.intake.take(bare)
    assert taken.receipt is not None
    assert taken.receipt.rows == ROWS
    assert (await sent(serving, [predictions(batch_id="own")]))[0].accepted.duplicate
    known = ground_truth_pb2.IngestOutcomesRequest(arrow_ipc=ipc(outcome_columns(outcomes_for(made()))))
    headed = arrival(
        kind="outcomes", content_type=PROTOBUF, payload=known.SerializeToString(), batch_id="kafka/o/0/7", version=0
    )
    assert (await serving.plane.intake.take(headed)).receipt is not None
    serving.clock.at = START + 2 * DAY
    assert (await coverage(serving)).total.coverage == 1.0
    contradicts = arrival(content_type=PROTOBUF, payload=plain.SerializeToString(), model_id="other")
    assert "the header says 'other'" in why(await serving.plane.intake.take(contradicts))[1]
    garbage = arrival(content_type=PROTOBUF, payload=b"\xff\xff\xff")
    assert "not a IngestPredictionsRequest" in why(await serving.plane.intake.take(garbage))[1]


def plain_predictions() -> list[ground_truth_pb2.Prediction]:
    return [
        ground_truth_pb2.Prediction(
            prediction_id=row.id,
            predicted_at=instant(START + timedelta(microseconds=row.predicted_us - us(START))),
            score=row.score,
        )
        for row in made()
    ]


async def test_outcomes_without_predictions_are_listed_as_orphans(serving: Api) -> None:
    await sent(serving, [predictions()])
    foreign = some_predictions(3, start_us=us(START), first=5_000)  # another model's, or nobody's
    await sent(serving, [outcomes(ipc(outcome_columns(outcomes_for(foreign, revision=2))))])
    serving.clock.at = START + 5 * DAY
    await serving.facts.JoinPartition(
        facts_pb2.JoinPartitionRequest(start_time=instant(START), end_time=instant(START + DAY), authoritative=True)
    )
    found = await serving.facts.ListOrphans(facts_pb2.ListOrphansRequest(model_id="delay"))
    assert (found.total, {one.prediction_id for one in found.orphans}) == (3, {row.id for row in foreign})
    assert {one.revision for one in found.orphans} == {2}
    few = await serving.facts.ListOrphans(facts_pb2.ListOrphansRequest(model_id="delay", limit=1))
    assert (few.total, len(few.orphans)) == (3, 1)
    unknown = await refused(serving.facts.ListOrphans(facts_pb2.ListOrphansRequest(model_id="nope")))
    assert unknown.reason == "MODEL_NOT_FOUND"


class TestInbox:
    """Files dropped in a folder."""

    def dropped(self, folder: Path, name: str, table: pa.Table, **more: object) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, **more)
        return path

    def inbox(self, api: Api, folder: Path, *, settled_s: float = 0.0) -> Inbox:
        return Inbox(str(folder), api.plane.intake.file_door, settled_s=settled_s)

    async def test_files_are_stored_once_and_put_aside(self, serving: Api, tmp_path: Path) -> None:
        folder = tmp_path / "inbox"
        inbox = self.inbox(serving, folder)
        table = pa.table(prediction_columns(made()))
        self.dropped(folder, "predictions/model_id=delay/version=1/a.parquet", table)
        known = pa.table(outcome_columns(outcomes_for(made())))
        self.dropped(folder, "outcomes/model_id=delay/o.parquet", known)
        assert await asyncio.to_thread(inbox.scan) == 2
        assert (await coverage(serving)).total.predicted == ROWS
        assert (folder / "done/predictions/model_id=delay/version=1/a.parquet").exists()
        # The same file again, and under another name.
        self.dropped(folder, "predictions/model_id=delay/version=1/a.parquet", table)
        self.dropped(folder, "predictions/model_id=delay/version=1/b.parquet", table)
        assert await asyncio.to_thread(inbox.scan) == 2
        assert (await coverage(serving)).total.predicted == ROWS
        assert len(list((folder / "done").rglob("*.parquet"))) == 4
        assert not list((folder / "predictions").rglob("*.parquet"))
        serving.clock.at = START + 2 * DAY
        assert (await coverage(serving)).total.joined == ROWS

    async def test_what_others_write_is_taken(self, serving: Api, tmp_path: Path) -> None:
        rows = made()
        table = pa.table(
            {
                "prediction_id": pa.array([row.id.hex() for row in rows]),
                "predicted_at": pa.array([row.predicted_us * 1000 for row in rows], pa.int64()).cast(
                    pa.timestamp("ns", tz="Europe/Berlin")
                ),
                "score": pa.array([row.score for row in rows], pa.float32()),
                "feature.wind": pa.array(range(ROWS)),
            }
        ).replace_schema_metadata({"runway.model_id": "delay", "runway.version": "1"})
        self.dropped(tmp_path, "predictions/today.parquet", table)
        assert await asyncio.to_thread(self.inbox(serving, tmp_path).scan) == 1
        assert (tmp_path / "done/predictions/today.parquet").exists()
        assert (await coverage(serving)).total.predicted == ROWS

    async def test_large_files_come_in_parts_whole_or_not_at_all(
        self, serving: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("control_plane.app.parquet_rows.ROWS_MAX", 1_500)
        rows = some_predictions(4_000, start_us=us(START))
        columns = prediction_columns(rows)
        self.dropped(tmp_path, "predictions/model_id=delay/version=1/large.parquet", pa.table(columns))
        inbox = self.inbox(serving, tmp_path)
        assert await asyncio.to_thread(inbox.scan) == 1
        assert (await coverage(serving)).total.predicted == 4_000
        # The last row of another one is wrong: nothing of it is stored.
        others = prediction_columns(some_predictions(4_000, start_us=us(START), first=90_000))
        others |= {"score": pa.array([0.5] * 3_999 + [float("nan")])}
        self.dropped(tmp_path, "predictions/model_id=delay/version=1/wrong.parquet", pa.table(others))
        assert await asyncio.to_thread(inbox.scan) == 1
        assert (await coverage(serving)).total.predicted == 4_000
        assert (tmp_path / "unusable/predictions/model_id=delay/version=1/wrong.parquet").exists()
        [letter] = (await letters(serving)).letters
        assert "score: row 999: NaN or infinite, counted from row 3,000 of the file" in letter.message

    async def test_unusable_files_are_letters_that_can_be_replayed(self, serving: Api, tmp_path: Path) -> None:
        inbox = self.inbox(serving, tmp_path)
        table = pa.table(prediction_columns(made()))
        path = self.dropped(tmp_path, "predictions/model_id=unborn/version=1/a.parquet", table)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (tmp_path / "predictions/model_id=delay/version=1").mkdir(parents=True)
        (tmp_path / "predictions/model_id=delay/version=1/b.parquet").write_bytes(b"PAR1 not at all PAR1")
        self.dropped(tmp_path, "predictions/model_id=delay/c.parquet", table)
        contradicts = table.replace_schema_metadata({"runway.model_id": "another"})
        self.dropped(tmp_path, "predictions/model_id=delay/version=1/d.parquet", contradicts)
        assert await asyncio.to_thread(inbox.scan) == 4
        found = {one.message: one for one in (await letters(serving)).letters}
        told = " | ".join(found)
        for says in ("no model 'unborn'", "not a Parquet file", "version: none is given", "by the file's metadata"):
            assert says in told
        await serving.serving("unborn")
        done = await replay(serving, model_id="unborn")
        assert (done.replayed, len(done.left)) == (1, 0)
        again = await sent(serving, [predictions(batch_id=digest, model_id="unborn")])
        assert again[0].accepted.duplicate

    async def test_a_file_that_still_grows_waits_and_others_are_not_looked_at(
        self, serving: Api, tmp_path: Path
    ) -> None:
        inbox = self.inbox(serving, tmp_path, settled_s=3600.0)
        table = pa.table(prediction_columns(made()))
        for name in ("x.parquet", ".hidden.parquet", "_draft.parquet", "y.parquet.tmp", "readme.txt"):
            self.dropped(tmp_path, f"predictions/model_id=delay/version=1/{name}", table)
        assert await asyncio.to_thread(inbox.scan) == 0
        assert await asyncio.to_thread(self.inbox(serving, tmp_path).scan) == 1
        assert len(list((tmp_path / "predictions").rglob("*"))) == 6  # two folders and four that are none of ours

    async def test_a_folder_that_cannot_be_read_is_said(self, serving: Api, tmp_path: Path) -> None:
        (tmp_path / "inbox").write_text("a file stands in the way")
        inbox = Inbox(str(tmp_path / "inbox"), serving.plane.intake.file_door, scan_s=0.01)
        serving.plane.intake.add(inbox)
        await asyncio.to_thread(inbox.start)
        async with asyncio.timeout(20):
            while not inbox.degraded():
                await asyncio.sleep(0.01)
        status = await serving.facts.GetIngestStatus(facts_pb2.GetIngestStatusRequest())
        assert "cannot be used now" in status.degraded[0]
        (tmp_path / "inbox").unlink()
        async with asyncio.timeout(20):
            while inbox.degraded():
                await asyncio.sleep(0.01)


async def test_status_names_senders_and_what_is_sampled(serving: Api) -> None:
    await serving.serving(
        "sampled",
        tier=common_pb2.TIER_4,
        policies=policies_pb2.Policies(ground_truth=policies_pb2.GroundTruthPolicy(sample_rate=0.25)),
    )
    serving.clock.at = START + timedelta(minutes=30)
    rows = some_predictions(400, start_us=us(START))
    request = predictions(ipc(prediction_columns(rows)), model_id="sampled")
    request.source = "scorer-7"
    [stored] = await sent(serving, [request])
    assert stored.accepted.rows + stored.accepted.sampled_out == 400
    assert (0.15 < stored.accepted.rows / 400 < 0.35, stored.accepted.sample_rate) == (True, 0.25)
    status = await serving.facts.GetIngestStatus(facts_pb2.GetIngestStatusRequest())
    assert (status.engine, status.speed_view, status.pressure, list(status.degraded)) == ("embedded", "memory", 0.0, [])
    [one] = status.sampled
    assert (one.model_id, one.tier, one.policy_rate, one.ingest_rate) == ("sampled", 4, 0.25, 0.25)
    assert [(s.source, s.model_id, s.silent) for s in status.sources] == [("scorer-7", "sampled", False)]
    assert list((await serving.facts.GetIngestStatus(facts_pb2.GetIngestStatusRequest(model_id="delay"))).sampled) == []
    serving.clock.at = START + timedelta(days=3)
    later = await serving.facts.GetIngestStatus(facts_pb2.GetIngestStatusRequest())
    assert [s.silent for s in later.sources] == [True]


async def test_a_batch_that_is_sampled_out_whole_is_accepted_and_remembered(serving: Api) -> None:
    await serving.serving(
        "rare", policies=policies_pb2.Policies(ground_truth=policies_pb2.GroundTruthPolicy(sample_rate=1e-9))
    )
    columns = ipc(prediction_columns(made()))
    first, again = await sent(serving, [predictions(columns, model_id="rare"), predictions(columns, model_id="rare")])
    assert (first.accepted.rows, first.accepted.sampled_out, first.accepted.duplicate) == (0, ROWS, False)
    assert (again.accepted.rows, again.accepted.duplicate) == (0, True)


async def test_low_tiers_give_way_first_and_are_told_when_there_is_no_room(
    serving: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serving.serving("low", tier=common_pb2.TIER_4)
    await serving.serving("top", tier=common_pb2.TIER_1)
    pressure = 0.7
    monkeypatch.setattr(GroundTruth, "pressure", property(lambda _: pressure))
    columns = ipc(prediction_columns(some_predictions(2_000, start_us=us(START))))
    low, top = await sent(serving, [predictions(columns, model_id="low"), predictions(columns, model_id="top")])
    assert low.accepted.sample_rate == 1 / 32
    assert 20 < low.accepted.rows < 120
    assert (top.accepted.rows, top.accepted.sample_rate) == (2_000, 1.0)
    status = await serving.facts.GetIngestStatus(facts_pb2.GetIngestStatusRequest())
    assert "1 models of tier 4 are sampled below their policy" in status.degraded[0]
    pressure = 0.97
    low, top = await sent(
        serving,
        [predictions(columns, model_id="low", batch_id="2"), predictions(columns, model_id="top", batch_id="2")],
    )
    refusal = refusal_of(low.refused)
    assert (refusal.reason, top.accepted.rows) == ("STORE_UNAVAILABLE", 2_000)
    assert "slow down" in refusal.message


async def test_files_in_a_bucket_are_taken_as_those_in_a_folder(serving: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with object_store(monkeypatch) as bucket:
        inbox = Inbox(f"{bucket}/dropped", serving.plane.intake.file_door, settled_s=0.0)
        assert await asyncio.to_thread(inbox.scan) == 0
        files = fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"])
        root = f"{bucket.removeprefix('s3://')}/dropped"
        table = pa.table(prediction_columns(made()))
        for name, rows in (("a", table), ("again", table), ("bad", table.drop_columns(["score"]))):
            with files.open_output_stream(f"{root}/predictions/model_id=delay/version=1/{name}.parquet") as sink:
                pq.write_table(rows, sink)
        assert await asyncio.to_thread(inbox.scan) == 3
        assert await asyncio.to_thread(inbox.scan) == 0
        left = files.get_file_info(fs.FileSelector(root, recursive=True))
        names = sorted(info.path.removeprefix(f"{root}/") for info in left if info.base_name.endswith(".parquet"))
    below = "predictions/model_id=delay/version=1"
    assert names == [f"done/{below}/a.parquet", f"done/{below}/again.parquet", f"unusable/{below}/bad.parquet"]
    assert (await coverage(serving)).total.predicted == ROWS
    assert "score: the column is missing" in (await letters(serving)).letters[0].message
