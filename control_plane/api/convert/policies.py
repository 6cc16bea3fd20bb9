"""Policies between the wire and flat overrides. A field that is not set is inherited; policies in force have them all.

The paths of `core.policies.FIELDS` are the paths of the contract's `Policies`, so that one walk over the table does all
fields in both directions.
"""

from functools import lru_cache
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from runway.v1 import policies_pb2

from control_plane.api.convert.common import duration, span_from, timestamp
from control_plane.core.decide.policies import ValueChange, etag_of
from control_plane.core.policies import (
    FIELDS,
    EffectivePolicies,
    Overrides,
    PolicyField,
    PolicyVersion,
    Scalar,
    scalars,
    span_of,
    span_text,
    value_text,
)
from control_plane.core.staleness.policy import Fusion

FUSIONS = {
    Fusion.WEIGHTED_AVERAGE: policies_pb2.FUSION_WEIGHTED_AVERAGE,
    Fusion.NOISY_OR: policies_pb2.FUSION_NOISY_OR,
}
FUSIONS_FROM = {number: fusion.value for fusion, number in FUSIONS.items()}


def overrides_from(message: policies_pb2.Policies, prefix: str = "policies") -> Overrides:
    """What a message says. Weights are said together: one that is left out of them is 0.

    Raises `Invalid` for a span that is none.
    """
    found: Overrides = {}
    given = {group.name: policy for group, policy in message.ListFields()}
    for path, field in FIELDS.items():
        if field.group in given:
            scalar = _said(given[field.group], field, f"{prefix}.{path}")
            if scalar is not None:
                found[path] = scalar
    return found


def _said(group: Any, field: PolicyField, path: str) -> Scalar | None:
    """A field of a message; None if it is not set."""
    name = field.names[0]
    if len(field.names) > 1:
        return float(getattr(getattr(group, name), field.names[1])) if group.HasField(name) else None
    presence = group.DESCRIPTOR.fields_by_name[name].has_presence
    if presence and not group.HasField(name):
        return None
    value = getattr(group, name)
    if isinstance(value, Duration):
        return span_text(span_from(value, path))
    if field.word is not None:
        return FUSIONS_FROM.get(value)
    # Where a text can be said to be empty, that says something: the narrower scope takes the wider one's back.
    return value or None if isinstance(value, str) and not presence else value


def policies_message(overrides: "dict[str, Scalar | None] | Overrides") -> policies_pb2.Policies:
    """Overrides on the wire; only what is said is set."""
    message = policies_pb2.Policies()
    for path, scalar in overrides.items():
        if scalar is None:
            continue
        field = FIELDS[path]
        target: Any = getattr(message, field.group)
        for name in field.names[:-1]:
            getattr(target, name).SetInParent()
            target = getattr(target, name)
        _set(target, field, scalar)
    return message


def _set(target: Message, field: PolicyField, scalar: Scalar) -> None:
    name = field.names[-1]
    if field.kind == "span":
        getattr(target, name).CopyFrom(duration(span_of(str(scalar))))
    elif field.word is not None:
        setattr(target, name, FUSIONS[Fusion(str(scalar))])
    else:
        setattr(target, name, scalar)


@lru_cache(maxsize=8192)
def effective_message(policies: EffectivePolicies) -> policies_pb2.Policies:
    """Policies in force, every field set that has a value. The message is shared: copy it, do not change it."""
    return policies_message(scalars(policies))


def policy_layer(scope: str, found: PolicyVersion | None) -> policies_pb2.PolicyLayer:
    """What a scope says or said; None is a scope that never said anything."""
    if found is None:
        return policies_pb2.PolicyLayer(scope=scope, policies=policies_pb2.Policies(), etag=etag_of(0))
    return policies_pb2.PolicyLayer(
        scope=scope,
        policies=policies_message(found.overrides),
        version=found.version,
        set_at=timestamp(found.set_at),
        set_by=found.set_by,
        reason=found.reason,
        etag=etag_of(found.version),
        revision=found.revision,
    )


def policy_change(change: ValueChange) -> policies_pb2.PolicyChange:
    """One value that changes for one model."""
    return policies_pb2.PolicyChange(
        model_id=change.model_id,
        field=change.field,
        before=value_text(change.before),
        after=value_text(change.after),
        source_before=change.source_before,
        source_after=change.source_after,
    )
