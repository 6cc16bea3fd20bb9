"""Dagster's run queue with Runway's limits: the second fence, never the first.

Runway releases no more than its limits allow; this holds even if a lease came twice or people launch runs by hand.
The queue asks for its limits at every pass (once a second), so a change of Runway's limits needs no restart. Limits
are read in the background: a control plane that is slow or away must not stop the queue, which goes on with the last.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dagster import DagsterRun
from dagster._core.run_coordinator.base import SubmitRunContext
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator, RunQueueConfig
from runway_client import RunwayRpcError

from assets.fleet import Fleet, last_good_path, read_last_good
from assets.plane import Limits
from assets.tags import MODEL_TAG, PRIORITY_TAG, TEAM_TAG, TIER_TAG, run_priority

REFRESH_EVERY_S = 3.0
"""A changed limit holds within seconds, and the control plane is asked less often than the queue is."""


class LiveLimits:
    """The newest limits known. Never blocks and never raises."""

    def __init__(self, read: Callable[[], Limits], clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._clock = read, clock
        self._known: Limits | None = None
        self._asked_s: float | None = None
        self._lock = threading.Lock()
        self._reading: threading.Thread | None = None

    def now(self) -> Limits | None:
        """The last limits read; None before any were. Starts a read when they are old."""
        with self._lock:
            busy = self._reading is not None and self._reading.is_alive()
            due = self._asked_s is None or self._clock() - self._asked_s >= REFRESH_EVERY_S
            if due and not busy:
                self._asked_s = self._clock()
                self._reading = threading.Thread(target=self._refresh, name="runway limits", daemon=True)
                self._reading.start()
            return self._known

    def settle(self) -> None:
        """Wait for a read that is under way."""
        if self._reading is not None:
            self._reading.join()

    def _refresh(self) -> None:
        try:
            known = self._read()
        except RunwayRpcError:
            return
        with self._lock:
            self._known = known


class RunwayRunCoordinator(QueuedRunCoordinator[Any]):
    """QueuedRunCoordinator with limits from Runway; the ones in dagster.yaml hold until the first are read."""

    def __init__(self, *, limits: LiveLimits | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.limits = limits or LiveLimits(_read_limits)

    def get_run_queue_config(self) -> RunQueueConfig:
        """The limits of this pass."""
        configured, limits = super().get_run_queue_config(), self.limits.now()
        if limits is None:
            return configured
        return configured._replace(
            max_concurrent_runs=limits.running_max,
            tag_concurrency_limits=[*configured.tag_concurrency_limits, *team_limit(limits)],
        )

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Enqueue a run; one that a person launched gets the team and the priority of its models."""
        run = context.dagster_run
        missing = stamps(run, read_last_good(last_good_path())) if TEAM_TAG not in run.tags else {}
        if missing:
            self._instance.add_run_tags(run.run_id, missing)
        return super().submit_run(context)


def team_limit(limits: Limits) -> Sequence[Mapping[str, Any]]:
    """So many runs of each team."""
    return [
        {"key": TEAM_TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": limits.running_per_team_max},
    ]


def stamps(run: DagsterRun, fleet: Fleet | None) -> dict[str, str]:
    """Tags for a run without them: the team if its models have one, and the priority of the least critical of them.

    The least critical, because one run of many models would otherwise ride on its most critical one.
    """
    keys = {*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())}
    wanted = {key.path[0] for key in keys if len(key.path) == 1}
    models = [model for model in fleet.models if model.model_id in wanted] if fleet is not None else []
    if not models:
        return {}
    tier = max(model.tier for model in models)
    found = {TIER_TAG: str(tier), PRIORITY_TAG: run.tags.get(PRIORITY_TAG, run_priority(tier))}
    teams = {model.team for model in models}
    if len(teams) == 1:
        found[TEAM_TAG] = teams.pop()
    if len(models) == 1:
        found[MODEL_TAG] = models[0].model_id
    return found


def _read_limits() -> Limits:
    from assets.grpc_plane import GrpcPlane  # noqa: PLC0415 (the daemon alone reads limits; the web server need not load it)

    plane = GrpcPlane(retry_for_s=0.0)
    try:
        return plane.status().limits
    finally:
        plane.close()
