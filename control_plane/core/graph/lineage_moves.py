"""Nodes that become others: renamed by people, or recognized as what somebody declared under another id.

Edges, evidence, overrides and external ids move along. What two edges say that become one is united: all sightings, the
target's override before the other's, the newer declaration. An edge that would then go from a node to itself is gone,
and so is one of which the new kinds leave no type. `plan_moves` finds what would close a cycle before anything happens.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Dependency, Node, NodeKind
from control_plane.core.graph.lineage import EdgeRecord, Ledger, united
from control_plane.core.graph.lineage_facts import EdgeChange, EdgeKey, EdgeState, NodeMove
from control_plane.core.graph.lineage_fold import Parts, dependency_of, put_node, reflect
from control_plane.core.graph.lineage_runs import Job, Run
from control_plane.core.graph.rules import ENDS, usual_type
from control_plane.core.ids import NodeId, node_kind

BEST_FIRST = (EdgeState.ACTIVE, EdgeState.SUSPECT, EdgeState.QUARANTINED, EdgeState.RETIRED, EdgeState.SUPPRESSED)
"""Of two edges without declaration or override that become one, the state that stays."""


class MovePlan(NamedTuple):
    """What moving comes to: edges that move, discovered ones that would close a cycle, declared ones that would."""

    moved: int
    quarantined: tuple[EdgeChange, ...]
    refused: tuple[EdgeChange, ...]


def plan_moves(graph: DependencyGraph, ledger: Ledger, moves: Sequence[NodeMove]) -> MovePlan:
    """Look ahead: nothing is changed. Declared edges go first, so that a discovered one gives way."""
    mapping = {move.node_id: move.new_node_id for move in moves}
    before = _edges(graph, mapping)
    trial = graph.scratch()
    trial.remove_dependencies(before)
    for new in mapping.values():
        if not trial.has_node(new):
            trial.put_node(Node(node_id=new))
    firm: dict[EdgeKey, bool] = {}
    for dependency in before:
        key = moved_key(dependency.key, mapping)
        if key is not None and not graph_has(trial, key):
            firm[key] = firm.get(key, False) or not ledger.discovered_only(dependency.key)
    quarantined: list[EdgeChange] = []
    refused: list[EdgeChange] = []
    for key in sorted(firm, key=lambda key: (not firm[key], key)):
        cycle = trial.find_cycle(key[0], key[1])
        if cycle is None:
            trial.add_dependencies((dependency_of(key),))
            continue
        change = EdgeChange(
            upstream=key[0],
            downstream=key[1],
            edge_type=key[2],
            after=EdgeState.QUARANTINED,
            reason="it would close a cycle since its ends were renamed",
            cycle=cycle,
        )
        (refused if firm[key] else quarantined).append(change)
    return MovePlan(len(firm), tuple(quarantined), tuple(refused))


def graph_has(graph: DependencyGraph, key: EdgeKey) -> bool:
    """Whether an edge with this key is part of a graph."""
    return any(d.edge_type == key[2] for d in graph.between(key[0], key[1]))


def moved_key(key: EdgeKey, mapping: Mapping[NodeId, NodeId]) -> EdgeKey | None:
    """An edge after its ends moved; None if there is none any more."""
    up, down = mapping.get(key[0], key[0]), mapping.get(key[1], key[1])
    if up == down:
        return None
    if (NodeKind(node_kind(up)), NodeKind(node_kind(down))) in ENDS[key[2]]:
        return up, down, key[2]
    usual = usual_type(up, down)
    return None if usual is None else (up, down, usual)


def apply_moves(parts: Parts, moves: Sequence[NodeMove], quarantined: Iterable[EdgeChange]) -> None:
    """Move nodes with all that hangs on them."""
    graph, ledger, times = parts
    mapping = {move.node_id: move.new_node_id for move in moves}
    apart = {change.key: change for change in quarantined}
    before = {dependency.key: dependency for dependency in _edges(graph, mapping)}
    keys = sorted({*before, *(key for old in mapping for key in ledger.touching.get(old, ()))})
    graph.remove_dependencies(before.values())
    for move in moves:
        _move_node(parts, move)
    taken = [(key, ledger.records.get(key), ledger.declared.pop(key, None)) for key in keys]
    for key, record, _ in taken:
        times.remove(key)
        if record is not None:
            ledger.drop(key)
    for key, record, revision in taken:
        new = moved_key(key, mapping)
        if new is None:
            continue
        facts = before.get(key) or (record.dependency if record is not None else dependency_of(key))
        facts = replace(facts, upstream=new[0], downstream=new[1], edge_type=new[2])
        _move_edge(parts, facts, record, revision, apart.get(new))
    for job_key, job in tuple(ledger.jobs.items()):
        if any(mapping.keys() & run.inputs.keys() or mapping.keys() & run.outputs.keys() for run in job.runs.values()):
            ledger.put_job(job_key, _moved_job(job, mapping))
        elif mapping.keys() & job.writes.keys():
            ledger.put_job(job_key, replace(job, writes=_moved_counts(job.writes, mapping)))


def _edges(graph: DependencyGraph, mapping: Mapping[NodeId, NodeId]) -> tuple[Dependency, ...]:
    """The graph's edges at the nodes that move, each once, in the order of their keys."""
    found: dict[EdgeKey, Dependency] = {}
    for old in mapping:
        if graph.has_node(old):
            found |= {d.key: d for d in (*graph.upstream_of(old), *graph.downstream_of(old))}
    return tuple(found[key] for key in sorted(found))


def _move_node(parts: Parts, move: NodeMove) -> None:
    graph, ledger, _ = parts
    ledger.wanted_moves.pop(move.node_id, None)
    ledger.written_by.pop(move.node_id, None)
    if not graph.has_node(move.node_id):
        return
    old = graph.node(move.node_id)
    graph.remove_node(move.node_id)
    if graph.has_node(move.new_node_id):
        target = graph.node(move.new_node_id)
        node = replace(
            target,
            title=target.title or old.title,
            description=target.description or old.description,
            owner=target.owner or old.owner,
            team=target.team or old.team,
            external_ids=tuple(dict.fromkeys((*target.external_ids, *old.external_ids))),
            declared=target.declared or old.declared,
        )
    else:
        node = replace(old, node_id=move.new_node_id)
    put_node(parts, node)
    ledger.moved[move.node_id] = move.new_node_id


def _move_edge(
    parts: Parts, facts: Dependency, record: EdgeRecord | None, revision: int | None, apart: EdgeChange | None
) -> None:
    """One edge under its new key, united with what is known there."""
    graph, ledger, _ = parts
    key = facts.key
    known = ledger.records.get(key)
    there = ledger.declared.get(key)
    if revision is not None:
        ledger.declared[key] = max(revision, there or 0)
    if there is not None or (known is not None and revision is None):
        # Facts of what is declared at the target stand; of two discovered edges either's do.
        facts = next((d for d in graph.between(key[0], key[1]) if d.key == key), known.dependency if known else facts)
    if record is None and known is None and apart is None:
        graph.add_dependencies((facts,))
        return
    both = [one for one in (known, record) if one is not None]
    best = min(both, key=lambda one: BEST_FIRST.index(one.state)) if both else None
    override = next((one.override for one in both if one.override is not None), None)
    if apart is not None:
        state, reason, cycle = EdgeState.QUARANTINED, apart.reason, apart.cycle
    elif override is not None:
        state = EdgeState.ACTIVE if override.present else EdgeState.SUPPRESSED
        reason, cycle = override.reason, ()
    elif key in ledger.declared or best is None:
        state, reason, cycle = EdgeState.ACTIVE, "it is declared", ()
    else:
        state, reason, cycle = best.state, best.reason, best.cycle
    sightings = united(known.sightings if known else (), record.sightings if record else ())
    written = EdgeRecord(
        dependency=facts, state=state, reason=reason, cycle=cycle, sightings=sightings, override=override
    )
    reflect(parts, [written])


def _moved_job(job: Job, mapping: Mapping[NodeId, NodeId]) -> Job:
    runs = {run_id: _moved_run(run, mapping) for run_id, run in job.runs.items()}
    return replace(job, runs=runs, writes=_moved_counts(job.writes, mapping))


def _moved_run(run: Run, mapping: Mapping[NodeId, NodeId]) -> Run:
    return replace(run, inputs=_moved_names(run.inputs, mapping), outputs=_moved_names(run.outputs, mapping))


def _moved_names(names: Mapping[NodeId, str], mapping: Mapping[NodeId, NodeId]) -> dict[NodeId, str]:
    found: dict[NodeId, str] = {}
    for node_id, version in names.items():
        new = mapping.get(node_id, node_id)
        found[new] = max(found.get(new, ""), version)
    return dict(sorted(found.items()))


def _moved_counts(counts: Mapping[NodeId, int], mapping: Mapping[NodeId, NodeId]) -> dict[NodeId, int]:
    found: dict[NodeId, int] = {}
    for node_id, count in counts.items():
        new = mapping.get(node_id, node_id)
        found[new] = found.get(new, 0) + count
    return dict(sorted(found.items()))
