"""Looks at models: when their cadence says so, when evidence has arrived, and when an upstream serves another version.

An evaluation is not an event; only a verdict that changes (or begins to waver) is. Every look is kept in a store of
looks, and the evidence of those that may change something before anything is submitted: a verdict in the log can
always be made again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import structlog

from control_plane.app.downstream import Downstream
from control_plane.app.embeddings import Embeddings
from control_plane.app.evidence import MovedUpstream, Subject, evidence_of, window_end
from control_plane.app.fact_reports import FactEvidence
from control_plane.app.fact_store import FactStore
from control_plane.app.ground_truth import GroundTruth
from control_plane.app.looks import LOOKS_KEPT, Look, Looks
from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.core.commands import Command, RecordCoverage, RecordEvaluation
from control_plane.core.errors import RunwayError, Unavailable
from control_plane.core.ground_truth.causes import findings
from control_plane.core.ground_truth.coverage import is_low
from control_plane.core.ground_truth.findings import Finding
from control_plane.core.ids import ModelId
from control_plane.core.registry.types import ModelVersion
from control_plane.core.staleness.evaluation import evaluate_fleet
from control_plane.core.staleness.evidence import Evidence, UpstreamEvidence
from control_plane.core.staleness.stored import StoredEvidence, digest_of, encode_evidence
from control_plane.core.staleness.verdict import Evaluation, Level
from control_plane.core.state import ModelRecord, State
from control_plane.core.statistics.downstream import Attribution

log = structlog.get_logger("runway.evaluator")

LOOKS_PER_TURN_MAX = 100
"""Models looked at together, about a fifth of a second; those with new evidence first, so that they do not wait for a
fleet whose cadence is over."""
LOOKS_PER_CADENCE_MAX = 15
"""New evidence brings a look; where it comes without a pause, so many times a cadence: once a minute on tier 1."""
LOOKS_AT_ONCE_MAX = 6
"""After a pause so many looks follow evidence at once: a batch is judged within a second, a stream costs no more."""
CAUSES_PER_TURN_MAX = 10
"""Models of a turn whose ids are looked at for why outcomes are missing, a fifth of a second each; of others, should a
whole fleet go silent at once, hours and senders say enough."""
HISTORY_POINTS = 48
"""Earlier looks that the forecast of a model sees."""
EXPIRE_EVERY = timedelta(days=1)
EVIDENCE_TICK_S = 0.2
"""How soon new evidence is noticed: asking what has arrived is one copy of a small dict."""

ACTOR = "runway"
"""Who evaluates."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a model was looked at with, so that a change of it brings another look."""

    version: int
    upstreams: tuple[tuple[str, int], ...]
    at: datetime
    arrivals: int
    spent_until: datetime
    """Looks that evidence brought are paid for until then, each for its share of a cadence; beyond a few of them the
    next has to wait."""


@dataclass(frozen=True, slots=True)
class _Gathered:
    """One model as it is about to be looked at."""

    subject: Subject
    evidence: Evidence
    missing: Finding | None = None
    """The likeliest cause of a coverage that is newly too low."""


class Evaluator:
    """Owns the evaluation loop. `latest` is the newest look at each model, of this start or an earlier one."""

    def __init__(self, *, node: Node[State, Command], ground_truth: GroundTruth, looks: Looks, tick_s: float) -> None:
        self._node = node
        self._ground_truth = ground_truth
        self._looks = looks
        self._tick_s = min(tick_s, EVIDENCE_TICK_S)
        self._facts_tick_s = tick_s
        self.latest: dict[ModelId, Evaluation] = {}
        self._seen: dict[ModelId, _Seen] = {}
        self._embeddings = Embeddings()
        self._downstream = Downstream()
        self._expired_at: datetime | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        """One look after the other: what was gathered earlier must not be recorded later."""

    async def start(self) -> None:
        """Begin to look."""
        try:
            self.latest.update(await asyncio.to_thread(self._looks.latest))
        except Unavailable as error:
            log.error("looks.unreadable", message=error.message)
        self._task = asyncio.create_task(self._run(), name="evaluator")

    async def stop(self) -> None:
        """Finish the look under way."""
        self._stopping.set()
        if self._task is not None:
            await self._task
        await asyncio.to_thread(self._looks.close)

    async def evaluate_now(self, model_id: ModelId) -> None:
        """Look at one model whatever its cadence. Raises NotFound."""
        record = self._node.state.model(model_id)
        if record.production is None:
            return
        async with self._turn:
            await self._look_at([record], self._node.now(), careful=False)

    async def tick(self) -> bool:
        """Look at what is due, or as much of it as fits one turn; whether there is more."""
        async with self._turn:
            now = self._node.now()
            due = self._due(now, self._ground_truth.arrivals())
            turn = due[:LOOKS_PER_TURN_MAX]
            seen = {record.model_id: self._seen.get(record.model_id) for record in turn}
            try:
                if turn:
                    await self._look_at(turn, now, careful=True)
            except RunwayError:
                # Nothing came of it, so these are as due as before.
                self._seen.update({model_id: was for model_id, was in seen.items() if was is not None})
                for model_id in [model_id for model_id, was in seen.items() if was is None]:
                    self._seen.pop(model_id, None)
                raise
            await self._expire(now)
        return len(due) > LOOKS_PER_TURN_MAX

    async def _run(self) -> None:
        """Facts are sealed and joined beside the looks: an hour's worth of it takes longer than a verdict may wait."""
        facts = asyncio.create_task(self._again(self._facts, self._facts_tick_s), name="facts")
        await self._again(self.tick, self._tick_s)
        await facts

    async def _facts(self) -> bool:
        await self._ground_truth.tick(self._node.now())
        return False

    async def _again(self, act: Callable[[], Awaitable[bool]], pause_s: float) -> None:
        """Until it is time to stop; without a pause while there is more."""
        while not self._stopping.is_set():
            more = False
            try:
                more = await act()
            except RunwayError as error:
                # Not leading, or the store is away: both end by themselves, and the next tick looks again.
                log.info("evaluation.postponed", reason=error.reason.value, message=error.message)
            except Exception as error:
                log.error("evaluation.failed", error=repr(error), exc_info=error)
            try:
                async with asyncio.timeout(0 if more else pause_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    def _due(self, now: datetime, arrivals: Mapping[str, int]) -> list[ModelRecord]:
        """Models that want a look: new evidence, never looked at, other versions than then, or cadence over."""
        state = self._node.state
        due, with_evidence = [], []
        for model_id, record in state.models.items():
            production = record.production
            if production is None or record.retired:
                continue
            seen = self._seen.get(model_id)
            if seen is None or seen.version != production.number or seen.upstreams != _upstreams(state, production):
                due.append(record)
                continue
            policy, since = record.staleness_policy, now - seen.at
            fresh = policy.evaluate_on_evidence and arrivals.get(model_id, 0) != seen.arrivals
            credit = (LOOKS_AT_ONCE_MAX - 1) * policy.cadence / LOOKS_PER_CADENCE_MAX
            if fresh and seen.spent_until - now <= credit:
                with_evidence.append(record)
            elif since >= policy.cadence:
                due.append(record)
        return with_evidence + due

    async def _look_at(self, records: Sequence[ModelRecord], now: datetime, *, careful: bool) -> None:
        """Look at many. If careful, a model that cannot be looked at is passed over until it is due again."""
        arrivals = self._ground_truth.arrivals()
        state = self._node.state
        said = self._downstream.ask(state, self.latest) if any(_unlabelled(r) for r in records) else {}
        subjects = []
        for record in records:
            production = record.production
            assert production is not None
            self._seen[record.model_id] = self._seeing(record, production, now, arrivals.get(record.model_id, 0))
            try:
                await self._ground_truth.tell(record, production)
            except Unavailable:
                raise
            except Exception as error:
                if not careful:
                    raise
                _passed_over(record.model_id, error)
                continue
            subjects.append(_subject(state, record, production, said))
        gathered = await self._ground_truth.read(lambda store: self._gather(store, subjects, now, careful=careful))
        evaluations = await asyncio.to_thread(self._evaluated, gathered, now, careful=careful)
        await self._keep_and_submit(evaluations, now)

    def _seeing(self, record: ModelRecord, version: ModelVersion, now: datetime, arrivals: int) -> _Seen:
        """What the look that begins now sees of the outside, and what it spends if evidence brought it."""
        before = self._seen.get(record.model_id)
        spent = before.spent_until if before is not None else now
        if before is not None and before.arrivals != arrivals:
            spent = max(spent, now) + record.staleness_policy.cadence / LOOKS_PER_CADENCE_MAX
        return _Seen(version.number, _upstreams(self._node.state, version), now, arrivals, spent)

    def _gather(
        self, store: FactStore, subjects: Sequence[Subject], now: datetime, *, careful: bool
    ) -> list[_Gathered]:
        """Evidence of each, in a thread."""
        end = window_end(now)
        found: list[_Gathered] = []
        for subject in subjects:
            start = end - timedelta(days=subject.policies.staleness.window_days)
            try:
                facts = store.evidence(subject.model_id, subject.version.number, start, end, now)
                upstreams = tuple(self._compared(store, one) for one in subject.moved)
                history = self._looks.scores(subject.model_id, subject.version.number, now, HISTORY_POINTS)
                evidence = evidence_of(subject, facts, upstreams, history)
                looked = sum(one.missing is not None for one in found)
                cause = _why_low(store, subject, facts, evidence, now, with_ids=looked < CAUSES_PER_TURN_MAX)
                found.append(_Gathered(subject, evidence, cause))
            except Unavailable:
                raise
            except Exception as error:
                if not careful:
                    raise
                _passed_over(subject.model_id, error)
        return found

    def _compared(self, store: FactStore, upstream: MovedUpstream) -> UpstreamEvidence:
        return UpstreamEvidence(
            model_id=upstream.model_id,
            trained_with=upstream.trained_with,
            serves=upstream.serves,
            compatibility=self._embeddings.compatibility(store, upstream.before, upstream.after),
        )

    def _evaluated(
        self, gathered: Sequence[_Gathered], now: datetime, *, careful: bool
    ) -> list[tuple[_Gathered, Evaluation]]:
        """All at once; if somebody's numbers break the arithmetic of all, one by one to find out whose."""
        try:
            found = evaluate_fleet([(one.subject.policies.staleness, one.evidence) for one in gathered], now)
        except Exception as error:
            if not careful or len(gathered) <= 1:
                if not careful:
                    raise
                for one in gathered:
                    _passed_over(one.subject.model_id, error)
                return []
            return [pair for one in gathered for pair in self._evaluated([one], now, careful=True)]
        return list(zip(gathered, found, strict=True))

    async def _keep_and_submit(self, made: Sequence[tuple[_Gathered, Evaluation]], now: datetime) -> None:
        """Evidence and looks first, then what follows from them."""
        standing = {model_id: record.standing.level for model_id, record in self._node.state.models.items()}
        looks, evidence = await asyncio.to_thread(self._to_keep, made, standing, now)
        await asyncio.to_thread(self._looks.record, looks, evidence)
        self.latest.update({look.model_id: look.evaluation for look in looks})
        commands: list[Command] = []
        for (one, _), look in zip(made, looks, strict=True):
            commands.append(RecordEvaluation(model_id=look.model_id, evaluation=look.evaluation))
            commands.append(
                RecordCoverage(
                    model_id=look.model_id,
                    coverage=one.evidence.coverage,
                    cause=one.missing.cause.value if one.missing is not None else "",
                    explanation=one.missing.explanation if one.missing is not None else "",
                )
            )
        # Together, so that they share a commit; each is decided in this order.
        outcomes = await asyncio.gather(*map(self._submit, commands), return_exceptions=True)
        failed = next((one for one in outcomes if one is not None), None)
        if failed is not None:
            raise failed

    def _to_keep(
        self, made: Sequence[tuple[_Gathered, Evaluation]], standing: Mapping[ModelId, Level], now: datetime
    ) -> tuple[list[Look], dict[str, bytes]]:
        """Looks with the sha256 of their evidence, where that is kept."""
        looks, evidence = [], {}
        for one, evaluation in made:
            model_id = one.subject.model_id
            kept = evaluation
            if _matters(evaluation, standing.get(model_id), self.latest.get(model_id)):
                stored = StoredEvidence(at=now, policy=one.subject.policies.staleness, evidence=one.evidence)
                data = encode_evidence(stored)
                digest = digest_of(data)
                evidence[digest] = data
                kept = _with_evidence(evaluation, digest)
            looks.append(Look(model_id=model_id, evaluation=kept))
        return looks, evidence

    async def _expire(self, now: datetime) -> None:
        if self._expired_at is not None and now - self._expired_at < EXPIRE_EVERY:
            return
        self._expired_at = now
        gone = await asyncio.to_thread(self._looks.expire, now - LOOKS_KEPT)
        if gone:
            log.info("looks.expired", looks=gone)

    async def _submit(self, command: Command) -> None:
        await self._node.submit(Submission(command=command, actor=ACTOR, reason="evaluation"))


def _matters(evaluation: Evaluation, verdict: Level | None, before: Evaluation | None) -> bool:
    """May this look change the verdict, or is it the first of its kind or of its day? Then its evidence is kept."""
    if evaluation.level is not verdict or before is None:
        return True
    return (before.level, before.version, before.at.date()) != (
        evaluation.level,
        evaluation.version,
        evaluation.at.date(),
    )


def _with_evidence(evaluation: Evaluation, digest: str) -> Evaluation:
    return msgspec.structs.replace(evaluation, evidence_sha256=digest)


def _unlabelled(record: ModelRecord) -> bool:
    """Would anybody look at what its consumers say?"""
    return record.staleness_policy.estimate


def _upstreams(state: State, version: ModelVersion) -> tuple[tuple[str, int], ...]:
    """Which versions its upstream models serve, of those that it was trained with."""
    found = []
    for model_id in sorted(version.facts.upstream_versions):
        upstream = state.models.get(model_id)
        if upstream is not None and upstream.production is not None:
            found.append((str(model_id), upstream.production.number))
    return tuple(found)


def _why_low(
    store: FactStore, subject: Subject, facts: FactEvidence, evidence: Evidence, now: datetime, *, with_ids: bool
) -> Finding | None:
    """The likeliest cause, if an alert is about to be raised: of the hours that it is about."""
    minimum = subject.policies.staleness.coverage_min
    if subject.coverage_alert or not is_low(evidence.coverage, minimum):
        return None
    row = facts.coverage
    missing, _ = store.missing_facts(
        subject.model_id, subject.version.number, row.start, row.end, now, with_ids=with_ids
    )
    return next(iter(findings(missing, minimum)), None)


def _subject(state: State, record: ModelRecord, version: ModelVersion, said: Mapping[str, Attribution]) -> Subject:
    return Subject(
        model_id=record.model_id,
        task_type=record.facts.task_type,
        version=version,
        policies=record.policies,
        moved=tuple(_moved(state, version)),
        downstream=said.get(record.model_id),
        coverage_alert=record.coverage_alert,
    )


def _moved(state: State, version: ModelVersion) -> Iterator[MovedUpstream]:
    """Upstream models that embed and serve another version than this one was trained with."""
    for model_id, trained_with in sorted(version.facts.upstream_versions.items()):
        upstream = state.models.get(model_id)
        if upstream is None or upstream.production is None or upstream.production.number == trained_with:
            continue
        if not 1 <= trained_with <= len(upstream.versions):
            continue
        before, after = upstream.versions[trained_with - 1].facts, upstream.production.facts
        if upstream.facts.task_type.has_outcomes and not (before.embeddings_sha256 or after.embeddings_sha256):
            # No embedding: what its retrain does to this model is for drift and outcomes to say.
            continue
        yield MovedUpstream(
            model_id=str(model_id),
            trained_with=trained_with,
            serves=upstream.production.number,
            before=before.embeddings_sha256,
            after=after.embeddings_sha256,
        )


def _passed_over(model_id: ModelId, error: Exception) -> None:
    log.error("evaluation.passed_over", model=model_id, error=repr(error), exc_info=error)
