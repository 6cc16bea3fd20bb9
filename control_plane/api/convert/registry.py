"""Models, versions, aliases."""

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from runway.v1 import common_pb2, registry_pb2

from control_plane.api.convert.common import duration, instant_from, span_from, timestamp
from control_plane.api.convert.policies import effective_message, policies_message
from control_plane.api.convert.rollout import validation
from control_plane.core.ids import AttemptId, ModelId, NodeId, node_kind, node_name, parse_model_id, parse_team
from control_plane.core.registry.types import (
    AliasMove,
    Field,
    Lifecycle,
    Link,
    LinkKind,
    LoadCheck,
    Metric,
    ModelFacts,
    ModelVersion,
    Signature,
    TaintedWindow,
    TaskType,
    TrainingData,
    ValueType,
    VersionFacts,
)
from control_plane.core.rollout.types import Validation
from control_plane.core.state import ModelRecord, State

TASKS = {
    TaskType.BINARY: common_pb2.TASK_TYPE_BINARY,
    TaskType.REGRESSION: common_pb2.TASK_TYPE_REGRESSION,
    TaskType.EMBEDDING: common_pb2.TASK_TYPE_EMBEDDING,
    TaskType.MULTICLASS: common_pb2.TASK_TYPE_MULTICLASS,
    TaskType.RANKING: common_pb2.TASK_TYPE_RANKING,
}
TASKS_FROM = {number: task for task, number in TASKS.items()}
TIERS: "dict[int, common_pb2.Tier.ValueType]" = {
    1: common_pb2.TIER_1,
    2: common_pb2.TIER_2,
    3: common_pb2.TIER_3,
    4: common_pb2.TIER_4,
}
LIFECYCLES = {one: registry_pb2.LifecycleState.Value(f"LIFECYCLE_STATE_{one.value}") for one in Lifecycle}
LIFECYCLES_FROM = {number: one for one, number in LIFECYCLES.items()}
LINKS = {one: registry_pb2.LinkKind.Value(f"LINK_KIND_{one.value}") for one in LinkKind}
LINKS_FROM = {number: one for one, number in LINKS.items()}
VALUE_TYPES: "dict[ValueType, registry_pb2.ValueType.ValueType]" = {
    one: registry_pb2.ValueType.Value(f"VALUE_TYPE_{one.value}") for one in ValueType if one is not ValueType.UNKNOWN
}
VALUE_TYPES_FROM: dict[int, ValueType] = {number: one for one, number in VALUE_TYPES.items()}


def tier(number: int | None) -> "common_pb2.Tier.ValueType":
    """1 to 4 on the wire; None is unspecified."""
    return TIERS[number] if number else common_pb2.TIER_UNSPECIFIED


def facts_from(message: registry_pb2.Model) -> ModelFacts:
    """What an owner says about a model."""
    return ModelFacts(
        model_id=parse_model_id(message.model_id, "model.model_id"),
        owner=message.owner,
        team=parse_team(message.team, "model.team"),
        tier=int(message.tier),
        task_type=TASKS_FROM[message.task_type],
        description=message.description,
        tags=dict(sorted(message.tags.items())),
        consumers=tuple(message.consumers),
        links=tuple(Link(kind=LINKS_FROM[one.kind], title=one.title, url=one.url) for one in message.links),
        training_window=span_from(message.training_window, "model.training_window")
        if message.HasField("training_window")
        else None,
        tainted_windows=tuple(
            TaintedWindow(
                # `from` is a word of Python.
                start=instant_from(getattr(one, "from"), f"model.tainted_windows[{number}].from"),
                until=instant_from(one.until, f"model.tainted_windows[{number}].until"),
                reason=one.reason,
            )
            for number, one in enumerate(message.tainted_windows)
        ),
        expected_inputs=tuple(map(field_from, message.expected_inputs)),
        retrain_gpu_hours=message.retrain_gpu_hours,
    )


def field_from(message: registry_pb2.Field) -> Field:
    """A named value; a type that is not said is UNKNOWN."""
    return Field(
        name=message.name,
        value_type=VALUE_TYPES_FROM.get(message.type, ValueType.UNKNOWN),
        optional=message.optional,
    )


def field_message(found: Field) -> registry_pb2.Field:
    """A named value on the wire."""
    kind = VALUE_TYPES.get(found.value_type, registry_pb2.VALUE_TYPE_UNSPECIFIED)
    return registry_pb2.Field(name=found.name, type=kind, optional=found.optional)


def facts_message(facts: ModelFacts) -> registry_pb2.Model:
    """What an owner said about a model, and nothing else."""
    return registry_pb2.Model(
        model_id=facts.model_id,
        owner=facts.owner,
        team=facts.team,
        tier=TIERS[facts.tier],
        task_type=TASKS[facts.task_type],
        description=facts.description,
        tags=facts.tags,
        consumers=facts.consumers,
        links=[registry_pb2.Link(kind=LINKS[one.kind], title=one.title, url=one.url) for one in facts.links],
        training_window=duration(facts.training_window) if facts.training_window is not None else None,
        tainted_windows=[_tainted(one) for one in facts.tainted_windows],
        expected_inputs=[field_message(one) for one in facts.expected_inputs],
        retrain_gpu_hours=facts.retrain_gpu_hours,
    )


def _tainted(window: TaintedWindow) -> registry_pb2.TaintedWindow:
    message = registry_pb2.TaintedWindow(reason=window.reason, until=timestamp(window.until))
    start = timestamp(window.start) or Timestamp()
    getattr(message, "from").CopyFrom(start)
    return message


def model(record: ModelRecord, consumers: Sequence[NodeId] = ()) -> registry_pb2.Model:
    """A model: its facts, its own policies and those in force, where its aliases point, who uses it.

    `consumers` are all nodes that use its output; the models among them are shown. A message that is made without a
    look at the graph has none.
    """
    message = facts_message(record.facts)
    if record.own_policies:
        message.policies.CopyFrom(policies_message(record.own_policies))
    message.effective_policies.CopyFrom(effective_message(record.policies))
    message.MergeFrom(
        registry_pb2.Model(
            registered_at=timestamp(record.registered_at),
            updated_at=timestamp(record.updated_at),
            etag=record.etag,
            aliases=record.aliases,
            latest_version=len(record.versions),
            lifecycle=LIFECYCLES[record.lifecycle],
            consuming_models=[node_name(node) for node in consumers if node_kind(node) == "model"],
        )
    )
    return message


def version_facts_from(
    message: registry_pb2.ModelVersion, profile_sha256: str, embeddings_sha256: str = ""
) -> VersionFacts:
    """What a trainer says about a version."""
    return VersionFacts(
        artifact_uri=message.artifact_uri,
        artifact_sha256=message.artifact_sha256,
        artifact_size_bytes=message.artifact_size_bytes,
        trained_from=instant_from(message.trained_from, "version.trained_from")
        if message.HasField("trained_from")
        else None,
        trained_until=instant_from(message.trained_until, "version.trained_until"),
        metrics=tuple(
            Metric(
                name=m.name,
                value=m.value,
                standard_error=m.standard_error,
                sample_size=m.sample_size,
                slice=m.slice,
            )
            for m in message.metrics
        ),
        upstream_versions={
            parse_model_id(name, "version.upstream_versions"): number
            for name, number in sorted(message.upstream_versions.items())
        },
        run=message.run,
        code_revision=message.code_revision,
        profile_sha256=profile_sha256,
        embeddings_sha256=embeddings_sha256,
        framework=message.framework,
        training_data=tuple(
            TrainingData(node_id=one.node_id, uri=one.uri, digest=one.digest, rows=one.rows)
            for one in message.training_data
        ),
        signature=Signature(
            inputs=tuple(map(field_from, message.signature.inputs)),
            outputs=tuple(map(field_from, message.signature.outputs)),
        ),
    )


def version(
    found: ModelVersion, validations: "list[Validation] | tuple[Validation, ...]" = ()
) -> registry_pb2.ModelVersion:
    """A version on the wire; `validations` newest first."""
    facts = found.facts
    return registry_pb2.ModelVersion(
        model_id=found.model_id,
        version=found.number,
        artifact_uri=facts.artifact_uri,
        artifact_sha256=facts.artifact_sha256,
        artifact_size_bytes=facts.artifact_size_bytes,
        trained_from=timestamp(facts.trained_from),
        trained_until=timestamp(facts.trained_until),
        metrics=[
            registry_pb2.Metric(
                name=m.name,
                value=m.value,
                standard_error=m.standard_error,
                sample_size=m.sample_size,
                slice=m.slice,
            )
            for m in facts.metrics
        ],
        upstream_versions={str(name): number for name, number in facts.upstream_versions.items()},
        run=facts.run,
        code_revision=facts.code_revision,
        framework=facts.framework,
        training_data=[
            registry_pb2.TrainingData(node_id=one.node_id, uri=one.uri, digest=one.digest, rows=one.rows)
            for one in facts.training_data
        ],
        signature=_signature(facts.signature),
        registered_at=timestamp(found.registered_at),
        attempt_id=found.attempt_id or "",
        profile_sha256=facts.profile_sha256,
        embeddings_sha256=facts.embeddings_sha256,
        load_checks=[_load_check(check) for check in reversed(found.load_checks)],
        validations=[validation(one) for one in validations],
    )


def version_in(state: State, found: ModelVersion) -> registry_pb2.ModelVersion:
    """A version with every comparison that was made of it."""
    rollouts = (state.rollouts[rollout_id] for rollout_id in reversed(state.model(found.model_id).rollout_ids))
    made = [one.validation for one in rollouts if one.version == found.number and one.validation is not None]
    return version(found, made)


def _signature(found: Signature) -> registry_pb2.Signature | None:
    if not found.inputs and not found.outputs:
        return None
    return registry_pb2.Signature(
        inputs=[field_message(one) for one in found.inputs], outputs=[field_message(one) for one in found.outputs]
    )


def _load_check(check: LoadCheck) -> registry_pb2.LoadCheck:
    return registry_pb2.LoadCheck(
        passed=check.passed,
        reporter=check.reporter,
        environment=check.environment,
        detail=check.detail,
        checked_at=timestamp(check.checked_at),
    )


def alias_move(move: AliasMove) -> registry_pb2.AliasMove:
    """One entry of an alias's history."""
    return registry_pb2.AliasMove(
        model_id=move.model_id,
        alias=move.alias,
        from_version=move.from_version,
        to_version=move.to_version,
        moved_at=timestamp(move.moved_at),
        actor=move.actor,
        reason=move.reason,
        revision=move.revision,
    )


def model_id_from(text: str) -> ModelId:
    """A model id out of a request."""
    return parse_model_id(text, "model_id")


def attempt_id_from(text: str) -> AttemptId | None:
    """An attempt id; empty is none."""
    return AttemptId(text) if text else None
