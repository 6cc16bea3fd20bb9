"""Traffic of a canary: what candidate and control measure while the candidate has a true effect."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from control_plane.core.rollout.types import Arm, Look

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Requests an hour of the whole model, and one metric with its spread; `effect` is relative to the mean."""

    per_hour: float
    mean: float
    spread: float
    effect: float


@dataclass(slots=True)
class Arms:
    """Both arms of one canary; nothing is seen before `silent_until`, and then all of it."""

    traffic: Traffic
    seen_at: datetime
    silent_until: datetime
    weight: float = 0.0
    candidate: Arm = field(default_factory=Arm)
    control: Arm = field(default_factory=Arm)

    def shift(self, weight: float, now: datetime, rng: np.random.Generator) -> None:
        """From now on the candidate gets this share, and the control as much."""
        self._see(now, rng)
        self.weight = weight

    def look(self, now: datetime, rng: np.random.Generator, metric: str) -> Look:
        """All that was measured so far."""
        self._see(now, rng)
        if now < self.silent_until:
            return Look(at=now, trouble="the metrics' source gives no answer")
        return Look(
            at=now,
            candidate={metric: self.candidate},
            control={metric: self.control},
            candidate_requests=self.candidate.count,
            control_requests=self.control.count,
        )

    def _see(self, now: datetime, rng: np.random.Generator) -> None:
        expected = self.traffic.per_hour * min(self.weight, 0.5) * ((now - self.seen_at) / HOUR)
        self.seen_at = now
        if expected < 1:
            return
        mean = self.traffic.mean
        self.candidate = self._more(self.candidate, expected, mean * (1 + self.traffic.effect), rng)
        self.control = self._more(self.control, expected, mean, rng)

    def _more(self, arm: Arm, expected: float, mean: float, rng: np.random.Generator) -> Arm:
        count, spread = int(rng.poisson(expected)), self.traffic.spread
        if count < 2:
            return arm
        seen = mean + spread / count**0.5 * float(rng.standard_normal())
        squares = spread * spread * float(rng.chisquare(count - 1))
        total = arm.count + count
        apart = seen - arm.mean
        return Arm(
            count=total,
            mean=arm.mean + apart * count / total,
            m2=arm.m2 + squares + apart * apart * arm.count * count / total,
        )
