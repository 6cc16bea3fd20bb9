"""Update masks: which fields of a model a request changes (https://google.aip.dev/134, /161)."""

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from runway.v1 import registry_pb2

from control_plane.api.convert.policies import policies_message
from control_plane.api.convert.registry import facts_message
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import ModelFacts

SERVER_FIELDS = frozenset(
    {
        "model_id",
        "registered_at",
        "updated_at",
        "etag",
        "aliases",
        "latest_version",
        "lifecycle",
        "effective_policies",
        "consuming_models",
    }
)
"""Fields of Model that an update never changes."""


def merged_model(facts: ModelFacts, own: Overrides, changes: registry_pb2.Model, mask: FieldMask) -> registry_pb2.Model:
    """What the owner says about the model, as it would be with the masked fields replaced.

    An empty mask means every field that is set.
    A masked field that is not set in `changes` takes its default. Raises `Invalid` with every path that cannot be.
    """
    faults = [Violation(field="update_mask", rule="path", message=f) for f in map(_fault, mask.paths) if f]
    if faults:
        raise Invalid(Reason.INVALID_ARGUMENT, *faults)
    merged = facts_message(facts)
    merged.policies.CopyFrom(policies_message(own))
    for path in mask.paths or set_paths(changes):
        _replace(merged, changes, path)
    return merged


def set_paths(changes: registry_pb2.Model) -> list[str]:
    """Paths of all fields that are set and can be changed. Policies are entered: what is not set in them stays."""
    paths = [field.name for field, _ in changes.ListFields() if field.name not in SERVER_FIELDS | {"policies"}]
    for group, policy in changes.policies.ListFields():
        paths.extend(f"policies.{group.name}.{field.name}" for field, _ in policy.ListFields())
    return paths


def _fault(path: str) -> str:
    """Why a path cannot be masked; empty if it can."""
    if path.partition(".")[0] in SERVER_FIELDS:
        return f"{path} is set by the server and cannot be changed: leave it out"
    within: Descriptor | None = registry_pb2.Model.DESCRIPTOR
    for name in path.split("."):
        field = within.fields_by_name.get(name) if within is not None else None
        if field is None:
            return f"Model has no field {path[:100]!r}: write a name of the contract, as `owner` or `policies.rollout`"
        within = field.message_type if not _repeated(field) else None
    return ""


def _replace(target: Message, source: Message, path: str) -> None:
    name, _, rest = path.partition(".")
    if rest:
        _replace(getattr(target, name), getattr(source, name), rest)
        return
    target.ClearField(name)
    field = source.DESCRIPTOR.fields_by_name[name]
    if field.has_presence and not source.HasField(name):
        return
    if _repeated(field):
        getattr(target, name).MergeFrom(getattr(source, name))
    elif field.message_type is not None:
        getattr(target, name).CopyFrom(getattr(source, name))
    else:
        setattr(target, name, getattr(source, name))


def _repeated(field: FieldDescriptor) -> bool:
    """Lists and maps: neither is entered by a path."""
    return field.is_repeated
