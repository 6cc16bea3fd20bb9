"""Leases what Runway has released and turns each lease into a run.

Nothing is decided here. A lease whose run was never made (the reply was lost, the daemon died, the model is newer
than this code location) is not among the attempts we know, so the control plane returns it at the next tick;
`run_key` is the attempt, so a lease that comes twice still makes one run.

Dagster looks at its sensors every five seconds. A tick that finds nothing therefore lingers and asks again until the
next one is near: a slot that gets free is filled within half a second instead of up to five.
"""

import time
from collections.abc import Callable

import dagster as dg
from runway_client import RunwayRpcError

from assets.fleet import Fleet
from assets.plane import Connect, Lease
from assets.tags import (
    ATTEMPT_TAG,
    CAUSES_TAG,
    DATA_UNTIL_TAG,
    GROUP_TAG,
    LEASE_TAG,
    MEMORY_SCALE_TAG,
    MODEL_TAG,
    OFFLINE_VALIDATION,
    PRIORITY_TAG,
    PROBE_TAG,
    RESOURCE_CLASS_TAG,
    RETRAIN_TAG,
    TEAM_TAG,
    TIER_TAG,
    run_priority,
)

LEASES_PER_TICK_MAX = 50
"""The asked-for limit of retrains at once: one tick can fill it. Making 50 runs takes a few seconds."""

RUNS_KNOWN_MAX = 10_000
"""As many as the contract takes; far above what can be queued under any sensible limit."""

LIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

EVERY_S = 1

LINGER_S = 3.5
"""Together with a slow answer it stays below Dagster's five seconds, so that no tick is skipped."""

ASK_AGAIN_S = 0.5


def lease_sensor(
    fleet: Fleet, connect: Connect, *, linger_s: float = LINGER_S, sleep: Callable[[float], None] = time.sleep
) -> dg.SensorDefinition:
    """The sensor; `fleet` is what this code location has loaded."""
    known_models = {model.model_id for model in fleet.models}

    @dg.sensor(
        name="lease_retrains",
        asset_selection=_selection(known_models),
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes the retrains that Runway has released, in its order and within its limits, and runs them.",
    )
    def lease_retrains(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        plane = connect()
        try:
            leases = plane.lease(live_attempts(context.instance), LEASES_PER_TICK_MAX)
            left_s = linger_s
            while left_s > 0 and not any(lease.model_id in known_models for lease in leases):
                sleep(ASK_AGAIN_S)
                left_s -= ASK_AGAIN_S
                leases = plane.lease(live_attempts(context.instance), LEASES_PER_TICK_MAX)
        except RunwayRpcError as error:
            return dg.SensorResult(skip_reason=error.message)
        finally:
            plane.close()
        runnable = [lease for lease in leases if lease.model_id in known_models]
        later = sorted({lease.model_id for lease in leases} - known_models)
        if later:
            context.log.info(f"Not loaded here yet, so left for the next tick: {', '.join(later)}")
        if not runnable:
            return dg.SensorResult(skip_reason="Runway has released nothing new.")
        return dg.SensorResult(run_requests=[run_request(lease) for lease in runnable])

    return lease_retrains


def live_attempts(instance: dg.DagsterInstance) -> list[str]:
    """Attempts that have a run here which has not ended. Ended ones are the run-status sensor's to report."""
    return sorted({run.tags[ATTEMPT_TAG] for run in live_runs(instance) if ATTEMPT_TAG in run.tags})


def live_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Runs that have not ended."""
    return list(instance.get_runs(filters=dg.RunsFilter(statuses=LIVE), limit=RUNS_KNOWN_MAX))


def run_request(lease: Lease) -> dg.RunRequest:
    """The run of a lease."""
    key = dg.AssetKey([lease.model_id])
    return dg.RunRequest(
        run_key=lease.attempt_id,
        asset_selection=[key],
        # Without this the check `fresh` would run too, in a step of its own.
        asset_check_keys=[dg.AssetCheckKey(key, OFFLINE_VALIDATION)],
        tags={
            ATTEMPT_TAG: lease.attempt_id,
            RETRAIN_TAG: lease.retrain_id,
            LEASE_TAG: lease.lease_token,
            MODEL_TAG: lease.model_id,
            TEAM_TAG: lease.team,
            TIER_TAG: str(lease.tier),
            CAUSES_TAG: ",".join(lease.causes),
            DATA_UNTIL_TAG: lease.data_until.isoformat(),
            PRIORITY_TAG: run_priority(lease.tier),
            RESOURCE_CLASS_TAG: lease.resource_class,
            **({MEMORY_SCALE_TAG: str(lease.memory_scale)} if lease.memory_scale > 1 else {}),
            **({GROUP_TAG: lease.group} if lease.group else {}),
            **({PROBE_TAG: "yes"} if lease.probe else {}),
        },
    )


def _selection(model_ids: set[str]) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*(dg.AssetKey([model_id]) for model_id in sorted(model_ids)))
