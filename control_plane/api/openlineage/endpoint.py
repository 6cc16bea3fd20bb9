"""The three addresses: one event, a batch, and whether anybody is there.

A request goes: media type -> room -> body -> unpacked -> decoded -> translated -> submitted -> durable -> answered.
Everything before `submitted` touches only this request, so a bad one costs nobody else anything.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol, TypeVar

import msgspec
import structlog
from runway.v1 import common_pb2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from control_plane.api.openlineage import limits
from control_plane.api.openlineage.answers import Failure, json, refusal, status_of, summary, violations_of
from control_plane.api.openlineage.bodies import Unreadable, decoded, read_body, split, unpacked, unreadable
from control_plane.api.openlineage.translate import SOURCE, translate
from control_plane.api.plane import Outcome
from control_plane.core.commands import ReportLineage
from control_plane.core.errors import Refused, RunwayError
from control_plane.core.graph.lineage_facts import LineageRun
from control_plane.telemetry import Metrics

log = structlog.get_logger()

EVENT_PATH = "/api/v1/lineage"
BATCH_PATH = "/api/v1/lineage/batch"
HEALTH_PATH = "/health"

Facts = tuple[int, LineageRun]
"""What an event says, and its place in the batch."""

Read = TypeVar("Read")


class LineagePlane(Protocol):
    """What is needed of the control plane; see `control_plane.api.plane.Plane`."""

    async def submit(self, command: ReportLineage, mutation: common_pb2.Mutation) -> Outcome:
        """Decide and make durable."""

    async def release(self) -> None:
        """Wait until everything that could have been seen just now is in the log."""


@dataclass(slots=True)
class Room:
    """How many requests are in hand, and how many bytes of them."""

    requests: int = 0
    size: int = 0


class Held:
    """What one request takes of the room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size = 0
        room.requests += 1

    def take(self, size: int) -> None:
        """So many bytes more."""
        self._size += size
        self._room.size += size

    def let_go(self) -> None:
        """The request is answered."""
        self._room.requests -= 1
        self._room.size -= self._size


class Endpoint:
    """The application that answers; `stopping` turns everybody away."""

    def __init__(self, plane: LineagePlane, metrics: Metrics, more: Sequence[Route] = ()) -> None:
        self._plane = plane
        self._metrics = metrics
        self._room = Room()
        self.stopping = False
        self.application = Starlette(
            routes=[
                Route(EVENT_PATH, self._answered(EVENT_PATH, self._event), methods=["POST"]),
                Route(BATCH_PATH, self._answered(BATCH_PATH, self._batch), methods=["POST"]),
                Route(HEALTH_PATH, self._health, methods=["GET"]),
                *more,
            ],
            exception_handlers={HTTPException: _elsewhere},
        )

    # -- what is asked ------------------------------------------------------------------------------------------

    async def _event(self, body: bytes, encoding: str) -> Response:
        run = await _computed(body, encoding, _read_event)
        if run is None:
            return json({"status": "accepted", "changed": 0}, HTTPStatus.CREATED)
        outcome = await self._submit((run,))
        cycles = [list(found.cycle) for found in outcome.result.quarantined]
        told: dict[str, object] = {
            "status": "accepted",
            "changed": outcome.result.changed,
            "revision": outcome.revision,
        }
        return json(told | ({"quarantined": cycles} if cycles else {}), HTTPStatus.CREATED)

    async def _batch(self, body: bytes, encoding: str) -> Response:
        received, facts, failures = await _computed(body, encoding, _read_batch)
        try:
            if facts:
                await self._submit(tuple(run for _, run in facts))
        except RunwayError as error:
            failures += await self._one_by_one(facts, error)
        return json(summary(received, sorted(failures, key=lambda failure: failure.index)), HTTPStatus.OK)

    async def _one_by_one(self, facts: Sequence[Facts], error: RunwayError) -> list[Failure]:
        """What is left of a batch that was not taken as a whole: each event for itself, unless nothing is taken now."""
        failures = []
        for index, run in facts:
            if status_of(error) is HTTPStatus.SERVICE_UNAVAILABLE:
                failures.append(_failure(index, error))
                continue
            try:
                await self._submit((run,))
            except RunwayError as own:
                failures.append(_failure(index, own))
        return failures

    async def _health(self, request: Request) -> Response:
        if self.stopping:
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, "SHUTTING_DOWN", "Runway is stopping; send again later")
        return json({"status": "serving"}, HTTPStatus.OK)

    async def _submit(self, runs: tuple[LineageRun, ...]) -> Outcome:
        """Stored when this returns. The same facts have the same request id, so that a repeated event is answered from
        memory.
        """
        request_id = f"{SOURCE}:{hashlib.sha256(msgspec.json.encode(runs)).hexdigest()}"
        try:
            outcome = await self._plane.submit(
                ReportLineage(runs=runs), common_pb2.Mutation(request_id=request_id, actor=SOURCE)
            )
        except Refused:
            await self._plane.release()
            raise
        await self._plane.release()
        return outcome

    # -- around it ----------------------------------------------------------------------------------------------

    def _answered(
        self, path: str, ask: Callable[[bytes, str], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """The edge: room, time, errors, metrics."""
        observe = self._metrics.calls(path)

        async def answer(request: Request) -> Response:
            started = time.perf_counter()
            held = Held(self._room)
            code = "OK"
            try:
                self._check_room()
                _check_media(request)
                async with asyncio.timeout(limits.BODY_S_MAX):
                    body = await read_body(self._chunks(request, held), request.headers.get("content-length"))
                return await ask(body, request.headers.get("content-encoding", "").strip().lower())
            except (Unreadable, TimeoutError, RunwayError) as error:
                response, code = _refused(error)
                log.info("lineage.refused", path=path, status=response.status_code, reason=code, error=str(error)[:500])
                await _discard_rest(request)
                return response
            except ClientDisconnect:
                code = "CANCELLED"
                return Response(status_code=HTTPStatus.BAD_REQUEST)
            except Exception as error:
                code = "INTERNAL"
                log.error("lineage.failed", path=path, error=repr(error), exc_info=error)
                return refusal(
                    HTTPStatus.INTERNAL_SERVER_ERROR, code, "Runway failed while answering; it is in the server's log"
                )
            finally:
                held.let_go()
                observe(code, time.perf_counter() - started)

        return answer

    def _check_room(self) -> None:
        if self.stopping:
            raise unreadable(
                HTTPStatus.SERVICE_UNAVAILABLE, "shutting_down", "Runway is stopping; send again", "server"
            )
        if self._room.requests > limits.IN_HAND_MAX or self._room.size > limits.IN_HAND_BYTES_MAX:
            raise unreadable(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "too much at once; send again", "server")

    async def _chunks(self, request: Request, held: Held) -> AsyncIterator[bytes]:
        async for chunk in request.stream():
            held.take(len(chunk))
            self._check_room()
            yield chunk


def _read_event(body: bytes) -> LineageRun | None:
    return translate(decoded(body))


def _read_batch(body: bytes) -> tuple[int, list[Facts], list[Failure]]:
    """How many events there are, what those say that say something, and those that are wrong."""
    facts: list[Facts] = []
    failures: list[Failure] = []
    events = split(body)
    for index, event in enumerate(events):
        field = f"[{index}]"
        try:
            run = translate(decoded(event, field), field)
        except Unreadable as error:
            told = (error.violation,)
            failures.append(Failure(index=index, status=error.status, reason=str(error), violations=told))
        except RunwayError as error:
            failures.append(_failure(index, error))
        else:
            if run is not None:
                facts.append((index, run))
    return len(events), facts, failures


async def _computed(body: bytes, encoding: str, read: Callable[[bytes], Read]) -> Read:
    """Read small bodies here, large and packed ones in a thread, so that nobody waits for them."""
    if len(body) <= limits.PARSED_AT_ONCE_BYTES_MAX and not encoding:
        return read(body)
    return await asyncio.to_thread(lambda: read(unpacked(body, encoding)))


async def _discard_rest(request: Request) -> None:
    """Read on without keeping anything, within limits: many senders look for an answer only when they have sent all,
    and would see a broken connection instead of it.
    """
    size = 0
    with suppress(ClientDisconnect, RuntimeError, TimeoutError):
        async with asyncio.timeout(limits.DISCARDED_S_MAX):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.DISCARDED_BYTES_MAX:
                    return


def _check_media(request: Request) -> None:
    """JSON, or unsaid. What a form in a web page can send is none, so that no page can write here."""
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise unreadable(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "media_type",
            f"{media[:60]!r} is not taken; send application/json",
            "Content-Type",
        )


def _failure(index: int, error: RunwayError) -> Failure:
    return Failure(index=index, status=status_of(error), reason=error.message, violations=violations_of(error))


def _refused(error: Unreadable | TimeoutError | RunwayError) -> tuple[Response, str]:
    if isinstance(error, RunwayError):
        code = error.reason.value
        return refusal(status_of(error), code, error.message, violations_of(error)), code
    if isinstance(error, TimeoutError):
        message = f"the body did not arrive within {limits.BODY_S_MAX:g} s; send it again"
        return refusal(HTTPStatus.REQUEST_TIMEOUT, "DEADLINE_EXCEEDED", message), "DEADLINE_EXCEEDED"
    code = error.violation.rule.upper()
    return refusal(error.status, code, str(error), (error.violation,)), code


async def _elsewhere(request: Request, error: Exception) -> Response:
    """Wrong path or method."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        return refusal(status, "METHOD_NOT_ALLOWED", f"use {headers.get('Allow', 'POST')} here", headers=headers)
    return refusal(status, status.name, f"post events to {EVENT_PATH}, batches to {BATCH_PATH}", headers=headers)
