"""How the demo fleet's server splits traffic, and what it counts of each arm. No server in here.

Each flight is asked about by `TRAVELLERS` people, and a person is the unit: hashed with the rollout's id to a place
between 0 and 1. The candidate answers those below its weight, the control those above 1 minus its own, production the
rest. So who once sees the candidate goes on seeing it as its share grows, and the arms never mix.

What a traveller's answer is worth is told at once by the real flight: `engagement`, minutes spent with the app, is the
longer the closer the answer was to what really happened.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import msgspec
import numpy as np
import numpy.typing as npt

from assets.flights.fleet import FlightModel

TRAVELLERS = 40
"""People who ask about one flight; with fewer a canary of one airport would last months."""
MINUTES_LEAST, MINUTES_MORE = 4.0, 6.0
"""Engagement of a useless answer, and what a perfect one adds."""
MINUTES_SPREAD = 0.2
"""People differ by so much, as a share."""
ERROR_MINUTES = 30.0
"""A prediction in minutes that is off by this is half as useful as a perfect one."""
CANDIDATE, CONTROL, REST = "candidate", "control", "production"

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int64]


class Harm(msgspec.Struct, frozen=True, kw_only=True):
    """What is put in the way of a version, to see what comes of it."""

    version: int
    engagement: float = 0.0
    """Share of the engagement that is lost, 0 to 1."""
    latency_ms: float = 0.0
    """Added to each answer."""


class Tally(msgspec.Struct, kw_only=True):
    """One metric of one arm, as sums."""

    count: int = 0
    sum: float = 0.0
    sum_squares: float = 0.0

    def add(self, values: Floats) -> None:
        """Count these observations."""
        self.count += len(values)
        self.sum += float(values.sum())
        self.sum_squares += float((values * values).sum())


class ArmTally(msgspec.Struct, kw_only=True):
    """One arm."""

    requests: int = 0
    metrics: dict[str, Tally] = msgspec.field(default_factory=dict)

    def add(self, requests: int, metrics: Mapping[str, Floats]) -> None:
        """Count what an arm was asked and what came of it."""
        self.requests += requests
        for name, values in metrics.items():
            self.metrics.setdefault(name, Tally()).add(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Shares of one model's traffic."""

    salt: str
    candidate_weight: float
    control_weight: float


def travellers(flight_ids: Ids) -> Ids:
    """Who asks about each flight, shape (n, TRAVELLERS)."""
    asked: Ids = flight_ids[:, None] * TRAVELLERS + np.arange(TRAVELLERS, dtype=np.int64)
    return asked


def places(units: Ids, salt: str) -> Places:
    """Each unit's place in [0, 1), the same whenever it is asked for with the same salt.

    >>> bool((places(np.array([1, 2]), "ro_1") == places(np.array([1, 2]), "ro_1")).all())
    True
    """
    seed = np.uint64(int.from_bytes(sha256(salt.encode()).digest()[:8], "little"))
    # The finalizer of SplitMix64, with its published constants: every bit of the unit reaches every bit of the place.
    mixed = units.astype(np.uint64) ^ seed
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    found: Places = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return found


def arms(units: Ids, split: Split) -> tuple[Bools, Bools]:
    """Which units the candidate answers, and which are the control."""
    at = places(units, split.salt)
    candidate: Bools = at < split.candidate_weight
    control: Bools = ~candidate & (at >= 1.0 - split.control_weight)
    return candidate, control


def usefulness(model: FlightModel, scores: Floats, outcomes: Floats) -> Floats:
    """How close each answer came to what happened, 0 to 1; NaN where nothing happened."""
    error = np.abs(scores - outcomes)
    found: Floats = 1.0 - error if model.task == "binary" else 1.0 / (1.0 + error / ERROR_MINUTES)
    return found


def engagement(useful: Floats, units: Ids, harm: Harm | None) -> Floats:
    """Minutes that travellers spend after an answer; those whose flight never was are left out.

    Args:
        useful: of each flight's answer, shape (n,).
        units: who asked, shape (n, TRAVELLERS).
    """
    mood = 1.0 + MINUTES_SPREAD * (2.0 * places(units, "mood") - 1.0)
    minutes = (MINUTES_LEAST + MINUTES_MORE * useful)[:, None] * mood
    kept: Floats = minutes * (1.0 - harm.engagement) if harm is not None else minutes
    return kept


def latency(base_ms: float, units: Ids, harm: Harm | None) -> Floats:
    """Milliseconds that each answer took: what scoring one flight was measured to take, with a spread around it."""
    spread = 0.8 + 0.4 * places(units, "latency")
    return base_ms * spread + (harm.latency_ms if harm is not None else 0.0)
