"""BacktestService: what other policies would have done with one's own history.

The history is gathered here, model by model, in threads, into a folder of its own. The runs are a process of their
own, which yields the processor to the server, and which is killed when the caller goes away. One at a time: a second
one would take the memory and the core that the server lives on.
"""

import asyncio
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import structlog
from runway.v1 import backtest_pb2, backtest_pb2_grpc, common_pb2

from control_plane.api.convert.backtest import contenders_from, report_message
from control_plane.api.convert.common import instant_from, timestamp
from control_plane.api.convert.registry import model_id_from
from control_plane.api.errors import invalid
from control_plane.api.interceptors import Context
from control_plane.api.plane import Plane
from control_plane.app.ground_truth import GroundTruth
from control_plane.backtest import job
from control_plane.backtest.contenders import Contender, usual
from control_plane.backtest.recording import HISTORY, append_model, head_of, model_of, write_head
from control_plane.core.errors import Invalid, Reason, Refused, Unavailable
from control_plane.core.ids import ModelId
from control_plane.core.state import State

log = structlog.get_logger("runway.backtest")

HOUR = timedelta(hours=1)

SPAN_MAX = timedelta(days=400)
"""13 months, as long as daily history is kept."""

WAITING_MAX = 4
"""Callers that wait for the one that runs; a fifth would wait longer than anybody does."""

STEP_LINE_BYTES_MAX = 64 * 1024
"""A line of progress is a name and a number."""

COMPLAINT_LINES = 20
"""Of a process that failed, for the log."""

READING = "reading history"
"""What progress says before the first contender runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is asked, checked."""

    start: datetime
    end: datetime
    then: State
    now: State
    model_ids: tuple[ModelId, ...]
    contenders: tuple[Contender, ...]
    warnings: tuple[str, ...]


class BacktestServicer(backtest_pb2_grpc.BacktestServiceServicer):
    """Check, gather, let run, render."""

    def __init__(self, plane: Plane, ground_truth: GroundTruth) -> None:
        self._plane = plane
        self._ground_truth = ground_truth
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def RunBacktest(  # noqa: N802
        self, request: backtest_pb2.RunBacktestRequest, context: Context
    ) -> AsyncIterator[backtest_pb2.RunBacktestResponse]:
        """Progress, then the report."""
        asked = await self._checked(request)
        if self._waiting > WAITING_MAX:
            raise Unavailable(
                Reason.LIMIT_EXCEEDED,
                f"{self._waiting} backtests run or wait already; one runs at a time: try again when they are done",
            )
        self._waiting += 1
        try:
            async with self._turn:
                folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="runway-backtest-"))
                try:
                    async for message in self._run(asked, folder):
                        yield message
                finally:
                    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        finally:
            self._waiting -= 1

    # --- what is asked ---

    async def _checked(self, request: backtest_pb2.RunBacktestRequest) -> _Request:
        start = _hour(instant_from(request.start_time, "start_time"))
        end = _hour(instant_from(request.end_time, "end_time"))
        now = self._plane.now()
        if end > now:
            raise invalid(
                "end_time", "past", f"{_text(end)} lies in the future: it is {_text(now)} here, and history ends now"
            )
        if end <= start:
            raise invalid("end_time", "range", f"a backtest ends at least an hour after it starts, at {_text(start)}")
        if end - start > SPAN_MAX:
            raise invalid(
                "start_time", "range", f"a backtest spans at most {SPAN_MAX.days} days: start later, or end earlier"
            )
        contenders = contenders_from(request.contenders) or usual()
        newest = await self._plane.read(common_pb2.ReadOptions())
        asked = tuple(dict.fromkeys(model_id_from(model_id) for model_id in request.model_ids))
        for model_id in asked:
            newest.model(model_id)
        then = await self._then(newest, start)
        model_ids, warnings = _chosen(then, newest, asked, start)
        return _Request(
            start=start,
            end=end,
            then=then,
            now=newest,
            model_ids=model_ids,
            contenders=tuple(contenders),
            warnings=warnings,
        )

    async def _then(self, newest: State, start: datetime) -> State:
        """The state as of the start."""
        try:
            return await self._plane.read(common_pb2.ReadOptions(as_of_time=timestamp(start)))
        except Invalid:
            raise invalid("start_time", "history", _too_early(newest, start)) from None
        except Refused as error:
            if error.reason is not Reason.HISTORY_NOT_KEPT:
                raise
            raise invalid("start_time", "history", f"{error}; {_too_early(newest, start)}") from None

    # --- the run ---

    async def _run(self, asked: _Request, folder: Path) -> AsyncIterator[backtest_pb2.RunBacktestResponse]:
        yield _progress(READING, 0.0)
        gathered = asyncio.Queue[float]()
        gathering = asyncio.create_task(self._gather(asked, folder, gathered), name="backtest-gathering")
        try:
            while not gathering.done() or not gathered.empty():
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        yield _progress(READING, await gathered.get())
            await gathering
        finally:
            gathering.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await gathering
        job.write_contenders(folder, list(asked.contenders))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "control_plane.backtest",
            str(folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=STEP_LINE_BYTES_MAX,
        )
        assert process.stdout is not None and process.stderr is not None
        complaints = asyncio.create_task(_last_lines(process.stderr), name="backtest-complaints")
        try:
            async for line in process.stdout:
                step = msgspec.json.decode(line, type=job.Step)
                yield _progress(step.contender, step.done)
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            told = await complaints
        if code not in (0, job.EXIT_INVALID):
            log.error("backtest.failed", code=code, complaint=told)
            raise Unavailable(
                Reason.INTERNAL,
                "the backtest ended without a report; why is in the server's log"
                + (": it was killed, perhaps for want of memory: take fewer models or days" if code < 0 else ""),
            )
        report = await asyncio.to_thread(job.read_outcome, folder)
        yield backtest_pb2.RunBacktestResponse(report=report_message(report))

    async def _gather(self, asked: _Request, folder: Path, told: "asyncio.Queue[float]") -> None:
        """Read the history of each model into the folder."""
        first = asked.start - HISTORY
        silent = []
        for number, model_id in enumerate(asked.model_ids, start=1):
            record = asked.now.models[model_id]
            await self._ground_truth.tell(record, None)
            hours = await self._ground_truth.read(
                lambda store, model_id=model_id: store.recorded_hours(model_id, first, asked.end)  # type: ignore[misc]
            )
            if not any(len(part.hours) for part in (*hours.counts, *hours.partials)):
                silent.append(model_id)
            model = model_of(asked.then.models[model_id], record, asked.now, asked.end, hours)
            await asyncio.to_thread(append_model, folder, model)
            told.put_nowait(number / len(asked.model_ids))
        if len(silent) == len(asked.model_ids):
            raise invalid(
                "start_time",
                "history",
                f"no predictions were recorded between {_text(first)} and {_text(asked.end)}: there is nothing to look "
                "at. Take a time in which predictions were sent, see `runway performance`",
            )
        warnings = list(asked.warnings)
        if silent:
            warnings.append(_named(silent, "sent no predictions in this time: only their age is known"))
        head = head_of(asked.then, asked.start, asked.end, asked.model_ids, warnings)
        await asyncio.to_thread(write_head, folder, head)


def _chosen(
    then: State, newest: State, asked: Sequence[ModelId], start: datetime
) -> tuple[tuple[ModelId, ...], tuple[str, ...]]:
    """The models that served at the start; who was asked for by name and did not is refused."""
    serving = [model_id for model_id, record in then.models.items() if record.production and not record.retired]
    if asked:
        absent = [model_id for model_id in asked if model_id not in set(serving)]
        if absent:
            since = _first_promotion(newest, absent[0])
            raise invalid(
                "start_time",
                "history",
                f"{absent[0]} had no version in production at {_text(start)}"
                + (f": it first had one at {_text(since)}; start there or later" if since else " and never had one"),
            )
        return tuple(sorted(asked)), ()
    if not serving:
        raise invalid("start_time", "history", _too_early(newest, start))
    later = sorted(model_id for model_id, record in newest.models.items() if model_id not in set(serving))
    warnings = (_named(later, "had no version in production at the start and are left out"),) if later else ()
    return tuple(sorted(serving)), warnings


def _named(model_ids: Sequence[str], what: str) -> str:
    shown = ", ".join(model_ids[:3]) + (f" and {len(model_ids) - 3:,} more" if len(model_ids) > 3 else "")
    return f"{shown} {what}"


def _first_promotion(state: State, model_id: ModelId) -> datetime | None:
    moves = [move.moved_at for move in state.models[model_id].alias_moves if move.alias == "production"]
    return moves[0] if moves else None


def _too_early(newest: State, start: datetime) -> str:
    promoted = [at for model_id in newest.models if (at := _first_promotion(newest, model_id)) is not None]
    if not promoted:
        return "no model ever had a version in production: there is no history to run"
    first = min(promoted)
    return (
        f"history does not reach back to {_text(start)}: the first version went into production at {_text(first)}; "
        f"start at {_text(_hour(first) + HOUR)} or later"
    )


async def _last_lines(stream: asyncio.StreamReader) -> str:
    """What a process complained of, to its end."""
    kept: deque[str] = deque(maxlen=COMPLAINT_LINES)
    async for line in stream:
        kept.append(line.decode(errors="replace").rstrip())
    return "\n".join(kept)


def _progress(contender: str, done: float) -> backtest_pb2.RunBacktestResponse:
    return backtest_pb2.RunBacktestResponse(progress=backtest_pb2.BacktestProgress(contender=contender, done=done))


def _hour(at: datetime) -> datetime:
    """The hour that had begun."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _text(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
