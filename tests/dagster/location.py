"""A code location for daemon tests, loaded in the test's own process.

Dagster keeps what it loads for as long as the process lives, so the definitions ask for the world of the test that runs
only when they are used.
"""

import dagster as dg

from assets.following import Topic
from assets.location import build_definitions
from tests.dagster.candidate_checks import fairness
from tests.dagster.worlds import World

current: list[World] = []


class CurrentNews:
    """What the world of the test that runs has heard of."""

    def changed(self, topic: Topic, after_revision: int) -> int | None:
        """Ask it."""
        following = current[-1].following
        assert following is not None
        return following.changed(topic, after_revision)


def fleet() -> dg.Definitions:
    """The definitions of the world of the test that runs."""
    return build_definitions(
        current[-1].plane.shown,
        lambda: current[-1].plane,
        {"flights": lambda: current[-1].trainer},
        news=CurrentNews(),
        linger_s=0,
        checks=[fairness],
    )
