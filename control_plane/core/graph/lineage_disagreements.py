"""Where declarations and discovery contradict each other, derived from the ledger: nothing is kept of it.

A disagreement lasts until somebody declares, retracts or overrides; then what it rests on is gone, or is listed as
overridden for those who ask.
"""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import NodeKind
from control_plane.core.graph.lineage import EdgeRecord, Ledger, Sighting, standing
from control_plane.core.graph.lineage_facts import EdgeKey, EdgeState
from control_plane.core.ids import NodeId, node_name

JOBS_NAMED_MAX = 3
"""In one sentence."""


class DisagreementKind(StrEnum):
    """What contradicts what."""

    NOT_DECLARED = "NOT_DECLARED"
    NOT_SEEN = "NOT_SEEN"
    NOT_REGISTERED = "NOT_REGISTERED"
    OVERRIDDEN = "OVERRIDDEN"


class Disagreement(NamedTuple):
    """One contradiction: about an edge, or (`NOT_REGISTERED`) about a node."""

    kind: DisagreementKind
    node_id: NodeId
    """Whose matter it is: the downstream end of the edge, or the node."""
    key: EdgeKey | None
    explanation: str


def disagreements(
    graph: DependencyGraph, ledger: Ledger, now: datetime, *, overridden: bool = False
) -> list[Disagreement]:
    """All of them, by node, kind and edge; with `overridden` also those that an override has resolved."""
    found = [*_not_declared(ledger), *_not_seen(graph, ledger), *_not_registered(graph)]
    if overridden:
        found += _overridden(ledger, now)
    return sorted(found, key=lambda d: (d.node_id, d.kind, d.key or ()))


def _not_declared(ledger: Ledger) -> Iterator[Disagreement]:
    spoken_for: set[NodeId] | None = None
    for key, record in ledger.records.items():
        if not ledger.discovered_only(key) or record.state is EdgeState.RETIRED:
            continue
        if spoken_for is None:
            spoken_for = {down for _, down, _ in ledger.declared}
        if key[1] not in spoken_for:
            continue
        apart = ""
        if record.cycle:
            apart = f" It is kept out of the graph, for it would close the cycle {' -> '.join(record.cycle)}."
        yield Disagreement(
            DisagreementKind.NOT_DECLARED,
            key[1],
            key,
            f"{_shown(record)}, but the dependencies that were declared for {key[1]} do not name {key[0]}.{apart} "
            "Declare it, or override it as not there.",
        )


def _not_seen(graph: DependencyGraph, ledger: Ledger) -> Iterator[Disagreement]:
    runs_min = ledger.policy.suspect_after_runs
    if not runs_min:
        return
    for node_id, job_keys in ledger.written_by.items():
        if not graph.has_node(node_id):
            continue
        for dependency in graph.upstream_of(node_id):
            key = dependency.key
            record = ledger.records.get(key)
            if key not in ledger.declared or (record is not None and record.override is not None):
                continue
            seen = {s.job_key: ledger.missed(s) for s in (record.sightings if record is not None else ())}
            if any(missed < runs_min for missed in seen.values()):
                continue
            without = {j: seen.get(j, ledger.jobs[j].writes.get(node_id, 0)) for j in sorted(job_keys)}
            if sum(without.values()) < runs_min:
                continue
            jobs = ", ".join(f"{job.source} job {job.job}" for job in list(without)[:JOBS_NAMED_MAX])
            revision = ledger.declared[key]
            said = ledger.provenance[revision]
            last = f" It was read last on {_last(record):%Y-%m-%d}." if record is not None and record.sightings else ""
            yield Disagreement(
                DisagreementKind.NOT_SEEN,
                node_id,
                key,
                f"{said.by} declared on {said.at:%Y-%m-%d} (revision {revision}) that {node_id} depends on {key[0]}, "
                f"but the last {sum(without.values())} completed runs that write it ({jobs}) did not read that.{last} "
                "Retract it, or override it as there.",
            )


def _not_registered(graph: DependencyGraph) -> Iterator[Disagreement]:
    for node in graph.nodes((NodeKind.MODEL,)):
        if node.declared:
            continue
        called = f" (known as {node.external_ids[0]})" if node.external_ids else ""
        yield Disagreement(
            DisagreementKind.NOT_REGISTERED,
            node.node_id,
            None,
            f"Lineage shows the model {node_name(node.node_id)}{called}, which the registry does not know. Register it "
            "under this id, or rename the node to the model that it is.",
        )


def _overridden(ledger: Ledger, now: datetime) -> Iterator[Disagreement]:
    for key, record in ledger.records.items():
        override = record.override
        if override is None or override.present:
            continue
        declared = key in ledger.declared
        without = EdgeRecord(dependency=record.dependency, state=record.state, sightings=record.sightings)
        if not declared and not standing(without, False, ledger.jobs, ledger.policy, now).state.counts:
            continue
        against = _shown(record) if record.sightings else f"{ledger.provenance[ledger.declared[key]].by} declared it"
        yield Disagreement(
            DisagreementKind.OVERRIDDEN,
            key[1],
            key,
            f"{override.owner} says that {key[1]} does not depend on {key[0]} ({override.reason}), but {against}. "
            "It is decided until the override is cleared or expires.",
        )


def _shown(record: EdgeRecord) -> str:
    newest = max(record.sightings, key=lambda s: (s.last_seen_at, s.job_key))
    jobs = ", ".join(_job(s) for s in record.sightings[:JOBS_NAMED_MAX])
    times = sum(s.runs_seen for s in record.sightings)
    runs = f"{times} completed run{'s' if times != 1 else ''}"
    up, down = record.dependency.upstream, record.dependency.downstream
    return f"{jobs} read {up} and wrote {down} in {runs}, last on {newest.last_seen_at:%Y-%m-%d}"


def _job(sighting: Sighting) -> str:
    return f"{sighting.source} job {sighting.job}"


def _last(record: EdgeRecord) -> datetime:
    return max(sighting.last_seen_at for sighting in record.sightings)
