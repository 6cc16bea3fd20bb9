"""What Runway will do next for a model, in sentences: for whoever asks `runway why` at three in the morning.

Each sentence says what comes, when at the earliest, and what it hangs on. Nothing is decided here: the rules are those
of `plan`, told instead of carried out.
"""

from datetime import datetime

from control_plane.core.plan import wanted_retrain
from control_plane.core.retraining.rules import next_off_peak, off_peak
from control_plane.core.retraining.types import Retrain, RetrainState
from control_plane.core.rollout.canary import missing_approvals
from control_plane.core.rollout.types import Rollout, RolloutState
from control_plane.core.rollout.words import percent
from control_plane.core.rules.types import RuleAction
from control_plane.core.staleness.verdict import Action, Level
from control_plane.core.state import ModelRecord, State
from control_plane.core.timewindow import spelled

NO_RETRAIN: dict[Action, str] = {
    Action.ALERT_DATA_OWNER: "its data is at fault, which no retrain mends: the data's owner must",
    Action.WAIT: "it is not sure yet what is wrong: it waits for more evidence",
    Action.NONE: "nothing that a retrain would mend is known",
}


def outlook(state: State, record: ModelRecord, now: datetime) -> list[str]:
    """What comes next, the nearest first; never empty."""
    if record.retired:
        return ["Nothing: it is retired, so it is neither looked at nor retrained."]
    told = []
    if record.live_rollout is not None:
        told += _rollout(state.rollouts[record.live_rollout], record)
    if record.live_retrain is not None:
        told += _retrain(state.retrains[record.live_retrain], record)
    return told or _quiet(state, record, now)


def _rollout(rollout: Rollout, record: ModelRecord) -> list[str]:
    """Where a candidate goes from here, and what would turn it back."""
    what = f"version {rollout.version}"
    match rollout.state:
        case RolloutState.VALIDATING:
            deadline = rollout.started_at + record.validation_policy.timeout
            return [
                f"Once {what} is validated it goes {_first_step(rollout)}; "
                f"with no word on it by {_at(deadline)} it is refused."
            ]
        case RolloutState.AWAITING_APPROVAL:
            missing = missing_approvals(rollout)
            if not missing:
                return [
                    f"All approvals of {what} are there: it goes {_onward(rollout)} as soon as nothing is in its way."
                ]
            people = "one approval" if missing == 1 else f"{missing} approvals"
            by = f" by {_at(rollout.approval_until)}" if rollout.approval_until is not None else ""
            return [f"With {people} {what} goes {_onward(rollout)}; without{by} it is refused."]
        case RolloutState.SHADOW:
            over = (rollout.stepped_at or rollout.started_at) + rollout.plan.shadow
            first = percent(rollout.plan.steps[0].weight) if rollout.plan.steps else "all"
            return [f"At {_at(over)} its shadow ends, and {what} gets {first} of the traffic."]
        case RolloutState.CANARY:
            return [_canary(rollout), f"If a metric is surely worse than tolerated, {what} is taken back at once."]
        case RolloutState.AWAITING_DECISION:
            return [
                f"Somebody decides: `approve` sends {what} on, `decline` takes it back; silence{_by(rollout)} does too."
            ]
        case _:
            return []


def _first_step(rollout: Rollout) -> str:
    missing = missing_approvals(rollout)
    return f"to {missing} {'person' if missing == 1 else 'people'} for approval" if missing else _onward(rollout)


def _onward(rollout: Rollout) -> str:
    """Where a candidate goes that is validated and approved. Beside nothing there is no traffic to split."""
    if not rollout.production_before:
        return "to production"
    if rollout.plan.serving and rollout.plan.shadow:
        return "into the shadow, to see a copy of the traffic"
    if rollout.plan.serving and rollout.plan.steps:
        steps = ", ".join(percent(step.weight) for step in rollout.plan.steps)
        return f"through its canary ({steps} of the traffic), then to production"
    return "to production"


def _canary(rollout: Rollout) -> str:
    steps = rollout.plan.steps
    last = rollout.step >= len(steps) - 1
    after = "it is promoted" if last else f"it gets {percent(steps[rollout.step + 1].weight)} of the traffic"
    baked = (rollout.stepped_at or rollout.started_at) + steps[rollout.step].bake
    asks = baked + rollout.plan.wait_max
    condition = "the judge says PASS" if last else "the judge has numbers and nothing against it"
    return f"At {_at(baked)} or later, once {condition}, {after}; undecided until {_at(asks)}, somebody is asked."


def _by(rollout: Rollout) -> str:
    return f" until {_at(rollout.approval_until)}" if rollout.approval_until is not None else ""


def _retrain(retrain: Retrain, record: ModelRecord) -> list[str]:
    match retrain.state:
        case RetrainState.WAITING:
            expires = f"; it is given up at {_at(retrain.expires_at)}" if retrain.expires_at is not None else ""
            return [f"{retrain.retrain_id} trains as soon as what it waits for is there{expires}."]
        case RetrainState.RUNNING:
            attempt = retrain.running_attempt
            policy = record.retraining_policy
            late = f" (by {_at(attempt.leased_at + policy.attempt_timeout)} or it is ended)" if attempt else ""
            more = policy.attempts_max - len(retrain.attempts)
            tries = (
                f"; if it fails it is tried again, {more} more at most" if more > 0 else "; if it fails, that was all"
            )
            return [f"When {retrain.retrain_id} has trained{late}, its version is compared with production{tries}."]
        case _:
            return []  # its rollout says the rest


def _quiet(state: State, record: ModelRecord, now: datetime) -> list[str]:
    """Nothing is under way: what would have it retrain, or why it does not."""
    policy, standing, cascade = record.retraining_policy, record.standing, record.cascade
    looks = f"It is looked at every {spelled(record.staleness_policy.cadence)}"
    if record.production is None:
        return ["Nothing serves yet: register a version and promote it, or request a retrain."]
    if not policy.automatic:
        return [f"{looks}, and retrained by hand only: retraining.automatic is off."]
    if cascade is not None and cascade.harmed is None:
        return [
            f"{cascade.upstream}, which it stands on, has a new version: it cools down until {_at(cascade.until)}, and "
            "the first look after that says whether it was harmed; only then it is retrained."
        ]
    cause = wanted_retrain(record, now)
    if cause is not None:
        held = ", though none starts before `runway release`" if state.held else ""
        return [f"A retrain is requested within seconds ({cause.value.lower()}){held}."]
    told = [*_backstop(record), f"{looks}."]
    holds = record.rule_outcome.retraining
    if holds is not None:
        return [_by_rule(record, holds.action, holds.name, now), *told]
    if standing.level is not Level.STALE:
        return [f"Nothing: it is {standing.level.value}, and a retrain is requested when it is STALE.", *told]
    recommended = standing.evaluation.recommended_action if standing.evaluation is not None else Action.WAIT
    if recommended is not Action.RETRAIN:
        return [f"No retrain is requested: {NO_RETRAIN[recommended]}.", *told]
    if record.retrain_ended_at is not None and now < record.retrain_ended_at + policy.cooldown:
        until = record.retrain_ended_at + policy.cooldown
        return [f"If it is still STALE then, a retrain is requested at {_at(until)}, when its cooldown ends.", *told]
    return ["No retrain is requested: the newest look does not confirm that it is STALE.", *told]


def _by_rule(record: ModelRecord, action: RuleAction, name: str, now: datetime) -> str:
    match action:
        case RuleAction.RETRAIN_OFF_PEAK:
            policy = record.retraining_policy
            when = "in off-peak hours" if off_peak(policy, now) else f"from {_at(next_off_peak(policy, now))} on"
            return f"Rule {name} has it retrained {when}, after its cooldown and if its data is not at fault."
        case RuleAction.RETRAIN:
            ended = record.retrain_ended_at
            until = f" at {_at(ended + record.retraining_policy.cooldown)}, after its cooldown" if ended else ""
            return f"Rule {name} has it retrained{until}."
        case RuleAction.REQUIRE_APPROVAL:
            return f"Rule {name} leaves it to people: `runway retrains request {record.model_id}`."
        case _:
            return f"No retrain is requested: rule {name} says to ignore it."


def _backstop(record: ModelRecord) -> list[str]:
    """When age alone will have it retrained."""
    every, production = record.retraining_policy.every, record.production
    if not every or production is None:
        return []
    due = (production.facts.trained_until or production.registered_at) + every
    return [f"However it fares, it is retrained at {_at(due)}."]


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M}"
