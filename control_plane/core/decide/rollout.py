"""Rollout: validation, promotion, refusal, roll-back."""

from copy import copy
from datetime import datetime

from msgspec.structs import replace

from control_plane.core.commands import (
    ExpireValidation,
    PromoteVersion,
    ReportLoadCheck,
    ReportValidation,
    Result,
    RollBack,
)
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.rollout_ends import (
    candidate_move,
    cooldowns,
    last_rollout,
    live_rollout,
    promotion,
    ready,
    refusal,
)
from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.events import (
    AliasMoved,
    Event,
    LoadChecked,
    RolloutEnded,
    RolloutStarted,
    ValidationReported,
)
from control_plane.core.ids import RolloutId
from control_plane.core.registry.types import PREVIOUS, PRODUCTION, LoadCheck, ModelVersion
from control_plane.core.relations import check_not_retired
from control_plane.core.rollout.rules import check_validation, silent_too_long
from control_plane.core.rollout.types import Rollout, RolloutState, Validation
from control_plane.core.state import ModelRecord, State, begun
from control_plane.core.timewindow import spelled


def report_validation(state: State, command: ReportValidation, now: datetime) -> Decision:
    """Promote the candidate or refuse it. Telling the same result again changes nothing."""
    validation = command.validation
    if validation is None:
        raise Invalid(
            Reason.INVALID_ARGUMENT,
            Violation(field="validation", rule="required", message="give a validation, or evidence for the gate"),
        )
    check_validation(validation)
    record = state.model(command.model_id)
    state.version(command.model_id, command.version)
    rollout = live_rollout(state, record, command.version)
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


def _settled(state: State, record: ModelRecord, rollout: Rollout, now: datetime) -> tuple[Event, ...]:
    """What follows from what is known of a live rollout.

    1. A validation that failed refuses the candidate.
    2. So does a failed load check, where the policy asks for one.
    3. Without a load check that the policy asks for, the rollout waits for it; `expire_validation` ends that.
    4. A passed validation, or a policy that asks for none, promotes.
    """
    validation = rollout.validation
    if validation is not None and not validation.passed:
        return refusal(record, rollout, validation.explanation or "worse than production")
    if validation is None and not record.validation_policy.skip:
        return ()
    version = record.versions[rollout.version - 1]
    if record.rollout_policy.require_load_check and version.loads is False:
        detail = version.load_checks[-1].detail
        return refusal(record, rollout, "it does not load" + (f": {detail}" if detail else ""))
    if not ready(record, version):
        return ()
    why = _why_promoted(validation) if validation is not None else "its policy asks for no validation here"
    return promotion(state, record, rollout, why, now)


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
        settled = _settled(state, known, rollout, now)
        events.extend(settled or (candidate_move(known, checked) if command.passed else ()))
    return Decision(events=tuple(events), result=Result(model_id=command.model_id, version=command.version, changed=1))


def check_loads(record: ModelRecord, version: ModelVersion) -> None:
    """Raise `Refused` unless the version has shown that it loads, where the policy asks for that."""
    if ready(record, version):
        return
    said = "its newest load check failed" if version.loads is False else "nobody has shown that it loads"
    raise Refused(
        Reason.LOAD_CHECK_REQUIRED,
        f"version {version.number} of {record.model_id} may not be pointed at: {said}. Report a load check "
        f"(`runway models load-check {record.model_id} v{version.number} --passed`), or set "
        "rollout.require_load_check to false",
        model_id=record.model_id,
        version=str(version.number),
    )


def _why_promoted(validation: Validation) -> str:
    return validation.explanation or (
        f"{validation.metric} {validation.candidate:.4f}"
        + (
            f" against {validation.production:.4f}"
            if validation.production is not None
            else ", nothing to compare with"
        )
    )


def expire_validation(state: State, command: ExpireValidation, now: datetime) -> Decision:
    """Silence refuses: production stays."""
    rollout = state.rollout(command.rollout_id)
    record = state.models[rollout.model_id]
    if not silent_too_long(rollout, record.validation_policy, now):
        return Decision(result=_result(rollout))
    missing = "load check" if rollout.validation is not None or record.validation_policy.skip else "validation"
    why = f"no {missing} was reported within {spelled(record.validation_policy.timeout)}"
    return Decision(events=refusal(record, rollout, why), result=_result(rollout))


def promote_version(state: State, command: PromoteVersion, now: datetime) -> Decision:
    """Promote by hand: a version that passed its validation, or any with `force`."""
    record = state.model(command.model_id)
    version = state.version(command.model_id, command.version)
    if record.aliases.get(PRODUCTION) == command.version:
        return Decision(result=Result(model_id=command.model_id, version=command.version))
    check_not_retired(record)
    earlier = last_rollout(state, command.model_id, command.version)
    passed = earlier is not None and earlier.validation is not None and earlier.validation.passed
    if not passed and not command.force:
        raise Refused(
            Reason.VALIDATION_REQUIRED,
            f"version {command.version} of {command.model_id} has not passed a validation: report one, "
            "or promote with force and a reason",
            model_id=command.model_id,
        )
    check_loads(record, version)
    live = live_rollout(state, record, command.version)
    if live is not None:
        return Decision(events=promotion(state, record, live, "promoted by hand", now), result=_result(live))
    events: list[Event] = []
    other = state.rollouts[record.live_rollout] if record.live_rollout is not None else None
    if other is not None:
        events.extend(refusal(record, other, f"version {command.version} was promoted by hand meanwhile"))
    started = RolloutStarted(
        rollout_id=RolloutId(f"ro_{state.rollouts_count + 1:06d}"),
        model_id=command.model_id,
        version=command.version,
        production_before=record.aliases.get(PRODUCTION, 0),
    )
    fresh = begun(started, now)
    events.append(started)
    events.extend(promotion(state, record, fresh, "promoted by hand", now))
    return Decision(events=tuple(events), result=_result(fresh))


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
    events: list[Event] = [
        AliasMoved(model_id=command.model_id, alias=PRODUCTION, from_version=current, to_version=previous),
        AliasMoved(model_id=command.model_id, alias=PREVIOUS, from_version=previous, to_version=current),
    ]
    if rollout is not None:
        events.append(
            RolloutEnded(
                rollout_id=rollout.rollout_id,
                model_id=command.model_id,
                version=current,
                state=RolloutState.ROLLED_BACK,
                conclusion=f"rolled back to version {previous}",
            )
        )
    events.extend(cooldowns(state, command.model_id, previous, now))
    result = Result(
        model_id=command.model_id,
        version=previous,
        rollout_id=rollout.rollout_id if rollout is not None else None,
    )
    return Decision(events=tuple(events), result=result)


def _result(rollout: Rollout) -> Result:
    return Result(model_id=rollout.model_id, version=rollout.version, rollout_id=rollout.rollout_id)
