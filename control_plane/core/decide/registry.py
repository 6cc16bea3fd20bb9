"""Registry: models, versions, aliases."""

from datetime import datetime

from control_plane.core.commands import MoveAlias, RegisterModel, RegisterVersion, RemoveAlias, Result, UpdateModel
from control_plane.core.decide.decision import Decision
from control_plane.core.decide.policies import own_policies, scope_violations
from control_plane.core.decide.rollout_ends import check_loads
from control_plane.core.errors import Invalid, NotFound, Reason, Refused, Violation
from control_plane.core.events import AliasMoved, Event, ModelRegistered, ModelUpdated, VersionRegistered
from control_plane.core.policies import Overrides, normal, overrides_violations
from control_plane.core.registry.rules import check_alias_move, check_facts, check_own_alias, check_version
from control_plane.core.registry.types import ModelFacts, VersionFacts
from control_plane.core.relations import check_not_retired
from control_plane.core.retraining.rules import held_lease
from control_plane.core.state import State


def register_model(state: State, command: RegisterModel) -> Decision:
    """Add a model; a second registration under the same id is refused."""
    facts = command.facts
    _check(state, facts, command.policies)
    if facts.model_id in state.models:
        owner = state.models[facts.model_id].facts.owner or "nobody"
        raise Refused(
            Reason.MODEL_ALREADY_EXISTS,
            f"{facts.model_id} is registered already (owner {owner}): use UpdateModel to change it",
            model_id=facts.model_id,
        )
    events: list[Event] = [ModelRegistered(facts=facts), *own_policies(state, facts.model_id, command.policies)]
    return Decision(events=tuple(events), result=Result(model_id=facts.model_id, changed=1))


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
    facts = command.facts or record.facts
    own = state.policies.overrides(f"model:{command.model_id}") if command.policies is None else command.policies
    _check(state, facts, own)
    events: list[Event] = []
    if facts != record.facts:
        events.append(ModelUpdated(facts=facts))
    events.extend(own_policies(state, command.model_id, own))
    result = Result(model_id=command.model_id, changed=1 if events else 0)
    return Decision(events=tuple(events), result=result)


def _check(state: State, facts: ModelFacts, own: Overrides) -> None:
    """All violations of a whole model at once."""
    found = overrides_violations(own, "model.policies") or scope_violations(
        state, [facts], {f"model:{facts.model_id}": normal(own)}, "model.policies"
    )
    check_facts(facts, *found)


def register_version(state: State, command: RegisterVersion, now: datetime) -> Decision:
    """Add a version; the same artifact of the same attempt again is the same version."""
    record = state.model(command.model_id)
    check_version(command.facts, record.facts.expected_inputs, *_upstream_violations(state, command.facts))
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


def _upstream_violations(state: State, facts: VersionFacts) -> list[Violation]:
    """Versions of others that a version says it was trained with, and that do not exist."""
    found = []
    for upstream, number in sorted(facts.upstream_versions.items()):
        try:
            state.version(upstream, number)
        except NotFound as error:
            field = f"version.upstream_versions[{upstream}]"
            found.append(Violation(field=field, rule="exists", message=error.message))
    return found


def move_alias(state: State, command: MoveAlias) -> Decision:
    """Point a team's own alias at a version."""
    record = state.model(command.model_id)
    check_not_retired(record)
    current = record.aliases.get(command.alias, 0)
    check_alias_move(command.alias, current, command.version, len(record.versions), command.expected_version)
    result = Result(model_id=command.model_id, alias=command.alias, version=command.version)
    if current == command.version:
        return Decision(result=result)
    check_loads(record, record.versions[command.version - 1])
    event = AliasMoved(model_id=command.model_id, alias=command.alias, from_version=current, to_version=command.version)
    return Decision(events=(event,), result=result)


def remove_alias(state: State, command: RemoveAlias) -> Decision:
    """Remove a team's own alias; its history is kept."""
    record = state.model(command.model_id)
    check_not_retired(record)
    check_own_alias(command.alias)
    current = record.aliases.get(command.alias, 0)
    if not current:
        have = ", ".join(sorted(record.aliases)) or "none yet"
        raise NotFound(
            Reason.ALIAS_NOT_FOUND,
            f"{command.model_id} has no alias {command.alias!r}; its aliases: {have}",
            model_id=command.model_id,
            alias=command.alias,
        )
    event = AliasMoved(model_id=command.model_id, alias=command.alias, from_version=current, to_version=0)
    return Decision(events=(event,), result=Result(model_id=command.model_id, alias=command.alias, changed=1))
