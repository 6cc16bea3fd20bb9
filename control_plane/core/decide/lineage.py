"""Lineage: what sources tell, what somebody overrides, and what follows when time passes. See `graph/lineage.py`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from control_plane.core.commands import ClearOverride, ReportLineage, Result, SetLineagePolicy, SetOverride
from control_plane.core.decide.decision import Decision
from control_plane.core.errors import Invalid, NotFound, Reason, Refused, Violation
from control_plane.core.events import (
    EdgesSettled,
    Event,
    LineagePolicySet,
    LineageReported,
    NodesDiscovered,
    NodesMoved,
    OverrideCleared,
    OverrideSet,
    UnfinishedRunsDropped,
)
from control_plane.core.graph.facts import Dependency, Node
from control_plane.core.graph.lineage import EdgeRecord, Standing, standing
from control_plane.core.graph.lineage_facts import (
    PAIRS_PER_RUN_MAX,
    EdgeChange,
    EdgeKey,
    EdgeState,
    JobKey,
    LineagePolicy,
    LineageRun,
    NodeMove,
    QuarantinedEdge,
    check_runs,
)
from control_plane.core.graph.lineage_fold import absorb, dependency_of
from control_plane.core.graph.lineage_moves import plan_moves
from control_plane.core.graph.lineage_resolve import Resolver
from control_plane.core.graph.lineage_runs import TIMES_KEPT_MAX, UNFINISHED_RUN_AGE_MAX, UNFINISHED_RUNS_MAX, Job
from control_plane.core.graph.lineage_trial import cycles_closed
from control_plane.core.graph.rules import check_ends
from control_plane.core.state import State

SETTLED_AT_ONCE_MAX = 5_000
"""Edges that one event moves; what is left is due at the next tick."""

ANYBODY = "anonymous"
"""Who did not say who they are own nothing: their overrides are somebody else's to everybody."""

CYCLE = "it would close a cycle"


# -- reports ------------------------------------------------------------------------------------------------------


def report_lineage(state: State, command: ReportLineage, now: datetime) -> Decision:
    """Put what was told to what is known; edges follow from completed runs. Nothing new is no event."""
    check_runs(command.runs)
    resolver = Resolver(state.graph, state.lineage)
    runs = resolver.resolve(command.runs, now)
    absorbed = absorb(state.graph, state.lineage, runs, now)
    if absorbed.too_large:
        raise Invalid(Reason.INVALID_LINEAGE, *(_too_large(run, runs) for run in absorbed.too_large))
    events: list[Event] = []
    nodes = tuple(resolver.nodes[node_id] for node_id in sorted(resolver.nodes))
    if nodes:
        events.append(NodesDiscovered(nodes=nodes))
    wanted = tuple(m for m in resolver.wanted() if state.lineage.wanted_moves.get(m.node_id) != m.new_node_id)
    if absorbed.new or wanted:
        events.append(LineageReported(runs=absorbed.new, untyped=absorbed.untyped, wanted_moves=wanted))
    touched = dict.fromkeys(absorbed.records.changed)
    for job in absorbed.completed:
        touched |= state.lineage.seen_by.get(job, {})
    records = {key: absorbed.records[key] for key in sorted(touched)}
    changes = settled(state, records, absorbed.jobs, state.lineage.policy, now, nodes)
    if changes:
        events.append(EdgesSettled(changes=changes))
    begun = {(told.source, told.job, told.run_id): None for told in absorbed.new}
    dropped = _too_many_unfinished(state, absorbed.jobs, begun)
    if dropped:
        reason = f"at most {UNFINISHED_RUNS_MAX} runs without an end are remembered"
        events.append(UnfinishedRunsDropped(runs=dropped, reason=reason))
    quarantined = _quarantined(state, absorbed.records.changed, changes)
    return Decision(events=tuple(events), result=Result(changed=len(absorbed.new), quarantined=quarantined))


def _too_large(told: LineageRun, runs: Sequence[LineageRun]) -> Violation:
    return Violation(
        field=f"runs[{runs.index(told)}]",
        rule="size",
        message=f"run {told.run_id} of {told.job} would have more than {PAIRS_PER_RUN_MAX} pairs of input and output "
        "with what was told of it before: report the steps of the job as jobs of their own",
    )


def _quarantined(
    state: State, shown: Mapping[EdgeKey, EdgeRecord], changes: Iterable[EdgeChange]
) -> tuple[QuarantinedEdge, ...]:
    """Edges that were shown and stay out of the graph for a cycle, old ones and new ones."""
    cycles = {key: record.cycle for key, record in shown.items() if key in state.lineage.quarantined}
    for change in changes:
        if change.after is EdgeState.QUARANTINED:
            cycles[change.key] = change.cycle
        else:
            cycles.pop(change.key, None)
    return tuple(QuarantinedEdge(dependency=dependency_of(key), cycle=cycles[key]) for key in sorted(cycles))


def _too_many_unfinished(
    state: State, jobs: Mapping[JobKey, Job], begun: Iterable[tuple[str, str, str]]
) -> tuple[tuple[str, str, str], ...]:
    known = state.lineage.unfinished
    new = 0
    for source, job, run_id in begun:
        run = jobs[JobKey(source, job)].runs.get(run_id)
        new += run is not None and not run.ended and (source, job, run_id) not in known
    surplus = len(known) + new - UNFINISHED_RUNS_MAX
    if surplus <= 0:
        return ()
    gone = set(begun)
    return tuple(place for place in known if place not in gone)[:surplus]


def settled(
    state: State,
    records: Mapping[EdgeKey, EdgeRecord],
    jobs: Mapping[JobKey, Job],
    policy: LineagePolicy,
    now: datetime,
    nodes: Iterable[Node] = (),
    *,
    examine: bool = False,
    without: Collection[EdgeKey] = (),
) -> tuple[EdgeChange, ...]:
    """How states change by what is known now. `examine`: also look whether quarantined edges still close a cycle.
    `without`: declarations that are being retracted.
    """
    ledger = state.lineage
    found: dict[EdgeKey, Standing] = {}
    entering: list[Dependency] = []
    for key, record in records.items():
        before = ledger.state_of(key)
        after = standing(record, key in ledger.declared and key not in without, jobs, policy, now)
        if before is EdgeState.QUARANTINED and after.state.counts and not examine:
            continue
        if after.state is before:
            continue
        found[key] = after
        if after.state.counts and not (before is not None and before.counts):
            entering.append(record.dependency)
    cycles = cycles_closed(state.graph, entering, nodes)
    changes: list[EdgeChange] = []
    for key in sorted(found):
        before, after = ledger.state_of(key), found[key]
        cycle = cycles.get(key[:2], ()) if after.state.counts and not (before and before.counts) else ()
        if cycle:
            after = Standing(EdgeState.QUARANTINED, CYCLE)
        if after.state is not before:
            changes.append(_change(key, before, after, cycle))
    return tuple(changes)


def _change(key: EdgeKey, before: EdgeState | None, after: Standing, cycle: tuple[str, ...] = ()) -> EdgeChange:
    return EdgeChange(
        upstream=key[0],
        downstream=key[1],
        edge_type=key[2],
        before=before,
        after=after.state,
        reason=after.reason,
        cycle=tuple(cycle),  # type: ignore[arg-type]
    )


# -- overrides ------------------------------------------------------------------------------------------------------


def set_override(state: State, command: SetOverride, now: datetime) -> Decision:
    """Have the last word on an edge; that of somebody else stands unless it was looked at."""
    dependency = command.dependency
    check_ends(state.graph, dependency, "dependency")
    if command.expires_at is not None and command.expires_at <= now:
        raise Invalid(
            Reason.INVALID_ARGUMENT,
            Violation(
                field="expires_at",
                rule="future",
                message=f"{command.expires_at:%Y-%m-%d %H:%M} is over: give a time to come, or none",
            ),
        )
    record = state.lineage.records.get(dependency.key)
    known = record.override if record is not None else None
    result = Result(changed=1, node_id=dependency.downstream)
    if known is None and command.replace_revision:
        raise NotFound(
            Reason.OVERRIDE_NOT_FOUND,
            f"{named(dependency)} has no override any more: leave replace_revision out to set one",
        )
    if known is not None:
        same = (known.present, known.owner, known.reason, known.expires_at)
        if same == (command.present, command.owner, command.reason, command.expires_at):
            return Decision(result=Result(node_id=dependency.downstream))
        mine = known.owner == command.owner != ANYBODY
        if known.revision != command.replace_revision and (command.replace_revision or not mine):
            verb = "is there" if known.present else "is not there"
            raise Refused(
                Reason.OVERRIDE_EXISTS,
                f"{known.owner} says that {named(dependency)} {verb} (revision {known.revision}): {known.reason}. "
                f"Talk to them, or replace it with replace_revision {known.revision}",
                owner=known.owner,
                override_reason=known.reason,
                revision=str(known.revision),
            )
    before = state.lineage.state_of(dependency.key)
    if command.present and not (before is not None and before.counts):
        _refuse_cycle(state, dependency, "Override another edge of it as not there first")
    event = OverrideSet(
        dependency=dependency,
        present=command.present,
        owner=command.owner,
        reason=command.reason,
        expires_at=command.expires_at,
    )
    return Decision(events=(event,), result=result)


def clear_override(state: State, command: ClearOverride, now: datetime) -> Decision:
    """Take the last word back; what else is known decides again."""
    record = state.lineage.records.get(command.dependency.key)
    if record is None or record.override is None:
        raise NotFound(Reason.OVERRIDE_NOT_FOUND, f"{named(command.dependency)} has no override")
    event = cleared(state, record, now, expired=False)
    if event.after is EdgeState.QUARANTINED and command.dependency.key in state.lineage.declared:
        _refuse_cycle(state, record.dependency, "Retract one of its declarations first")
    return Decision(events=(event,), result=Result(changed=1, node_id=command.dependency.downstream))


def cleared(state: State, record: EdgeRecord, now: datetime, *, expired: bool) -> OverrideCleared:
    """What an edge is without its override."""
    ledger, key = state.lineage, record.key
    assert record.override is not None
    declared = key in ledger.declared
    after: EdgeState | None = None
    reason, cycle = "nothing else speaks of it", None
    if declared or record.sightings:
        without = EdgeRecord(dependency=record.dependency, state=record.state, sightings=record.sightings)
        after, reason = standing(without, declared, ledger.jobs, ledger.policy, now)
        if after.counts and not record.state.counts:
            cycle = state.graph.find_cycle(key[0], key[1])
            if cycle is not None:
                after, reason = EdgeState.QUARANTINED, CYCLE
    return OverrideCleared(
        dependency=record.dependency,
        owner=record.override.owner,
        expired=expired,
        after=after,
        reason=reason,
        cycle=cycle or (),
    )


def _refuse_cycle(state: State, dependency: Dependency, remedy: str) -> None:
    cycle = state.graph.find_cycle(dependency.upstream, dependency.downstream)
    if cycle is not None:
        path = " -> ".join(cycle)
        raise Refused(Reason.DEPENDENCY_CYCLE, f"{named(dependency)} would close the cycle {path}. {remedy}", path=path)


def named(dependency: Dependency) -> str:
    """An edge as people say it."""
    return f"the edge {dependency.upstream} -> {dependency.downstream} ({dependency.edge_type})"


# -- policy, time ---------------------------------------------------------------------------------------------------


def set_lineage_policy(state: State, command: SetLineagePolicy, now: datetime) -> Decision:
    """Other bounds; every edge is looked at anew."""
    policy = command.policy
    found = [
        Violation(
            field=f"policy.{name}",
            rule="range",
            message=f"{runs} runs: at most {TIMES_KEPT_MAX} of a job are remembered; use 0 and a span of time instead",
        )
        for name, runs in (
            ("suspect_after_runs", policy.suspect_after_runs),
            ("retire_after_runs", policy.retire_after_runs),
        )
        if not 0 <= runs <= TIMES_KEPT_MAX
    ]
    found += [
        Violation(field=f"policy.{name}", rule="range", message="a span of time is not negative; 0 switches it off")
        for name, span in (("suspect_after", policy.suspect_after), ("retire_after", policy.retire_after))
        if span.total_seconds() < 0
    ]
    pairs = (
        ("retire_after_runs", policy.suspect_after_runs, policy.retire_after_runs),
        ("retire_after", policy.suspect_after, policy.retire_after),
    )
    found += [
        Violation(field=f"policy.{name}", rule="order", message="an edge is suspect before it is retired")
        for name, first, then in pairs
        if then and first and then < first  # type: ignore[operator]
    ]
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)
    if policy == state.lineage.policy:
        return Decision()
    events: list[Event] = [LineagePolicySet(policy=policy)]
    changes = settled(state, dict(sorted(state.lineage.records.items())), state.lineage.jobs, policy, now)
    if changes:
        events.append(EdgesSettled(changes=changes))
    return Decision(events=tuple(events), result=Result(changed=1))


def settle_lineage(state: State, now: datetime) -> Decision:
    """What follows from time, and from changes of the graph elsewhere."""
    ledger = state.lineage
    moves = tuple(NodeMove(node_id=old, new_node_id=ledger.wanted_moves[old]) for old in sorted(ledger.wanted_moves))
    if moves:
        plan = plan_moves(state.graph, ledger, moves)
        # Nobody is there to be refused: what would close a cycle waits apart, declared or not.
        return Decision(events=(NodesMoved(moves=moves, quarantined=(*plan.quarantined, *plan.refused)),))
    events: list[Event] = []
    due = ledger.due.due(now)[:SETTLED_AT_ONCE_MAX]
    expired = [key for key in due if ledger.records[key].override is not None]
    if expired:
        # One at a time: what each is afterwards depends on the graph that the one before leaves.
        return Decision(events=(cleared(state, ledger.records[expired[0]], now, expired=True),))
    keys = sorted({*due, *ledger.quarantined})
    changes = settled(state, {key: ledger.records[key] for key in keys}, ledger.jobs, ledger.policy, now, examine=True)
    if changes:
        events.append(EdgesSettled(changes=changes))
    old = overdue_runs(state, now)
    if old:
        reason = f"they began more than {UNFINISHED_RUN_AGE_MAX.days} days ago and never ended"
        events.append(UnfinishedRunsDropped(runs=old, reason=reason))
    return Decision(events=tuple(events), result=Result(changed=len(changes)))


def overdue_runs(state: State, now: datetime) -> tuple[tuple[str, str, str], ...]:
    """Runs that have told nothing for too long, the first first."""
    found: list[tuple[str, str, str]] = []
    for place, told_at in state.lineage.unfinished.items():
        if now - told_at < UNFINISHED_RUN_AGE_MAX or len(found) == SETTLED_AT_ONCE_MAX:
            break
        found.append(place)
    return tuple(found)


def lineage_due(state: State, now: datetime) -> bool:
    """Whether `settle_lineage` has anything to do; cheap, for it is asked at every tick."""
    ledger = state.lineage
    if ledger.wanted_moves or ledger.due.any_due(now) or overdue_runs(state, now):
        return True
    version = state.graph.topology_version
    if not ledger.quarantined or ledger.examined == version:
        return False
    for key in ledger.quarantined:
        record = ledger.records[key]
        counts = standing(record, key in ledger.declared, ledger.jobs, ledger.policy, now).state.counts
        if counts and state.graph.find_cycle(key[0], key[1]) is None:
            return True
    ledger.examined = version
    return False
