"""What each event of the registry and of policies does to the state; a part of `evolve`."""

from msgspec.structs import replace

from control_plane.core.events import (
    AliasMoved,
    Envelope,
    LifecycleChanged,
    LoadChecked,
    PoliciesSet,
    RuleRemoved,
    RuleSet,
    VersionRegistered,
)
from control_plane.core.policies import PolicyVersion
from control_plane.core.registry.types import PRODUCTION, AliasMove, Lifecycle, LoadCheck, ModelVersion
from control_plane.core.relations import models_in
from control_plane.core.rules.types import NO_OUTCOME, RuleVersion
from control_plane.core.staleness.verdict import Level
from control_plane.core.state import LOAD_CHECKS_KEPT_MAX, Standing, State, in_force


def policies_set(state: State, envelope: Envelope, event: PoliciesSet) -> None:
    """What the scope says, and what is in force now for the models it speaks to."""
    state.policies.put(
        PolicyVersion(
            scope=event.scope,
            version=event.version,
            overrides=event.overrides,
            set_at=envelope.at,
            set_by=envelope.actor,
            reason=envelope.reason,
            revision=envelope.seq,
        )
    )
    for record in models_in(state, event.scope):
        record.policies = in_force(state, record.facts)
        if event.scope.startswith("model:"):
            record.own_policies = event.overrides
            record.updated_at = envelope.at
            record.updated_revision = envelope.seq


def rule_changed(state: State, envelope: Envelope, event: RuleSet | RuleRemoved) -> None:
    """A rule says something else, or nothing any more; what that makes of models are events of their own."""
    state.rules.put(
        RuleVersion(
            scope=event.scope,
            name=event.name,
            version=event.version,
            rule=event.rule if isinstance(event, RuleSet) else None,
            set_at=envelope.at,
            set_by=envelope.actor,
            why=envelope.reason,
            revision=envelope.seq,
        )
    )


def lifecycle_changed(state: State, envelope: Envelope, event: LifecycleChanged) -> None:
    """A model is somewhere else in its life."""
    record = state.models[event.model_id]
    record.lifecycle = event.after
    state.lifecycle_revision = envelope.seq
    record.updated_at = envelope.at
    record.updated_revision = envelope.seq


def version_registered(state: State, envelope: Envelope, event: VersionRegistered) -> None:
    """A version was added."""
    record = state.models[event.model_id]
    record.versions.append(
        ModelVersion(
            model_id=event.model_id,
            number=event.version,
            facts=event.facts,
            registered_at=envelope.at,
            attempt_id=event.attempt_id,
        )
    )


def load_checked(state: State, envelope: Envelope, event: LoadChecked) -> None:
    """What somebody found when loading a version."""
    record = state.models[event.model_id]
    check = LoadCheck(
        passed=event.passed,
        reporter=envelope.actor,
        environment=event.environment,
        detail=event.detail,
        checked_at=envelope.at,
    )
    before = record.versions[event.version - 1]
    checks = (*before.load_checks, check)[-LOAD_CHECKS_KEPT_MAX:]
    record.versions[event.version - 1] = replace(before, load_checks=checks)


def alias_moved(state: State, envelope: Envelope, event: AliasMoved) -> None:
    """An alias points elsewhere; another version in production is not judged yet."""
    record = state.models[event.model_id]
    if event.to_version:
        record.aliases[event.alias] = event.to_version
    else:
        record.aliases.pop(event.alias, None)
    record.alias_moves.append(
        AliasMove(
            model_id=event.model_id,
            alias=event.alias,
            from_version=event.from_version,
            to_version=event.to_version,
            moved_at=envelope.at,
            actor=envelope.actor,
            reason=envelope.reason,
            revision=envelope.seq,
        )
    )
    if event.alias == PRODUCTION:
        if record.lifecycle is Lifecycle.REGISTERED:
            record.lifecycle = Lifecycle.ACTIVE
        # Another version serves: nothing is known about it yet, and no rule has been asked.
        record.rule_outcome = NO_OUTCOME
        record.standing = Standing(level=Level.UNKNOWN, since=envelope.at, version=event.to_version)
