"""Generated fleets that a control plane accepts, and a small one that is written by hand."""

from datetime import UTC, datetime
from itertools import count
from typing import Any

from google.protobuf.duration_pb2 import Duration
from hypothesis import strategies as st
from runway.v1 import fleet_pb2
from runway_client import messages
from runway_client.fleet_files import read_texts

from control_plane.api.convert.fleet import ReadManifest, read_manifest
from control_plane.api.interceptors import violations_of
from control_plane.core.decide import decide
from control_plane.core.decide.fleet import FleetPlan, plan_fleet
from control_plane.core.events import Envelope
from control_plane.core.evolve import evolve
from control_plane.core.state import State
from tests.fleet.manifests import TEXT, in_order, manifests

NOW = datetime(2013, 3, 1, tzinfo=UTC)

SMALL = """
policies:
  - scope: tier:1
    policies: {staleness: {cadence: 15m}}
nodes:
  - {node_id: dataset:weather, owner: team:data, team: data}
  - {node_id: feature:temp, depends_on: [dataset:weather]}
models:
  - {model_id: route, team: net, tier: 2, task_type: embedding, owner: team:net}
  - model_id: air_time
    owner: anna@example.com
    team: net
    tier: 1
    task_type: regression
    consumers: [gate_desk]
    policies: {retraining: {cooldown: 2d}}
    depends_on: [feature:temp, {upstream: model:route, type: embeds, note: four numbers}]
"""


def small(text: str = SMALL) -> messages.Manifest:
    """The fleet that is written by hand, or what a test makes of it."""
    found = read_texts({"fleet.yaml": text})
    assert not found.problems, found.problems
    return found.manifest


def reading(manifest: messages.Manifest, *, prune: bool = False, plan_etag: str = "") -> ReadManifest:
    """A manifest as the service reads it."""
    request = fleet_pb2.ApplyFleetRequest(manifest=manifest, prune=prune, plan_etag=plan_etag)
    return read_manifest(request, violations_of(manifest))


def planned(state: State, manifest: messages.Manifest, *, prune: bool = False) -> FleetPlan:
    """What applying would change."""
    return plan_fleet(state, reading(manifest, prune=prune).command, NOW)


def wrong(state: State, manifest: messages.Manifest) -> list[str]:
    """All that is wrong, as a client is told."""
    read = reading(manifest)
    plan = plan_fleet(state, read.command, NOW)
    return [f"{one.field}: {one.message}" for one in read.told(plan.violations)]


def applied(state: State, manifest: messages.Manifest, *, prune: bool = False) -> int:
    """Apply; how many events."""
    events = decide(state, reading(manifest, prune=prune).command, NOW).events
    happen(state, *events)
    return len(events)


def happen(state: State, *events: Any) -> None:
    """Events become part of the state."""
    numbers = count(state.revision + 1)
    for event in events:
        evolve(state, Envelope(seq=next(numbers), epoch=1, at=NOW, actor="anna", reason="", event=event))


def _whole(span: Duration) -> Duration:
    """The control plane counts in microseconds, and a span of training is above zero."""
    return Duration(seconds=1 + abs(span.seconds), nanos=abs(span.nanos) // 1000 * 1000)


@st.composite
def fleets(draw: Any) -> messages.Manifest:
    """A manifest that an empty control plane accepts."""
    manifest = draw(manifests())
    for layer in manifest.policies:
        layer.policies.CopyFrom(draw(_policies()))
    for rule in manifest.rules:
        rule.when = draw(st.sampled_from(["verdict == STALE", "tier <= 2 &&\n  !season.expected", "'a' in tags"]))
    for model in manifest.models:
        model.owner = draw(st.sampled_from(["", "team:net", "anna@example.com"]))
        if model.HasField("policies"):
            model.policies.CopyFrom(draw(_policies()))
        if model.HasField("training_window"):
            model.training_window.CopyFrom(_whole(model.training_window))
        tags = {key: value for key, value in model.tags.items() if key.isidentifier() and len(key) <= 100}
        model.ClearField("tags")
        model.tags.update(tags)
        del model.tainted_windows[:]
        names: dict[str, Any] = {one.name: one for one in model.expected_inputs}
        kept = [messages.Field.FromString(one.SerializeToString()) for one in names.values()]
        del model.expected_inputs[:]
        model.expected_inputs.extend(kept)
    for node in manifest.nodes:
        del node.external_ids[:]
        node.title = draw(TEXT)
    return _with_sound_edges(draw, manifest)


def _policies() -> "st.SearchStrategy[messages.Policies]":
    spans = st.integers(60, 10**7).map(lambda seconds: Duration(seconds=seconds))
    return st.builds(
        messages.Policies,
        staleness=st.builds(
            messages.StalenessPolicy,
            cadence=spans,
            age_backstop_days=st.floats(1e-7, 1e7),
            stale_threshold=st.sampled_from([0.7, 0.75, 1.0]),
            at_risk_threshold=st.sampled_from([1e-7, 0.1, 0.3]),
        ),
        retraining=st.builds(messages.RetrainingPolicy, cooldown=spans, automatic=st.booleans()),
        rollout=st.builds(messages.RolloutPolicy, require_load_check=st.booleans()),
    )


def _with_sound_edges(draw: Any, manifest: messages.Manifest) -> messages.Manifest:
    """Dependencies whose ends are there, of a type that fits, and without a cycle: from earlier to later."""
    datasets = [node.node_id for node in manifest.nodes if node.node_id.startswith("dataset:")]
    features = [node.node_id for node in manifest.nodes if node.node_id.startswith("feature:")]
    models = [f"model:{model.model_id}" for model in manifest.models]
    consumers = [node.node_id for node in manifest.nodes if node.node_id.startswith("consumer:")]
    ends = [*datasets, *features, *models, *consumers]
    kept: dict[tuple[str, str], messages.Dependency] = {}
    for edge in manifest.dependencies:
        if len(ends) < 2:
            break
        places = draw(st.lists(st.integers(0, len(ends) - 1), min_size=2, max_size=2, unique=True))
        upstream, downstream = (ends[place] for place in sorted(places))
        types = _types(upstream.partition(":")[0], downstream.partition(":")[0])
        if types:
            edge.upstream_id, edge.downstream_id, edge.type = upstream, downstream, draw(st.sampled_from(types))
            edge.pinned = edge.pinned if upstream.startswith("model:") else ""
            kept[upstream, downstream] = messages.Dependency.FromString(edge.SerializeToString())
    del manifest.dependencies[:]
    manifest.dependencies.extend(kept.values())
    return in_order(manifest)


def _types(upstream: str, downstream: str) -> list[Any]:
    match upstream, downstream:
        case "dataset", "dataset" | "consumer":
            return [messages.DEPENDENCY_TYPE_DERIVED_FROM]
        case "dataset", "feature":
            return [messages.DEPENDENCY_TYPE_DERIVED_FROM, messages.DEPENDENCY_TYPE_TRAINED_ON]
        case "dataset", "model":
            return [messages.DEPENDENCY_TYPE_TRAINED_ON]
        case "feature", "model" | "consumer":
            return [messages.DEPENDENCY_TYPE_READS_FEATURE]
        case "feature", "feature":
            return [messages.DEPENDENCY_TYPE_DERIVED_FROM]
        case "model", "model":
            return [messages.DEPENDENCY_TYPE_CONSUMES_OUTPUT, messages.DEPENDENCY_TYPE_EMBEDS]
        case "model", "consumer":
            return [messages.DEPENDENCY_TYPE_CONSUMES_OUTPUT]
        case _:
            return []
