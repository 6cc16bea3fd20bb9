"""The fold: any history, cut anywhere, snapshotted or not, gives the same state, and nothing in it is refused."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.app.machine import FleetMachine
from control_plane.app.replica import Replica
from control_plane.core.commands import Command, Result
from control_plane.core.events import Envelope, RetrainingHeld, decode_event, encode_event
from control_plane.core.evolve import evolve
from control_plane.core.sentences import sentence
from control_plane.core.snapshots import decode_snapshot, encode_snapshot
from control_plane.core.state import REQUESTS_DROPPED, REQUESTS_KEPT_MAX, State
from tests.core.fleets import START, Fleet
from tests.simulation.world import World

STEPS = 250


def history(seed: int) -> World:
    """Some hours of a fleet with faults."""
    world = World(seed)
    for _ in range(STEPS):
        world.step()
    return world


def folded(world: World, upto: int | None = None) -> Replica[State, Command]:
    """The state after the first events of a log."""
    replica = Replica(FleetMachine())
    replica.replay(world.log[:upto])
    return replica


@pytest.fixture(scope="module", params=[1, 6])
def world(request: pytest.FixtureRequest) -> World:
    """Two histories."""
    found = history(request.param)
    kinds = {record.kind for record in found.log}
    wanted = {"RetrainLeased", "AliasMoved", "VerdictChanged", "CascadeCooldownStarted", "RulesMatched", "RuleRemoved"}
    assert wanted <= kinds
    return found


def test_the_whole_log_is_a_snapshot_and_its_tail_at_every_cut(world: World) -> None:
    whole = encode_snapshot(folded(world).state)
    walking = Replica(FleetMachine())
    cuts = set(range(0, len(world.log), max(1, len(world.log) // 60)))
    for place, record in enumerate(world.log):
        if place in cuts:
            restored = Replica(FleetMachine())
            restored.state = decode_snapshot(encode_snapshot(walking.state))
            restored.replay(world.log[place:])
            assert encode_snapshot(restored.state) == whole, f"cut at {place}"
        walking.replay([record])
    assert encode_snapshot(walking.state) == whole


@settings(max_examples=25)
@given(cut=st.integers(0, 10_000))
def test_two_cuts_are_as_good_as_one(world: World, cut: int) -> None:
    cut %= len(world.log) + 1
    state = decode_snapshot(encode_snapshot(decode_snapshot(encode_snapshot(folded(world, cut).state))))
    assert encode_snapshot(state) == encode_snapshot(folded(world, cut).state)


def test_the_state_that_lived_is_the_state_that_is_folded(world: World) -> None:
    assert encode_snapshot(world.state) == encode_snapshot(folded(world).state)


def test_every_event_reads_back_and_has_a_sentence(world: World) -> None:
    for envelope in Replica(FleetMachine()).replay(world.log):
        assert decode_event(encode_event(envelope.event)) == envelope.event
        text = sentence(envelope)
        assert text
        assert "\n" not in text


def test_a_restored_state_decides_as_the_one_that_lived(world: World) -> None:
    """Order inside the state (of dicts, of the graph) must survive a snapshot: it reaches events."""
    machine = FleetMachine()
    restored = decode_snapshot(encode_snapshot(world.state))
    assert list(machine.plan(restored, world.now)) == list(machine.plan(world.state, world.now))
    assert list(restored.live_retrains) == list(world.state.live_retrains)
    assert list(restored.models) == list(world.state.models)


def test_evolve_moves_the_place_in_the_log_and_nothing_else_does() -> None:
    fleet = Fleet()
    fleet.model("m")
    assert (fleet.state.revision, fleet.state.epoch, fleet.state.at) == (1, 1, START)


def test_old_request_ids_are_forgotten_in_bulk() -> None:
    state = State()
    for number in range(REQUESTS_KEPT_MAX + 1):
        evolve(
            state,
            Envelope(
                seq=state.revision + 1,
                epoch=1,
                at=START,
                actor="",
                reason="",
                event=RetrainingHeld(),
                request_id=f"r{number}",
                request_digest="d",
                result=Result(),
            ),
        )
    assert len(state.requests) == REQUESTS_KEPT_MAX + 1 - REQUESTS_DROPPED
    assert "r0" not in state.requests
    assert f"r{REQUESTS_KEPT_MAX}" in state.requests


def test_a_snapshot_of_something_else_is_not_a_state() -> None:
    for blob in (b"", b"\x80", b"junk", msgspec.msgpack.encode({"revision": "x"})):
        with pytest.raises(ValueError):
            decode_snapshot(blob)
