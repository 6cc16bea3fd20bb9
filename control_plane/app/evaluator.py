"""Looks at models when their cadence says so: gathers evidence, lets core evaluate it, submits what came out.

An evaluation is not an event; only a verdict that changes (or begins to waver) is. The latest look at each model is
kept here for readers, and made anew after a start.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from control_plane.app.evidence import evidence_of, window_end
from control_plane.app.ground_truth import GroundTruth
from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.core.commands import Command, RecordCoverage, RecordEvaluation
from control_plane.core.errors import RunwayError, Unavailable
from control_plane.core.ids import ModelId
from control_plane.core.registry.types import ModelVersion
from control_plane.core.staleness.evaluation import evaluate_fleet
from control_plane.core.staleness.evidence import Evidence
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.verdict import Evaluation
from control_plane.core.state import ModelRecord, State

log = structlog.get_logger("runway.evaluator")

LOOKS_PER_TICK_MAX = 1_000
"""Models evaluated together: about a tenth of a second of arithmetic."""

ACTOR = "runway"
"""Who evaluates."""


@dataclass(frozen=True, slots=True)
class _Look:
    """One model as it is about to be looked at."""

    model_id: ModelId
    version: ModelVersion
    policy: StalenessPolicy
    evidence: Evidence


class Evaluator:
    """Owns the evaluation loop."""

    def __init__(self, *, node: Node[State, Command], ground_truth: GroundTruth, tick_s: float) -> None:
        self._node = node
        self._ground_truth = ground_truth
        self._tick_s = tick_s
        self.latest: dict[ModelId, Evaluation] = {}
        self._looked_at: dict[ModelId, tuple[int, datetime]] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        """One look after the other: what was gathered earlier must not be recorded later."""

    async def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run(), name="evaluator")

    async def stop(self) -> None:
        """Finish the look under way."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def evaluate_now(self, model_id: ModelId) -> None:
        """Look at one model whatever its cadence. Raises NotFound."""
        record = self._node.state.model(model_id)
        if record.production is None:
            return
        async with self._turn:
            now = self._node.now()
            look = await self._gather(record, now)
            [evaluation] = await asyncio.to_thread(evaluate_fleet, [(look.policy, look.evidence)], now)
            await self._record(look, evaluation, now)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._ground_truth.tick(self._node.now())
                async with self._turn:
                    now = self._node.now()
                    due = self._due(now)
                    if due:
                        await self._evaluate(due, now)
            except RunwayError as error:
                # Not leading, or the store is away: both end by themselves, and the next tick looks again.
                log.info("evaluation.postponed", reason=error.reason.value, message=error.message)
            except Exception as error:
                log.error("evaluation.failed", error=repr(error), exc_info=error)
            try:
                async with asyncio.timeout(self._tick_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    def _due(self, now: datetime) -> list[ModelRecord]:
        """Models whose cadence has passed, or that serve another version than the one looked at last."""
        due = []
        for model_id, record in self._node.state.models.items():
            production = record.production
            if production is None or record.retired:
                continue
            version, looked_at = self._looked_at.get(model_id, (0, now))
            if version != production.number or now - looked_at >= record.staleness_policy.cadence:
                due.append(record)
        return due[:LOOKS_PER_TICK_MAX]

    async def _evaluate(self, records: list[ModelRecord], now: datetime) -> None:
        """Look at many. A model that cannot be looked at is passed over until its cadence comes round again."""
        looks: list[_Look] = []
        for record in records:
            try:
                looks.append(await self._gather(record, now))
            except Unavailable:
                raise
            except Exception as error:
                self._passed_over(record, now, error)
        try:
            evaluations = await asyncio.to_thread(evaluate_fleet, [(look.policy, look.evidence) for look in looks], now)
        except Exception as error:
            if len(records) == 1:
                self._passed_over(records[0], now, error)
                return
            # Somebody's numbers break the arithmetic of all: one by one, to find out whose.
            for record in records:
                await self._evaluate([record], now)
            return
        for look, evaluation in zip(looks, evaluations, strict=True):
            await self._record(look, evaluation, now)

    def _passed_over(self, record: ModelRecord, now: datetime, error: Exception) -> None:
        production = record.production
        self._looked_at[record.model_id] = (production.number if production is not None else 0, now)
        log.error("evaluation.passed_over", model=record.model_id, error=repr(error), exc_info=error)

    async def _record(self, look: _Look, evaluation: Evaluation, now: datetime) -> None:
        self._looked_at[look.model_id] = (look.version.number, now)
        self.latest[look.model_id] = evaluation
        await self._submit(RecordEvaluation(model_id=look.model_id, evaluation=evaluation))
        await self._submit(RecordCoverage(model_id=look.model_id, coverage=look.evidence.coverage))

    async def _gather(self, record: ModelRecord, now: datetime) -> _Look:
        version = record.production
        assert version is not None
        await self._ground_truth.tell(record, version)
        policy = record.staleness_policy
        end = window_end(now)
        start = end - timedelta(days=policy.window_days)
        facts = await self._ground_truth.read(
            lambda store: store.evidence(record.model_id, version.number, start, end, now)
        )
        return _Look(record.model_id, version, policy, evidence_of(record, version, facts))

    async def _submit(self, command: Command) -> None:
        await self._node.submit(Submission(command=command, actor=ACTOR, reason="evaluation"))
