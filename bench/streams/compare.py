"""Runway's verdicts and river's detectors on the same streams, side by side, scored by the rules of a backtest.

One policy for all streams and settings (`POLICY`). It says openly what these streams need: a new concept shows in
outcomes alone, so performance has all the weight; inputs shift without harm, so drift has none; an old model is no
worse than a young one while nothing changes, so age has none and its backstop is far away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from bench.streams.detectors import DetectorAlarm, Settings
from bench.streams.versions import TOLERANCE
from bench.streams.world import StreamsWorld
from control_plane.backtest.contenders import Contender, Kind, psi_only, with_policies
from control_plane.backtest.report import Result
from control_plane.backtest.run import run
from control_plane.backtest.scoring import Truth, score
from control_plane.core.policies import Overrides

STREAMS = ("SEA", "Agrawal", "Hyperplane")

POLICY: Overrides = {
    "staleness.weights.age": 0.0,
    "staleness.weights.input_drift": 0.0,
    "staleness.weights.prediction_drift": 0.0,
    "staleness.weights.performance": 1.0,
    "staleness.performance_tolerance": TOLERANCE,
    "staleness.stale_threshold": 0.3,
    "staleness.at_risk_threshold": 0.15,
    "staleness.age_backstop_days": 3650.0,
    "staleness.window_days": 2.0,
    "staleness.labels_min": 800,
    "staleness.cadence": "10800s",
    "staleness.hysteresis_k": 2,
    "staleness.hysteresis_n": 3,
    "retraining.cooldown": "172800s",
}

FLOOR_BELOW = 0.10
"""Every model's floor: so much below what its first version showed. A version that was trained half on the world
before measures itself by a low baseline and is content with it for ever; the floor is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How the labels come."""

    name: str
    label_delay_days: int = 2
    blind: bool = False


TWO_DAYS = Setting(name="2 days late")
SETTINGS = (
    TWO_DAYS,
    Setting(name="14 days late", label_delay_days=14),
    Setting(name="2 days late, missing for half the models", blind=True),
)


def world_of(stream: str, setting: Setting, *, days: int = 120, models: int = 4, seed: int = 1) -> StreamsWorld:
    """The fleet on one stream."""
    return StreamsWorld(
        stream,
        models=models,
        days=days,
        label_delay_days=setting.label_delay_days,
        blind=setting.blind,
        policy=POLICY,
        floor_below=FLOOR_BELOW,
        seed=seed,
    )


def runway_contender() -> Contender:
    """Verdicts under `POLICY`."""
    return with_policies("Runway")


def compared(world: StreamsWorld, settings: Sequence[Settings], *, usual: bool = False) -> list[Result]:
    """Runway first, then detectors; with `usual` PSI alone too."""
    truth = Truth(world)
    found = [score(run(world, runway_contender()), truth)]
    for one in settings:
        contender = Contender(name=one.name, kind=Kind.EVERY, every=timedelta(days=1))
        found.append(score(run(world, contender, asks=DetectorAlarm(world, one)), truth))
    if usual:
        found.append(score(run(world, psi_only()), truth))
    return found


def best_of(results: Sequence[Result]) -> Result:
    """The one with the highest F1, the first of equals."""
    return max(results, key=lambda one: one.f1)
