"""A canary under way: looks, weights, time, and people who take it in hand."""

from datetime import datetime

from msgspec.structs import replace

from control_plane.core.commands import (
    AbortRollout,
    AdvanceRollout,
    GroupRollouts,
    HoldRollout,
    RecordLook,
    RecordUplift,
    ReleaseRollout,
    ReportWeight,
    Result,
    StepRollout,
)
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.onward import back, cleared, freeze_words, in_the_way, onward, together, validated
from control_plane.core.decide.rollout_ends import check_loads, ready
from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.events import (
    ApprovalAsked,
    CanaryJudged,
    Event,
    RolloutHeld,
    RolloutReleased,
    RolloutsGrouped,
    UpliftMeasured,
    WeightReported,
)
from control_plane.core.graph.order import topological_waves
from control_plane.core.ids import ModelId, model_node, node_name
from control_plane.core.rollout.canary import (
    SAMPLE_RATIO_MAX,
    counts_of,
    inconclusive_since,
    missing_approvals,
    must_ask,
    needs,
    says_something_new,
    waiting_words,
)
from control_plane.core.rollout.gate import checks_missing
from control_plane.core.rollout.judge import judge
from control_plane.core.rollout.types import SERVING, Judgement, JudgeVerdict, Look, Rollout, RolloutGroup, RolloutState
from control_plane.core.state import State

RUNWAY = "runway"
"""Who holds a rollout whose numbers are not to be trusted."""

STEPPING = (RolloutState.CANARY, RolloutState.AWAITING_DECISION)


def record_look(state: State, command: RecordLook, now: datetime) -> Decision:
    """Judge a look; go back, hold, or go on. A look at a rollout that serves no longer changes nothing.

    1. FAIL goes back at once, whatever holds it.
    2. Arms of unequal size say that the split is broken: held until somebody releases it.
    3. All that the step needs, by all that move together, and nothing in the way: onward.
    """
    rollout = state.rollout(command.rollout_id)
    if rollout.state not in SERVING:
        return Decision(result=result_of(rollout))
    judged = judged_look(rollout, command.look, now)
    known = replace(rollout, judgement=judged)
    told = CanaryJudged(
        rollout_id=rollout.rollout_id, model_id=rollout.model_id, version=rollout.version, judgement=judged
    )
    follow: tuple[Event, ...] = ()
    if judged.verdict is JudgeVerdict.FAIL:
        follow = back(state, known, judged.reason)
    elif judged.sample_ratio_evidence > SAMPLE_RATIO_MAX:
        follow = () if rollout.held_by else (_held(rollout, RUNWAY, judged.reason),)
    elif judged.ready and _all_ready(state, known) and _loadable(state, known) and not in_the_way(state, known, now):
        follow = onward(state, together(state, known), now, judged.reason)
    if follow or says_something_new(rollout.judgement, judged):
        return Decision(events=(told, *follow), result=result_of(rollout))
    return Decision(result=result_of(rollout))


def judged_look(rollout: Rollout, look: Look, now: datetime) -> Judgement:
    """The judge's word, with what the step still lacks."""
    judged = replace(judge(rollout.plan, look, max(rollout.step, 0)), counts=counts_of(rollout.plan, look))
    if rollout.state not in STEPPING or judged.verdict is JudgeVerdict.FAIL:
        return judged
    lacking = needs(rollout, judged.counts, judged, now)
    return replace(judged, ready=not lacking, lacking=tuple(lacking))


def _all_ready(state: State, rollout: Rollout) -> bool:
    """Are all that move together as far as this one, and ready for the next step?"""
    return all(
        one.judgement is not None
        and one.judgement.ready
        and one.judgement.step == one.step
        and one.step == rollout.step
        and one.state in STEPPING
        for one in together(state, rollout)
    )


def _loadable(state: State, rollout: Rollout) -> bool:
    """May aliases point at all that move together, as far as loading goes?"""
    records = [(state.models[one.model_id], one) for one in together(state, rollout)]
    return all(ready(record, record.versions[one.version - 1]) for record, one in records)


def step_rollout(state: State, command: StepRollout, now: datetime) -> Decision:
    """Time has passed, or what stood in the way is gone."""
    rollout = state.rollout(command.rollout_id)
    return Decision(events=step_events(state, rollout, now), result=result_of(rollout))


def step_events(state: State, rollout: Rollout, now: datetime) -> tuple[Event, ...]:
    """What time alone brings about; `plan` asks the same.

    1. A candidate that is validated and approved goes on once no freeze or hold stands in its way.
    2. A shadow ends when its time is over.
    3. A step that stays inconclusive for too long asks for a decision.
    """
    match rollout.state:
        case RolloutState.VALIDATING | RolloutState.AWAITING_APPROVAL:
            return cleared(state, rollout, now, why_validated(rollout)) if validated(state, rollout) else ()
        case RolloutState.SHADOW:
            members = together(state, rollout)
            over = all(one.state is RolloutState.SHADOW and now >= inconclusive_since(one) for one in members)
            if not over or not _loadable(state, rollout) or in_the_way(state, rollout, now):
                return ()
            return onward(state, members, now, "its shadow is over")
        case RolloutState.CANARY if must_ask(rollout, now):
            return (
                ApprovalAsked(
                    rollout_id=rollout.rollout_id,
                    model_id=rollout.model_id,
                    version=rollout.version,
                    until=now + rollout.plan.approval_ttl,
                    approvals=1,
                    decision=True,
                ),
            )
        case _:
            return ()


def why_validated(rollout: Rollout) -> str:
    """Why a candidate may go on, in words."""
    validation = rollout.validation
    if validation is None:
        return "its policy asks for no validation here"
    against = (
        f" against {validation.production:.4f}" if validation.production is not None else ", nothing to compare with"
    )
    return validation.explanation or f"{validation.metric} {validation.candidate:.4f}{against}"


def report_weight(state: State, command: ReportWeight) -> Decision:
    """Keep what the serving system did, if it is news. Ended rollouts too: that the traffic is back must be known."""
    rollout = state.rollout(command.rollout_id)
    failure = "" if command.weight is not None else (command.failure or "no reason given")
    if command.weight == rollout.weight_applied and failure == rollout.weight_failure and command.weight is not None:
        return Decision(result=result_of(rollout))
    if command.weight is None and failure == rollout.weight_failure:
        return Decision(result=result_of(rollout))
    reported = WeightReported(
        rollout_id=rollout.rollout_id,
        model_id=rollout.model_id,
        version=rollout.version,
        weight=command.weight,
        failure=failure,
    )
    return Decision(events=(reported,), result=result_of(rollout))


def hold_rollout(state: State, command: HoldRollout) -> Decision:
    """No further step until released."""
    rollout = live(state, state.rollout(command.rollout_id))
    if rollout.held_by:
        return Decision(result=result_of(rollout))
    return Decision(events=(_held(rollout, command.by, command.why),), result=result_of(rollout))


def _held(rollout: Rollout, by: str, why: str) -> RolloutHeld:
    return RolloutHeld(
        rollout_id=rollout.rollout_id, model_id=rollout.model_id, version=rollout.version, by=by, why=why
    )


def release_rollout(state: State, command: ReleaseRollout) -> Decision:
    """Go on with the next look or tick."""
    rollout = live(state, state.rollout(command.rollout_id))
    if not rollout.held_by:
        return Decision(result=result_of(rollout))
    released = RolloutReleased(rollout_id=rollout.rollout_id, model_id=rollout.model_id, version=rollout.version)
    return Decision(events=(released,), result=result_of(rollout))


def abort_rollout(state: State, command: AbortRollout) -> Decision:
    """End it, and all that move with it."""
    rollout = live(state, state.rollout(command.rollout_id))
    why = f"aborted by {command.by or 'somebody'}" + (f": {command.why}" if command.why else "")
    return Decision(events=back(state, rollout, why, aborted=True), result=result_of(rollout))


def advance_rollout(state: State, command: AdvanceRollout, now: datetime) -> Decision:
    """The next step now, by hand: neither bake time nor judge are asked, but freezes and holds are."""
    rollout = live(state, state.rollout(command.rollout_id))
    if rollout.state not in SERVING:
        raise Refused(
            Reason.ROLLOUT_NOT_WAITING,
            f"{rollout.rollout_id} is {rollout.state.value.lower().replace('_', ' ')}, not in its canary: "
            f"`runway rollouts show {rollout.rollout_id}` says what it waits for",
            rollout_id=rollout.rollout_id,
        )
    check_unfrozen(state, rollout, now)
    for one in together(state, rollout):
        if one.held_by:
            raise Refused(
                Reason.ROLLOUT_NOT_WAITING,
                f"{one.rollout_id} of {one.model_id} is held by {one.held_by}: release it first "
                f"(`runway rollouts release {one.rollout_id}`)",
                rollout_id=one.rollout_id,
            )
    for one in together(state, rollout):
        record = state.models[one.model_id]
        check_loads(record, record.versions[one.version - 1])
    why = f"advanced by {command.by or 'somebody'}" + (f": {command.why}" if command.why else "")
    return Decision(events=onward(state, together(state, rollout), now, why), result=result_of(rollout))


def group_rollouts(state: State, command: GroupRollouts) -> Decision:
    """From now on these move as one: live ones of different models that have not begun to serve."""
    rollouts = [state.rollout(rollout_id) for rollout_id in dict.fromkeys(command.rollout_ids)]
    found = []
    for number, one in enumerate(rollouts):
        fault = _not_groupable(one, command.group_id)
        if not fault and _split(state, one) != _split(state, rollouts[0]):
            fault = (
                "goes into production at once and others step by step, or the other way round: all of a group need a "
                "serving system and a version in production, or none"
            )
        if any(other.model_id == one.model_id for other in rollouts[:number]):
            fault = f"is a second one of {one.model_id}"
        if fault:
            found.append(
                Violation(
                    field=f"rollout_ids[{number}]",
                    rule="group",
                    message=f"{one.rollout_id} of {one.model_id} {fault}",
                )
            )
    if len(rollouts) < 2:
        found.append(Violation(field="rollout_ids", rule="group", message="name at least two rollouts"))
    known = state.groups.get(command.group_id)
    if known is not None and set(known.rollout_ids) == {one.rollout_id for one in rollouts}:
        return Decision(result=result_of(rollouts[0]))
    if known is not None:
        found.append(Violation(field="group_id", rule="taken", message=f"{command.group_id} is another group already"))
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)
    by_model = {one.model_id: one.rollout_id for one in rollouts}
    waves = topological_waves(state.graph, [model_node(model_id) for model_id in by_model])
    ordered = tuple(by_model[ModelId(node_name(node))] for wave in waves for node in wave)
    group = RolloutGroup(group_id=command.group_id, rollout_ids=ordered)
    return Decision(events=(RolloutsGrouped(group=group),), result=result_of(rollouts[0]))


def _split(state: State, rollout: Rollout) -> bool:
    """Will its traffic be split, step by step?"""
    return bool(rollout.plan.serving) and state.models[rollout.model_id].production is not None


def _not_groupable(rollout: Rollout, group_id: str) -> str:
    if not rollout.live:
        return f"has ended already ({rollout.state.value.lower().replace('_', ' ')})"
    if rollout.state in SERVING:
        return "serves already: group rollouts before their first step"
    if rollout.group_id and rollout.group_id != group_id:
        return f"moves with {rollout.group_id} already"
    return ""


def record_uplift(state: State, command: RecordUplift) -> Decision:
    """Keep what a promoted version brought, once."""
    rollout = state.rollout(command.uplift.rollout_id)
    if rollout.rollout_id in state.uplifts:
        return Decision(result=result_of(rollout))
    measured = UpliftMeasured(model_id=rollout.model_id, uplift=command.uplift)
    return Decision(events=(measured,), result=result_of(rollout))


# What the others need too


def live(state: State, rollout: Rollout) -> Rollout:
    """The rollout, if it has not ended; else `Refused(ROLLOUT_FINISHED)`."""
    if rollout.live:
        return rollout
    raise Refused(
        Reason.ROLLOUT_FINISHED,
        f"{rollout.rollout_id} of {rollout.model_id} has ended already "
        f"({rollout.state.value.lower().replace('_', ' ')}: {rollout.conclusion})",
        rollout_id=rollout.rollout_id,
    )


def check_unfrozen(state: State, rollout: Rollout, now: datetime) -> None:
    """Raise `Refused(FROZEN)` in a freeze window of any that move together."""
    for one in together(state, rollout):
        words = freeze_words(state, state.models[one.model_id], now)
        if words:
            raise Refused(
                Reason.FROZEN,
                f"{one.model_id} waits for {words}. Remove it with `runway rollouts unfreeze`, or wait",
                model_id=one.model_id,
            )


def result_of(rollout: Rollout) -> Result:
    """What a command about a rollout came to."""
    return Result(model_id=rollout.model_id, version=rollout.version, rollout_id=rollout.rollout_id)


def waits_for(state: State, rollout: Rollout, now: datetime) -> list[str]:
    """Everything a live rollout waits for, in words; empty once it has ended or if nothing does."""
    if not rollout.live:
        return []
    loads = [] if _loadable(state, rollout) else ["a load check that passes (`runway models load-check`)"]
    checks = checks_missing(state.models[rollout.model_id].validation_policy, rollout)
    loads += [f"check {name} (`runway rollouts check {rollout.rollout_id} {name} --passed`)" for name in checks]
    words = [*loads, *waiting_words(rollout, now), *in_the_way(state, rollout, now)]
    if rollout.state in STEPPING and rollout.judgement is not None:
        words += rollout.judgement.lacking
    for one in together(state, rollout):
        if one.rollout_id != rollout.rollout_id and one.state not in SERVING:
            if not validated(state, one):
                words.append(f"{one.model_id}, which moves with it, to pass its validation")
            elif missing_approvals(one):
                words.append(f"{one.model_id}, which moves with it, to be approved")
    return words
