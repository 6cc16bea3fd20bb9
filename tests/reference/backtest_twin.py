"""Scores of a backtest hour by hour, the slow way: one list of hours per model, one question per hour."""

import statistics
from dataclasses import dataclass
from datetime import timedelta

from control_plane.backtest.run import Run
from control_plane.backtest.world import World

HOUR = timedelta(hours=1)


@dataclass
class TwinScores:
    """What `scoring.score` says too."""

    retrains: int
    stale_hours: float
    false_alarms: int
    delays: list[float]
    stretches: int
    true_alarms: int
    alarms: int
    quality: float


def scored(run: Run, world: World) -> TwinScores:
    """Ask the world about each hour of each model."""
    hours = int((world.end - world.start) / HOUR)
    stale_hours = stretches = true_alarms = 0
    delays: list[float] = []
    qualities: dict[tuple[str, object], list[float]] = {}
    for facts in world.models:
        was = []
        for hour in range(hours):
            at = world.start + HOUR * hour
            [serving] = [
                stint.trained
                for stint in run.stints
                if stint.trained.model_id == facts.model_id and stint.since <= at < stint.until
            ]
            midnight = at.replace(hour=0)
            was.append(world.truly_stale(serving, max(midnight, world.start)))
            value = world.quality(serving, max(midnight, world.start))
            if value is not None:
                turned = value if serving.higher_is_better else -value
                qualities.setdefault((facts.model_id, midnight), []).append(turned)
        stale_hours += sum(was)
        asked = [one for one in run.asked if one.model_id == facts.model_id]
        true_alarms += sum(was[int((one.at - world.start) / HOUR)] for one in asked)
        hour = 0
        while hour < hours:
            if not was[hour]:
                hour += 1
                continue
            begin = hour
            while hour < hours and was[hour]:
                hour += 1
            stretches += 1
            live = [
                (one.at - world.start) / HOUR
                for one in asked
                if any(one.at <= world.start + HOUR * h + HOUR / 2 < one.until for h in range(begin, hour))
            ]
            if live:
                delays.append(max(min(live) - begin, 0.0))
    return TwinScores(
        retrains=len(run.trainings),
        stale_hours=stale_hours,
        false_alarms=len(run.asked) - true_alarms,
        delays=delays,
        stretches=stretches,
        true_alarms=true_alarms,
        alarms=len(run.asked),
        quality=statistics.fmean(statistics.fmean(values) for values in qualities.values()) if qualities else 0.0,
    )
