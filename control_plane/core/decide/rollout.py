"""Rollout: validation, promotion, refusal, roll-back."""

from copy import copy
from datetime import datetime

from msgspec.structs import replace

from control_plane.core.commands import (
    ExpireValidation,
    PromoteVersion,
    ReportCheck,
    ReportLoadCheck,
    ReportValidation,
    Result,
    RollBack,
)
from control_plane.core.decide.canary import step_events, why_validated
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.onward import back, cleared, validated
from control_plane.core.decide.rollout_ends import (
    candidate_move,
    check_loads,
    cooldowns,
    last_rollout,
    live_rollout,
    promotion,
    ready,
)
from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.events import (
    AliasMoved,
    CheckReported,
    Event,
    LoadChecked,
    RolloutEnded,
    RolloutStarted,
    ValidationReported,
)
from control_plane.core.ids import ModelId, RolloutId
from control_plane.core.registry.types import PREVIOUS, PRODUCTION, LoadCheck
from control_plane.core.relations import check_not_retired
from control_plane.core.rollout.canary import missing_approvals
from control_plane.core.rollout.gate import checks_missing, direction_of, failed_words, gate, worded
from control_plane.core.rollout.plan import plan_of
from control_plane.core.rollout.rules import check_validation, newest_of_each, silent_too_long
from control_plane.core.rollout.types import Rollout, RolloutState, Validation
from control_plane.core.state import ModelRecord, State, begun
from control_plane.core.timewindow import spelled

BY_HAND = "promoted by hand"


def report_validation(state: State, command: ReportValidation, now: datetime) -> Decision:
    """Refuse the candidate or let it go on. Telling the same result again changes nothing."""
    record = state.model(command.model_id)
    state.version(command.model_id, command.version)
    rollout = live_rollout(state, record, command.version)
    validation = _validation(record, command, rollout or last_rollout(state, command.model_id, command.version))
    check_validation(validation)
    if rollout is not None and rollout.state is not RolloutState.VALIDATING:
        if rollout.validation == validation:
            return Decision(result=_result(rollout))
        raise Refused(
            Reason.ROLLOUT_FINISHED,
            f"version {command.version} of {command.model_id} has been validated already and is "
            f"{rollout.state.value.lower().replace('_', ' ')}",
            model_id=command.model_id,
        )
    if rollout is None:
        ended = last_rollout(state, command.model_id, command.version)
        if ended is not None and ended.validation == validation:
            return Decision(result=_result(ended))
        raise Refused(
            Reason.ROLLOUT_FINISHED,
            f"version {command.version} of {command.model_id} is not waiting for a validation"
            + (f": it was {ended.state.value.lower().replace('_', ' ')}" if ended else ""),
            model_id=command.model_id,
        )
    reported = ValidationReported(
        rollout_id=rollout.rollout_id,
        model_id=command.model_id,
        version=command.version,
        validation=validation,
    )
    return Decision(
        events=(reported, *_settled(state, record, replace(rollout, validation=validation), now)),
        result=_result(rollout),
    )


def _validation(record: ModelRecord, command: ReportValidation, rollout: Rollout | None) -> Validation:
    """What was reported, or what the gate makes of the evidence. Told again after the end it is the same."""
    if command.validation is not None:
        return command.validation
    if command.evidence is None:
        raise Invalid(
            Reason.INVALID_ARGUMENT,
            Violation(field="validation", rule="required", message="give a validation, or evidence for the gate"),
        )
    return gate(
        command.evidence,
        record.validation_policy,
        direction_of(command.evidence),
        canary=rollout is not None and bool(rollout.plan.serving),
        production_before=rollout.production_before if rollout is not None else 0,
    )


def _settled(state: State, record: ModelRecord, rollout: Rollout, now: datetime) -> tuple[Event, ...]:
    """What follows from what is known of a live rollout.

    1. A validation that failed refuses the candidate.
    2. So does a failed load check, where the policy asks for one.
    3. Without a load check or another that the policy asks for, the rollout waits; `expire_validation` ends that.
    4. A passed validation, or a policy that asks for none, lets it go on: to whoever approves, to its canary, or where
       nothing splits the traffic into production.
    """
    if rollout.state is not RolloutState.VALIDATING:
        return ()
    validation = rollout.validation
    if validation is not None and not validation.passed:
        return back(state, rollout, validation.explanation or "worse than production")
    if validation is None and not record.validation_policy.skip:
        return ()
    version = record.versions[rollout.version - 1]
    if record.rollout_policy.require_load_check and version.loads is False:
        detail = version.load_checks[-1].detail
        return back(state, rollout, "it does not load" + (f": {detail}" if detail else ""))
    if not ready(record, version) or checks_missing(record.validation_policy, rollout):
        return ()
    return cleared(state, rollout, now, why_validated(rollout))


def report_check(state: State, command: ReportCheck, now: datetime) -> Decision:
    """Keep what somebody found out about a candidate; one that failed refuses it, or takes it back if it serves."""
    record = state.model(command.model_id)
    state.version(command.model_id, command.version)
    rollout = live_rollout(state, record, command.version)
    check = worded(command.check)
    if rollout is None:
        ended = last_rollout(state, command.model_id, command.version)
        if ended is not None and check in ended.checks:
            return Decision(result=_result(ended))
        raise Refused(
            Reason.ROLLOUT_FINISHED,
            f"version {command.version} of {command.model_id} is not on its way to production"
            + (f": it was {ended.state.value.lower().replace('_', ' ')}" if ended else ""),
            model_id=command.model_id,
        )
    if check in rollout.checks:
        return Decision(result=_result(rollout))
    reported = CheckReported(
        rollout_id=rollout.rollout_id, model_id=command.model_id, version=command.version, check=check
    )
    known = replace(rollout, checks=newest_of_each(rollout.checks, check))
    followed = _settled(state, record, known, now) if check.passed else back(state, rollout, failed_words(check))
    return Decision(events=(reported, *followed), result=_result(rollout))


def report_load_check(state: State, command: ReportLoadCheck, now: datetime) -> Decision:
    """Keep what somebody found when loading a version; a rollout that waited for it goes on.

    The newest check counts. A version that serves already is not taken back: `roll_back` does that.
    """
    record = state.model(command.model_id)
    before = state.version(command.model_id, command.version)
    events: list[Event] = [
        LoadChecked(
            model_id=command.model_id,
            version=command.version,
            passed=command.passed,
            environment=command.environment,
            detail=command.detail,
        )
    ]
    rollout = live_rollout(state, record, command.version)
    if rollout is not None:
        # The state does not know the check yet: the rules look at the record as it is about to be.
        check = LoadCheck(
            passed=command.passed, reporter="", environment=command.environment, detail=command.detail, checked_at=now
        )
        checked = replace(before, load_checks=(*before.load_checks, check))
        known = copy(record)
        known.versions = [*record.versions]
        known.versions[command.version - 1] = checked
        if (
            not command.passed
            and rollout.state is not RolloutState.VALIDATING
            and known.rollout_policy.require_load_check
        ):
            why = "it does not load" + (f": {command.detail}" if command.detail else "")
            return Decision(
                events=(*events, *back(state, rollout, why)),
                result=Result(model_id=command.model_id, version=command.version, changed=1),
            )
        settled = _settled(state, known, rollout, now)
        events.extend(settled or (candidate_move(known, checked) if command.passed else ()))
    return Decision(events=tuple(events), result=Result(model_id=command.model_id, version=command.version, changed=1))


def expire_validation(state: State, command: ExpireValidation, now: datetime) -> Decision:
    """Silence refuses: production stays."""
    rollout = state.rollout(command.rollout_id)
    record = state.models[rollout.model_id]
    if validated(state, rollout) or not silent_too_long(rollout, record.validation_policy, now):
        return Decision(result=_result(rollout))
    missing = _missing(record, rollout)
    why = f"no {missing} was reported within {spelled(record.validation_policy.timeout)}"
    return Decision(events=back(state, rollout, why), result=_result(rollout))


def _missing(record: ModelRecord, rollout: Rollout) -> str:
    """What nobody has reported of a candidate, in words."""
    if rollout.validation is None and not record.validation_policy.skip:
        return "validation"
    checks = checks_missing(record.validation_policy, rollout)
    return f"check {' and '.join(checks)}" if checks else "load check"


def promote_version(state: State, command: PromoteVersion, now: datetime) -> Decision:
    """Send a version that passed its validation on its way; with `force` any, into production at once.

    On its way means what its policy says: to whoever approves, through its canary. Freezes hold it up, `force` nothing.
    """
    record = state.model(command.model_id)
    version = state.version(command.model_id, command.version)
    if record.aliases.get(PRODUCTION) == command.version:
        return Decision(result=Result(model_id=command.model_id, version=command.version))
    check_not_retired(record)
    earlier = last_rollout(state, command.model_id, command.version)
    if not (earlier is not None and _passed(record, earlier)) and not command.force:
        raise Refused(
            Reason.VALIDATION_REQUIRED,
            f"version {command.version} of {command.model_id} has not passed {_not_passed(record, earlier)}: "
            "report one, or promote with force and a reason",
            model_id=command.model_id,
        )
    check_loads(record, version)
    live = live_rollout(state, record, command.version)
    if live is not None and not command.force:
        if live.state is RolloutState.AWAITING_APPROVAL and missing_approvals(live):
            raise Refused(
                Reason.APPROVAL_REQUIRED,
                f"version {command.version} of {command.model_id} waits for approval by somebody other than "
                f"{live.requested_by or 'who asked'}: `runway rollouts approve {live.rollout_id}`, "
                "or promote with force and a reason",
                rollout_id=live.rollout_id,
            )
        return Decision(events=step_events(state, live, now), result=_result(live))
    if live is not None:
        return Decision(events=promotion(state, record, live, BY_HAND, now), result=_result(live))
    events: list[Event] = []
    other = state.rollouts[record.live_rollout] if record.live_rollout is not None else None
    if other is not None:
        events.extend(back(state, other, f"version {command.version} was promoted by hand meanwhile"))
    started = RolloutStarted(
        rollout_id=RolloutId(f"ro_{state.rollouts_count + 1:06d}"),
        model_id=command.model_id,
        version=command.version,
        production_before=record.aliases.get(PRODUCTION, 0),
        plan=plan_of(record.rollout_policy),
        requested_by=command.by,
    )
    fresh = begun(started, now)
    events.append(started)
    if command.force or earlier is None or earlier.validation is None:
        events.extend(promotion(state, record, fresh, BY_HAND, now))
        return Decision(events=tuple(events), result=_result(fresh))
    events.append(
        ValidationReported(
            rollout_id=fresh.rollout_id,
            model_id=command.model_id,
            version=command.version,
            validation=earlier.validation,
        )
    )
    events += [
        CheckReported(rollout_id=fresh.rollout_id, model_id=command.model_id, version=command.version, check=check)
        for check in earlier.checks
    ]
    known = replace(fresh, validation=earlier.validation, checks=earlier.checks)
    return Decision(events=(*events, *cleared(state, known, now, BY_HAND)), result=_result(fresh))


def _passed(record: ModelRecord, rollout: Rollout) -> bool:
    """Has a candidate passed all that was and is to be reported about it, but for its load check?"""
    validation = rollout.validation
    return (
        validation is not None
        and validation.passed
        and all(check.passed for check in rollout.checks)
        and not checks_missing(record.validation_policy, rollout)
    )


def _not_passed(record: ModelRecord, rollout: Rollout | None) -> str:
    """What of it a candidate lacks, in words."""
    if rollout is None or rollout.validation is None or not rollout.validation.passed:
        return "a validation"
    failed = [check.name for check in rollout.checks if not check.passed]
    return f"check {' and '.join(failed or checks_missing(record.validation_policy, rollout))}"


def roll_back(state: State, command: RollBack, now: datetime) -> Decision:
    """Point production at `previous`, and what was production becomes previous.

    It has served, so it has shown that it loads: only a load check that failed since stands in the way.
    """
    record = state.model(command.model_id)
    check_not_retired(record)
    current = record.aliases.get(PRODUCTION, 0)
    previous = record.aliases.get(PREVIOUS, 0)
    if not current or not previous:
        raise Refused(
            Reason.NO_PREVIOUS_VERSION,
            f"{command.model_id} has no previous version to go back to: promote one instead",
            model_id=command.model_id,
        )
    if record.versions[previous - 1].loads is False:
        check_loads(record, record.versions[previous - 1])
    rollout = last_rollout(state, command.model_id, current)
    events: list[Event] = []
    for model_id in _restored_together(state, command.model_id, rollout):
        events.extend(_restored(state, state.models[model_id], command.model_id, now))
    result = Result(
        model_id=command.model_id,
        version=previous,
        rollout_id=rollout.rollout_id if rollout is not None else None,
    )
    return Decision(events=tuple(events), result=result)


def _restored_together(state: State, model_id: ModelId, rollout: Rollout | None) -> list[ModelId]:
    """The model and all that were promoted with it and still serve that version set, downstream first."""
    group = state.groups.get(rollout.group_id) if rollout is not None else None
    if group is None:
        return [model_id]
    members = [state.rollouts[one] for one in reversed(group.rollout_ids)]
    return [
        one.model_id
        for one in members
        if state.models[one.model_id].aliases.get(PRODUCTION) == one.version
        and state.models[one.model_id].aliases.get(PREVIOUS, 0)
    ]


def _restored(state: State, record: ModelRecord, asked: ModelId, now: datetime) -> list[Event]:
    """Production back at `previous`: the aliases first, then the rollout's end, then who must look again."""
    model_id = record.model_id
    current, previous = record.aliases[PRODUCTION], record.aliases[PREVIOUS]
    rollout = last_rollout(state, model_id, current)
    events: list[Event] = [
        AliasMoved(model_id=model_id, alias=PRODUCTION, from_version=current, to_version=previous),
        AliasMoved(model_id=model_id, alias=PREVIOUS, from_version=previous, to_version=current),
    ]
    if rollout is not None:
        together = f", with {asked}" if model_id != asked else ""
        events.append(
            RolloutEnded(
                rollout_id=rollout.rollout_id,
                model_id=model_id,
                version=current,
                state=RolloutState.ROLLED_BACK,
                conclusion=f"rolled back to version {previous}{together}",
            )
        )
    events.extend(cooldowns(state, model_id, previous, now))
    return events


def _result(rollout: Rollout) -> Result:
    return Result(model_id=rollout.model_id, version=rollout.version, rollout_id=rollout.rollout_id)
