"""What the registry knows: models, their versions, and where each alias points."""

from datetime import datetime
from enum import StrEnum

import msgspec

from control_plane.core.ids import AttemptId, ModelId, TeamId

PRODUCTION = "production"
CANDIDATE = "candidate"
PREVIOUS = "previous"
MANAGED_ALIASES = (PRODUCTION, CANDIDATE, PREVIOUS)
"""Aliases that only a rollout moves: a hand-moved `production` would bypass validation."""


class TaskType(StrEnum):
    """What a model predicts."""

    BINARY = "BINARY"
    REGRESSION = "REGRESSION"
    EMBEDDING = "EMBEDDING"
    MULTICLASS = "MULTICLASS"
    RANKING = "RANKING"

    @property
    def has_outcomes(self) -> bool:
        """Does the world ever say whether a prediction was right? Of an embedding it does not."""
        return self is not TaskType.EMBEDDING


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner says about a model."""

    model_id: ModelId
    owner: str
    team: TeamId
    tier: int
    """1 (most critical) to 4."""
    task_type: TaskType
    description: str = ""
    tags: dict[str, str] = {}
    consumers: tuple[str, ...] = ()


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric on a holdout, with its standard error and sample size."""

    name: str
    value: float
    standard_error: float = 0.0
    sample_size: int = 0


class VersionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a trainer says about a version. `trained_until` is exclusive."""

    artifact_uri: str
    artifact_sha256: str
    artifact_size_bytes: int = 0
    trained_from: datetime | None = None
    trained_until: datetime
    metrics: tuple[Metric, ...] = ()
    upstream_versions: dict[ModelId, int] = {}
    run: str = ""
    code_revision: str = ""
    profile_sha256: str = ""
    """Content address of the reference profile in the fact store; empty if there is none."""


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version; numbers count from 1 per model."""

    model_id: ModelId
    number: int
    facts: VersionFacts
    registered_at: datetime
    attempt_id: AttemptId | None = None


class AliasMove(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an alias's history; version 0 means it pointed nowhere."""

    model_id: ModelId
    alias: str
    from_version: int
    to_version: int
    moved_at: datetime
    actor: str
    reason: str
    revision: int
