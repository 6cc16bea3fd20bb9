"""What changed in Runway, heard of as it happens: one watch for each process that evaluates sensors.

Sensors are evaluated every few seconds, and Dagster gives no way to wake one. They used to ask the control plane each
time whether anything was new. Now a thread follows the change stream and notes, for each thing that is drawn, the
newest revision at which it changed; a sensor compares that with the revision it has shown, which costs nothing, and
asks only when there is something to fetch. The watch resumes by itself after a break; if too much was missed,
everything counts as changed.
"""

import atexit
import threading
from collections.abc import Mapping
from enum import Enum
from typing import Protocol

from runway_client import InvalidRequest, RunwayRpcError

from assets.plane import Change, Connect, ControlPlane

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
"""Between attempts to reach a control plane that is away; the client resumes by itself once it was connected."""

CATCH_UP_S_MAX = 2.0
"""How long the first sensor of a process waits for the watch to begin; without it, it asks as if all had changed."""


class Topic(Enum):
    """What is drawn."""

    FLEET = "fleet"
    """Models, nodes, dependencies and what is said about them."""
    VERDICTS = "verdicts"
    PRODUCTION = "production"


TOPICS: Mapping[str, frozenset[Topic]] = {
    **dict.fromkeys(
        (
            "ModelRegistered",
            "ModelUpdated",
            "PoliciesSet",
            "NodesDeclared",
            "DependenciesDeclared",
            "DependenciesRetracted",
            "NodesDiscovered",
            "NodesRemoved",
            "NodesMoved",
            "EdgesSettled",
            "OverrideSet",
            "OverrideCleared",
        ),
        frozenset({Topic.FLEET}),
    ),
    "LifecycleChanged": frozenset({Topic.FLEET, Topic.VERDICTS, Topic.PRODUCTION}),
    "VerdictChanged": frozenset({Topic.VERDICTS}),
    "RulesMatched": frozenset({Topic.VERDICTS}),
    "StreakChanged": frozenset({Topic.VERDICTS}),
    "AliasMoved": frozenset({Topic.PRODUCTION, Topic.VERDICTS}),
}
"""What an event of a kind changes."""


class News(Protocol):
    """What a sensor asks before it asks the control plane."""

    def changed(self, topic: Topic, after_revision: int) -> int | None:
        """The revision to remember if the topic changed after `after_revision`, or may have; None if it has not."""
        ...


class Following:
    """Follows the control plane from revision `since` in a thread of its own, once started."""

    def __init__(self, connect: Connect, since: int) -> None:
        self._connect = connect
        self._marks = dict.fromkeys(Topic, since)
        self._since = since
        self._heard = threading.Condition()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._plane: ControlPlane | None = None
        self.revision = since
        """Everything up to here has been heard of."""
        self.connected = False
        """Heard of anything on the present connection."""

    def changed(self, topic: Topic, after_revision: int) -> int | None:
        """See `News`. Starts to follow when first asked, so that a process which only draws the fleet never does."""
        self._begin()
        with self._heard:
            mark = self._marks[topic]
            # A revision that is ahead of ours is of another log: somebody began anew.
            return mark if mark > after_revision or after_revision > self.revision else None

    def wait_for(self, revision: int, timeout_s: float) -> bool:
        """Wait until everything up to `revision` has been heard of; whether it has."""
        self._begin()
        with self._heard:
            return self._heard.wait_for(lambda: self.connected and self.revision >= revision, timeout_s)

    def close(self) -> None:
        """Stop following."""
        atexit.unregister(self.close)
        self._closed.set()
        if self._plane is not None:
            self._plane.close()
        if self._thread is not None:
            self._thread.join()

    def _begin(self) -> None:
        with self._heard:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._follow, name="follow runway", daemon=True)
            self._thread.start()
            atexit.register(self.close)  # before the interpreter takes apart what the thread stands on
            self._heard.wait_for(lambda: self.connected, CATCH_UP_S_MAX)

    def _follow(self) -> None:
        pause_s = RETRY_FIRST_S
        kinds: tuple[str, ...] = tuple(sorted(TOPICS))
        while not self._closed.is_set():
            plane = self._plane = self._connect()
            try:
                for change in plane.changes(self.revision, kinds):
                    pause_s = RETRY_FIRST_S
                    self._hear(change)
            except InvalidRequest:
                kinds = ()  # an older control plane does not know all of them: take everything
            except RunwayRpcError as error:
                if error.reason in ("WATCH_TOO_OLD", "REVISION_NOT_REACHED"):
                    self._start_over(plane)
            finally:
                plane.close()
                self.connected = False
            self._closed.wait(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    def _hear(self, change: Change) -> None:
        with self._heard:
            for topic in TOPICS.get(change.kind, ()):
                self._marks[topic] = change.revision
            self.revision = max(self.revision, change.revision)
            self.connected = True
            self._heard.notify_all()

    def _start_over(self, plane: ControlPlane) -> None:
        """More was missed than the control plane keeps, or this is another log: all may have changed."""
        try:
            newest = plane.status().revision
        except RunwayRpcError:
            return
        with self._heard:
            self.revision = newest
            self._marks = dict.fromkeys(Topic, newest)
