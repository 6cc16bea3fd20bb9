"""What runs read and wrote, put together from events that come in any order and any number of times.

Everything a source says about one run is joined into one `Run`: inputs and outputs are united, a run that ever was
COMPLETE is complete, times are the earliest and the latest told. Joining is commutative, associative and idempotent, so
order and repetition cannot matter. A run that says FAIL and COMPLETE is complete: retries share an id with some
emitters, clocks disagree, and what was read has been read. Only a complete run confirms anything; STATIC facts count as
a complete run of their job.

Memory is bounded per job: the input and output of the newest `RUNS_KEPT_MAX` finished runs (so that late events of
those still add something), the times of the newest `TIMES_KEPT_MAX`. What is told of an older one is passed over.
"""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from control_plane.core.graph.lineage_facts import LineageRun, RunState
from control_plane.core.ids import NodeId

RUNS_KEPT_MAX = 8
"""Finished runs of one job whose input and output are remembered. Late events come minutes late; a job that runs every
minute has them joined for eight, and a later one that finds its run forgotten is passed over."""

TIMES_KEPT_MAX = 200
"""Completed runs of one job that are counted as missed; no policy may ask for more."""

UNFINISHED_RUNS_MAX = 10_000
"""Runs that have begun and not ended, over all jobs. Far more than run at once anywhere; emitters that never say how a
run ended fill it, and the oldest give way."""

UNFINISHED_RUN_AGE_MAX = timedelta(days=30)
"""A run that has told nothing for so long will not end any more."""

MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Run(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One run. `inputs` and `outputs` map nodes to the version that was read or written, "" if it was not said.

    `first_at` and `last_at` are the earliest and latest time at which it was told to be complete, or, as long as it is
    not, at which anything was told.
    """

    run_id: str
    complete: bool
    ended: bool
    first_at: datetime
    last_at: datetime
    inputs: dict[NodeId, str]
    outputs: dict[NodeId, str]
    confidence: float
    evidence_url: str
    observed: bool

    def pairs(self) -> Iterator[tuple[NodeId, NodeId]]:
        """Every (input, output) of different nodes."""
        return ((up, down) for up in self.inputs for down in self.outputs if up != down)


class Job(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What is remembered of a job.

    `runs` are those that have not ended and the newest that have, by id. `times_us` are the times of completed runs,
    microseconds since 1970, ascending. `writes` says in how many completed runs each node was written.
    """

    runs: dict[str, Run] = {}
    times_us: tuple[int, ...] = ()
    writes: dict[NodeId, int] = {}

    def missed_since(self, seen_at: datetime) -> int:
        """Completed runs after a time; of more than are remembered, as many as are."""
        return len(self.times_us) - bisect_right(self.times_us, micros(seen_at))


def micros(instant: datetime) -> int:
    """Microseconds since 1970."""
    return (instant - EPOCH) // MICROSECOND


def run_of(told: LineageRun, at: datetime) -> Run:
    """What one report says, as a run. Nodes must have ids; `at` stands in for a time that was not told."""
    when = min(told.event_time or at, at)
    return Run(
        run_id=told.run_id,
        complete=told.state in {RunState.COMPLETE, RunState.STATIC},
        ended=told.state not in {RunState.START, RunState.RUNNING},
        first_at=when,
        last_at=when,
        inputs=_versions((NodeId(node.node_id), node.version) for node in told.inputs),
        outputs=_versions((NodeId(node.node_id), node.version) for node in told.outputs),
        confidence=told.confidence,
        evidence_url=told.evidence_url,
        observed=told.observed,
    )


def joined(one: Run, other: Run) -> Run:
    """Both accounts of the same run together; the order of the two does not matter."""
    if one.complete == other.complete:
        first_at, last_at = min(one.first_at, other.first_at), max(one.last_at, other.last_at)
    else:
        telling = one if one.complete else other
        first_at, last_at = telling.first_at, telling.last_at
    return Run(
        run_id=one.run_id,
        complete=one.complete or other.complete,
        ended=one.ended or other.ended,
        first_at=first_at,
        last_at=last_at,
        inputs=_versions([*one.inputs.items(), *other.inputs.items()]),
        outputs=_versions([*one.outputs.items(), *other.outputs.items()]),
        confidence=max(one.confidence, other.confidence),
        evidence_url=max(one.evidence_url, other.evidence_url),
        observed=one.observed and other.observed,
    )


def told_job(job: Job, told: Run) -> tuple[Job, Run | None, Run | None]:
    """The job after a report, and the run before and after it; the latter None if the report says nothing new."""
    before = job.runs.get(told.run_id)
    after = told if before is None else joined(before, told)
    if after == before or (before is None and _forgotten(job, told)):
        return job, before, None
    runs = {**job.runs, told.run_id: after}
    ended = sorted((run.last_at, run.run_id) for run in runs.values() if run.ended)
    for _, run_id in ended[:-RUNS_KEPT_MAX]:
        del runs[run_id]
    return Job(runs=runs, times_us=_times(job, before, after), writes=_writes(job, before, after)), before, after


def _versions(entries: "Iterator[tuple[NodeId, str]] | list[tuple[NodeId, str]]") -> dict[NodeId, str]:
    """Nodes in order; of several versions told, the greatest text."""
    found: dict[NodeId, str] = {}
    for node_id, version in entries:
        found[node_id] = max(found.get(node_id, ""), version)
    return dict(sorted(found.items()))


def _forgotten(job: Job, told: Run) -> bool:
    """Whether a run that is not remembered is older than those that are: then it was told before, or comes too late."""
    ended = [run.last_at for run in job.runs.values() if run.ended]
    return len(ended) >= RUNS_KEPT_MAX and told.last_at <= min(ended)


def _times(job: Job, before: Run | None, after: Run) -> tuple[int, ...]:
    if not after.complete:
        return job.times_us
    times = list(job.times_us)
    if before is not None and before.complete:
        if before.last_at == after.last_at:
            return job.times_us
        times.remove(micros(before.last_at))
    times.insert(bisect_right(times, micros(after.last_at)), micros(after.last_at))
    return tuple(times[-TIMES_KEPT_MAX:])


def _writes(job: Job, before: Run | None, after: Run) -> dict[NodeId, int]:
    if not after.complete:
        return job.writes
    counted = before.outputs if before is not None and before.complete else {}
    new = [node for node in after.outputs if node not in counted]
    if not new:
        return job.writes
    return dict(sorted((job.writes | {node: job.writes.get(node, 0) + 1 for node in new}).items()))
