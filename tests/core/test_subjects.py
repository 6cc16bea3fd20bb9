"""What an event is about: the models and teams by which a watcher chooses."""

from datetime import timedelta

import msgspec
import pytest

from control_plane.core.commands import UpdateModel
from control_plane.core.events import (
    CascadeCooldownStarted,
    DependenciesDeclared,
    EdgesSettled,
    Envelope,
    Event,
    LimitsSet,
    LineageReported,
    NodesDeclared,
    NodesMoved,
    NodesRemoved,
    OverrideSet,
    PoliciesSet,
    RetrainingHeld,
)
from control_plane.core.graph.facts import Dependency, DependencyType, Node
from control_plane.core.graph.lineage_facts import EdgeChange, EdgeState, LineageNode, LineageRun, NodeMove, RunState
from control_plane.core.ids import ModelId, NodeId, TeamId
from control_plane.core.retraining.types import RetrainingLimits
from control_plane.core.snapshots import decode_snapshot, encode_snapshot
from control_plane.core.subjects import models_of, subject_of, team_of
from tests.core.fleets import START, Fleet

A, B = ModelId("a"), ModelId("b")
TEMP, NODE_A, NODE_B = NodeId("feature:temp"), NodeId("model:a"), NodeId("model:b")
EDGE = Dependency(upstream=NODE_A, downstream=NODE_B, edge_type=DependencyType.CONSUMES_OUTPUT)


@pytest.mark.parametrize(
    ("event", "models"),
    [
        (DependenciesDeclared(dependencies=(EDGE,)), {A, B}),
        (NodesDeclared(nodes=(Node(node_id=TEMP),)), set()),
        (NodesRemoved(node_ids=(TEMP, NODE_B)), {B}),
        (NodesMoved(moves=(NodeMove(node_id=TEMP, new_node_id=NODE_A),)), {A}),
        (
            EdgesSettled(
                changes=(
                    EdgeChange(
                        upstream=TEMP,
                        downstream=NODE_B,
                        edge_type=DependencyType.READS_FEATURE,
                        after=EdgeState.ACTIVE,
                        reason="seen",
                    ),
                )
            ),
            {B},
        ),
        (OverrideSet(dependency=EDGE, present=True, owner="ada", reason="known"), {A, B}),
        (
            LineageReported(
                runs=(
                    LineageRun(
                        source="airflow",
                        job="train",
                        state=RunState.COMPLETE,
                        inputs=(LineageNode(node_id=TEMP),),
                        outputs=(LineageNode(node_id=NODE_A), LineageNode(external_id="s3://b/c")),
                    ),
                )
            ),
            {A},
        ),
        (CascadeCooldownStarted(upstream=A, version=1, until={B: START}), {A, B}),
        (PoliciesSet(scope="model:a", version=1, overrides={}), {A}),
        (PoliciesSet(scope="tier:1", version=1, overrides={}), set()),
        (LimitsSet(limits=RetrainingLimits()), set()),
    ],
)
def test_an_event_is_about_every_model_that_it_names(event: Event, models: set[ModelId]) -> None:
    assert models_of(event) == models


def envelope(event: Event, seq: int) -> Envelope:
    return Envelope(seq=seq, epoch=1, at=START, actor="", reason="", event=event)


def test_a_model_takes_its_past_to_no_other_team() -> None:
    fleet = Fleet()
    fleet.model("a", team="ops")
    fleet.now += timedelta(hours=1)
    facts = msgspec.structs.replace(fleet.state.models[A].facts, team=TeamId("net"))
    fleet.do(UpdateModel(model_id=A, facts=facts))
    moved = fleet.state.revision
    about = CascadeCooldownStarted(upstream=A, version=1, until={})
    # A state that was saved and read again knows as much.
    for state in (fleet.state, decode_snapshot(encode_snapshot(fleet.state))):
        for seq, team in ((1, "ops"), (moved - 1, "ops"), (moved, "net"), (moved + 5, "net")):
            found = subject_of(state, envelope(about, seq))
            assert (set(found.teams), set(found.models), found.kind) == ({TeamId(team)}, {A}, "CascadeCooldownStarted")


def test_an_edge_is_about_the_teams_of_both_ends() -> None:
    fleet = Fleet()
    fleet.model("a", team="ops")
    fleet.model("b", team="net")
    declared = envelope(DependenciesDeclared(dependencies=(EDGE,)), fleet.state.revision + 1)
    assert subject_of(fleet.state, declared).teams == {"ops", "net"}
    assert team_of(fleet.state, declared) is None


def test_what_sets_a_teams_policies_is_about_the_team() -> None:
    event = PoliciesSet(scope="team:ops", version=1, overrides={})
    assert subject_of(Fleet().state, envelope(event, 1)).teams == {"ops"}
    assert subject_of(Fleet().state, envelope(RetrainingHeld(), 1)).teams == frozenset()


def test_a_model_nobody_registered_has_no_team() -> None:
    found = subject_of(Fleet().state, envelope(DependenciesDeclared(dependencies=(EDGE,)), 1))
    assert found.models == {A, B}
    assert not found.teams
