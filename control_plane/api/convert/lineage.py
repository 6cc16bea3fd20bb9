"""Runs, edges with their evidence, disagreements, lineage policies."""

import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from msgspec.structs import replace
from runway.v1 import lineage_pb2

from control_plane.api.convert.common import duration, instant_from, span_from, timestamp
from control_plane.api.convert.graph import KINDS_FROM, dependency
from control_plane.api.convert.staleness import upstream_message
from control_plane.core.graph.facts import Dependency
from control_plane.core.graph.lineage import EdgeRecord, Ledger, Override, Sighting, standing
from control_plane.core.graph.lineage_disagreements import Disagreement, DisagreementKind
from control_plane.core.graph.lineage_facts import (
    EdgeKey,
    EdgeOrigin,
    EdgeState,
    LineageNode,
    LineagePolicy,
    LineageRun,
    QuarantinedEdge,
    RunState,
)
from control_plane.core.graph.lineage_fold import dependency_of
from control_plane.core.ids import ModelId, node_name
from control_plane.core.staleness.verdict import Evaluation, UpstreamCompatibility
from control_plane.core.state import State

NO_LOOKS: Mapping[ModelId, Evaluation] = MappingProxyType({})

RUN_STATES = {
    RunState.START: lineage_pb2.RUN_STATE_START,
    RunState.RUNNING: lineage_pb2.RUN_STATE_RUNNING,
    RunState.COMPLETE: lineage_pb2.RUN_STATE_COMPLETE,
    RunState.FAIL: lineage_pb2.RUN_STATE_FAIL,
    RunState.ABORT: lineage_pb2.RUN_STATE_ABORT,
    RunState.STATIC: lineage_pb2.RUN_STATE_STATIC,
}
RUN_STATES_FROM = {number: state for state, number in RUN_STATES.items()}
EDGE_STATES = {
    EdgeState.ACTIVE: lineage_pb2.EDGE_STATE_ACTIVE,
    EdgeState.SUSPECT: lineage_pb2.EDGE_STATE_SUSPECT,
    EdgeState.RETIRED: lineage_pb2.EDGE_STATE_RETIRED,
    EdgeState.QUARANTINED: lineage_pb2.EDGE_STATE_QUARANTINED,
    EdgeState.SUPPRESSED: lineage_pb2.EDGE_STATE_SUPPRESSED,
}
EDGE_STATES_FROM = {number: state for state, number in EDGE_STATES.items()}
ORIGINS = {
    EdgeOrigin.DECLARED: lineage_pb2.EDGE_ORIGIN_DECLARED,
    EdgeOrigin.DISCOVERED: lineage_pb2.EDGE_ORIGIN_DISCOVERED,
    EdgeOrigin.OBSERVED: lineage_pb2.EDGE_ORIGIN_OBSERVED,
}
ORIGINS_FROM = {number: origin for origin, number in ORIGINS.items()}
KINDS_OF_DISAGREEMENT = {
    DisagreementKind.NOT_DECLARED: lineage_pb2.DISAGREEMENT_KIND_NOT_DECLARED,
    DisagreementKind.NOT_SEEN: lineage_pb2.DISAGREEMENT_KIND_NOT_SEEN,
    DisagreementKind.NOT_REGISTERED: lineage_pb2.DISAGREEMENT_KIND_NOT_REGISTERED,
    DisagreementKind.OVERRIDDEN: lineage_pb2.DISAGREEMENT_KIND_OVERRIDDEN,
}

PINNED = re.compile(r"v[1-9][0-9]*|[a-z][a-z0-9_]{0,99}")
"""What the contract takes for a version or an alias."""


def run_from(message: lineage_pb2.LineageRun, index: int) -> LineageRun:
    """What a source tells of one run; core judges it."""
    told_at = message.HasField("event_time")
    return LineageRun(
        source=message.source,
        job=message.job,
        run_id=message.run_id,
        state=RUN_STATES_FROM[message.state],
        event_time=instant_from(message.event_time, f"runs[{index}].event_time") if told_at else None,
        inputs=tuple(map(_node_from, message.inputs)),
        outputs=tuple(map(_node_from, message.outputs)),
        confidence=message.confidence or 1.0,
        evidence_url=message.evidence_url,
        observed=message.observed,
    )


def _node_from(message: lineage_pb2.LineageNode) -> LineageNode:
    return LineageNode(
        node_id=message.node_id,
        external_id=message.external_id,
        kind=KINDS_FROM.get(message.kind),
        title=message.title,
        description=message.description,
        version=message.version,
        aliases=tuple(message.aliases),
    )


def quarantined_edge(found: QuarantinedEdge) -> lineage_pb2.QuarantinedEdge:
    """An edge that was confirmed and not applied."""
    return lineage_pb2.QuarantinedEdge(dependency=dependency(found.dependency), cycle=found.cycle)


def edge(state: State, key: EdgeKey, now: datetime, looks: Mapping[ModelId, Evaluation] = NO_LOOKS) -> lineage_pb2.Edge:
    """An edge with everything that is known about it; nothing but its ends if nothing is. `looks` are the newest."""
    ledger = state.lineage
    record = ledger.records.get(key)
    declared = ledger.declaration(key)
    message = lineage_pb2.Edge(
        dependency=dependency(_facts(state, key, record)),
        state=EDGE_STATES[ledger.state_of(key) or EdgeState.RETIRED],
        explanation=_explanation(ledger, key, record, now),
    )
    if declared is not None:
        revision, said = declared
        message.declaration.CopyFrom(
            lineage_pb2.Declaration(declared_at=timestamp(said.at), declared_by=said.by, revision=revision)
        )
    sightings = record.sightings if record is not None else ()
    message.sightings.extend(sighting(one, ledger.missed(one)) for one in sightings)
    if record is not None and record.override is not None:
        message.override.CopyFrom(override(record.override))
    if record is not None:
        message.cycle.extend(record.cycle)
    first = [s.first_seen_at for s in sightings] + ([declared[1].at] if declared is not None else [])
    if first:
        message.first_seen_at.FromDatetime(min(first))
    if sightings:
        message.last_seen_at.FromDatetime(max(s.last_seen_at for s in sightings))
    sure = declared is not None or message.HasField("override")
    message.confidence = 1.0 if sure else max((s.confidence for s in sightings), default=0.0)
    moved = _compatibility(state, key, looks)
    if moved is not None:
        message.compatibility.CopyFrom(upstream_message(moved))
    return message


def _compatibility(state: State, key: EdgeKey, looks: Mapping[ModelId, Evaluation]) -> UpstreamCompatibility | None:
    """What the newest look at a consumer, or the one that brought its verdict about, measured of this upstream."""
    upstream, downstream = key[0], key[1]
    if not (upstream.startswith("model:") and downstream.startswith("model:")):
        return None
    record = state.models.get(ModelId(node_name(downstream)))
    if record is None:
        return None
    look = looks.get(record.model_id, record.standing.evaluation)
    measured = look.upstreams if look is not None else ()
    return next((one for one in measured if one.model_id == node_name(upstream)), None)


def _facts(state: State, key: EdgeKey, record: EdgeRecord | None) -> Dependency:
    """The edge's facts; if nobody pinned it, the version of the upstream model that the newest run read."""
    found = record.dependency if record is not None else state.graph.dependency(key) or dependency_of(key)
    if found.pinned or record is None or not record.sightings or not key[0].startswith("model:"):
        return found
    newest = max(record.sightings, key=lambda s: (s.last_seen_at, s.job_key))
    return replace(found, pinned=newest.version) if PINNED.fullmatch(newest.version) else found


def _explanation(ledger: Ledger, key: EdgeKey, record: EdgeRecord | None, now: datetime) -> str:
    declared = ledger.declaration(key)
    said = ""
    if declared is not None:
        said = f"{declared[1].by} declared it on {declared[1].at:%Y-%m-%d} (revision {declared[0]})"
    if record is None:
        return said or "nothing is known of it"
    if record.cycle:
        return f"it would close the cycle {' -> '.join(record.cycle)}"
    follows = standing(record, declared is not None, ledger.jobs, ledger.policy, now)
    if record.override is None and declared is not None:
        return said
    # Between a bound that passes and the tick that settles it, what the state rests on is what was said then.
    return follows.reason if follows.state is record.state else record.reason


def sighting(found: Sighting, missed: int) -> lineage_pb2.Sighting:
    """What one job shows of an edge."""
    return lineage_pb2.Sighting(
        origin=ORIGINS[found.origin],
        source=found.source,
        job=found.job,
        run_id=found.run_id,
        evidence_url=found.evidence_url,
        first_seen_at=timestamp(found.first_seen_at),
        last_seen_at=timestamp(found.last_seen_at),
        runs_seen=found.runs_seen,
        runs_missed=missed,
        confidence=found.confidence,
    )


def override(found: Override) -> lineage_pb2.Override:
    """Somebody's last word."""
    return lineage_pb2.Override(
        present=found.present,
        owner=found.owner,
        reason=found.reason,
        set_at=timestamp(found.set_at),
        expires_at=timestamp(found.expires_at),
        revision=found.revision,
    )


def disagreement(state: State, found: Disagreement, now: datetime) -> lineage_pb2.Disagreement:
    """One contradiction with both evidences."""
    node = state.graph.node(found.node_id) if state.graph.has_node(found.node_id) else None
    return lineage_pb2.Disagreement(
        kind=KINDS_OF_DISAGREEMENT[found.kind],
        edge=None if found.key is None else edge(state, found.key, now),
        node_id=found.node_id if found.key is None else "",
        explanation=found.explanation,
        owner=node.owner if node is not None else "",
        team=node.team if node is not None else "",
    )


def policy_from(message: lineage_pb2.LineagePolicy) -> LineagePolicy:
    """When edges become suspect and are retired; every field counts, unset is 0 and switches a bound off."""
    return LineagePolicy(
        suspect_after_runs=message.suspect_after_runs,
        suspect_after=span_from(message.suspect_after, "policy.suspect_after"),
        retire_after_runs=message.retire_after_runs,
        retire_after=span_from(message.retire_after, "policy.retire_after"),
        confidence_min=message.confidence_min,
    )


def policy(found: LineagePolicy) -> lineage_pb2.LineagePolicy:
    """The bounds on the wire."""
    return lineage_pb2.LineagePolicy(
        suspect_after_runs=found.suspect_after_runs,
        suspect_after=duration(found.suspect_after),
        retire_after_runs=found.retire_after_runs,
        retire_after=duration(found.retire_after),
        confidence_min=found.confidence_min,
    )
