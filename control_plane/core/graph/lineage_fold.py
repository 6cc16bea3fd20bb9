"""What each event of lineage does to the ledger, the graph and the times of discovered edges, which go together.

`absorb` is what `decide` asks beforehand ("what would these runs show?") and the fold does afterwards: one function,
run on an overlay, so that the two cannot differ.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import datetime
from itertools import repeat
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.edge_times import EdgeTimes
from control_plane.core.graph.facts import Dependency, Node
from control_plane.core.graph.lineage import (
    EdgeRecord,
    Ledger,
    Override,
    Provenance,
    shown_by,
    sighted,
    standing,
    united,
)
from control_plane.core.graph.lineage_facts import (
    PAIRS_PER_RUN_MAX,
    EdgeChange,
    EdgeKey,
    EdgeState,
    JobKey,
    LineageRun,
    NodeMove,
)
from control_plane.core.graph.lineage_names import normal_name
from control_plane.core.graph.lineage_runs import Job, run_of, told_job
from control_plane.core.graph.rules import usual_type
from control_plane.core.ids import NodeId

K = TypeVar("K")
V = TypeVar("V")

NOTHING = Job()


class Parts(NamedTuple):
    """What the fold writes."""

    graph: DependencyGraph
    ledger: Ledger
    times: EdgeTimes


class Overlay(MutableMapping[K, V]):
    """A mapping to try changes on; `changed` has them. Nothing is ever deleted."""

    def __init__(self, base: MutableMapping[K, V]) -> None:
        self._base = base
        self.changed: dict[K, V] = {}

    def __getitem__(self, key: K) -> V:
        return self.changed[key] if key in self.changed else self._base[key]

    def __setitem__(self, key: K, value: V) -> None:
        self.changed[key] = value

    def __delitem__(self, key: K) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[K]:
        return iter({**self._base, **self.changed})

    def __len__(self) -> int:
        return len({**self._base, **self.changed})


class Absorbed(NamedTuple):
    """What runs showed: changed records and jobs, how many runs told anything new, pairs that no type joins."""

    records: Overlay[EdgeKey, EdgeRecord]
    jobs: Overlay[JobKey, Job]
    new: tuple[LineageRun, ...]
    untyped: int
    completed: tuple[JobKey, ...]
    too_large: tuple[LineageRun, ...]
    """Runs that were passed over, for with what was told before they would have too many pairs."""


def absorb(graph: DependencyGraph, ledger: Ledger, runs: Iterable[LineageRun], at: datetime) -> Absorbed:
    """Put what is told of runs to what is known. Nodes must have ids; nothing is changed but the overlays returned."""
    records, jobs = Overlay(ledger.records), Overlay(ledger.jobs)
    new: list[LineageRun] = []
    completed: dict[JobKey, None] = {}
    too_large: list[LineageRun] = []
    untyped = 0
    for told in runs:
        job_key = JobKey(told.source, told.job)
        job, before, after = told_job(jobs.get(job_key, NOTHING), run_of(told, at))
        if after is None:
            continue
        if len(after.inputs) * len(after.outputs) > PAIRS_PER_RUN_MAX:
            too_large.append(told)
            continue
        jobs[job_key] = job
        new.append(told)
        if not after.complete:
            continue
        completed[job_key] = None
        shown = shown_by(ledger.declared, after)
        untyped += shown.untyped
        counted = set(shown_by(ledger.declared, before).keys) if before is not None and before.complete else ()
        for key in shown.keys:
            record = records.get(key) or _first_record(graph, ledger, key)
            records[key] = sighted(record, job_key, after, new=key not in counted)
    return Absorbed(records, jobs, tuple(new), untyped, tuple(completed), tuple(too_large))


def _first_record(graph: DependencyGraph, ledger: Ledger, key: EdgeKey) -> EdgeRecord:
    """A record without evidence; of a declared edge, with what was declared."""
    if key in ledger.declared:
        facts = next((d for d in graph.between(key[0], key[1]) if d.edge_type == key[2]), dependency_of(key))
        return EdgeRecord(dependency=facts, state=EdgeState.ACTIVE, reason="it is declared")
    return EdgeRecord(dependency=dependency_of(key), state=EdgeState.RETIRED)


def dependency_of(key: EdgeKey) -> Dependency:
    """An edge with this key and no more facts."""
    return Dependency(upstream=key[0], downstream=key[1], edge_type=key[2])


# -- events -------------------------------------------------------------------------------------------------------


def put_node(parts: Parts, node: Node) -> None:
    """A node with its facts, and the external ids that are its."""
    graph, ledger, _ = parts
    if graph.has_node(node.node_id):
        for name in graph.node(node.node_id).external_ids:
            if ledger.claims.get(normal_name(name)) == node.node_id:
                del ledger.claims[normal_name(name)]
    for name in node.external_ids:
        ledger.claims[normal_name(name)] = node.node_id
    ledger.moved.pop(node.node_id, None)
    graph.put_node(node)


def put_model_node(parts: Parts, node: Node) -> None:
    """The node of a registered model; names that sources know it by stay."""
    if parts.graph.has_node(node.node_id):
        before = parts.graph.node(node.node_id)
        node = replace(node, title=node.title or before.title, external_ids=before.external_ids)
    put_node(parts, node)


def declare(parts: Parts, dependencies: Sequence[Dependency], revision: int, by: str, at: datetime) -> None:
    """Somebody says that these edges are there."""
    graph, ledger, _ = parts
    if not dependencies:
        return
    ledger.provenance[revision] = Provenance(by=by, at=at)
    ledger.declared.update(zip([(d.upstream, d.downstream, d.edge_type) for d in dependencies], repeat(revision)))
    if not ledger.records:
        graph.add_dependencies(dependencies)
        return
    plain: list[Dependency] = []
    written: list[EdgeRecord] = []
    for dependency in dependencies:
        record = _taken_over(parts, dependency)
        if record is None:
            plain.append(dependency)
        elif record.override is not None and not record.override.present:
            ledger.put(replace(record, dependency=dependency))
        else:
            record = replace(record, dependency=dependency, state=EdgeState.ACTIVE, reason="it is declared", cycle=())
            written.append(record)
    graph.add_dependencies(plain)
    reflect(parts, written)


def _taken_over(parts: Parts, dependency: Dependency) -> EdgeRecord | None:
    """What is known of an edge that is declared now.

    What was seen between the same two nodes, and taken for an edge of the usual type for want of a better one, was this
    edge; the other is no more.
    """
    ledger = parts.ledger
    known = ledger.records.get(dependency.key)
    usual = usual_type(dependency.upstream, dependency.downstream)
    if usual is None or usual is dependency.edge_type:
        return known
    twin_key = (dependency.upstream, dependency.downstream, usual)
    twin = ledger.records.get(twin_key)
    if twin is None or not ledger.discovered_only(twin_key):
        return known
    ledger.drop(twin_key)
    parts.times.remove(twin_key)
    parts.graph.remove_dependencies((twin.dependency,))
    record = known or EdgeRecord(dependency=dependency, state=EdgeState.ACTIVE)
    return replace(record, sightings=united(record.sightings, twin.sightings))


def retract(parts: Parts, dependencies: Iterable[Dependency]) -> None:
    """Nobody says any more that these edges are there; sources or an override still may."""
    graph, ledger, _ = parts
    gone: list[Dependency] = []
    written: list[EdgeRecord] = []
    for dependency in dependencies:
        key = dependency.key
        if ledger.declared.pop(key, None) is None:
            continue
        record = ledger.records.get(key)
        if record is None:
            gone.append(dependency)
        elif not record.sightings and record.override is None:
            ledger.drop(key)
            gone.append(dependency)
        else:
            # Should sources not show it any more either, `decide` says so in an event of its own.
            written.append(replace(record, dependency=dependency_of(key), reason="its declaration was retracted"))
    graph.remove_dependencies(gone)
    reflect(parts, written)


def report(parts: Parts, runs: Iterable[LineageRun], at: datetime) -> None:
    """Sources told of runs."""
    graph, ledger, times = parts
    absorbed = absorb(graph, ledger, runs, at)
    for job_key, job in absorbed.jobs.changed.items():
        ledger.put_job(job_key, job)
    for record in absorbed.records.changed.values():
        _put_time(ledger, times, ledger.put(record), record)
    for told in absorbed.new:
        known = ledger.jobs[JobKey(told.source, told.job)].runs.get(told.run_id)
        place = (told.source, told.job, told.run_id)
        if known is not None and not known.ended:
            ledger.unfinished.setdefault(place, at)
        else:
            ledger.unfinished.pop(place, None)


def want_moves(parts: Parts, moves: Iterable[NodeMove]) -> None:
    """Discovered nodes turned out to be others."""
    for move in moves:
        parts.ledger.wanted_moves[move.node_id] = move.new_node_id


def settle(parts: Parts, changes: Iterable[EdgeChange]) -> None:
    """Edges change their states."""
    ledger = parts.ledger
    reflect(
        parts,
        [
            replace(_known(ledger, change.key), state=change.after, reason=_kept(change), cycle=change.cycle)
            for change in changes
        ],
    )


def _kept(change: EdgeChange) -> str:
    """The reason to remember; why an edge is there follows from its newest sighting and is told anew."""
    return "" if change.after is EdgeState.ACTIVE else change.reason


def _known(ledger: Ledger, key: EdgeKey) -> EdgeRecord:
    record = ledger.records.get(key)
    return record if record is not None else EdgeRecord(dependency=dependency_of(key), state=EdgeState.RETIRED)


def override(parts: Parts, dependency: Dependency, said: Override) -> None:
    """Somebody's last word."""
    record = _record_for(parts, dependency)
    state = EdgeState.ACTIVE if said.present else EdgeState.SUPPRESSED
    after = replace(record, override=said, state=state, cycle=())
    reason = standing(after, False, {}, parts.ledger.policy, said.set_at).reason
    reflect(parts, [replace(after, reason=reason)])


def clear_override(
    parts: Parts, dependency: Dependency, after: EdgeState | None, why: str, path: tuple[NodeId, ...]
) -> None:
    """The last word is taken back, or expired. `after` None: nothing else is known of the edge."""
    graph, ledger, times = parts
    record = ledger.records[dependency.key]
    if after is None:
        ledger.drop(dependency.key)
        times.remove(dependency.key)
        graph.remove_dependencies((record.dependency,))
        return
    reflect(parts, [replace(record, override=None, state=after, reason=why, cycle=path)])


def drop_unfinished(parts: Parts, runs: Iterable[tuple[str, str, str]]) -> None:
    """Forget runs that never ended."""
    ledger = parts.ledger
    for source, job_name, run_id in runs:
        ledger.unfinished.pop((source, job_name, run_id), None)
        job = ledger.jobs[JobKey(source, job_name)]
        runs_left = {key: run for key, run in job.runs.items() if key != run_id}
        ledger.put_job(JobKey(source, job_name), replace(job, runs=runs_left))


def remove_nodes(parts: Parts, node_ids: Sequence[NodeId]) -> None:
    """Nodes without edges go, with all that is remembered of edges they had."""
    graph, ledger, times = parts
    for node_id in node_ids:
        for key in tuple(ledger.touching.get(node_id, ())):
            ledger.drop(key)
            ledger.declared.pop(key, None)
            times.remove(key)
        for name in graph.node(node_id).external_ids:
            if ledger.claims.get(normal_name(name)) == node_id:
                del ledger.claims[normal_name(name)]
        ledger.wanted_moves.pop(node_id, None)
        graph.remove_node(node_id)
    _forget(ledger, frozenset(node_ids))


def _forget(ledger: Ledger, node_ids: frozenset[NodeId]) -> None:
    """No run remembers these nodes, so that a late event of one does not bring them back."""
    for key, job in tuple(ledger.jobs.items()):
        touched = any(node_ids & run.inputs.keys() or node_ids & run.outputs.keys() for run in job.runs.values())
        if touched or node_ids & job.writes.keys():
            runs = {
                run_id: replace(run, inputs=_without(run.inputs, node_ids), outputs=_without(run.outputs, node_ids))
                for run_id, run in job.runs.items()
            }
            ledger.put_job(key, replace(job, runs=runs, writes=_without(job.writes, node_ids)))
    for node_id in node_ids:
        ledger.written_by.pop(node_id, None)


def _without(names: Mapping[NodeId, V], gone: frozenset[NodeId]) -> dict[NodeId, V]:
    return {node_id: value for node_id, value in names.items() if node_id not in gone}


def _record_for(parts: Parts, dependency: Dependency) -> EdgeRecord:
    known = parts.ledger.records.get(dependency.key)
    if known is not None:
        return known
    record = _first_record(parts.graph, parts.ledger, dependency.key)
    return record if dependency.key in parts.ledger.declared else replace(record, dependency=dependency)


# -- the graph as the ledger says -----------------------------------------------------------------------------------


def reflect(parts: Parts, records: Sequence[EdgeRecord]) -> None:
    """Write records, and make the graph and the times show them."""
    graph, ledger, times = parts
    for record in records:
        _put_time(ledger, times, ledger.put(record), record)
    graph.remove_dependencies([r.dependency for r in records if not r.state.counts])
    graph.add_dependencies([r.dependency for r in records if r.state.counts])


def _put_time(ledger: Ledger, times: EdgeTimes, key: EdgeKey, record: EdgeRecord) -> None:
    if record.state.counts and record.sightings and key not in ledger.declared and record.override is None:
        last = max(sighting.last_seen_at for sighting in record.sightings)
        times.put(key, last, record.state is EdgeState.SUSPECT)
    else:
        times.remove(key)


def rebuild_times(ledger: Ledger, times: EdgeTimes) -> None:
    """After a snapshot was read."""
    for key, record in ledger.records.items():
        _put_time(ledger, times, key, record)


def rebuild_claims(graph: DependencyGraph, ledger: Ledger) -> None:
    """After a snapshot was read."""
    for node in graph.nodes():
        for name in node.external_ids:
            ledger.claims[normal_name(name)] = node.node_id
