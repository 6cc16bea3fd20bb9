"""`decide` as a whole: never changes the state, whatever is asked, and never fails but by refusing."""

from datetime import datetime, timedelta
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.alerts.types import Silence
from control_plane.core.commands import (
    AdvanceClock,
    ApplyFleet,
    Command,
    HoldRetraining,
    RegisterVersion,
    ReleaseRetraining,
)
from control_plane.core.decide import decide
from control_plane.core.decide.operations import CLOCK_MAX
from control_plane.core.errors import Invalid, Reason, RunwayError
from control_plane.core.graph.facts import Dependency, DependencyType, Node, NodeKind
from control_plane.core.graph.lineage_facts import LineageNode, LineagePolicy, LineageRun, RunState
from control_plane.core.registry.types import Lifecycle, ModelFacts, TaskType
from control_plane.core.retraining.types import RetrainingLimits
from control_plane.core.rollout.types import FreezeWindow, Validation
from control_plane.core.snapshots import encode_snapshot
from control_plane.core.state import State
from tests.core.fleets import START, Fleet, a_version, an_evaluation, reason_of
from tests.core.overrides import overrides
from tests.simulation.world import World

INSTANTS = st.timedeltas(timedelta(-60), timedelta(days=2_500)).map(lambda span: START + span)
TIDY = st.text("abcdef_0123", min_size=1, max_size=12)


@pytest.fixture(scope="module")
def state() -> State:
    """A fleet in the middle of its life."""
    world = World(7)
    for _ in range(120):
        world.step()
    assert world.state.live_retrains
    return world.state


@pytest.fixture(scope="module")
def before(state: State) -> bytes:
    """The same, as bytes."""
    return encode_snapshot(state)


@settings(max_examples=150)
@given(
    kind=st.sampled_from(get_args(Command)),
    now=INSTANTS,
    data=st.data(),
)
def test_any_command_is_decided_or_refused_and_changes_nothing(
    state: State, before: bytes, kind: type, now: datetime, data: st.DataObject
) -> None:
    command = data.draw(_commands(kind, state))
    try:
        decision = decide(state, command, now)
    except RunwayError as error:
        assert isinstance(error.reason, Reason)
        assert error.message
    else:
        assert decide(state, command, now) == decision
    assert encode_snapshot(state) == before


def _commands(kind: type, state: State) -> st.SearchStrategy[Command]:
    """Commands that name what is there as often as what is not."""
    attempts = [attempt for retrain in state.retrains.values() for attempt in retrain.attempts]
    model_ids = st.sampled_from(sorted(state.models)) | TIDY
    named = st.sampled_from(["fleet", "tier:2", "team:team1", "team:none", "tier:9", ""])
    scopes = named | model_ids.map("model:{}".format)
    node_ids = model_ids.map("model:{}".format) | TIDY.map("dataset:{}".format)
    told = st.builds(
        LineageNode, node_id=st.just("") | node_ids, external_id=TIDY, kind=st.none() | st.sampled_from(NodeKind)
    )
    known: dict[str, st.SearchStrategy[object]] = {
        "model_id": model_ids,
        "retrain_id": st.sampled_from(sorted(state.retrains)) | TIDY,
        "rollout_id": st.sampled_from([*sorted(state.rollouts), "ro_"]) | TIDY,
        "attempt_id": st.sampled_from([attempt.attempt_id for attempt in attempts]) | TIDY,
        "lease_token": st.sampled_from([attempt.lease_token for attempt in attempts]) | TIDY,
        "version": st.integers(-1, 4),
        "expected_version": st.none() | st.integers(-1, 4),
        "to": INSTANTS,
        "evaluation": st.builds(an_evaluation, st.integers(0, 4), INSTANTS, stale=st.booleans()),
        "facts": st.builds(a_version, INSTANTS)
        if kind is RegisterVersion
        else st.builds(
            ModelFacts,
            model_id=model_ids,
            owner=TIDY,
            team=TIDY,
            tier=st.integers(0, 5),
            task_type=st.sampled_from(TaskType),
        ),
        "policies": st.lists(st.tuples(scopes, overrides()), max_size=3).map(tuple)
        if kind is ApplyFleet
        else overrides(),
        "overrides": overrides() | st.just({"staleness.nonsense": 1}),
        "scope": scopes,
        "alias": st.sampled_from(["production", "shadow"]),
        "lifecycle": st.sampled_from(Lifecycle),
        "force": st.booleans(),
        "passed": st.booleans(),
        "validation": st.builds(
            Validation, passed=st.booleans(), metric=TIDY, candidate=st.floats(), production=st.none() | st.floats()
        ),
        "coverage": st.none() | st.floats(),
        "dependencies": st.lists(
            st.builds(
                Dependency,
                upstream=st.sampled_from(sorted(state.models)).map("model:{}".format) | TIDY,
                downstream=st.sampled_from(sorted(state.models)).map("model:{}".format),
                edge_type=st.sampled_from(DependencyType),
            ),
            max_size=4,
        ).map(tuple),
        "node_ids": st.lists(node_ids, max_size=3).map(tuple),
        "node_id": node_ids,
        "new_node_id": node_ids,
        "runs": st.lists(
            st.builds(
                LineageRun,
                source=TIDY,
                job=TIDY,
                run_id=TIDY,
                state=st.sampled_from(RunState),
                event_time=st.none() | INSTANTS,
                inputs=st.lists(told, max_size=2).map(tuple),
                outputs=st.lists(told, max_size=2).map(tuple),
                confidence=st.sampled_from([1.0, 0.2, -1.0]),
            ),
            max_size=3,
        ).map(tuple),
        "dependency": st.builds(
            Dependency, upstream=node_ids, downstream=node_ids, edge_type=st.sampled_from(DependencyType)
        ),
        "limits": st.builds(
            RetrainingLimits,
            running_max=st.integers(-1, 60),
            tier1_reserve=st.integers(-1, 60),
            by_team=st.dictionaries(TIDY, st.integers(-1, 5), max_size=2),
            by_resource_class=st.dictionaries(TIDY, st.integers(-1, 5), max_size=2),
            by_scheduler=st.dictionaries(TIDY, st.integers(-1, 5), max_size=2),
            gpu_hours_per_week=st.dictionaries(TIDY, st.floats(), max_size=2),
        ),
        "jitter": st.floats(0, 1),
        "freeze": st.builds(FreezeWindow, name=TIDY, scope=scopes, starts_at=INSTANTS, ends_at=INSTANTS),
        "silence": st.builds(Silence, key=TIDY, until=INSTANTS, by=TIDY),
        "present": st.booleans(),
        "expires_at": st.none() | INSTANTS,
        "replace_revision": st.integers(0, 3),
        "policy": st.builds(
            LineagePolicy,
            suspect_after_runs=st.integers(-1, 300),
            suspect_after=st.timedeltas(timedelta(-1), timedelta(90)),
        ),
        "nodes": st.lists(
            st.builds(Node, node_id=TIDY.map("dataset:{}".format) | model_ids.map("model:{}".format)), max_size=3
        ).map(tuple),
    }
    fields = {field.name for field in msgspec.structs.fields(kind)}
    return st.builds(kind, **{name: strategy for name, strategy in known.items() if name in fields})


# Operations


def test_holding_and_releasing_happen_once() -> None:
    fleet = Fleet()
    assert fleet.new_events(ReleaseRetraining()) == []
    assert fleet.new_events(HoldRetraining()) == ["RetrainingHeld"]
    assert fleet.new_events(HoldRetraining()) == []
    assert fleet.new_events(ReleaseRetraining()) == ["RetrainingReleased"]


def test_a_driven_clock_moves_forward_within_the_calendar() -> None:
    fleet = Fleet()
    assert fleet.new_events(AdvanceClock(to=START)) == ["ClockAdvanced"]
    assert fleet.new_events(AdvanceClock(to=START)) == []
    back = AdvanceClock(to=START - timedelta(seconds=1))
    assert reason_of(lambda: fleet.do(back)) is Reason.CLOCK_MOVED_BACK
    with pytest.raises(Invalid) as caught:
        fleet.do(AdvanceClock(to=CLOCK_MAX + timedelta(seconds=1)))
    assert [violation.field for violation in caught.value.violations] == ["now"]
    assert fleet.new_events(AdvanceClock(to=CLOCK_MAX)) == ["ClockAdvanced"]
    # Even there, everything that adds to a time still works.
    fleet.now = CLOCK_MAX
    fleet.model("m", serving=True)
