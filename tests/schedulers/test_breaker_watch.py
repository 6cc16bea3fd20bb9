"""The counting of calls: exactly at the bounds, across changes of leader, and when the log cannot be written."""

from datetime import timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from control_plane.app.breaker_watch import BreakerWatch
from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.core.commands import Command, OpenBreaker
from control_plane.core.errors import Reason, Unavailable
from control_plane.core.retraining.breaker import CallOutcome
from control_plane.core.state import State
from tests.core.fleets import START

SECOND = timedelta(seconds=1)
OUTCOMES = {"s": CallOutcome.SUCCEEDED, "f": CallOutcome.FAILED, "r": CallOutcome.REFUSED}


class CountingNode:
    """Leads, and keeps what it is told; `away` while its log cannot be written."""

    def __init__(self) -> None:
        self.state = State()
        self.epoch = 1
        self.at = START
        self.away = False
        self.opened: list[str] = []

    def now(self) -> object:
        return self.at

    async def submit(self, submission: Submission[Command]) -> object:
        if self.away:
            raise Unavailable(Reason.STORE_UNAVAILABLE, "the database is away")
        assert isinstance(submission.command, OpenBreaker)
        self.opened.append(submission.command.reason)
        return SimpleNamespace()


@pytest.fixture
def node() -> CountingNode:
    return CountingNode()


@pytest.fixture
def watch(node: CountingNode) -> BreakerWatch:
    return BreakerWatch(cast("Node[State, Command]", node), lambda: 0.5)


async def told(watch: BreakerWatch, node: CountingNode, words: str, every: timedelta = SECOND) -> int:
    """Calls one after the other; how many it took until it opened, 0 if it did not."""
    for number, word in enumerate(words, 1):
        await watch.told("airflow", OUTCOMES[word], "503")
        if node.opened:
            return number
        node.at += every
    return 0


@pytest.mark.parametrize(
    ("words", "every", "after"),
    [
        ("ffff", SECOND, 0),
        ("fffff", SECOND, 5),
        ("fffff", timedelta(hours=1), 5),  # in a row is in a row, however long it takes
        ("ffrrrfff", SECOND, 8),
        ("ffffs" + "ssssss" + "ssssss", SECOND, 0),
        ("sf" * 9 + "s", SECOND, 0),  # 19 calls
        ("sf" * 10, SECOND, 20),
        ("fs" * 10, SECOND, 20),  # half of them failed, whatever came last
        ("fs" * 10, 4 * SECOND, 0),  # never twenty within a minute
        ("sf" * 10, timedelta(seconds=60 / 19), 0),  # the first is a minute old when the twentieth comes
        ("sf" * 10, timedelta(seconds=59.9 / 19), 20),
        ("ssf" * 20, SECOND, 0),
        ("r" * 50 + "sf" * 9 + "r" * 50, SECOND / 10, 0),
    ],
)
async def test_exactly_five_in_a_row_or_half_of_twenty_within_a_minute_open_it(
    watch: BreakerWatch, node: CountingNode, words: str, every: timedelta, after: int
) -> None:
    assert await told(watch, node, words, every) == after


async def test_what_could_not_be_written_is_written_with_the_next_failure(
    watch: BreakerWatch, node: CountingNode
) -> None:
    node.away = True
    await told(watch, node, "ffff")
    with pytest.raises(Unavailable):
        await watch.told("airflow", CallOutcome.FAILED, "503")
    node.away = False
    assert await told(watch, node, "f") == 1


async def test_what_was_counted_in_an_earlier_reign_is_forgotten(watch: BreakerWatch, node: CountingNode) -> None:
    await told(watch, node, "ffff")
    node.epoch += 2
    assert await told(watch, node, "ffff") == 0
    assert await told(watch, node, "f") == 1


async def test_each_scheduler_is_counted_by_itself(watch: BreakerWatch, node: CountingNode) -> None:
    for _ in range(4):
        await watch.told("airflow", CallOutcome.FAILED)
        await watch.told("maestro", CallOutcome.FAILED)
    assert node.opened == []
