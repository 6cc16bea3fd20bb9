"""What a set of retrains would come to: a simulation with the same rule that releases them.

Theory of operation. Time jumps from one end to the next. At each moment `releasable` says what starts, exactly as it
will when a scheduler asks; what it is told of order and cooldowns is the simulation's own: a job waits until every job
upstream of it has been promoted, and one that only follows from a promotion waits for the cooldown after it too. Pure;
nothing is random, so the same state gives the same plan.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush

from msgspec.structs import replace

from control_plane.core.ids import ModelId
from control_plane.core.retraining.limits import Claim, Usage
from control_plane.core.retraining.rules import Asking, releasable
from control_plane.core.retraining.types import Retrain, RetrainState

GRAIN = timedelta(minutes=1)
"""Ends are rounded up to this: a forecast is no better, and what ends together is looked at once."""
ROUNDS_MAX = 100_000
WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One retrain that is asked for, runs already, or may follow."""

    retrain: Retrain
    claim: Claim
    scheduler: str
    duration: timedelta
    rollout: timedelta
    """From the end of the training to the promotion: shadow and canary."""
    upstream: int
    """Other jobs that it depends on, at any distance: a bit for each, by their place in the list of jobs. Thousands of
    jobs have millions of such pairs."""
    cooldown: timedelta
    """After each promotion upstream of it; nothing for one whose requester ignores that."""
    follows: bool
    """Not asked for: only needed if a promotion upstream harms it."""
    started_at: datetime | None = None
    """It runs already."""
    postponed: Callable[[datetime], datetime] | None = None
    """To the off-peak hours, for one that follows and touches many models itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """When one job runs, in which slot; None where no time could be found."""

    model_id: ModelId
    starts_at: datetime | None
    ends_at: datetime | None
    slot: int
    wave: int
    waits_for: tuple[str, ...]


@dataclass(slots=True)
class _Run:
    """The simulation's own state."""

    now: datetime
    usage: Usage
    waiting: dict[ModelId, Retrain]
    place: dict[ModelId, int]
    unfinished: int
    """Bits of the jobs that are not promoted yet."""
    ends: list[tuple[datetime, str, ModelId]] = field(default_factory=list)
    free_slots: list[int] = field(default_factory=list)
    slots: dict[ModelId, int] = field(default_factory=dict)
    slots_made: int = 0
    started: dict[ModelId, datetime] = field(default_factory=dict)
    ended: dict[ModelId, datetime] = field(default_factory=dict)
    blockers: dict[ModelId, set[str]] = field(default_factory=dict)


def forecast(
    jobs: Sequence[Job],
    usage: Usage,
    now: datetime,
    waves: Mapping[ModelId, int],
    next_week: datetime,
    released: Callable[[str], bool],
) -> list[Expected]:
    """When each job runs, by start. `usage` holds the limits and what was spent, without what runs (that is in `jobs`).

    `next_week`: when budgets begin anew. `released`: whether a scheduler is given anything now.
    """
    by_model = {job.retrain.model_id: job for job in jobs}
    place = {job.retrain.model_id: at for at, job in enumerate(jobs)}
    run = _Run(now=now, usage=usage, waiting={}, place=place, unfinished=(1 << len(jobs)) - 1)
    for job in jobs:
        if job.started_at is not None:
            _start(run, job, job.started_at)
        elif job.retrain.state is RetrainState.VALIDATING:
            heappush(run.ends, (_rounded(now + job.rollout), "promoted", job.retrain.model_id))
        else:
            run.waiting[job.retrain.model_id] = job.retrain
    spent_until = next_week
    for _ in range(ROUNDS_MAX):
        _release(run, by_model, released)
        if not run.waiting and not run.ends:
            break
        times = [run.ends[0][0]] if run.ends else []
        times += [r.not_before for r in run.waiting.values() if r.not_before > run.now]
        if run.waiting and run.usage.limits.gpu_hours_per_week and run.now < spent_until + 5 * WEEK:
            times.append(spent_until)
        if not times:
            break
        run.now = max(min(times), run.now)
        if run.now >= spent_until:
            run.usage.spent = {}
            spent_until += WEEK
        _pass(run, by_model)
    return sorted(
        (_expected(run, model_id, waves) for model_id in by_model),
        key=lambda one: (one.starts_at is None, one.starts_at or now, one.wave, one.model_id),
    )


def _release(run: _Run, by_model: Mapping[ModelId, Job], released: Callable[[str], bool]) -> None:
    """Start all that may run now, for each scheduler that is named, and for any."""
    asking_for = sorted({by_model[model_id].scheduler for model_id in run.waiting})
    for name in asking_for:
        if not released(name):
            for model_id in run.waiting:
                if by_model[model_id].scheduler == name:
                    run.blockers.setdefault(model_id, set()).add("its scheduler, whose breaker is open")
            continue
        mine = _in_turn(run, by_model, name)
        asking = Asking(
            scheduler=name,
            now=run.now,
            tier=lambda model_id: by_model[model_id].claim.tier,
            claim=lambda retrain: by_model[retrain.model_id].claim,
            scheduler_of=lambda _: "",
            wave_of=lambda model_id: 1 if not by_model[model_id].upstream & run.unfinished else 2,
            cooling_until=lambda _: None,
            unsettled=lambda _: False,
        )
        for retrain in releasable(mine, asking, run.usage, len(mine)):
            del run.waiting[retrain.model_id]
            _run(run, by_model[retrain.model_id], run.now)
        for retrain in mine:
            if retrain.model_id in run.waiting and not retrain.held_by:
                job = by_model[retrain.model_id]
                if run.usage.full(job.claim.tier):
                    run.blockers.setdefault(retrain.model_id, set()).add("a free slot")
                elif why := run.usage.in_the_way(job.claim):
                    run.blockers.setdefault(retrain.model_id, set()).add(why.partition(":")[0])


def _in_turn(run: _Run, by_model: Mapping[ModelId, Job], scheduler: str) -> list[Retrain]:
    """What of a scheduler's has nothing upstream to wait for: the rule would say so too, after it has sorted all."""
    found = []
    for model_id, retrain in run.waiting.items():
        job = by_model[model_id]
        if job.scheduler != scheduler or retrain.not_before > run.now:
            continue
        if job.upstream & run.unfinished:
            run.blockers.setdefault(model_id, set()).add("retrains upstream of it")
        else:
            found.append(retrain)
    return found


def _start(run: _Run, job: Job, at: datetime) -> None:
    run.usage.take(job.claim, job.scheduler)
    _run(run, job, at)


def _run(run: _Run, job: Job, at: datetime) -> None:
    model_id = job.retrain.model_id
    if run.free_slots:
        run.slots[model_id] = heappop(run.free_slots)
    else:
        run.slots_made += 1
        run.slots[model_id] = run.slots_made
    run.started[model_id] = at
    heappush(run.ends, (_rounded(max(at + job.duration, run.now)), "trained", model_id))


def _pass(run: _Run, by_model: Mapping[ModelId, Job]) -> None:
    """Everything that ends now: a training frees its slot, a promotion frees and cools what is downstream."""
    promoted = 0
    while run.ends and run.ends[0][0] <= run.now:
        at, what, model_id = heappop(run.ends)
        job = by_model[model_id]
        if what == "trained":
            run.ended[model_id] = at
            _give_back(run, job)
            heappush(run.ends, (_rounded(at + job.rollout), "promoted", model_id))
            continue
        promoted |= 1 << run.place[model_id]
    if not promoted:
        return
    run.unfinished &= ~promoted
    for other, retrain in run.waiting.items():
        behind = by_model[other]
        if behind.cooldown and behind.upstream & promoted:
            cooled = max(retrain.not_before, run.now + behind.cooldown)
            if behind.postponed is not None:
                cooled = behind.postponed(cooled)
            run.waiting[other] = _later(retrain, cooled)
            run.blockers.setdefault(other, set()).add("the cooldown after an upstream promotion")


def _give_back(run: _Run, job: Job) -> None:
    usage, claim = run.usage, job.claim
    usage.running -= 1
    usage.by_team[claim.team] -= 1
    usage.by_class[claim.resource_class] -= 1
    usage.by_scheduler[job.scheduler] -= 1
    usage.reserved[claim.team] -= claim.gpu_hours
    if claim.gpu_hours:
        usage.spent = {**usage.spent, claim.team: usage.spent.get(claim.team, 0.0) + claim.gpu_hours}
    heappush(run.free_slots, run.slots[job.retrain.model_id])


def _later(retrain: Retrain, not_before: datetime) -> Retrain:
    return replace(retrain, not_before=not_before)


def _rounded(at: datetime) -> datetime:
    over = timedelta(seconds=at.second, microseconds=at.microsecond)
    return at - over + GRAIN if over else at


def _expected(run: _Run, model_id: ModelId, waves: Mapping[ModelId, int]) -> Expected:
    retrain = run.waiting.get(model_id)
    waits = sorted(run.blockers.get(model_id, ()))
    if retrain is not None and retrain.held_by:
        waits.append(f"{retrain.held_by}, who holds it")
    return Expected(
        model_id=model_id,
        starts_at=run.started.get(model_id),
        ends_at=run.ended.get(model_id),
        slot=run.slots.get(model_id, 0),
        wave=waves.get(model_id, 1),
        waits_for=tuple(waits),
    )
