"""What must hold of candidates, told by a twin: approvals, freezes, groups, aliases, and who may reach all traffic."""

from datetime import datetime

from control_plane.core.events import (
    AliasMoved,
    ApprovalAsked,
    Envelope,
    Event,
    FreezeRemoved,
    FreezeSet,
    ModelRegistered,
    RolloutApproved,
    RolloutEnded,
    RolloutHeld,
    RolloutReleased,
    RolloutsGrouped,
    RolloutStarted,
    RolloutStepped,
    WeightReported,
)
from control_plane.core.rollout.types import FreezeWindow, RolloutState
from control_plane.core.state import State

WORSE = -0.1
"""True effects at or below this are far beyond any tolerance in use: no bad luck lets one pass."""


class Released(AssertionError):
    """A promise about candidates was broken; the text says which, and at which seq."""


class Releases:
    """One history's candidates."""

    def __init__(self) -> None:
        self.seq = 0
        self.at: datetime | None = None
        self.scopes: dict[str, frozenset[str]] = {}
        self.production: dict[str, int] = {}
        self.previous: dict[str, int] = {}
        self.live: dict[str, RolloutStarted] = {}
        self.of_model: dict[str, str] = {}
        self.step: dict[str, int] = {}
        self.weight: dict[str, float] = {}
        self.stepped_at: dict[str, datetime] = {}
        self.approvers: dict[str, set[str]] = {}
        self.decided: set[str] = set()
        self.asked: set[str] = set()
        self.held: set[str] = set()
        self.freezes: dict[str, FreezeWindow] = {}
        self.group_of: dict[str, str] = {}
        self.members: dict[str, tuple[str, ...]] = {}
        self.leaving: list[str] = []
        """Of a group that goes back: who is still to follow, in order, within the same decision."""
        self.going: list[str] = []
        self.restoring: list[str] = []
        self.effects: dict[tuple[str, int], float] = {}
        self.by_hand: set[tuple[str, int]] = set()
        self.moved: dict[str, int] = {}
        """Model -> version that became production in this decision, before its rollout said so."""
        self.serving: dict[str, tuple[str, int]] = {}
        """Promoted rollouts of groups -> model and version."""
        self.rollbacks = 0
        self.promotions = 0
        self.worse_stopped = 0

    # What the world tells

    def measured(self, model_id: str, version: int, effect: float) -> None:
        """The true effect of a version, which no rule knows."""
        self.effects[(model_id, version)] = effect

    def forced(self, model_id: str, version: int) -> None:
        """Somebody is about to send a version into production by hand, whatever the rules say."""
        self.by_hand.add((model_id, version))

    # What happens

    def happened(self, envelope: Envelope) -> None:
        """One event, in log order."""
        self.seq, self.at = envelope.seq, envelope.at
        event = envelope.event
        match event:
            case ModelRegistered():
                facts = event.facts
                self.scopes[facts.model_id] = frozenset(
                    ("fleet", f"tier:{facts.tier}", f"team:{facts.team}", f"model:{facts.model_id}")
                )
            case FreezeSet():
                self.freezes[event.freeze.name] = event.freeze
            case FreezeRemoved():
                del self.freezes[event.name]
            case RolloutsGrouped():
                self.members[event.group.group_id] = tuple(event.group.rollout_ids)
                for rollout_id in event.group.rollout_ids:
                    self.group_of[rollout_id] = event.group.group_id
            case AliasMoved() if event.alias in ("production", "previous"):
                self._alias(event)
            case _:
                self._rollout(event)

    def _rollout(self, event: Event) -> None:
        match event:
            case RolloutStarted():
                self._hold(event.model_id not in self.of_model, f"{event.model_id} has two live rollouts")
                self.live[event.rollout_id] = event
                self.of_model[event.model_id] = event.rollout_id
                self.step[event.rollout_id] = -1
                self.weight[event.rollout_id] = 0.0
            case ApprovalAsked():
                self.asked.add(event.rollout_id)
            case RolloutApproved():
                self._approved(event)
            case RolloutHeld():
                self.held.add(event.rollout_id)
            case RolloutReleased():
                self.held.discard(event.rollout_id)
            case RolloutStepped():
                self._stepped(event)
            case WeightReported():
                if event.weight is not None and event.rollout_id not in self.live:
                    self._hold(event.weight in (0.0, 1.0), f"{event.rollout_id} has ended and splits traffic")
            case RolloutEnded():
                self._ended(event)
            case _:
                pass

    def _approved(self, event: RolloutApproved) -> None:
        started = self.live[event.rollout_id]
        self._hold(event.approver != started.requested_by, f"{event.rollout_id} was approved by who asked for it")
        self.approvers.setdefault(event.rollout_id, set()).add(event.approver)
        self.decided.add(event.rollout_id)

    def _forward(self, rollout_id: str, what: str) -> None:
        """What every step forward must respect: approvals, freezes, holds."""
        started = self.live[rollout_id]
        if (started.model_id, started.version) in self.by_hand:
            return
        given = len(self.approvers.get(rollout_id, ()))
        self._hold(given >= started.plan.approvals, f"{rollout_id} {what} with {given} of its approvals")
        self._hold(rollout_id not in self.held, f"{rollout_id} {what} while it is held")
        now = self.at
        assert now is not None
        frozen = [
            freeze.name
            for freeze in self.freezes.values()
            if freeze.scope in self.scopes[started.model_id] and freeze.starts_at <= now < freeze.ends_at
        ]
        self._hold(not frozen, f"{rollout_id} {what} in freeze {', '.join(frozen)}")

    def _stepped(self, event: RolloutStepped) -> None:
        rollout_id = event.rollout_id
        self._forward(rollout_id, f"took step {event.step}")
        plan = self.live[rollout_id].plan
        if event.state is RolloutState.CANARY:
            self._hold(event.step == self.step[rollout_id] + 1, f"{rollout_id} skipped a step")
            self._hold(event.weight == plan.steps[event.step].weight, f"{rollout_id} has a weight of no step")
            self._baked(rollout_id, event.step)
        self.step[rollout_id], self.weight[rollout_id] = event.step, event.weight
        assert self.at is not None
        self.stepped_at[rollout_id] = self.at
        self.decided.discard(rollout_id)

    def _baked(self, rollout_id: str, following: int) -> None:
        """The step before was left only after its time, unless a person decided."""
        before = following - 1
        if before < 0 or rollout_id in self.decided:
            return
        assert self.at is not None
        bake = self.live[rollout_id].plan.steps[before].bake
        self._hold(self.at >= self.stepped_at[rollout_id] + bake, f"{rollout_id} left step {before} half baked")

    def _alias(self, event: AliasMoved) -> None:
        now = self.production if event.alias == "production" else self.previous
        self._hold(now.get(event.model_id, 0) == event.from_version, f"{event.model_id}: {event.alias} was elsewhere")
        if event.alias == "production":
            self._hold(event.to_version > 0, f"{event.model_id} lost its production version")
            self.moved[event.model_id] = event.to_version
        now[event.model_id] = event.to_version

    def _ended(self, event: RolloutEnded) -> None:
        rollout_id = event.rollout_id
        if rollout_id not in self.live:
            # A promoted one was rolled back: production points elsewhere by now.
            self._hold(event.state is RolloutState.ROLLED_BACK, f"{rollout_id} ended twice")
            away = self.production[event.model_id] != event.version
            self._hold(away, f"{rollout_id} was rolled back and still serves")
            self._hold(event.model_id in self.moved, f"{rollout_id} was rolled back and production did not move")
            del self.moved[event.model_id]
            self._restored(event)
            self.rollbacks += 1
            return
        started = self.live[rollout_id]
        if event.state is RolloutState.PROMOTED:
            self._promoted(event, started)
        else:
            serves = self.production.get(event.model_id) == event.version
            self._hold(not serves, f"{rollout_id} ended {event.state.value} and its version serves")
            self._group_goes_back(rollout_id)
            self.rollbacks += event.state is RolloutState.ROLLED_BACK
            self.worse_stopped += self.effects.get((event.model_id, event.version), 0.0) <= WORSE
        del self.live[rollout_id]
        self.moved.pop(event.model_id, None)
        if self.of_model.get(event.model_id) == rollout_id:
            del self.of_model[event.model_id]
        self.held.discard(rollout_id)

    def _promoted(self, event: RolloutEnded, started: RolloutStarted) -> None:
        rollout_id = event.rollout_id
        self._hold(self.production.get(event.model_id) == event.version, f"{rollout_id} is promoted and does not serve")
        self.promotions += 1
        self._forward(rollout_id, "was promoted")
        if (event.model_id, event.version) in self.by_hand:
            return
        split = bool(started.plan.serving) and started.production_before != 0
        if split:
            last = len(started.plan.steps) - 1
            self._hold(self.step[rollout_id] == last, f"{rollout_id} was promoted from step {self.step[rollout_id]}")
            self._baked(rollout_id, last + 1)
            effect = self.effects.get((event.model_id, event.version), 0.0)
            self._hold(
                effect > WORSE or rollout_id in self.decided,
                f"{event.model_id} version {event.version} is {effect:+.0%} and has all of the traffic",
            )
        group = self.group_of.get(rollout_id)
        if group is not None:
            members = [one for one in self.members[group] if one in self.live]
            self._hold(members[:1] == [rollout_id], f"{rollout_id} was promoted before {members[0]} of its group")
            self.going = members[1:]
            self.serving[rollout_id] = (event.model_id, event.version)

    def _group_goes_back(self, rollout_id: str) -> None:
        group = self.group_of.get(rollout_id)
        if group is None:
            return
        members = [one for one in self.members[group] if one in self.live]
        self._hold(members[-1:] == [rollout_id], f"{rollout_id} went back before {members[-1]}, which moves with it")
        self.leaving = members[:-1]

    def _restored(self, event: RolloutEnded) -> None:
        """One of a promoted group goes back: all that still serve that set follow, in the opposite order."""
        group = self.group_of.get(event.rollout_id)
        if group is None:
            return
        self.serving.pop(event.rollout_id, None)
        still = [one for one in self.members[group] if one in self.serving and self._serves(one)]
        place = self.members[group].index(event.rollout_id)
        later = [one for one in still if self.members[group].index(one) > place]
        self._hold(not later, f"{event.rollout_id} went back before {later}, which moved with it")
        self.restoring = still

    def _serves(self, rollout_id: str) -> bool:
        model_id, version = self.serving[rollout_id]
        return self.production[model_id] == version and self.previous.get(model_id, 0) > 0

    def decided_all(self) -> None:
        """A decision is complete: no group is half promoted or half gone back."""
        self._hold(not self.leaving, f"a group went back without {self.leaving}")
        self._hold(not self.going, f"a group was promoted without {self.going}")
        self._hold(not self.restoring, f"a group was restored without {self.restoring}")
        self._hold(not self.moved, f"production moved and no rollout says so: {sorted(self.moved)}")

    def at_rest(self, state: State) -> None:
        """The state says the same of who serves, and nothing is under way."""
        self._hold(not self.live, f"rollouts never ended: {sorted(self.live)}")
        serving = {m: r.aliases["production"] for m, r in state.models.items() if "production" in r.aliases}
        self._hold(serving == self.production, "the state and the log disagree about who serves")

    def _hold(self, condition: bool, text: str) -> None:
        if not condition:
            raise Released(f"seq {self.seq}: {text}")
