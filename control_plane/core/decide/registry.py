"""Registry: models, versions, aliases."""

from dataclasses import replace
from datetime import datetime, timedelta

from control_plane.core.commands import MoveAlias, RegisterModel, RegisterVersion, Result, UpdateModel
from control_plane.core.decide.decision import Decision
from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.events import AliasMoved, ModelRegistered, ModelUpdated, VersionRegistered
from control_plane.core.ground_truth.labels import WINDOW_MAX, LabelSpec, Task
from control_plane.core.registry.rules import check_alias_move, check_facts, check_version
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.retraining.rules import held_lease
from control_plane.core.retraining.rules import policy_violations as retraining_violations
from control_plane.core.retraining.types import RetrainingPolicy
from control_plane.core.rollout.rules import policy_violations as validation_violations
from control_plane.core.rollout.types import ValidationPolicy
from control_plane.core.staleness.policy import StalenessPolicy, default_policy
from control_plane.core.staleness.policy import policy_violations as staleness_violations
from control_plane.core.state import State


def _check(
    facts: ModelFacts,
    staleness: StalenessPolicy,
    retraining: RetrainingPolicy,
    validation: ValidationPolicy,
    label: LabelSpec,
) -> None:
    """All violations of a whole model at once."""
    window = (
        [
            Violation(
                field="label_spec.window",
                rule="range",
                message=f"must be above 0 and at most {WINDOW_MAX.days} days",
            )
        ]
        if not timedelta(0) < label.window <= WINDOW_MAX
        else []
    )
    policies = (
        *staleness_violations(staleness),
        *retraining_violations(retraining),
        *validation_violations(validation),
        *window,
    )
    check_facts(facts, *(replace(violation, field=f"model.{violation.field}") for violation in policies))


def default_task(task_type: TaskType) -> Task:
    """How outcomes of a model are scored: as yes or no for a binary model, as numbers otherwise."""
    return "binary" if task_type is TaskType.BINARY else "regression"


def register_model(state: State, command: RegisterModel) -> Decision:
    """Add a model; a second registration under the same id is refused."""
    facts = command.facts
    event = ModelRegistered(
        facts=facts,
        staleness_policy=command.staleness_policy or default_policy(facts.tier),
        retraining_policy=command.retraining_policy or RetrainingPolicy(),
        validation_policy=command.validation_policy or ValidationPolicy(),
        label_spec=command.label_spec or LabelSpec(task=default_task(facts.task_type)),
    )
    _check(facts, event.staleness_policy, event.retraining_policy, event.validation_policy, event.label_spec)
    if facts.model_id in state.models:
        raise Refused(
            Reason.MODEL_ALREADY_EXISTS,
            f"{facts.model_id} is registered already (owner {state.models[facts.model_id].facts.owner}): "
            "use UpdateModel to change it",
            model_id=facts.model_id,
        )
    return Decision(events=(event,), result=Result(model_id=facts.model_id, changed=1))


def update_model(state: State, command: UpdateModel) -> Decision:
    """Replace what the command carries; nothing that is equal becomes an event."""
    record = state.model(command.model_id)
    if command.etag and command.etag != record.etag:
        raise Refused(
            Reason.ETAG_MISMATCH,
            f"{command.model_id} was changed meanwhile (etag {record.etag}, yours {command.etag}): read it again",
            model_id=command.model_id,
            etag=record.etag,
        )
    event = ModelUpdated(
        facts=command.facts or record.facts,
        staleness_policy=command.staleness_policy or record.staleness_policy,
        retraining_policy=command.retraining_policy or record.retraining_policy,
        validation_policy=command.validation_policy or record.validation_policy,
        label_spec=command.label_spec or record.label_spec,
    )
    _check(
        event.facts,
        event.staleness_policy,
        event.retraining_policy,
        event.validation_policy,
        event.label_spec,
    )
    unchanged = (
        event.facts == record.facts
        and event.staleness_policy == record.staleness_policy
        and event.retraining_policy == record.retraining_policy
        and event.validation_policy == record.validation_policy
        and event.label_spec == record.label_spec
    )
    result = Result(model_id=command.model_id, changed=0 if unchanged else 1)
    return Decision(events=() if unchanged else (event,), result=result)


def register_version(state: State, command: RegisterVersion, now: datetime) -> Decision:
    """Add a version; the same artifact of the same attempt again is the same version."""
    record = state.model(command.model_id)
    check_version(command.facts)
    for upstream, number in sorted(command.facts.upstream_versions.items()):
        state.version(upstream, number)
    if command.attempt_id is not None:
        retrain = state.retrain_of_attempt(command.attempt_id)
        if retrain.model_id != command.model_id:
            raise Invalid(
                Reason.INVALID_ARGUMENT,
                Violation(
                    field="attempt_id",
                    rule="model",
                    message=f"{command.attempt_id} is an attempt at {retrain.model_id}, not at {command.model_id}",
                ),
            )
        for version in record.versions:
            same = version.facts.artifact_sha256 == command.facts.artifact_sha256
            if version.attempt_id == command.attempt_id and same:
                return Decision(result=Result(model_id=command.model_id, version=version.number))
        if command.lease_token is None:
            raise Invalid(
                Reason.INVALID_ARGUMENT,
                Violation(
                    field="lease_token",
                    rule="required",
                    message="an attempt registers its version under its lease",
                ),
            )
        held_lease(retrain, command.attempt_id, command.lease_token, now)
    number = len(record.versions) + 1
    event = VersionRegistered(
        model_id=command.model_id, version=number, facts=command.facts, attempt_id=command.attempt_id
    )
    return Decision(events=(event,), result=Result(model_id=command.model_id, version=number, changed=1))


def move_alias(state: State, command: MoveAlias) -> Decision:
    """Point a team's own alias at a version."""
    record = state.model(command.model_id)
    current = record.aliases.get(command.alias, 0)
    check_alias_move(command.alias, current, command.version, len(record.versions), command.expected_version)
    result = Result(model_id=command.model_id, alias=command.alias, version=command.version)
    if current == command.version:
        return Decision(result=result)
    event = AliasMoved(model_id=command.model_id, alias=command.alias, from_version=current, to_version=command.version)
    return Decision(events=(event,), result=result)
