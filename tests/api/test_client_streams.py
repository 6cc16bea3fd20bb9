"""Ingest and watch over streams that break: nothing lost, nothing out of order, nothing given twice."""

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2
from runway.v1 import ground_truth_pb2, operations_pb2, registry_pb2
from runway_client import (
    NotFound,
    OutcomeBatch,
    PredictionBatch,
    Refused,
    Runway,
    RunwayRpcError,
    Unreachable,
    WatchItem,
    connect,
    connection,
    ingest,
)

from tests.api.control_plane_fake import ControlPlaneFake, Failure, failure, not_found, unavailable

PREDICTIONS = "GroundTruthService/IngestPredictions"
WATCH = "OperationsService/Watch"


@pytest.fixture
def fake() -> Iterator[ControlPlaneFake]:
    one = ControlPlaneFake()
    yield one
    one.close()


@pytest.fixture
def runway(fake: ControlPlaneFake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runway]:
    monkeypatch.setattr(connection, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(connection, "BACKOFF_MAX_S", 0.002)
    with connect(fake.address, retry_for_s=5) as client:
        yield client


def batches(count: int, size: int = 10) -> list[PredictionBatch]:
    return [
        PredictionBatch(batch_id=f"b{number}", model_id="air_time", version=1, arrow_ipc=b"x" * size)
        for number in range(count)
    ]


class Store:
    """Keeps batch ids; breaks after so many answers of a stream, as often as told."""

    def __init__(self, break_after: list[int] | None = None) -> None:
        self.kept: list[str] = []
        self.duplicates = 0
        self.break_after = break_after or []
        self.streams = 0
        self.how: Failure | None = unavailable("SHUTTING_DOWN")

    def __call__(self, requests: Any, _context: grpc.ServicerContext) -> Iterator[Any]:
        self.streams += 1
        limit = self.break_after.pop(0) if self.break_after else None
        for answered, request in enumerate(requests):
            duplicate = request.batch_id in self.kept
            if not duplicate:
                self.kept.append(request.batch_id)
            self.duplicates += duplicate
            if answered == limit:
                # Stored, but the answer is lost.
                if self.how is None:
                    return
                raise self.how
            yield ground_truth_pb2.IngestPredictionsResponse(
                batch_id=request.batch_id, accepted=ground_truth_pb2.BatchAccepted(rows=3, duplicate=duplicate)
            )


def test_one_answer_per_batch_in_order(fake: ControlPlaneFake, runway: Runway) -> None:
    store = fake.answers[PREDICTIONS] = Store()
    answers = list(runway.ingest_predictions(batches(30)))
    assert [answer.batch_id for answer in answers] == [f"b{number}" for number in range(30)]
    assert {(answer.rows, answer.duplicate, answer.refused) for answer in answers} == {(3, False, None)}
    assert store.streams == 1


def test_nothing_to_send_opens_no_stream(fake: ControlPlaneFake, runway: Runway) -> None:
    assert list(runway.ingest_predictions([])) == []
    assert fake.calls == []


def test_a_broken_stream_loses_nothing(fake: ControlPlaneFake, runway: Runway) -> None:
    store = fake.answers[PREDICTIONS] = Store([5, 0, 11])
    answers = list(runway.ingest_predictions(batches(40)))
    assert [answer.batch_id for answer in answers] == [f"b{number}" for number in range(40)]
    assert store.kept == [f"b{number}" for number in range(40)]
    assert store.streams == 4
    # The batch whose answer was lost came again, and said so.
    assert store.duplicates >= 2
    assert sum(answer.duplicate for answer in answers) >= 2


def test_a_stream_that_ends_early_is_opened_again(fake: ControlPlaneFake, runway: Runway) -> None:
    store = fake.answers[PREDICTIONS] = Store([2])
    store.how = None
    assert len(list(runway.ingest_predictions(batches(10)))) == 10
    assert store.streams == 2


def test_a_batch_that_cannot_be_stored_now_is_sent_again(fake: ControlPlaneFake, runway: Runway) -> None:
    refusals = [unavailable().status]

    def store(requests: Any, _context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            if request.batch_id == "b2" and refusals:
                yield ground_truth_pb2.IngestPredictionsResponse(batch_id="b2", refused=refusals.pop())
            else:
                yield ground_truth_pb2.IngestPredictionsResponse(
                    batch_id=request.batch_id, accepted=ground_truth_pb2.BatchAccepted(rows=1)
                )

    fake.answers[PREDICTIONS] = store
    answers = list(runway.ingest_predictions(batches(6)))
    assert [answer.batch_id for answer in answers] == [f"b{number}" for number in range(6)]
    assert all(answer.refused is None for answer in answers)


def test_a_refused_batch_does_not_end_the_stream(fake: ControlPlaneFake, runway: Runway) -> None:
    def store(requests: Any, _context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            response = ground_truth_pb2.IngestOutcomesResponse(batch_id=request.batch_id)
            if request.model_id == "lost":
                response.refused.CopyFrom(not_found("MODEL_NOT_FOUND", "there is no model lost").status)
            else:
                response.accepted.rows = 1
            yield response

    fake.answers["GroundTruthService/IngestOutcomes"] = store
    sent = [
        OutcomeBatch(batch_id=str(number), model_id=name, arrow_ipc=b"x")
        for number, name in enumerate(["kept", "lost", "kept"])
    ]
    first, second, third = runway.ingest_outcomes(sent)
    assert (first.refused, third.refused) == (None, None)
    assert isinstance(second.refused, NotFound)
    assert second.refused.reason == "MODEL_NOT_FOUND"


def test_many_batches_are_on_their_way_at_once(fake: ControlPlaneFake, runway: Runway) -> None:
    def store(requests: Any, _context: grpc.ServicerContext) -> Iterator[Any]:
        # Answers nothing before it has a whole window; a client that waits for each answer would never get here.
        window = [next(requests) for _ in range(ingest.BATCHES_IN_FLIGHT_MAX)]
        for request in itertools.chain(window, requests):
            yield ground_truth_pb2.IngestPredictionsResponse(
                batch_id=request.batch_id, accepted=ground_truth_pb2.BatchAccepted(rows=1)
            )

    fake.answers[PREDICTIONS] = store
    assert len(list(runway.ingest_predictions(batches(20)))) == 20


def test_the_source_is_not_read_ahead_of_the_window(fake: ControlPlaneFake, runway: Runway) -> None:
    fake.answers[PREDICTIONS] = Store()
    taken = 0

    def source() -> Iterator[PredictionBatch]:
        nonlocal taken
        for batch in batches(10, size=ingest.BYTES_IN_FLIGHT_MAX // 4):
            taken += 1
            yield batch

    for answered, _answer in enumerate(runway.ingest_predictions(source()), start=1):
        assert taken <= answered + 4


def test_a_failing_source_fails_in_the_callers_thread(fake: ControlPlaneFake, runway: Runway) -> None:
    fake.answers[PREDICTIONS] = Store()

    def source() -> Iterator[PredictionBatch]:
        yield batches(1)[0]
        raise LookupError("no more flights")

    with pytest.raises(LookupError, match="no more flights"):
        list(runway.ingest_predictions(source()))


def test_a_final_error_ends_it(fake: ControlPlaneFake, runway: Runway) -> None:
    fake.failures[PREDICTIONS].append(failure(code_pb2.INTERNAL, "INTERNAL", "our fault"))
    with pytest.raises(RunwayRpcError, match="our fault"):
        list(runway.ingest_predictions(batches(3)))


def test_sending_gives_up() -> None:
    with connect("127.0.0.1:1", retry_for_s=0.1) as client, pytest.raises(Unreachable, match="make up"):
        list(client.ingest_predictions(batches(3)))


def test_an_answer_out_of_order_is_not_believed(fake: ControlPlaneFake, runway: Runway) -> None:
    def store(requests: Any, _context: grpc.ServicerContext) -> Iterator[Any]:
        next(requests)
        yield ground_truth_pb2.IngestPredictionsResponse(batch_id="other")

    fake.answers[PREDICTIONS] = store
    with pytest.raises(RunwayRpcError, match="'other' where 'b0' was due"):
        list(runway.ingest_predictions(batches(3)))


def event(*revisions: int) -> operations_pb2.WatchResponse:
    """A response with these events, and the progress after them as the control plane sends it."""
    return operations_pb2.WatchResponse(
        events=[operations_pb2.Event(revision=revision) for revision in revisions],
        progress=operations_pb2.Progress(revision=revisions[-1]),
    )


def items(*names: str) -> operations_pb2.WatchResponse:
    """A response with some of the items of a snapshot."""
    models = [registry_pb2.Model(model_id=name) for name in names]
    return operations_pb2.WatchResponse(snapshot_items=[operations_pb2.SnapshotItem(model=model) for model in models])


def end(revision: int) -> operations_pb2.WatchResponse:
    """The end of a snapshot."""
    return operations_pb2.WatchResponse(snapshot_end=operations_pb2.SnapshotEnd(revision=revision))


class Log:
    """Serves events 1 .. `head` after the asked revision; each stream gives so many, then breaks."""

    def __init__(self, head: int, streams: list[int]) -> None:
        self.head = head
        self.streams = streams

    def __call__(
        self, request: operations_pb2.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[operations_pb2.WatchResponse]:
        begin = request.after_revision
        if request.include_snapshot:
            yield items("air_time")
            yield items("route_embedding")
            yield end(100)
            begin = 100
        count = self.streams.pop(0) if self.streams else self.head
        for revision in range(begin + 1, min(begin + count, self.head) + 1):
            yield event(revision)
        if begin + count < self.head:
            raise unavailable("SHUTTING_DOWN")


def revisions(items: Iterator[WatchItem], until: int) -> list[int]:
    seen = []
    for item in items:
        if isinstance(item, operations_pb2.Event):
            seen.append(item.revision)
            if item.revision == until:
                break
    return seen


def told(items: Iterator[WatchItem], count: int) -> list[str]:
    """The next so many items, in words."""
    return [what(item) for item in itertools.islice(items, count)]


def what(item: WatchItem) -> str:
    match item:
        case operations_pb2.SnapshotItem():
            return f"item {item.model.model_id}"
        case operations_pb2.SnapshotEnd():
            return f"end {item.revision}"
        case operations_pb2.Event():
            return f"event {item.revision}"
        case operations_pb2.Progress():
            return f"progress {item.revision}"


def test_a_watch_resumes_where_it_broke(fake: ControlPlaneFake, runway: Runway) -> None:
    fake.answers[WATCH] = Log(head=30, streams=[5, 0, 7])
    breaks: list[RunwayRpcError] = []
    assert revisions(runway.watch(3, on_interruption=breaks.append), until=30) == list(range(4, 31))
    assert [request.after_revision for request in fake.requests(WATCH)] == [3, 8, 8, 15]
    # Two breaks: the second stream gave nothing, so the first break was not over yet.
    assert [error.reason for error in breaks] == ["SHUTTING_DOWN", "SHUTTING_DOWN"]


def test_a_watch_goes_on_after_its_snapshot(fake: ControlPlaneFake, runway: Runway) -> None:
    fake.answers[WATCH] = Log(head=110, streams=[4])
    assert revisions(runway.watch(include_snapshot=True), until=110) == list(range(101, 111))
    first, second = fake.requests(WATCH)
    assert (first.include_snapshot, second.include_snapshot, second.after_revision) == (True, False, 104)


def test_an_event_given_again_is_dropped(fake: ControlPlaneFake, runway: Runway) -> None:
    fake.answers[WATCH] = lambda _request, _context: iter([event(1), event(1, 2), event(2), event(1), event(2, 3)])
    assert revisions(runway.watch(), until=3) == [1, 2, 3]


def test_progress_moves_the_place_to_resume_from(fake: ControlPlaneFake, runway: Runway) -> None:
    def serve(request: operations_pb2.WatchRequest, _context: grpc.ServicerContext) -> Iterator[Any]:
        if request.after_revision < 50:
            yield operations_pb2.WatchResponse(progress=operations_pb2.Progress(revision=50))
            raise unavailable()
        yield event(51)

    fake.answers[WATCH] = serve
    assert revisions(runway.watch(model_ids=["air_time"]), until=51) == [51]
    assert [(r.after_revision, list(r.model_ids)) for r in fake.requests(WATCH)] == [
        (0, ["air_time"]),
        (50, ["air_time"]),
    ]


def test_too_old_is_final(fake: ControlPlaneFake, runway: Runway) -> None:
    fake.failures[WATCH].append(
        failure(code_pb2.OUT_OF_RANGE, "WATCH_TOO_OLD", "revision 3 is gone", oldest_revision="70")
    )
    with pytest.raises(Refused) as caught:
        next(runway.watch(3))
    assert caught.value.metadata == {"oldest_revision": "70"}


def too_old(oldest: int) -> Failure:
    return failure(code_pb2.OUT_OF_RANGE, "WATCH_TOO_OLD", "too far behind", oldest_revision=str(oldest))


def test_who_reads_too_slowly_goes_on_where_he_was(fake: ControlPlaneFake, runway: Runway) -> None:
    def serve(request: operations_pb2.WatchRequest, _context: grpc.ServicerContext) -> Iterator[Any]:
        if request.after_revision == 0:
            yield event(1, 2)
            raise too_old(0)
        yield event(3)

    fake.answers[WATCH] = serve
    assert revisions(runway.watch(), until=3) == [1, 2, 3]
    assert [request.after_revision for request in fake.requests(WATCH)] == [0, 2]


def test_what_was_missed_for_too_long_is_taken_anew(fake: ControlPlaneFake, runway: Runway) -> None:
    streams: Iterator[list[Any]] = iter(
        [
            [items("a"), items("b"), end(10), event(11), too_old(50)],
            [items("a"), unavailable()],
            [items("a"), items("c"), end(60), event(61)],
        ]
    )

    def serve(_request: operations_pb2.WatchRequest, _context: grpc.ServicerContext) -> Iterator[Any]:
        for step in next(streams):
            if isinstance(step, Failure):
                raise step
            yield step

    fake.answers[WATCH] = serve
    assert told(runway.watch(include_snapshot=True), 9) == [
        *("item a", "item b", "end 10", "event 11", "progress 11"),
        # The second snapshot was cut off: of it nothing is given.
        *("item a", "item c", "end 60", "event 61"),
    ]
    assert [request.include_snapshot for request in fake.requests(WATCH)] == [True, True, True]


def test_what_was_missed_for_too_long_without_a_snapshot_is_said(fake: ControlPlaneFake, runway: Runway) -> None:
    def serve(_request: operations_pb2.WatchRequest, _context: grpc.ServicerContext) -> Iterator[Any]:
        yield event(4)
        raise too_old(50)

    fake.answers[WATCH] = serve
    watched = runway.watch(3)
    assert told(watched, 2) == ["event 4", "progress 4"]
    with pytest.raises(Refused, match="too far behind"):
        next(watched)


def test_a_revision_that_does_not_exist_is_said_at_once(fake: ControlPlaneFake, runway: Runway) -> None:
    fake.failures[WATCH].append(failure(code_pb2.UNAVAILABLE, "REVISION_NOT_REACHED", "Revision 99 does not exist yet"))
    with pytest.raises(Unreachable, match="does not exist"):
        next(runway.watch(99))
    assert len(fake.calls) == 1


def test_a_watch_asks_for_what_it_wants(fake: ControlPlaneFake, runway: Runway) -> None:
    fake.answers[WATCH] = lambda _request, _context: iter([event(1)])
    next(runway.watch(model_ids=["a"], teams=["ops"], kinds=["VerdictChanged"]))
    (request,) = fake.requests(WATCH)
    assert (list(request.model_ids), list(request.teams), list(request.kinds)) == (["a"], ["ops"], ["VerdictChanged"])


def test_the_audit_log_is_read_on_until_its_end(fake: ControlPlaneFake, runway: Runway) -> None:
    def serve(request: operations_pb2.ListEventsRequest, _context: object) -> operations_pb2.ListEventsResponse:
        # The second answer found nothing in the part of the log that it looked through.
        found = {0: [3], 10: [], 20: [25]}[request.after_revision]
        return operations_pb2.ListEventsResponse(
            events=[operations_pb2.Event(revision=revision) for revision in found],
            revision=30,
            scanned_revision=request.after_revision + 10,
        )

    fake.answers["OperationsService/ListEvents"] = serve
    found = runway.operations.list_events(kinds=["VerdictChanged"])
    assert [event.revision for event in found] == [3, 25]
    assert [list(request.kinds) for request in fake.requests("OperationsService/ListEvents")] == [
        ["VerdictChanged"]
    ] * 3


def test_a_watch_that_never_connects_gives_up() -> None:
    with connect("127.0.0.1:1", retry_for_s=0.1) as client, pytest.raises(Unreachable):
        next(client.watch())


def test_a_watch_gives_up_when_told_to(fake: ControlPlaneFake, runway: Runway) -> None:
    fake.answers[WATCH] = Log(head=30, streams=[2, 0, *([0] * 100_000)])
    with pytest.raises(Unreachable):
        revisions(runway.watch(give_up_after_s=0.1), until=30)


def test_closing_ends_a_watch_in_another_thread(fake: ControlPlaneFake, runway: Runway) -> None:
    begun = threading.Event()

    def serve(_request: object, context: grpc.ServicerContext) -> Iterator[Any]:
        ended = threading.Event()
        context.add_callback(ended.set)
        yield event(1)
        ended.wait()

    fake.answers[WATCH] = serve
    seen: list[int] = []

    def read() -> None:
        for item in runway.watch():
            if isinstance(item, operations_pb2.Event):
                seen.append(item.revision)
                begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(10)
    runway.close()
    reader.join(10)
    assert not reader.is_alive()
    assert seen == [1]
