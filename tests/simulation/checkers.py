"""What must hold in every history, told by a twin that knows only the events and none of the rules' code."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from control_plane.app.replica import Answer
from control_plane.core.commands import Result
from control_plane.core.events import (
    AliasMoved,
    AttemptEnded,
    CascadeCooldownStarted,
    Envelope,
    LeaseRenewed,
    LifecycleChanged,
    LoadChecked,
    ModelRegistered,
    PoliciesSet,
    RetrainEnded,
    RetrainingHeld,
    RetrainingReleased,
    RetrainJoined,
    RetrainLeased,
    RetrainRequested,
    RolloutStarted,
    RuleRemoved,
    RuleSet,
    RulesMatched,
    VerdictChanged,
    VersionRegistered,
)
from control_plane.core.graph.facts import Dependency
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import Lifecycle
from control_plane.core.retraining.types import (
    AttemptState,
    FailureClass,
    RetrainCause,
    RetrainingLimits,
    RetrainingPolicy,
    RetrainState,
)
from control_plane.core.rollout.types import Validation
from control_plane.core.rules.types import NO_OUTCOME, RuleOutcome
from control_plane.core.state import State


class Violated(AssertionError):
    """A promise was broken; the text says which, and at which seq."""


class Checkers:
    """One history's promises."""

    def __init__(self, *, limits: RetrainingLimits, policy: RetrainingPolicy) -> None:
        self.limits = limits
        self.policy = policy
        self.seq = 0
        self.at: datetime | None = None
        self.team: dict[str, str] = {}
        self.direct: dict[str, set[str]] = defaultdict(set)
        self.live: dict[str, str] = {}
        self.ended: dict[str, RetrainState] = {}
        self.running: dict[str, RetrainLeased] = {}
        self.expires: dict[str, datetime] = {}
        self.attempts: dict[str, int] = defaultdict(int)
        self.cooling: dict[str, datetime] = {}
        self.ended_at: dict[str, datetime] = {}
        self.not_before: dict[str, datetime] = {}
        self.hurried: set[str] = set()
        self.held = False
        self.passed: set[tuple[str, int]] = set()
        self.versions: dict[str, int] = defaultdict(int)
        self.candidates: set[tuple[str, int]] = set()
        self.answers: dict[str, tuple[Result, int]] = {}
        self.promotions = 0
        self.tier: dict[str, int] = {}
        self.retired: set[str] = set()
        self.said: dict[str, Overrides] = {}
        self.loads: dict[tuple[str, int], bool] = {}
        self.rules: set[tuple[str, str]] = set()
        self.outcomes: dict[str, RuleOutcome] = {}
        self.leased_ever: set[str] = set()
        self.above: dict[str, frozenset[str]] = {}

    # What the world tells

    def edges(self, dependencies: Iterable[Dependency]) -> None:
        """The model graph, as declared."""
        for dependency in dependencies:
            self.direct[dependency.downstream.removeprefix("model:")].add(dependency.upstream.removeprefix("model:"))
        self.above.clear()

    def validated(self, model_id: str, version: int, validation: Validation) -> None:
        """Somebody measured a candidate."""
        if validation.passed:
            self.passed.add((model_id, version))

    def answered(self, request_id: str, answer: Answer) -> None:
        """The same request id, the same answer, whatever crashed in between."""
        first = self.answers.setdefault(request_id, (answer.result, answer.revision))
        changes_nothing = answer.result.changed == 0 and first[0].changed == 0
        self._hold(first[0] == answer.result or changes_nothing, f"{request_id} was answered twice, differently")

    def happened(self, envelope: Envelope) -> None:  # noqa: PLR0912 - one branch per kind of event
        """One event, in log order."""
        self._hold(envelope.seq == self.seq + 1, f"seq {envelope.seq} follows {self.seq}")
        self._hold(self.at is None or envelope.at >= self.at, "time ran backwards")
        self.seq, self.at = envelope.seq, envelope.at
        event = envelope.event
        match event:
            case ModelRegistered():
                self.team[event.facts.model_id] = event.facts.team
                self.tier[event.facts.model_id] = event.facts.tier
            case RetrainRequested():
                self._hold(event.model_id not in self.live, f"{event.model_id} has two live retrains")
                self._hold(event.model_id not in self.retired, f"{event.model_id} is retired and retrains")
                self._hold(event.retrain_id not in self.ended, f"{event.retrain_id} was used before")
                self._asked(event)
                self.live[event.model_id] = event.retrain_id
                self.not_before[event.retrain_id] = event.not_before
                if event.ignore_cooldown:
                    self.hurried.add(event.retrain_id)
            case RetrainJoined():
                self.not_before[event.retrain_id] = event.not_before
                if event.ignore_cooldown:
                    self.hurried.add(event.retrain_id)
            case RetrainLeased():
                self._leased(event, envelope.at)
            case LeaseRenewed():
                self._hold(event.attempt_id in self.running, f"{event.attempt_id} was renewed but does not run")
                self._hold(
                    self.expires[event.attempt_id] >= envelope.at, f"{event.attempt_id} was renewed after it expired"
                )
                self.expires[event.attempt_id] = event.expires_at
            case AttemptEnded():
                self._attempt_ended(event, envelope.at)
            case RetrainEnded():
                self._hold(
                    self.live.get(event.model_id) == event.retrain_id, f"{event.retrain_id} ended but was not live"
                )
                del self.live[event.model_id]
                self.ended[event.retrain_id] = event.state
                # The successor of one that ran waits only for those before both.
                if event.superseded_by is None and (
                    self.attempts[event.retrain_id] or event.retrain_id in self.leased_ever
                ):
                    self.ended_at[event.model_id] = envelope.at
            case VersionRegistered():
                self._hold(event.version == self.versions[event.model_id] + 1, f"{event.model_id} skipped a version")
                self.versions[event.model_id] = event.version
            case RolloutStarted():
                self.candidates.add((event.model_id, event.version))
            case AliasMoved():
                self._alias_moved(event)
            case RuleSet():
                self.rules.add((event.scope, event.name))
            case RuleRemoved():
                self.rules.remove((event.scope, event.name))
            case RulesMatched():
                self._matched(event)
            case LifecycleChanged() | PoliciesSet() | LoadChecked() | VerdictChanged():
                self._governed(event)
            case CascadeCooldownStarted():
                self.cooling |= {str(model_id): until for model_id, until in event.until.items()}
            case RetrainingHeld():
                self.held = True
            case RetrainingReleased():
                self.held = False
            case _:
                pass

    def _asked(self, event: RetrainRequested) -> None:
        """A rule has the last word on what is requested by itself."""
        holds = self.outcomes.get(event.model_id, NO_OUTCOME).retraining
        if event.cause is RetrainCause.RULE:
            self._hold(holds is not None and holds.action.requests, f"{event.model_id} retrains by a rule that is none")
        if event.cause is RetrainCause.STALE:
            self._hold(holds is None, f"{event.model_id} retrains for its verdict, and a rule says otherwise")

    def _matched(self, event: RulesMatched) -> None:
        before = self.outcomes.get(event.model_id, NO_OUTCOME)
        self._hold(event.outcome != before, f"{event.model_id}: an outcome was written that is no other")
        named = {(one.scope, one.name) for one in event.outcome.matches}
        named |= {(one.scope, one.name) for one in event.outcome.faults}
        self._hold(named <= self.rules, f"{event.model_id}: {sorted(named - self.rules)} hold and are not there")
        self.outcomes[event.model_id] = event.outcome

    def _alias_moved(self, event: AliasMoved) -> None:
        self._hold(event.model_id not in self.retired, f"an alias of {event.model_id}, which is retired, was moved")
        # What `previous` points at has served: that it loads was seen in production.
        if event.to_version and event.alias != "previous" and self._must_load(event.model_id):
            self._hold(
                self.loads.get((event.model_id, event.to_version), False),
                f"{event.alias} of {event.model_id} points at version {event.to_version}, which nobody showed to load",
            )
        if event.alias == "production":
            self.outcomes.pop(event.model_id, None)
            self._hold(
                (event.model_id, event.to_version) in self.passed,
                f"{event.model_id} version {event.to_version} serves without a passed validation",
            )
            self.promotions += 1

    def _must_load(self, model_id: str) -> bool:
        """What the nearest scope says."""
        for scope in (f"model:{model_id}", f"team:{self.team[model_id]}", f"tier:{self.tier[model_id]}", "fleet"):
            said = self.said.get(scope, {}).get("rollout.require_load_check")
            if said is not None:
                return bool(said)
        return False

    def _governed(self, event: LifecycleChanged | PoliciesSet | LoadChecked | VerdictChanged) -> None:
        match event:
            case LifecycleChanged():
                self.retired.discard(event.model_id)
                if event.after is Lifecycle.RETIRED:
                    self._hold(event.model_id not in self.live, f"{event.model_id} was retired with a live retrain")
                    self.retired.add(event.model_id)
            case PoliciesSet():
                self.said[event.scope] = event.overrides
            case LoadChecked():
                self.loads[(event.model_id, event.version)] = event.passed
            case VerdictChanged():
                self._hold(event.model_id not in self.retired, f"{event.model_id} is retired and was judged")

    def _leased(self, event: RetrainLeased, at: datetime) -> None:
        model_id, retrain_id = event.model_id, event.retrain_id
        self._hold(not self.held, f"{retrain_id} was leased during a hold")
        self._hold(self.live.get(model_id) == retrain_id, f"{retrain_id} was leased but is not live")
        self._hold(
            all(other.model_id != model_id for other in self.running.values()), f"{model_id} has two live attempts"
        )
        busy = sorted(self._upstream(model_id) & self.live.keys())
        self._hold(not busy, f"{model_id} was released before its upstream {', '.join(busy)}")
        self._hold(self.not_before[retrain_id] <= at, f"{retrain_id} was leased before its time")
        if retrain_id not in self.hurried:
            self._hold(self.cooling.get(model_id, at) <= at, f"{model_id} was leased while it cools down")
            ended_at = self.ended_at.get(model_id)
            self._hold(
                ended_at is None or ended_at + self.policy.cooldown <= at, f"{model_id} was leased in its cooldown"
            )
        self.running[event.attempt_id] = event
        self.expires[event.attempt_id] = event.expires_at
        self.attempts[retrain_id] += 1
        self._hold(self.attempts[retrain_id] <= self.policy.attempts_max, f"{retrain_id} was tried too often")
        self._hold(len(self.running) <= self.limits.running_max, f"{len(self.running)} attempts run at once")
        of_team = sum(self.team[other.model_id] == self.team[model_id] for other in self.running.values())
        self._hold(of_team <= self.limits.running_per_team_max, f"{of_team} attempts of one team run at once")

    def _attempt_ended(self, event: AttemptEnded, at: datetime) -> None:
        self._hold(event.attempt_id in self.running, f"{event.attempt_id} ended but did not run")
        if event.state in (AttemptState.SUCCEEDED, AttemptState.FAILED):
            self._hold(self.expires[event.attempt_id] >= at, f"{event.attempt_id} reported after its lease had expired")
        del self.running[event.attempt_id]
        if event.failure_class in (FailureClass.PREEMPTED, FailureClass.SCHEDULER):
            # Nobody's fault: such an attempt is not one of those that a policy allows.
            self.attempts[event.retrain_id] -= 1
            self.leased_ever.add(event.retrain_id)
        if event.retry_at is not None:
            self.not_before[event.retrain_id] = event.retry_at

    def _upstream(self, model_id: str) -> frozenset[str]:
        if model_id in self.above:
            return self.above[model_id]
        seen: set[str] = set()
        pending = [model_id]
        while pending:
            for upstream in self.direct[pending.pop()]:
                if upstream not in seen:
                    seen.add(upstream)
                    pending.append(upstream)
        self.above[model_id] = frozenset(seen)
        return self.above[model_id]

    def at_rest(self, state: State) -> None:
        """After the faults stop: nothing waits, nothing runs, nothing was lost, and the state says the same."""
        self._hold(not self.live, f"retrains never ended: {sorted(self.live.values())}")
        self._hold(not self.running, f"attempts never ended: {sorted(self.running)}")
        self._hold(set(state.retrains) == set(self.ended), "a retrain was lost")
        self._hold(
            all(state.retrains[i].state is ended_as for i, ended_as in self.ended.items()),  # type: ignore[index]
            "the state and the log disagree about how a retrain ended",
        )

    def _hold(self, condition: bool, text: str) -> None:
        if not condition:
            raise Violated(f"seq {self.seq}: {text}")
