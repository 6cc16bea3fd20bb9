"""What the small world meets besides a terrible scheduler: canaries, people, freezes, groups, holds, outages.

It draws from a generator of its own, so that what it does can grow without changing everything else of a history.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from control_plane.core.commands import (
    AbortRollout,
    ApproveRollout,
    Command,
    DeclineRollout,
    GroupRollouts,
    HoldRetrain,
    HoldRollout,
    OpenBreaker,
    RecordLook,
    RecordProbe,
    ReleaseRetrain,
    ReleaseRollout,
    RemoveFreeze,
    ReportFailure,
    ReportValidation,
    ReportWeight,
    RequestRetrain,
    RollBack,
    SetFreeze,
    SetPolicies,
)
from control_plane.core.ids import AttemptId, ModelId, RolloutId
from control_plane.core.policies import Overrides
from control_plane.core.retraining.breaker import Call, CallOutcome, tripped
from control_plane.core.retraining.types import Attempt, BreakerState, FailureClass, RetrainCause, RetrainState
from control_plane.core.rollout.types import FreezeWindow, Rollout, RolloutState
from tests.simulation.arms import Arms, Traffic

if TYPE_CHECKING:
    from tests.simulation.world import World

MINUTE = timedelta(minutes=1)
SERVED = "team1"
"""The team with machines of its own kind."""
BAD = -0.2
SERVING: Overrides = {
    "rollout.serving": "edge",
    "rollout.metrics": "engagement higher 3%",
    "rollout.bake": "600s",
    "rollout.observations_min": 500,
    "rollout.wait_max": "5400s",
}


@dataclass(slots=True)
class Hazards:
    """Everything that happens to candidates and schedulers."""

    world: "World"
    seed: int
    rng: np.random.Generator = field(init=False)
    arms: dict[RolloutId, Arms] = field(default_factory=dict)
    effects: dict[tuple[ModelId, int], float] = field(default_factory=dict)
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=100))
    down_until: datetime | None = None
    late: list[tuple[datetime, ReportValidation]] = field(default_factory=list)
    freezes: int = 0
    groups: int = 0
    quiet: bool = False

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed + 20_000)

    def begin(self) -> None:
        """One team needs machines of its own kind."""
        self.world.submit(SetPolicies(scope=f"team:{SERVED}", overrides={"retraining.resource_class": "big"}))

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    # Schedulers

    def starts(self, attempt_id: AttemptId, attempt: Attempt) -> bool:
        """Does the scheduler start what it has leased? In an outage it cannot."""
        world = self.world
        failed = self.down_until is not None and world.now < self.down_until
        outcome = CallOutcome.FAILED if failed else CallOutcome.SUCCEEDED
        self.calls.append(Call(world.now, outcome, "503"))
        breaker = world.state.breakers.get("fake")
        half = breaker is not None and breaker.state is BreakerState.HALF_OPEN
        jitter = float(self.rng.random())
        if failed:
            world.met["scheduler_outage"] += 1
            failure = ReportFailure(
                attempt_id=attempt_id,
                lease_token=attempt.lease_token,
                failure="the scheduler said 503",
                failure_class=FailureClass.SCHEDULER,
            )
            world.submit(failure)
            why = tripped(list(self.calls), world.now)
            if why:
                self.calls.clear()
                world.submit(OpenBreaker(scheduler="fake", reason=why, jitter=jitter))
        elif half:
            world.submit(RecordProbe(scheduler="fake", succeeded=True, detail="", jitter=jitter))
        return not failed

    # One minute

    def step(self) -> None:
        """People, traffic, schedulers."""
        if not self.quiet:
            self._people()
            if self._chance(0.005):
                self.down_until = self.world.now + MINUTE * int(self.rng.integers(5, 60))
        due = [one for at, one in self.late if at <= self.world.now or self.quiet]
        self.late = [(at, one) for at, one in self.late if one not in due]
        for one in due:
            self.world.submit(one)
        for rollout in list(self.world.state.rolling()):
            self._serve(rollout)
        for rollout_id in list(self.world.state.unconfirmed_rollouts):
            self._weight(self.world.state.rollouts[rollout_id])

    def _people(self) -> None:
        world = self.world
        state = world.state
        if self._chance(0.01):
            self._freeze()
        live = [state.retrains[one] for one in state.live_retrains]
        if live and self._chance(0.02):
            one = live[int(self.rng.integers(len(live)))]
            world.submit(ReleaseRetrain(retrain_id=one.retrain_id))
            if one.state is RetrainState.WAITING and self._chance(0.5):
                world.submit(HoldRetrain(retrain_id=one.retrain_id), actor="a person")
        if live and self._chance(0.01):
            model_id = live[int(self.rng.integers(len(live)))].model_id
            world.submit(RequestRetrain(model_id=model_id, cause=RetrainCause.OPERATOR, supersede=True))
        served_twice = [model_id for model_id, record in state.models.items() if record.aliases.get("previous")]
        if served_twice and self._chance(0.02):
            model_id = served_twice[int(self.rng.integers(len(served_twice)))]
            world.submit(RollBack(model_id=model_id), actor="a person")
        served = [one for one in state.rolling() if one.plan.serving and one.production_before]
        fresh = [one for one in served if one.state in (RolloutState.VALIDATING, RolloutState.AWAITING_APPROVAL)]
        if len(fresh) >= 2 and self._chance(0.2):
            self.groups += 1
            named = tuple(one.rollout_id for one in fresh[:3])
            world.submit(GroupRollouts(group_id=f"g{self.groups}", rollout_ids=named))
        if served and self._chance(0.02):
            self._by_hand(served[int(self.rng.integers(len(served)))])

    def _by_hand(self, one: Rollout) -> None:
        commands: tuple[Command, ...] = (
            HoldRollout(rollout_id=one.rollout_id, by="a person", why="let me look"),
            ReleaseRollout(rollout_id=one.rollout_id),
            ReleaseRollout(rollout_id=one.rollout_id),
            AbortRollout(rollout_id=one.rollout_id, by="a person"),
        )
        self.world.submit(commands[int(self.rng.integers(len(commands)))])

    def _freeze(self) -> None:
        world = self.world
        if world.state.freezes and self._chance(0.3):
            world.submit(RemoveFreeze(name=next(iter(world.state.freezes))))
            return
        self.freezes += 1
        scopes = ("fleet", "tier:1", f"team:{SERVED}", "team:team0")
        starts = world.now + MINUTE * int(self.rng.integers(0, 30))
        window = FreezeWindow(
            name=f"freeze{self.freezes}",
            scope=scopes[int(self.rng.integers(len(scopes)))],
            starts_at=starts,
            ends_at=starts + MINUTE * int(self.rng.integers(5, 90)),
        )
        world.submit(SetFreeze(freeze=window))

    # Traffic

    def candidate(self, model_id: ModelId, version: int) -> None:
        """A version with a true effect that the offline gate does not see."""
        effect = BAD if self._chance(0.3) else 0.0
        self.effects[(model_id, version)] = effect
        self.world.releases.measured(model_id, version, effect)

    def validate(self, report: ReportValidation) -> None:
        """At once, or as late as whoever validates pleases."""
        if self.quiet or self._chance(0.4):
            self.world.submit(report)
            return
        self.late.append((self.world.now + MINUTE * int(self.rng.integers(5, 28)), report))

    def _serve(self, rollout: Rollout) -> None:
        if rollout.state not in (RolloutState.CANARY, RolloutState.AWAITING_DECISION):
            return
        if rollout.rollout_id not in self.arms:
            effect = self.effects.get((rollout.model_id, rollout.version), 0.0)
            silent = MINUTE * int(self.rng.integers(5, 200)) if self._chance(0.4) else timedelta(0)
            self.world.met["silent_metrics"] += silent > timedelta(0)
            self.world.met["harmful_candidate"] += effect < 0
            traffic = Traffic(per_hour=200_000, mean=0.5, spread=0.5, effect=effect)
            now = self.world.now
            self.arms[rollout.rollout_id] = Arms(traffic, now, now + silent)
        self._weight(rollout)
        if rollout.state is RolloutState.AWAITING_DECISION and self._chance(0.05):
            sound = self.effects.get((rollout.model_id, rollout.version), 0.0) > BAD
            if sound:
                self.world.submit(ApproveRollout(rollout_id=rollout.rollout_id, approver="a person"))
            else:
                self.world.submit(DeclineRollout(rollout_id=rollout.rollout_id, by="a person"))
        elif self._chance(0.3):
            look = self.arms[rollout.rollout_id].look(self.world.now, self.rng, "engagement")
            self.world.submit(RecordLook(rollout_id=rollout.rollout_id, look=look))

    def _weight(self, rollout: Rollout) -> None:
        if rollout.weight == rollout.weight_applied or self._chance(0.3):
            return
        if not self.quiet and self._chance(0.1):
            self.world.met["weight_failure"] += 1
            self.world.submit(ReportWeight(rollout_id=rollout.rollout_id, failure="503"))
            return
        if rollout.rollout_id in self.arms:
            self.arms[rollout.rollout_id].shift(rollout.weight, self.world.now, self.rng)
        self.world.submit(ReportWeight(rollout_id=rollout.rollout_id, weight=rollout.weight))

    def stop(self) -> None:
        """The faults stop: nobody holds anything, nothing is frozen, the scheduler answers."""
        self.quiet, self.down_until = True, None
        state = self.world.state
        for retrain in list(state.living()):
            self.world.submit(ReleaseRetrain(retrain_id=retrain.retrain_id))
        for rollout in list(state.rolling()):
            self.world.submit(ReleaseRollout(rollout_id=rollout.rollout_id))
        for name in list(state.freezes):
            self.world.submit(RemoveFreeze(name=name))
