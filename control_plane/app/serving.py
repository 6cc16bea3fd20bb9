"""What Runway asks of systems that serve models: split the traffic so, and say what each arm measured.

Traffic of one model has up to three parts: the candidate's, a control of equal size that production answers, and the
rest, which production answers too. Candidate and control run at the same time, so whatever else changes in the world
changes for both.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec

from control_plane.core.ids import ModelId, RolloutId
from control_plane.core.registry.types import PRODUCTION
from control_plane.core.rollout.types import SERVING, Arm, Look, Rollout, RolloutState
from control_plane.core.state import State

SHADOW_WEIGHT = 0.05
"""Share of the traffic that a candidate in the shadow gets a copy of, where its plan has no first step to go by."""


class ServingUnavailable(Exception):
    """Not now, or nobody knows whether: the same request may be sent again. The message is a sentence without numbers
    that change from try to try, because it is told only when it changes."""


class ServingRefused(Exception):
    """The system says no, and will say no again until somebody changes something; the message says what."""


class ServedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version and where its artifact is."""

    version: int
    uri: str = ""
    sha256: str = ""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """How a model shall be served. Setting it twice is setting it once.

    Without `candidate` all of the traffic is production's: before a canary, after a promotion, after a rollback. In the
    `shadow` the candidate gets a copy of the control's requests and answers nobody; `candidate_weight` is 0 then.
    """

    model_id: ModelId
    rollout_id: RolloutId
    """On whose behalf."""
    production: ServedVersion | None
    """None while nothing is in production."""
    candidate: ServedVersion | None = None
    candidate_weight: float = 0.0
    """Share of the traffic, 0 to 1."""
    control_weight: float = 0.0
    """Of the same size, but never more than what the candidate leaves."""
    shadow: bool = False
    group_id: str = ""
    """Candidates of one group serve the same units."""
    epoch: int = 0
    revision: int = 0
    """(epoch, revision) only grow: a system that compares them cannot be told old news by a leader of yesterday."""


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is served now, as precisely as the system can split; None where it does not say."""

    production: int | None = None
    candidate: int | None = None
    candidate_weight: float = 0.0
    control_weight: float = 0.0
    shadow: bool = False


class Serving(Protocol):
    """A system that serves models."""

    async def set_weights(self, target: Target) -> None:
        """Serve a model so from now on. Idempotent.

        Raises:
            ServingUnavailable: not done, or nobody knows; try again.
            ServingRefused: trying again is of no use.
        """
        ...

    async def weights(self, model_id: ModelId) -> Weights | None:
        """How a model is served; None when the system does not know the model or cannot tell.

        Raises ServingUnavailable, ServingRefused.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class CanaryMetrics(Protocol):
    """Where the numbers of a canary come from."""

    async def read(self, rollout: Rollout, now: datetime) -> Look:
        """What candidate and control measured from `rollout.canary_since` until `now`: each metric of the plan that
        both have numbers of, and the requests each was given. A metric without numbers is left out, not zero.

        Raises ServingUnavailable, ServingRefused.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSystem:
    """A serving system as it is configured: who splits, and who measures. Without metrics somebody reports them by
    `ReportCanary`."""

    serving: Serving
    metrics: CanaryMetrics | None = None


@dataclass(frozen=True, slots=True)
class NoServing:
    """In place of a system that nobody configured: it refuses, and says what to write."""

    name: str
    known: tuple[str, ...] = field(default=())

    def sentence(self) -> str:
        """What is wrong and what to do about it."""
        have = f"configured are {', '.join(self.known)}" if self.known else "none is configured"
        return (
            f"there is no serving system {self.name!r} ({have}): add [serving.{self.name}] to the control plane's "
            "configuration, or change the policy's rollout.serving"
        )

    async def set_weights(self, target: Target) -> None:
        """Refuse."""
        raise ServingRefused(self.sentence())

    async def weights(self, model_id: ModelId) -> Weights | None:
        """Nothing is known."""
        return None

    async def read(self, rollout: Rollout, now: datetime) -> Look:
        """Refuse."""
        raise ServingRefused(self.sentence())

    async def close(self) -> None:
        """There is nothing to let go of."""


def target_of(state: State, rollout: Rollout) -> Target:
    """How the model of a rollout shall be served, as of this state: what its newest live canary wants; otherwise all
    traffic to whatever is in production."""
    record = state.models[rollout.model_id]
    live = state.rollouts[record.live_rollout] if record.live_rollout else None
    production = record.aliases.get(PRODUCTION)
    common = Target(
        model_id=rollout.model_id,
        rollout_id=rollout.rollout_id,
        production=_served(state, rollout.model_id, production) if production else None,
        group_id=rollout.group_id,
        epoch=state.epoch,
        revision=state.revision,
    )
    if live is None or live.state not in SERVING or live.plan.serving != rollout.plan.serving:
        return common
    shadow = live.state is RolloutState.SHADOW
    weight = 0.0 if shadow else live.weight
    first = live.plan.steps[0].weight if live.plan.steps else SHADOW_WEIGHT
    return msgspec.structs.replace(
        common,
        rollout_id=live.rollout_id,
        candidate=_served(state, live.model_id, live.version),
        candidate_weight=weight,
        control_weight=first if shadow else min(weight, 1.0 - weight),
        shadow=shadow,
        group_id=live.group_id,
    )


def _served(state: State, model_id: ModelId, number: int) -> ServedVersion:
    facts = state.models[model_id].versions[number - 1].facts
    return ServedVersion(version=number, uri=facts.artifact_uri, sha256=facts.artifact_sha256)


def arm_of(count: float, total: float, squares: float) -> Arm:
    """Sufficient statistics from a count, a sum and a sum of squares.

    Rounding can make the squares a little too small; that is no spread, not an error.

    >>> arm_of(4, 10.0, 30.0)
    Arm(count=4, mean=2.5, m2=5.0)
    """
    whole = round(count) if math.isfinite(count) else 0
    if whole <= 0:
        return Arm()
    mean = total / whole
    return Arm(count=whole, mean=mean, m2=max(0.0, squares - whole * mean * mean))


def usable(look: Look) -> tuple[Look, str]:
    """A look without numbers that are none, and what was left out, in words; empty if nothing was.

    A metric that one arm has no usable number of says nothing about the other either, so it is left out of both.
    """
    broken: dict[str, str] = {}
    for arm, metrics in (("candidate", look.candidate), ("control", look.control)):
        for name, of in metrics.items():
            if not (math.isfinite(of.mean) and math.isfinite(of.m2) and of.count >= 0 and of.m2 >= 0):
                broken.setdefault(name, f"{name} of the {arm} is no number")
    if not broken and look.candidate_requests >= 0 and look.control_requests >= 0:
        return look, ""
    kept = msgspec.structs.replace(
        look,
        candidate=_without(look.candidate, broken),
        control=_without(look.control, broken),
        candidate_requests=max(0, look.candidate_requests),
        control_requests=max(0, look.control_requests),
    )
    return kept, "; ".join(broken[name] for name in sorted(broken)) or "a negative number of requests was reported"


def _without(metrics: Mapping[str, Arm], broken: Mapping[str, str]) -> dict[str, Arm]:
    return {name: arm for name, arm in metrics.items() if name not in broken}
