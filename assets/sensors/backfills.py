"""Lets retrains wait while ground truth is being backfilled: what trained now would learn from half of it.

A backfill joins days or hours again, whose labels were late or wrong, partition by partition. While one is under way
each waiting retrain is held in Runway by Dagster's name, with the backfill in the reason, so that `runway why` and
`retrains list` say it; when none is, those are released. What a person holds, or asked for with `--ignore-cooldown`,
is left alone. Level-triggered: nothing is remembered, and a daemon that died releases at its next tick.
"""

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from runway_client import RunwayRpcError, Unreachable
from runway_client.errors import NoAnswer

from assets.ground_truth import GROUND_TRUTH
from assets.plane import Connect, ControlPlane, Waiting
from assets.tags import SCHEDULER

EVERY_S = 2
UNDER_WAY = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]


def backfill_sensor(connect: Connect) -> dg.SensorDefinition:
    """The sensor."""

    @dg.sensor(
        name="wait_for_backfills",
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Holds waiting retrains while ground truth is being backfilled, and releases them afterwards.",
    )
    def wait_for_backfills(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        under_way = [words for one in backfills(context.instance) if (words := of_ground_truth(one))]
        plane = connect()
        try:
            said = hold(plane, "; ".join(under_way)) if under_way else release(plane)
        except (Unreachable, NoAnswer) as error:
            said = [error.message]
        finally:
            plane.close()
        return dg.SensorResult(skip_reason="; ".join(said or under_way) or "Nothing is being backfilled.")

    return wait_for_backfills


def backfills(instance: dg.DagsterInstance) -> list[PartitionBackfill]:
    """Those under way."""
    return list(instance.get_backfills(filters=BulkActionsFilter(statuses=UNDER_WAY)))


def of_ground_truth(backfill: PartitionBackfill) -> str:
    """What of the ground truth a backfill makes anew, in words; empty if nothing."""
    touched = sorted(GROUND_TRUTH & {key.path[-1] for key in backfill.asset_selection or ()})
    if not touched:
        return ""
    names = backfill.partition_names
    which = f" ({names[0]} to {names[-1]})" if names else ""
    return f"backfill {backfill.backfill_id} of {' and '.join(touched)}{which} is under way"


def hold(plane: ControlPlane, why: str) -> list[str]:
    """Hold what nobody holds; what there is to say of it."""
    held = [one for one in plane.waiting() if not one.held_by and not one.ignore_cooldown]
    return [f"{one.model_id} waits" for one in held if _done(plane, one, why)]


def release(plane: ControlPlane) -> list[str]:
    """Release what was held here."""
    held = [one for one in plane.waiting() if one.held_by == SCHEDULER]
    return [f"{one.model_id} goes on" for one in held if _done(plane, one, "")]


def _done(plane: ControlPlane, retrain: Waiting, why: str) -> bool:
    """Hold with a reason, or release without one. False if the retrain waits no more."""
    try:
        if why:
            plane.hold_retrain(retrain.retrain_id, why)
        else:
            plane.release_retrain(retrain.retrain_id)
    except (Unreachable, NoAnswer):
        raise
    except RunwayRpcError:
        return False
    return True
