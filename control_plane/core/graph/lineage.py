"""The ledger: for every edge all that speaks for it and against it, and what follows from that.

Theory of operation. The graph holds only edges that count; why an edge counts, or does not, is here. Three voices:

- a *declaration*: somebody said that the edge is there, at a revision;
- *sightings*: completed runs of a job, told by a source, read the upstream node and wrote the downstream one; one
  sighting per source and job, which says when it was first and last seen and by how sure a source;
- an *override*: somebody's last word.

The state follows from them, the first line that applies:

    what is known                                                  | state
    ---------------------------------------------------------------+------------------------------
    an override says that it is there                              | ACTIVE
    an override says that it is not there                          | SUPPRESSED
    it is declared                                                 | ACTIVE
    no sighting is sure enough (`confidence_min`)                  | RETIRED
    every sure sighting is past a bound of retiring                | RETIRED
    it would close a cycle with what counts already                | QUARANTINED, with the cycle
    every sure sighting is past a bound of suspicion               | SUSPECT
    else                                                           | ACTIVE

A sighting is past a bound when its job completed so many runs since, or so much time went by, without showing it again.
So one job that still reads a table keeps the edge, whatever became of another that did. How a state is left:

    from        | on                                               | to
    ------------+--------------------------------------------------+--------------------
    ACTIVE      | runs missed, time                                | SUSPECT, RETIRED
    SUSPECT     | runs missed, time                                | RETIRED
    SUSPECT     | seen again                                       | ACTIVE
    RETIRED     | seen again, declared, override                   | ACTIVE, QUARANTINED
    QUARANTINED | the graph changed and there is no cycle any more | ACTIVE, SUSPECT
    QUARANTINED | time                                             | RETIRED
    any         | an override is set, cleared, or expires          | as the table above says

Every move is an event with its reason. Moves that follow from a command happen in that command; those that follow from
time, or from a change of the graph elsewhere, are found by `plan` and happen at the next tick.

Cycles. A declaration that would close one with other declarations is refused. One that would close it with discovered
edges only is accepted, and those are quarantined: people say what is meant, sources what has happened.

Memory. A declared edge costs one entry of a dict, which refers to the revision it was declared at; who and when is kept
once per revision. Only edges about which more is known have a record.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from control_plane.core.graph.facts import Dependency, DependencyType
from control_plane.core.graph.lineage_due import DueTimes
from control_plane.core.graph.lineage_facts import EdgeKey, EdgeOrigin, EdgeState, JobKey, LineagePolicy
from control_plane.core.graph.lineage_runs import Job, Run
from control_plane.core.graph.rules import usual_type
from control_plane.core.ids import NodeId
from control_plane.core.timewindow import spelled


class Provenance(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Who declared something, and when."""

    by: str
    at: datetime


class Sighting(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What the runs of one job show of an edge. `version` is the upstream one that the newest run read."""

    source: str
    job: str
    origin: EdgeOrigin
    run_id: str
    first_seen_at: datetime
    last_seen_at: datetime
    runs_seen: int
    confidence: float
    evidence_url: str = ""
    version: str = ""

    @property
    def job_key(self) -> JobKey:
        """The job that showed it."""
        return JobKey(self.source, self.job)


class Override(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Somebody's last word on an edge."""

    present: bool
    owner: str
    reason: str
    set_at: datetime
    expires_at: datetime | None
    revision: int


class EdgeRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """An edge about which more is known than that it was declared. Sightings are in the order of their jobs."""

    dependency: Dependency
    state: EdgeState
    reason: str = ""
    cycle: tuple[NodeId, ...] = ()
    sightings: tuple[Sighting, ...] = ()
    override: Override | None = None

    @property
    def key(self) -> EdgeKey:
        """The edge."""
        return self.dependency.key


class Standing(NamedTuple):
    """What follows from what is known, cycles apart, with its reason."""

    state: EdgeState
    reason: str


class LedgerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A whole ledger. `declared_at` goes with the graph's dependencies in their order; 0 is not declared.

    `declared_apart` are declarations whose edge does not count.
    """

    policy: LineagePolicy
    declared_at: list[int]
    declared_apart: list[tuple[NodeId, NodeId, DependencyType, int]]
    provenance: list[tuple[int, Provenance]]
    records: list[EdgeRecord]
    jobs: list[tuple[str, str, Job]]
    unfinished: list[tuple[str, str, str, datetime]]
    moved: dict[NodeId, NodeId]
    wanted_moves: dict[NodeId, NodeId]

    @classmethod
    def empty(cls) -> "LedgerSnapshot":
        """Of a ledger that knows nothing."""
        return Ledger().to_snapshot(())


class Ledger:
    """All evidence. Read it freely; only `lineage_fold` and `lineage_moves` write it."""

    def __init__(self) -> None:
        self.policy = LineagePolicy()
        self.declared: dict[EdgeKey, int] = {}
        """The revision at which each declared edge was declared last."""
        self.provenance: dict[int, Provenance] = {}
        self.records: dict[EdgeKey, EdgeRecord] = {}
        self.jobs: dict[JobKey, Job] = {}
        self.unfinished: dict[tuple[str, str, str], datetime] = {}
        """Runs that have not ended, by (source, job, run), and when they were first told; oldest first."""
        self.claims: dict[str, NodeId] = {}
        """External ids, normalized, and whose they are."""
        self.moved: dict[NodeId, NodeId] = {}
        """Ids of nodes that were renamed or merged, and where they are now."""
        self.wanted_moves: dict[NodeId, NodeId] = {}
        """Discovered nodes that turned out to be others; `plan` moves them."""
        self.due = DueTimes()
        self.quarantined: dict[EdgeKey, None] = {}
        self.touching: dict[NodeId, dict[EdgeKey, None]] = {}
        """Keys of records by each of their ends."""
        self.seen_by: dict[JobKey, dict[EdgeKey, None]] = {}
        """Keys of records by the jobs that showed them."""
        self.written_by: dict[NodeId, dict[JobKey, None]] = {}
        self.examined = -1
        """The graph's topology version at which no quarantined edge could be let in. Only a memory of `plan`."""

    # -- reading -----------------------------------------------------------------------------------------------

    def state_of(self, key: EdgeKey) -> EdgeState | None:
        """The state of an edge; None if nothing is known of it."""
        record = self.records.get(key)
        if record is not None:
            return record.state
        return EdgeState.ACTIVE if key in self.declared else None

    def declaration(self, key: EdgeKey) -> tuple[int, Provenance] | None:
        """The revision at which an edge was declared, and by whom."""
        revision = self.declared.get(key)
        return None if revision is None else (revision, self.provenance[revision])

    def missed(self, sighting: Sighting) -> int:
        """Completed runs of the job since the last that showed the edge."""
        job = self.jobs.get(sighting.job_key)
        return 0 if job is None else job.missed_since(sighting.last_seen_at)

    def at(self, node_id: NodeId) -> NodeId:
        """Where a node is now, if it was renamed or merged."""
        while node_id in self.moved:
            node_id = self.moved[node_id]
        return node_id

    def discovered_only(self, key: EdgeKey) -> bool:
        """Whether an edge is there only because sources say so."""
        record = self.records.get(key)
        return record is not None and key not in self.declared and record.override is None

    # -- writing, for the fold -----------------------------------------------------------------------------------

    def put(self, record: EdgeRecord) -> EdgeKey:
        """Write a record and what is derived from it; returns the edge."""
        edge = record.dependency
        key = edge.upstream, edge.downstream, edge.edge_type
        self.records[key] = record
        self.touching.setdefault(key[0], {})[key] = None
        self.touching.setdefault(key[1], {})[key] = None
        for sighting in record.sightings:
            self.seen_by.setdefault(sighting.job_key, {})[key] = None
        if record.state is EdgeState.QUARANTINED:
            if key not in self.quarantined:
                self.quarantined[key] = None
                self.examined = -1
        else:
            self.quarantined.pop(key, None)
        self.due.put(key, due_at(record, key in self.declared, self.policy))
        return key

    def drop(self, key: EdgeKey) -> None:
        """Forget a record."""
        record = self.records.pop(key)
        for node_id in key[:2]:
            self.touching[node_id].pop(key, None)
            if not self.touching[node_id]:
                del self.touching[node_id]
        for sighting in record.sightings:
            self.seen_by.get(sighting.job_key, {}).pop(key, None)
        self.quarantined.pop(key, None)
        self.due.put(key, None)

    def set_policy(self, policy: LineagePolicy) -> None:
        """Other bounds; when each edge is due follows."""
        self.policy = policy
        for key, record in self.records.items():
            self.due.put(key, due_at(record, key in self.declared, policy))

    # -- snapshots -----------------------------------------------------------------------------------------------

    def captured(self) -> "Ledger":
        """What `to_snapshot` needs, out of reach of later events; for that alone."""
        copied = Ledger()
        copied.policy = self.policy
        copied.declared, copied.provenance = self.declared.copy(), self.provenance.copy()
        copied.records, copied.jobs, copied.unfinished = self.records.copy(), self.jobs.copy(), self.unfinished.copy()
        copied.moved, copied.wanted_moves = self.moved.copy(), self.wanted_moves.copy()
        return copied

    def to_snapshot(self, dependencies: Iterable[Dependency]) -> LedgerSnapshot:
        """Everything that is not derived. `dependencies` are the graph's, in its snapshot's order."""
        known = self.declared
        declared_at = [known.get((d.upstream, d.downstream, d.edge_type), 0) for d in dependencies]
        apart = [key for key, record in self.records.items() if not record.state.counts and key in self.declared]
        return LedgerSnapshot(
            policy=self.policy,
            declared_at=declared_at,
            declared_apart=[(*key, self.declared[key]) for key in sorted(apart)],
            provenance=sorted((r, self.provenance[r]) for r in set(self.declared.values())),
            records=[self.records[key] for key in sorted(self.records)],
            jobs=[(*key, self.jobs[key]) for key in sorted(self.jobs)],
            unfinished=[(*key, at) for key, at in self.unfinished.items()],
            moved=dict(sorted(self.moved.items())),
            wanted_moves=dict(sorted(self.wanted_moves.items())),
        )

    @classmethod
    def from_snapshot(cls, snapshot: LedgerSnapshot, dependencies: Iterable[Dependency]) -> "Ledger":
        """Inverse, but for `claims`, which follow from the nodes."""
        ledger = cls()
        ledger.policy = snapshot.policy
        ledger.declared = {
            (d.upstream, d.downstream, d.edge_type): revision
            for d, revision in zip(dependencies, snapshot.declared_at, strict=True)
            if revision
        }
        for upstream, downstream, edge_type, revision in snapshot.declared_apart:
            ledger.declared[upstream, downstream, edge_type] = revision
        ledger.provenance = dict(snapshot.provenance)
        for source, job, known in snapshot.jobs:
            ledger.put_job(JobKey(source, job), known)
        for record in snapshot.records:
            ledger.put(record)
        ledger.unfinished = {(source, job, run_id): at for source, job, run_id, at in snapshot.unfinished}
        ledger.moved = snapshot.moved
        ledger.wanted_moves = snapshot.wanted_moves
        return ledger

    def put_job(self, key: JobKey, job: Job) -> None:
        """Write what is known of a job."""
        self.jobs[key] = job
        for node_id in job.writes:
            self.written_by.setdefault(node_id, {})[key] = None


# -- what follows from what is known ------------------------------------------------------------------------------


def standing(
    record: EdgeRecord, declared: bool, jobs: Mapping[JobKey, Job], policy: LineagePolicy, now: datetime
) -> Standing:
    """The state that follows at `now`, but for cycles; see the table above."""
    override = record.override
    if override is not None:
        verb = "is there" if override.present else "is not there"
        state = EdgeState.ACTIVE if override.present else EdgeState.SUPPRESSED
        return Standing(state, f"{override.owner} says that it {verb}: {override.reason}")
    if declared:
        return Standing(EdgeState.ACTIVE, "it is declared")
    sure = [s for s in record.sightings if s.confidence >= policy.confidence_min]
    if not sure:
        most = max((s.confidence for s in record.sightings), default=0.0)
        return Standing(EdgeState.RETIRED, f"its sources are {most:.2f} sure, {policy.confidence_min:.2f} is asked for")
    order = (EdgeState.ACTIVE, EdgeState.SUSPECT, EdgeState.RETIRED)
    return min((_seen(s, jobs, policy, now) for s in sure), key=lambda found: order.index(found.state))


def _seen(sighting: Sighting, jobs: Mapping[JobKey, Job], policy: LineagePolicy, now: datetime) -> Standing:
    job = jobs.get(sighting.job_key)
    missed = 0 if job is None else job.missed_since(sighting.last_seen_at)
    age = now - sighting.last_seen_at
    why = f"{sighting.source} job {sighting.job}"
    bounds = (
        (EdgeState.RETIRED, policy.retire_after_runs, policy.retire_after),
        (EdgeState.SUSPECT, policy.suspect_after_runs, policy.suspect_after),
    )
    for state, runs, span in bounds:
        if runs and missed >= runs:
            return Standing(state, f"the last {missed} completed runs of {why} did not show it")
        if span and age >= span:
            ago = spelled(timedelta(days=age.days) if age.days else age)
            return Standing(state, f"{why} last showed it on {sighting.last_seen_at:%Y-%m-%d}, {ago} ago")
    return Standing(EdgeState.ACTIVE, f"{why} showed it in run {sighting.run_id}")


def due_at(record: EdgeRecord, declared: bool, policy: LineagePolicy) -> datetime | None:
    """When time alone may next change the state; runs are looked at when they are told."""
    if record.override is not None:
        return record.override.expires_at
    if declared or record.state is EdgeState.RETIRED or not record.sightings:
        return None
    bounds = (policy.suspect_after, policy.retire_after) if record.state is EdgeState.ACTIVE else (policy.retire_after,)
    spans = [span for span in bounds if span]
    sure = [s.last_seen_at for s in record.sightings if s.confidence >= policy.confidence_min]
    return max(sure) + min(spans) if sure and spans else None


# -- what runs show -------------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """What a run's account shows: edges, and pairs of nodes that no type joins."""

    keys: tuple[EdgeKey, ...]
    untyped: int


def shown_by(declared: Mapping[EdgeKey, int], run: Run) -> Shown:
    """Edges that a completed run shows. What is declared under an unusual type only is that edge, not another."""
    keys: list[EdgeKey] = []
    untyped = 0
    for up, down in run.pairs():
        usual = usual_type(up, down)
        if usual is None:
            untyped += 1
            continue
        key: EdgeKey = (up, down, usual)
        if key not in declared:
            others = ((up, down, t) for t in DependencyType if t is not usual)
            key = next((other for other in others if other in declared), key)
        keys.append(key)
    return Shown(tuple(keys), untyped)


def sighted(record: EdgeRecord, job: JobKey, run: Run, *, new: bool) -> EdgeRecord:
    """The record after a completed run showed the edge; `new` unless that run was counted before."""
    mine = Sighting(
        source=job.source,
        job=job.job,
        origin=EdgeOrigin.OBSERVED if run.observed else EdgeOrigin.DISCOVERED,
        run_id=run.run_id,
        first_seen_at=run.first_at,
        last_seen_at=run.last_at,
        runs_seen=1,
        confidence=run.confidence,
        evidence_url=run.evidence_url,
        version=run.inputs.get(record.dependency.upstream, ""),
    )
    others = []
    for other in record.sightings:
        if other.job_key == job:
            mine = _both(other, mine, runs_seen=other.runs_seen + new)
        else:
            others.append(other)
    return msgspec.structs.replace(record, sightings=tuple(sorted([*others, mine], key=lambda s: s.job_key)))


def united(one: tuple[Sighting, ...], other: tuple[Sighting, ...]) -> tuple[Sighting, ...]:
    """Sightings of two edges that became one."""
    found = {sighting.job_key: sighting for sighting in one}
    for sighting in other:
        known = found.get(sighting.job_key)
        found[sighting.job_key] = (
            sighting if known is None else _both(known, sighting, runs_seen=known.runs_seen + sighting.runs_seen)
        )
    return tuple(found[key] for key in sorted(found))


def _both(one: Sighting, other: Sighting, *, runs_seen: int) -> Sighting:
    """The newer account, with the earlier beginning."""
    newest = max(one, other, key=lambda s: (s.last_seen_at, s.run_id))
    if one.run_id == other.run_id:
        newest = other
    return msgspec.structs.replace(
        newest, first_seen_at=min(one.first_seen_at, other.first_seen_at), runs_seen=runs_seen
    )
