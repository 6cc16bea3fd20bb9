"""A state as bytes and back: the same fold as the log's, only cheaper to read.

Parts one after another, each behind its length: a part is encoded or decoded in one go, and between two of them other
threads run. What follows from something else (policies in force, indices of the graph) is left out and computed again.
"""

import copy
import struct
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from control_plane.core.alerts.types import Destination, Silence
from control_plane.core.erasure import ErasureReceipt
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Dependency, GraphSnapshot, Node
from control_plane.core.graph.lineage import EdgeRecord, Ledger, LedgerSnapshot
from control_plane.core.graph.lineage_fold import rebuild_claims, rebuild_times
from control_plane.core.ids import TeamId, model_node
from control_plane.core.policies import PolicyBook, PolicyVersion
from control_plane.core.retraining.types import Breaker, Retrain, RetrainingLimits
from control_plane.core.rollout.types import FreezeWindow, Rollout, RolloutGroup, Uplift
from control_plane.core.rules.book import RuleBook
from control_plane.core.rules.types import RuleVersion
from control_plane.core.state import NO_POLICIES, ModelRecord, RequestRecord, Spending, State, in_force


class _Head(msgspec.Struct, frozen=True, kw_only=True, tag="head"):
    """What a state has one of."""

    revision: int
    epoch: int
    last_hash: bytes
    at: datetime
    clock: datetime | None
    policies: list[PolicyVersion]
    rules: list[RuleVersion]
    graph_revision: int
    lineage: LedgerSnapshot
    """Without its records."""
    limits: RetrainingLimits
    held: bool
    held_since: datetime | None = None
    retrains_count: int
    rollouts_count: int
    erasures: list[ErasureReceipt] = []
    erasures_count: int = 0
    breakers: list[Breaker] = []
    spending: dict[TeamId, Spending] = {}
    freezes: list[FreezeWindow] = []
    groups: list[RolloutGroup] = []
    destinations: list[Destination] = []
    silences: list[Silence] = []


class _Models(msgspec.Struct, frozen=True, tag="models"):
    items: list[ModelRecord]


class _Nodes(msgspec.Struct, frozen=True, tag="nodes"):
    items: list[Node]


class _Dependencies(msgspec.Struct, frozen=True, tag="dependencies"):
    items: list[Dependency]


class _EdgeRecords(msgspec.Struct, frozen=True, tag="edge_records"):
    items: list[EdgeRecord]


class _Retrains(msgspec.Struct, frozen=True, tag="retrains"):
    items: list[Retrain]


class _Rollouts(msgspec.Struct, frozen=True, tag="rollouts"):
    items: list[Rollout]


class _Uplifts(msgspec.Struct, frozen=True, tag="uplifts"):
    items: list[Uplift]


class _Requests(msgspec.Struct, frozen=True, tag="requests"):
    items: list[tuple[str, RequestRecord]]


_Several = _Models | _Nodes | _Dependencies | _EdgeRecords | _Retrains | _Rollouts | _Uplifts | _Requests
_Part = _Head | _Several

SNAPSHOT_VERSION = 5
"""Codec version; a snapshot of another one is ignored and the log is replayed instead."""

PART_ITEMS = 1_000
"""A part is encoded or decoded in one go, in which no other thread runs: some milliseconds."""

_PART_BYTES = struct.Struct("<I")
_CHANGING = tuple(field.name for field in msgspec.structs.fields(ModelRecord) if field.default_factory in (list, dict))
"""Fields of a record that later events change in place; all others hold what is frozen."""


def _captured(record: ModelRecord) -> ModelRecord:
    """A record that later events do not reach, without the policies in force: they follow from others."""
    copied = copy.copy(record)
    copied.policies = NO_POLICIES
    for name in _CHANGING:
        setattr(copied, name, getattr(record, name).copy())
    return copied


def capture(state: State) -> Callable[[], bytes]:
    """Copy what later events would change, at once; what is returned encodes all of it as `encode_snapshot` does, later
    and on any thread.
    """
    models = [_captured(record) for record in state.models.values()]
    graph, ledger = state.graph.captured(), state.lineage.captured()
    retrains, rollouts = list(state.retrains.values()), list(state.rollouts.values())
    uplifts = list(state.uplifts.values())
    requests = list(state.requests.items())
    head = _Head(
        revision=state.revision,
        epoch=state.epoch,
        last_hash=state.last_hash,
        at=state.at,
        clock=state.clock,
        policies=state.policies.all_versions(),
        rules=state.rules.all_versions(),
        graph_revision=state.graph_revision,
        lineage=LedgerSnapshot.empty(),
        limits=state.limits,
        held=state.held,
        held_since=state.held_since,
        retrains_count=state.retrains_count,
        rollouts_count=state.rollouts_count,
        erasures=state.erasures,
        erasures_count=state.erasures_count,
        breakers=list(state.breakers.values()),
        spending=dict(state.spending),
        freezes=list(state.freezes.values()),
        groups=list(state.groups.values()),
        destinations=list(state.destinations.values()),
        silences=list(state.silences.values()),
    )

    def encode() -> bytes:
        kept = graph()
        told = ledger.to_snapshot(kept.dependencies)
        records, told = told.records, msgspec.structs.replace(told, records=[])
        several: list[tuple[type[_Several], list[Any]]] = [
            (_Models, models),
            (_Nodes, kept.nodes),
            (_Dependencies, kept.dependencies),
            (_EdgeRecords, records),
            (_Retrains, retrains),
            (_Rollouts, rollouts),
            (_Uplifts, uplifts),
            (_Requests, requests),
        ]
        parts: list[_Part] = [msgspec.structs.replace(head, lineage=told)]
        for kind, items in several:
            parts += [kind(items[first : first + PART_ITEMS]) for first in range(0, len(items), PART_ITEMS)]
        encoded = [msgspec.msgpack.encode(part) for part in parts]
        return b"".join(piece for one in encoded for piece in (_PART_BYTES.pack(len(one)), one))

    return encode


def encode_snapshot(state: State) -> bytes:
    """The whole state as MessagePack: parts one after another, each behind its length."""
    return capture(state)()


def _parts(blob: bytes) -> tuple[_Head, dict[type[_Several], list[Any]]]:
    """The head, and everything else by kind in the order in which it was encoded."""
    head: _Head | None = None
    found: dict[type[_Several], list[Any]] = {}
    decoder = msgspec.msgpack.Decoder(_Part)
    view, place = memoryview(blob), 0
    while place < len(blob):
        if len(blob) - place < _PART_BYTES.size:
            raise ValueError("the snapshot ends in the middle of a length")
        (size,) = _PART_BYTES.unpack_from(blob, place)
        place += _PART_BYTES.size
        part = decoder.decode(view[place : place + size])
        place += size
        if isinstance(part, _Head):
            head = part
        else:
            found.setdefault(type(part), []).extend(part.items)
    if head is None or place != len(blob):
        raise ValueError("the snapshot is not whole")
    return head, found


def decode_snapshot(blob: bytes) -> State:
    """Inverse of `encode_snapshot`. Raises ValueError (msgspec's errors are) on anything else."""
    head, parts = _parts(blob)
    dependencies: list[Dependency] = parts.get(_Dependencies, [])
    state = State()
    state.revision = head.revision
    state.epoch = head.epoch
    state.last_hash = head.last_hash
    state.at = head.at
    state.clock = head.clock
    state.models = {record.facts.model_id: record for record in parts.get(_Models, [])}
    state.policies = PolicyBook(head.policies)
    state.rules = RuleBook(head.rules)
    for record in state.models.values():
        record.policies = in_force(state, record.facts)
    state.graph = DependencyGraph.from_snapshot(GraphSnapshot(nodes=parts.get(_Nodes, []), dependencies=dependencies))
    for record in state.models.values():
        if record.facts.retrain_gpu_hours:
            state.graph.put_retrain_cost(model_node(record.model_id), record.facts.retrain_gpu_hours)
    state.graph_revision = head.graph_revision
    told = msgspec.structs.replace(head.lineage, records=parts.get(_EdgeRecords, []))
    state.lineage = Ledger.from_snapshot(told, dependencies)
    rebuild_claims(state.graph, state.lineage)
    rebuild_times(state.lineage, state.edge_times)
    state.retrains = {retrain.retrain_id: retrain for retrain in parts.get(_Retrains, [])}
    state.live_retrains = {i: None for i, retrain in state.retrains.items() if retrain.live}
    state.rollouts = {rollout.rollout_id: rollout for rollout in parts.get(_Rollouts, [])}
    state.requests = dict(parts.get(_Requests, []))
    state.limits = head.limits
    state.held, state.held_since = head.held, head.held_since
    state.retrains_count = head.retrains_count
    state.rollouts_count = head.rollouts_count
    state.erasures = head.erasures
    state.erasures_count = head.erasures_count
    state.live_rollouts = {i: None for i, rollout in state.rollouts.items() if rollout.live}
    state.unconfirmed_rollouts = {i: None for i, rollout in state.rollouts.items() if rollout.unconfirmed}
    state.restless = {model_id for model_id, record in state.models.items() if record.restless}
    state.uplifts = {uplift.rollout_id: uplift for uplift in parts.get(_Uplifts, [])}
    state.breakers = {breaker.scheduler: breaker for breaker in head.breakers}
    state.spending = dict(head.spending)
    state.freezes = {freeze.name: freeze for freeze in head.freezes}
    state.groups = {group.group_id: group for group in head.groups}
    state.destinations = {destination.name: destination for destination in head.destinations}
    state.silences = {silence.key: silence for silence in head.silences}
    return state
