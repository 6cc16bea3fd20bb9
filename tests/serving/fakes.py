"""A serving system and its metrics in memory, in any mood. It passes the contract suite that the real ones pass."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from control_plane.app.serving import ServingRefused, ServingUnavailable, Target, Weights
from control_plane.core.ids import ModelId
from control_plane.core.rollout.types import Arm, Look, Rollout


@dataclass(slots=True)
class FakeServing:
    """`mood`: "" works, "down" is not there, "refusing" says no, "hanging" never answers."""

    mood: str = ""
    silent: bool = False
    """Does as it is told, but never says how it serves."""
    asked: int = 0
    targets: dict[ModelId, Target] = field(default_factory=dict)
    told: list[Target] = field(default_factory=list)
    """Everything that it was told, also when it did not do it."""

    async def set_weights(self, target: Target) -> None:
        """Remember it, in a good mood."""
        self.told.append(target)
        await self._mood()
        before = self.targets.get(target.model_id)
        if before is not None and (before.epoch, before.revision) > (target.epoch, target.revision):
            raise ServingRefused("a newer control plane has spoken")
        self.targets[target.model_id] = target

    async def weights(self, model_id: ModelId) -> Weights | None:
        """What it remembers."""
        self.asked += 1
        await self._mood()
        if self.silent:
            await asyncio.Event().wait()
        target = self.targets.get(model_id)
        if target is None:
            return None
        return Weights(
            production=target.production.version if target.production is not None else None,
            candidate=target.candidate.version if target.candidate is not None else None,
            candidate_weight=target.candidate_weight,
            control_weight=target.control_weight,
            shadow=target.shadow,
        )

    async def close(self) -> None:
        """Nothing to let go of."""

    async def _mood(self) -> None:
        match self.mood:
            case "down":
                raise ServingUnavailable("the fake is down")
            case "refusing":
                raise ServingRefused("the fake refuses")
            case "hanging":
                await asyncio.Event().wait()
            case _:
                pass


@dataclass(slots=True)
class FakeMetrics:
    """Says whatever a test puts into `looks`; `mood` as above."""

    mood: str = ""
    looks: dict[ModelId, Look] = field(default_factory=dict)
    reads: int = 0

    async def read(self, rollout: Rollout, now: datetime) -> Look:
        """The look of a model; an empty one if it has none."""
        self.reads += 1
        match self.mood:
            case "down":
                raise ServingUnavailable("the metrics are down")
            case "refusing":
                raise ServingRefused("the metrics refuse")
            case "hanging":
                await asyncio.Event().wait()
            case _:
                pass
        return self.looks.get(rollout.model_id, Look(at=now))

    async def close(self) -> None:
        """Nothing to let go of."""


def a_look(at: datetime, candidate: float, control: float, count: int, metric: str = "engagement") -> Look:
    """Both arms with so many observations of zeros and ones, of these means."""
    return Look(
        at=at,
        candidate={metric: Arm(count=count, mean=candidate, m2=count * candidate * (1 - candidate))},
        control={metric: Arm(count=count, mean=control, m2=count * control * (1 - control))},
        candidate_requests=count,
        control_requests=count,
    )
