"""Models, versions, aliases."""

from runway.v1 import common_pb2, policies_pb2, registry_pb2

from control_plane.api.convert.common import duration, instant_from, span_from, timestamp
from control_plane.api.convert.policies import retraining_policy, staleness_policy, validation_policy
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ids import AttemptId, ModelId, parse_model_id, parse_team
from control_plane.core.registry.types import (
    AliasMove,
    Metric,
    ModelFacts,
    ModelVersion,
    TaskType,
    VersionFacts,
)
from control_plane.core.state import ModelRecord

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
    )


def label_spec_from(message: policies_pb2.LabelSpec, task_type: "common_pb2.TaskType.ValueType") -> LabelSpec:
    """The label; an unset window takes the default."""
    default = LabelSpec()
    return LabelSpec(
        task="binary" if task_type == common_pb2.TASK_TYPE_BINARY else "regression",
        label_type=message.label_type or default.label_type,
        window=span_from(message.window, "model.label_spec.window") if message.HasField("window") else default.window,
        absence_means_negative=message.absence_means_negative,
        metric=message.metric,
    )


def label_spec(spec: LabelSpec) -> policies_pb2.LabelSpec:
    """The label on the wire."""
    return policies_pb2.LabelSpec(
        label_type=spec.label_type,
        window=duration(spec.window),
        absence_means_negative=spec.absence_means_negative,
        metric=spec.metric,
    )


def model(record: ModelRecord) -> registry_pb2.Model:
    """A model with its effective policies and where its aliases point."""
    facts = record.facts
    return registry_pb2.Model(
        model_id=facts.model_id,
        owner=facts.owner,
        team=facts.team,
        tier=TIERS[facts.tier],
        task_type=TASKS[facts.task_type],
        description=facts.description,
        tags=facts.tags,
        consumers=facts.consumers,
        staleness_policy=staleness_policy(record.staleness_policy),
        retraining_policy=retraining_policy(record.retraining_policy),
        validation_policy=validation_policy(record.validation_policy),
        label_spec=label_spec(record.label_spec),
        registered_at=timestamp(record.registered_at),
        updated_at=timestamp(record.updated_at),
        etag=record.etag,
        aliases=record.aliases,
        latest_version=len(record.versions),
    )


def version_facts_from(message: registry_pb2.ModelVersion, profile_sha256: str) -> VersionFacts:
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
            Metric(name=m.name, value=m.value, standard_error=m.standard_error, sample_size=m.sample_size)
            for m in message.metrics
        ),
        upstream_versions={
            parse_model_id(name, "version.upstream_versions"): number
            for name, number in sorted(message.upstream_versions.items())
        },
        run=message.run,
        code_revision=message.code_revision,
        profile_sha256=profile_sha256,
    )


def version(found: ModelVersion) -> registry_pb2.ModelVersion:
    """A version on the wire."""
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
            registry_pb2.Metric(name=m.name, value=m.value, standard_error=m.standard_error, sample_size=m.sample_size)
            for m in facts.metrics
        ],
        upstream_versions={str(name): number for name, number in facts.upstream_versions.items()},
        run=facts.run,
        code_revision=facts.code_revision,
        registered_at=timestamp(found.registered_at),
        attempt_id=found.attempt_id or "",
        profile_sha256=facts.profile_sha256,
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
