"""Erasing over gRPC: every layer beside the store too, a receipt that can be computed again, kept in the log."""

import asyncio
import hashlib
import uuid
from datetime import timedelta
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runway.v1 import common_pb2, facts_pb2, policies_pb2

from control_plane.adapters.inbox import Inbox
from control_plane.app.arrivals import PROTOBUF, Arrival
from tests.api.test_ground_truth import ROWS, coverage, made, outcomes, predictions, sent
from tests.api.worlds import START, Api, refused, span
from tests.ground_truth.arrows import ipc, prediction_columns
from tests.ground_truth.test_erasure import traces

GONE = [made()[3].id, made()[8].id]


@pytest.fixture
async def serving(api: Api) -> Api:
    """A model with predictions and outcomes."""
    label = policies_pb2.LabelSpec(window=span(timedelta(days=1)))
    await api.serving("delay", policies=policies_pb2.Policies(label=label))
    api.clock.at = START + timedelta(hours=2)
    await sent(api, [predictions()])
    await sent(api, [outcomes()])
    return api


def asked(ids: list[bytes], request_id: str = "", **more: object) -> facts_pb2.EraseFactsRequest:
    mutation = common_pb2.Mutation(actor="dpo", reason="asked by letter", request_id=request_id or str(uuid.uuid4()))
    return facts_pb2.EraseFactsRequest(mutation=mutation, prediction_ids=ids, **more)  # type: ignore[arg-type]


def sha256_of(receipt: facts_pb2.ErasureReceipt) -> str:
    """As the documentation says it is computed."""
    lines = [
        receipt.erasure_id,
        str(receipt.erased_at.ToMicroseconds()),
        receipt.actor,
        receipt.reason,
        str(receipt.prediction_ids),
        receipt.ids_sha256,
        *(f"{one.layer}\t{one.found}\t{one.left}\t{one.files_rewritten}\t{one.note}" for one in receipt.layers),
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


async def test_the_receipt_proves_what_was_done(serving: Api) -> None:
    receipt = (await serving.facts.EraseFacts(asked(GONE))).receipt
    assert (receipt.actor, receipt.reason, receipt.prediction_ids) == ("dpo", "asked by letter", 2)
    assert receipt.ids_sha256 == hashlib.sha256(b"".join(sorted(GONE))).hexdigest()
    assert receipt.receipt_sha256 == sha256_of(receipt)
    assert {one.layer: one.left for one in receipt.layers if one.left} == {}
    assert {one.layer: one.found for one in receipt.layers}["predictions"] == 2
    assert (await coverage(serving)).total.predicted == ROWS - 2
    [listed] = (await serving.facts.ListErasures(facts_pb2.ListErasuresRequest())).receipts
    assert listed == receipt


async def test_the_same_request_again_gives_the_same_receipt(serving: Api) -> None:
    request = asked(GONE, "again-1")
    first = await serving.facts.EraseFacts(request)
    second = await serving.facts.EraseFacts(asked([made()[5].id]))
    assert (await serving.facts.EraseFacts(request)).receipt == first.receipt
    listed = (await serving.facts.ListErasures(facts_pb2.ListErasuresRequest())).receipts
    assert list(listed) == [second.receipt, first.receipt]
    assert [one.erasure_id for one in listed] == ["erasure-2", "erasure-1"]


async def test_dead_letters_are_reached_whatever_they_hold(serving: Api) -> None:
    whole = ipc(prediction_columns(made()))
    plain = predictions()
    plain.ClearField("arrow_ipc")
    text = f"row 3: {uuid.UUID(bytes=GONE[0])} is no number".encode()
    payloads = [whole, plain.SerializeToString() + GONE[0], text, b"nothing of them"]
    for number, payload in enumerate(payloads):
        await serving.plane.intake.take(
            Arrival(
                kind="predictions",
                batch_id=f"kafka/{number}",
                source="kafka",
                model_id="unknown",
                version=1,
                payload=payload,
                content_type=PROTOBUF if number == 1 else "application/vnd.apache.arrow.stream",
            )
        )
    assert (await serving.facts.ListDeadLetters(facts_pb2.ListDeadLettersRequest())).total == 4
    receipt = (await serving.facts.EraseFacts(asked(GONE))).receipt
    assert {one.layer: (one.found, one.left) for one in receipt.layers}["dead letters"] == (3, 0)
    assert (await serving.facts.ListDeadLetters(facts_pb2.ListDeadLettersRequest())).total == 1


async def test_files_of_the_inbox_are_written_anew(serving: Api, tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    done = folder / "done" / "predictions" / "model_id=delay" / "version=1"
    done.mkdir(parents=True)
    table = prediction_columns(made())
    pq.write_table(pa.table(table), done / "a.parquet", compression="zstd")
    (folder / "unusable").mkdir()
    (folder / "unusable" / "b.parquet").write_bytes(b"broken " + GONE[0])
    serving.plane.intake.add(Inbox(str(folder), serving.plane.intake.file_door))
    assert traces(done, GONE)
    receipt = (await serving.facts.EraseFacts(asked(GONE))).receipt
    assert {one.layer: (one.found, one.left, one.files_rewritten) for one in receipt.layers}["inbox"] == (3, 0, 2)
    assert traces(done, GONE) == []
    assert pq.read_table(done / "a.parquet", partitioning=None).num_rows == ROWS - 2
    assert list((folder / "unusable").iterdir()) == []


async def test_nothing_is_left_in_the_home_of_the_control_plane(serving: Api) -> None:
    home = serving.plane.config.home
    assert await asyncio.to_thread(traces, home, GONE)
    await serving.facts.EraseFacts(asked(GONE))
    await sent(serving, [predictions(batch_id="replayed")])
    assert await asyncio.to_thread(traces, home, GONE) == []
    assert (await coverage(serving)).total.predicted == ROWS - 2


async def test_an_erasure_of_nobody_is_refused(serving: Api) -> None:
    refusal = await refused(serving.facts.EraseFacts(asked([])))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_only_checked_erases_nothing(serving: Api) -> None:
    request = asked(GONE)
    request.mutation.validate_only = True
    assert not (await serving.facts.EraseFacts(request)).HasField("receipt")
    assert (await coverage(serving)).total.predicted == ROWS
    assert not (await serving.facts.ListErasures(facts_pb2.ListErasuresRequest())).receipts


async def test_receipts_of_an_earlier_moment(serving: Api) -> None:
    before = await serving.revision()
    await serving.facts.EraseFacts(asked(GONE))
    request = facts_pb2.ListErasuresRequest(read=common_pb2.ReadOptions(as_of_revision=before))
    assert not (await serving.facts.ListErasures(request)).receipts
