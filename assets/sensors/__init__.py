"""What runs by itself in Dagster: leases, reports, verdicts, checks, joins, reloads. None of them decides anything."""

from assets.sensors.backfills import backfill_sensor
from assets.sensors.cancel import cancel_sensor
from assets.sensors.checks import check_sensor
from assets.sensors.ground_truth import follow_clock_sensor, ground_truth_schedules
from assets.sensors.lease import lease_sensor
from assets.sensors.production import production_sensor
from assets.sensors.reload import reload_in_background, reload_sensor, wall_clock
from assets.sensors.run_status import run_status_sensor
from assets.sensors.staleness import staleness_sensor

__all__ = [
    "backfill_sensor",
    "cancel_sensor",
    "check_sensor",
    "follow_clock_sensor",
    "ground_truth_schedules",
    "lease_sensor",
    "production_sensor",
    "reload_in_background",
    "reload_sensor",
    "run_status_sensor",
    "staleness_sensor",
    "wall_clock",
]
