"""How often the judge of a canary is wrong, and how soon it is right.

Each canary is simulated minute by minute through the real rules (`judge`, `needs`): 5 %, 20 %, 50 % of the traffic,
10,000 observations of each arm a step, one look a minute, in the last step up to twice as long as planned. The metric
is a rate of engagement about one half, with a tolerance of 3 %.

- canary_false_rollback: share rolled back though the candidate is no worse, in percent.
- canary_power: share of candidates with 3 % less engagement that is rolled back before 50 % of the traffic, in percent.
- canary_promote_equal: share of equal candidates that reaches all of the traffic by itself, in percent.

Beside it, on the same numbers, what a user would pick instead: a z-test at 5 %, looked at every minute.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from msgspec.structs import replace

from control_plane.core.ids import ModelId, RolloutId
from control_plane.core.rollout.canary import counts_of, needs
from control_plane.core.rollout.judge import judge
from control_plane.core.rollout.types import (
    Arm,
    CanaryMetric,
    Direction,
    JudgeVerdict,
    Look,
    Rollout,
    RolloutPlan,
    RolloutState,
    RolloutStep,
)

IDS = ("canary_false_rollback", "canary_power", "canary_promote_equal")
NAME = "engagement"
RATE = 0.5
DROP = 0.03
OBSERVATIONS = 10_000
LOOKS = 60
CANARIES = 3_000
START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PLAN = RolloutPlan(
    serving="bench",
    steps=tuple(
        RolloutStep(weight=weight, bake=LOOKS * MINUTE, observations_min=OBSERVATIONS) for weight in (0.05, 0.2, 0.5)
    ),
    metrics=(CanaryMetric(name=NAME, direction=Direction.HIGHER, tolerance=DROP),),
)
Z_PEEKING = 1.645


@dataclass(frozen=True, slots=True)
class End:
    """How one canary ended, and in which step."""

    state: str
    step: int
    peeking_rolled_back: bool
    peeking_step: int


def arm(count: int, hits: int) -> Arm:
    """The sufficient statistics of a rate."""
    mean = hits / count
    return Arm(count=count, mean=mean, m2=count * mean * (1 - mean))


def canary(rng: np.random.Generator, rate: float) -> End:
    """One canary against a control at `RATE`, minute by minute."""
    rollout = Rollout(
        rollout_id=RolloutId("ro_000001"),
        model_id=ModelId("m"),
        version=2,
        production_before=1,
        state=RolloutState.CANARY,
        started_at=START,
        plan=PLAN,
        step=0,
        weight=0.05,
        weight_applied=0.05,
        stepped_at=START,
    )
    per_look = OBSERVATIONS // LOOKS + 1
    most = LOOKS * (len(PLAN.steps) + len(PLAN.steps))
    hits = np.cumsum(rng.binomial(per_look, [[rate], [RATE]], (2, most)), axis=1)
    peeked, peeked_step = False, 0
    for look_number in range(most):
        now = START + (look_number + 1) * MINUTE
        count = per_look * (look_number + 1)
        candidate, control = arm(count, int(hits[0, look_number])), arm(count, int(hits[1, look_number]))
        if not peeked:
            error = np.sqrt((candidate.m2 + control.m2) / count**2)
            if (candidate.mean - control.mean) / error < -Z_PEEKING:
                peeked, peeked_step = True, rollout.step
        look = Look(
            at=now,
            candidate={NAME: candidate},
            control={NAME: control},
            candidate_requests=count,
            control_requests=count,
        )
        judged = judge(PLAN, look, rollout.step)
        if judged.verdict is JudgeVerdict.FAIL:
            return End("rolled back", rollout.step, *_to_the_end(peeked, peeked_step, hits, per_look, look_number))
        counts = counts_of(PLAN, look)
        if not needs(rollout, counts, judged, now):
            if rollout.step + 1 == len(PLAN.steps):
                return End("promoted", rollout.step, peeked, peeked_step)
            step = rollout.step + 1
            weight = PLAN.steps[step].weight
            rollout = replace(
                rollout, step=step, weight=weight, weight_applied=weight, stepped_at=now, step_counts=counts
            )
    return End("asks", rollout.step, peeked, peeked_step)


def _to_the_end(peeked: bool, step: int, hits: Any, per_look: int, look_number: int) -> tuple[bool, int]:
    """Whether the peeker, too, would have rolled back by the time that the canary was planned to end."""
    for later in range(look_number + 1, LOOKS * len(PLAN.steps)):
        if peeked:
            break
        count = per_look * (later + 1)
        first, second = hits[0, later] / count, hits[1, later] / count
        error = np.sqrt((first * (1 - first) + second * (1 - second)) / count)
        if (first - second) / error < -Z_PEEKING:
            peeked, step = True, later // LOOKS
    return peeked, step


def run() -> list[dict[str, Any]]:
    """Three rows from two sets of canaries."""
    rng = np.random.default_rng(6)
    equal = [canary(rng, RATE) for _ in range(CANARIES)]
    harmed = [canary(rng, RATE * (1 - DROP)) for _ in range(CANARIES)]
    early = len(PLAN.steps) - 1

    def percent(found: list[bool]) -> float:
        return 100 * sum(found) / len(found)

    note = f"{CANARIES} canaries, 10,000 observations of each arm a step, a look every minute, rate {RATE}"
    return [
        {
            "id": "canary_false_rollback",
            "value": percent([one.state == "rolled back" for one in equal]),
            "unit": "%",
            "peers": {"z-test at 5 %, peeking": percent([one.peeking_rolled_back for one in equal])},
            "note": f"of equal candidates; target < 3; {note}",
        },
        {
            "id": "canary_power",
            "value": percent([one.state == "rolled back" and one.step < early for one in harmed]),
            "unit": "%",
            "peers": {
                "z-test at 5 %, peeking": percent(
                    [one.peeking_rolled_back and one.peeking_step < early for one in harmed]
                ),
                "rolled back at all": percent([one.state == "rolled back" for one in harmed]),
                "promoted": percent([one.state == "promoted" for one in harmed]),
            },
            "note": "of candidates with 3 % less, before 50 % of the traffic; target >= 80",
        },
        {
            "id": "canary_promote_equal",
            "value": percent([one.state == "promoted" for one in equal]),
            "unit": "%",
            "peers": {"z-test at 5 %, peeking": percent([not one.peeking_rolled_back for one in equal])},
            "note": f"target >= 90; {percent([one.state == 'asks' for one in equal]):.1f} % ask for a decision",
        },
    ]
