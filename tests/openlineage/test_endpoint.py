"""The endpoint over real connections: what is taken, what is refused and how, and that nothing holds it up."""

import asyncio
import gzip
import json
import socket
import zlib

import pytest

from control_plane.api.openlineage import limits
from control_plane.api.openlineage.server import LineageServer
from control_plane.core.errors import AppendOutcomeUnknown, Invalid, Reason, Refused, Unavailable, Violation
from control_plane.core.graph.lineage_facts import RunState
from control_plane.telemetry import Metrics
from tests.openlineage.http import Answer, KeptPlane, Sender, dataset, listening, run_event

GOOD = run_event(inputs=[dataset("a")], outputs=[dataset("b")])


async def test_an_event_is_taken_once_it_is_stored() -> None:
    plane = KeptPlane(gate=asyncio.Event())
    async with listening(plane) as sender:
        sending = asyncio.create_task(sender.send(GOOD))
        health = await sender.send(b"", path="/health", method="GET")
        assert health.status == 200
        assert not sending.done()
        assert plane.gate is not None
        plane.gate.set()
        answer = await sending
    assert (answer.status, answer.body) == (201, {"status": "accepted", "changed": 1, "revision": 1})
    assert [run.state for run in plane.runs] == [RunState.COMPLETE]
    assert plane.releases == 1


async def test_the_same_event_has_the_same_request_id_whatever_its_spelling() -> None:
    plane = KeptPlane()
    async with listening(plane) as sender:
        await sender.send(GOOD)
        await sender.send(json.dumps(dict(reversed(GOOD.items())), indent=4).encode())
        await sender.send(GOOD | {"eventTime": "2026-03-01T12:00:01Z"})
    first, second, other = (mutation.request_id for mutation in plane.mutations)
    assert first == second != other
    assert {mutation.actor for mutation in plane.mutations} == {"openlineage"}


async def test_what_says_nothing_is_taken_and_not_stored() -> None:
    plane = KeptPlane()
    async with listening(plane) as sender:
        answer = await sender.send(run_event("START"))
    assert (answer.status, answer.body["changed"], plane.runs) == (201, 0, [])


async def test_all_that_is_wrong_with_an_event() -> None:
    async with listening(KeptPlane()) as sender:
        answer = await sender.send(run_event(inputs=[3, dataset("")], run={}, eventTime=None))
    assert answer.status == 400
    assert answer.body["reason"] == "INVALID_LINEAGE"
    assert answer.body["retriable"] is False
    assert answer.violations == {
        "eventTime": "required",
        "run": "required",
        "inputs[0]": "type",
        "inputs[1].name": "required",
    }
    assert all(found["remedy"] for found in answer.body["violations"])


async def test_an_answer_is_not_larger_than_its_question() -> None:
    async with listening(KeptPlane()) as sender:
        answer = await sender.send(run_event(inputs=[0] * 9_000))
    assert answer.body["violations_total"] == 9_000
    assert len(answer.body["violations"]) == limits.VIOLATIONS_SHOWN_MAX


HOSTILE = {
    "empty": b"",
    "blank": b" \n ",
    "text": b"hello",
    "truncated": json.dumps(GOOD).encode()[:-20],
    "two": b"{}{}",
    "nan": b'{"eventTime": NaN}',
    "infinity": b'{"eventTime": -Infinity}',
    "utf8": b'{"eventTime": "\xff\xfe"}',
    "utf16": json.dumps(GOOD).encode("utf-16"),
    "surrogate": b'{"eventTime": "\\ud800"}',
    "nested lists": b"[" * 200_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested facets": json.dumps(GOOD)
    .encode()
    .replace(b'"facets": {}', b'"facets": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "huge number": b'{"eventTime": ' + b"1" * 10_000 + b"}",
    "huge exponent": b'{"eventTime": 1e999999999}',
    "null": b"null",
    "list": b"[]",
    "number": b"12",
    "zeroes": b"\0" * 1000,
    "a batch": json.dumps([GOOD]).encode(),
}


@pytest.mark.parametrize("path", ["/api/v1/lineage", "/api/v1/lineage/batch"])
async def test_hostile_bodies(path: str) -> None:
    plane = KeptPlane()
    async with listening(plane) as sender:
        for name, body in HOSTILE.items():
            answer = await sender.send(body, path=path)
            fine = path.endswith("batch") and name in {"list", "a batch"}
            assert answer.status == (200 if fine else 400), (name, answer)
            assert fine or answer.body["violations"], name
        assert (await sender.send(GOOD)).status == 201


async def test_a_name_given_twice_counts_the_last_time() -> None:
    body = (
        json.dumps(GOOD).encode().replace(b'"eventType": "COMPLETE"', b'"eventType": "FAIL", "eventType": "COMPLETE"')
    )
    plane = KeptPlane()
    async with listening(plane) as sender:
        assert (await sender.send(body)).status == 201
    assert plane.runs[0].state is RunState.COMPLETE


async def test_a_mark_before_the_text_is_passed_over() -> None:
    async with listening(KeptPlane()) as sender:
        assert (await sender.send(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())).status == 201


async def test_gzip() -> None:
    plane = KeptPlane()
    packed = gzip.compress(json.dumps(GOOD).encode())
    async with listening(plane) as sender:

        async def send(body: bytes, encoding: str = "gzip") -> Answer:
            return await sender.send(body, headers={"Content-Encoding": encoding})

        assert (await send(packed)).status == 201
        assert (await send(packed, "GZIP")).status == 201
        assert (await send(packed + b"\0\0")).status == 201
        assert (await send(json.dumps(GOOD).encode(), "identity")).status == 201
        assert (await send(packed[:-9])).status == 400
        assert (await send(packed + b"rest")).status == 400
        assert (await send(zlib.compress(b"{}"))).status == 400
        assert (await send(b"")).status == 400
        assert (await send(packed, "br")).status == 415
        bomb = gzip.compress(b" " * (limits.DECODED_BYTES_MAX + 1))
        assert len(bomb) < 100_000
        assert (await send(bomb)).status == 413
        assert (await send(gzip.compress(b" " * (limits.EVENT_BYTES_MAX + 1)))).status == 413
    assert len(plane.runs) == 4


async def test_media_types() -> None:
    async with listening(KeptPlane()) as sender:
        for media, status in {
            "application/json; charset=utf-8": 201,
            "application/vnd.openlineage+json": 201,
            "text/plain": 415,
            "application/x-www-form-urlencoded": 415,
            "multipart/form-data; boundary=x": 415,
        }.items():
            assert (await sender.send(GOOD, headers={"Content-Type": media})).status == status, media


async def test_what_is_too_large_is_answered_not_cut_off() -> None:
    async with listening(KeptPlane()) as sender:
        answer = await sender.send(b"[" + b" " * limits.BODY_BYTES_MAX + b"]")
        assert (answer.status, answer.violations) == (413, {"body": "size"})
        answer = await sender.batch([GOOD] * (limits.EVENTS_PER_BATCH_MAX + 1))
        assert (answer.status, answer.violations) == (413, {"body": "size"})


async def test_other_paths_and_methods() -> None:
    async with listening(KeptPlane()) as sender:
        answer = await sender.send(b"", method="GET")
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert (await sender.send(b"", method="DELETE", path="/health")).status == 405
        answer = await sender.send(GOOD, path="/api/v2/lineage")
        assert (answer.status, answer.body["reason"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unavailable(Reason.NOT_LEADER, "another leads"), 503),
        (Unavailable(Reason.STORE_UNAVAILABLE, "no database"), 503),
        (Unavailable(Reason.SHUTTING_DOWN, "stopping"), 503),
        (AppendOutcomeUnknown("unknown"), 503),
        (Refused(Reason.LIMIT_EXCEEDED, "the queue is full"), 503),
        (Refused(Reason.DEPENDENCY_CYCLE, "no"), 409),
        (Invalid(Reason.INVALID_LINEAGE, Violation(field="runs[0]", rule="size", message="too many")), 400),
        (RuntimeError("a fault of ours"), 500),
    ],
)
async def test_what_the_control_plane_refuses(error: Exception, status: int) -> None:
    async with listening(KeptPlane(refuse=[error])) as sender:
        answer = await sender.send(GOOD)
        assert answer.status == status
        assert ("retry-after" in answer.headers) == (status == 503)
        assert answer.body["retriable"] == (status in {500, 503})
        assert "fault of ours" not in answer.body["message"]
        assert (await sender.send(GOOD)).status == 201


# -- batches ------------------------------------------------------------------------------------------------------


async def test_a_batch_is_one_command() -> None:
    plane = KeptPlane()
    async with listening(plane) as sender:
        answer = await sender.batch([GOOD, run_event("START"), run_event("FAIL", job="other")])
        assert (answer.status, answer.body["status"]) == (200, "success")
        assert answer.body["summary"] == {
            "received": 3,
            "successful": 3,
            "failed": 0,
            "retriable": 0,
            "non_retriable": 0,
        }
        assert answer.body["failed_events"] == []
        assert (await sender.batch([])).body["summary"]["received"] == 0
    assert ([run.job for run in plane.runs], len(plane.mutations)) == (["shop/train", "shop/other"], 1)


async def test_what_is_wrong_in_a_batch_does_not_stop_the_rest() -> None:
    plane = KeptPlane()
    async with listening(plane) as sender:
        answer = await sender.batch([GOOD, 7, run_event(inputs=[{}]), GOOD | {"eventTime": "later"}])
    assert (answer.status, answer.body["status"]) == (200, "partial_success")
    assert answer.body["summary"] == {"received": 4, "successful": 1, "failed": 3, "retriable": 0, "non_retriable": 3}
    failed = answer.body["failed_events"]
    assert [found["index"] for found in failed] == [1, 2, 3]
    assert {found["field"] for found in failed[1]["violations"]} == {"[2].inputs[0].namespace", "[2].inputs[0].name"}
    assert len(plane.runs) == 1


async def test_a_batch_that_the_core_refuses_is_sent_one_by_one() -> None:
    bad = Invalid(Reason.INVALID_LINEAGE, Violation(field="runs[1]", rule="size", message="too many"))
    plane = KeptPlane(refuse=[bad, bad])
    async with listening(plane) as sender:
        answer = await sender.batch([run_event(job="a"), run_event(job="b"), run_event(job="c")])
    assert [found["index"] for found in answer.body["failed_events"]] == [0]
    assert [run.job for run in plane.runs] == ["shop/b", "shop/c"]


async def test_a_batch_that_cannot_be_stored_now_may_be_sent_again() -> None:
    plane = KeptPlane(refuse=[Unavailable(Reason.STORE_UNAVAILABLE, "no database")])
    async with listening(plane) as sender:
        answer = await sender.batch([GOOD, 7])
    assert (answer.status, answer.body["summary"]["retriable"], answer.body["summary"]["non_retriable"]) == (200, 1, 1)


# -- connections --------------------------------------------------------------------------------------------------


async def raw(port: int, *chunks: bytes) -> bytes:
    """Send bytes as they are; what comes back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for chunk in chunks:
        writer.write(chunk)
        await writer.drain()
    text = await reader.read()
    writer.close()
    await writer.wait_closed()
    return text


HEAD = b"POST /api/v1/lineage HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"


async def test_a_chunked_body_and_what_is_no_http() -> None:
    body = json.dumps(GOOD).encode()
    chunked = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (10, body[:10], len(body) - 10, body[10:])
    async with listening(KeptPlane()) as sender:
        assert b" 201 " in await raw(sender.port, HEAD, b"Transfer-Encoding: chunked\r\n\r\n", chunked)
        assert b" 400 " in await raw(sender.port, b"\x16\x03\x01 hello\r\n\r\n")
        assert b" 400 " in await raw(sender.port, b"GET / HTTP/1.1\r\nX: " + b"y" * 3 * limits.HEADER_BYTES_MAX)
        assert (await sender.send(GOOD)).status == 201


async def test_a_sender_that_stops_in_the_middle_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S_MAX", 0.05)
    monkeypatch.setattr(limits, "DISCARDED_S_MAX", 0.05)
    async with listening(KeptPlane()) as sender:
        assert b" 408 " in await raw(sender.port, HEAD, b"Content-Length: 50\r\n\r\n", b'{"eventTime"')


async def test_too_much_at_once_is_asked_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IN_HAND_MAX", 2)
    plane = KeptPlane(gate=asyncio.Event())
    assert plane.gate is not None
    async with listening(plane) as sender:
        first = [asyncio.create_task(sender.send(run_event(job=job))) for job in "ab"]
        while plane.waiting < 2:
            await asyncio.sleep(0.001)
        busy = await sender.send(GOOD)
        assert (busy.status, busy.headers["retry-after"]) == (503, str(limits.RETRY_AFTER_S))
        plane.gate.set()
        assert [answer.status for answer in await asyncio.gather(*first)] == [201, 201]
        assert (await sender.send(GOOD)).status == 201


async def test_a_stopping_server_answers_what_it_has() -> None:
    plane = KeptPlane(gate=asyncio.Event())
    assert plane.gate is not None
    server = LineageServer(plane=plane, metrics=Metrics(), address="127.0.0.1:0", drain_s=5)
    await server.start()
    sender = Sender(server.port)
    sending = asyncio.create_task(sender.send(GOOD))
    while not plane.waiting:
        await asyncio.sleep(0.001)
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    plane.gate.set()
    assert (await sending).status == 201
    await stopping
    await server.stop()
    with pytest.raises(OSError, match="refused"):
        await sender.send(GOOD)


async def test_a_taken_port_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = LineageServer(plane=KeptPlane(), metrics=Metrics(), address=address, drain_s=5)
        with pytest.raises(OSError, match="RUNWAY_LINEAGE_ADDRESS"):
            await server.start()
        await server.stop()


async def test_no_address_no_server() -> None:
    server = LineageServer(plane=KeptPlane(), metrics=Metrics(), address="", drain_s=5)
    await server.start()
    assert server.port == 0
    await server.stop()
