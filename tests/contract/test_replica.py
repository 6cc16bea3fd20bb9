"""The replica alone, without a store: the same log gives the same state, whatever the cut."""

from datetime import UTC, datetime

import zstandard
from hypothesis import given
from hypothesis import strategies as st

from control_plane.app.ports import Snapshot
from control_plane.app.replica import Batch, Replica
from control_plane.core.errors import Refused
from tests.contract.nodes import add
from tests.contract.toy import ToyCommand, ToyMachine, ToyState

NOW = datetime(2013, 1, 1, tzinfo=UTC)

submissions = st.lists(
    st.builds(
        add,
        st.sampled_from("abc"),
        st.integers(-2, 5),
        request_id=st.one_of(st.none(), st.sampled_from(["r1", "r2", "r3", "r4"])),
        parts=st.integers(1, 3),
    ),
    max_size=30,
)


def written(replica: Replica[ToyState, ToyCommand], todo: list) -> list[Batch]:  # type: ignore[type-arg]
    """Decide everything; a batch after every third command."""
    batches = []
    for place, submission in enumerate(todo):
        try:
            replica.decide(submission, NOW)
        except Refused:
            continue
        if place % 3 == 0 and (batch := replica.take()) is not None:
            replica.stored(batch)
            batches.append(batch)
    if (batch := replica.take()) is not None:
        replica.stored(batch)
        batches.append(batch)
    return batches


@given(submissions, st.data())
def test_a_snapshot_and_the_tail_give_the_whole_at_every_cut(todo: list, data: st.DataObject) -> None:  # type: ignore[type-arg]
    machine = ToyMachine()
    original = Replica(machine)
    records = [record for batch in written(original, todo) for record in batch.records]
    cut = data.draw(st.integers(0, len(records)))

    first = Replica(machine)
    first.replay(records[:cut])
    seq, digest, blob = first.snapshot()
    second = Replica(machine)
    second.restore(Snapshot(seq=seq, hash=digest, codec=1, blob=zstandard.compress(blob)))
    second.replay(records[cut:])
    whole = Replica(machine)
    whole.replay(records)

    assert whole.state == second.state == original.state
    assert machine.encode_snapshot(whole.state) == machine.encode_snapshot(second.state)


@given(submissions)
def test_a_request_id_is_used_up_by_its_first_command_only(todo: list) -> None:  # type: ignore[type-arg]
    replica = Replica(ToyMachine())
    written(replica, todo)
    assert len(replica.state.applied) == len(set(replica.state.applied))
    assert all(total >= 0 for total in replica.state.totals.values())
