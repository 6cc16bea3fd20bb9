"""What the registry knows: models, their versions, and where each alias points."""

from datetime import datetime, timedelta
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


class Lifecycle(StrEnum):
    """Where a model stands in its life.

    state      | on                                       | becomes
    -----------+------------------------------------------+------------------------------------------
    REGISTERED | a version goes into production           | ACTIVE, by itself
    any        | SetLifecycle deprecated, retired         | DEPRECATED, RETIRED
    DEPRECATED | SetLifecycle active                      | ACTIVE, or REGISTERED if nothing was ever
    RETIRED    |                                          | in production
    """

    REGISTERED = "REGISTERED"
    ACTIVE = "ACTIVE"
    DEPRECATED = "DEPRECATED"
    RETIRED = "RETIRED"


class LinkKind(StrEnum):
    """What a link leads to."""

    SOURCE = "SOURCE"
    PIPELINE = "PIPELINE"
    RUN = "RUN"
    DASHBOARD = "DASHBOARD"
    RUNBOOK = "RUNBOOK"
    DOCUMENT = "DOCUMENT"


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look for more."""

    kind: LinkKind
    url: str
    title: str = ""


class TaintedWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A range of time whose data must not train, [start, until)."""

    start: datetime
    until: datetime
    reason: str


class ValueType(StrEnum):
    """What kind of value a field holds; UNKNOWN is not said."""

    UNKNOWN = "UNKNOWN"
    NUMBER = "NUMBER"
    CATEGORY = "CATEGORY"
    BOOLEAN = "BOOLEAN"
    TEXT = "TEXT"
    TIMESTAMP = "TIMESTAMP"
    VECTOR = "VECTOR"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A named value that goes into a model or comes out of it."""

    name: str
    value_type: ValueType = ValueType.UNKNOWN
    optional: bool = False


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What a version takes and gives; both empty: nobody said."""

    inputs: tuple[Field, ...] = ()
    outputs: tuple[Field, ...] = ()


class TrainingData(msgspec.Struct, frozen=True, kw_only=True):
    """Data that a version was trained on; empty text is not known."""

    node_id: str = ""
    uri: str = ""
    digest: str = ""
    rows: int = 0


class LoadCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody tried to load a version."""

    passed: bool
    reporter: str
    environment: str = ""
    detail: str = ""
    checked_at: datetime


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner says about a model."""

    model_id: ModelId
    owner: str = ""
    """Empty: nobody yet."""
    team: TeamId
    tier: int
    """1 (most critical) to 4."""
    task_type: TaskType
    description: str = ""
    tags: dict[str, str] = {}
    consumers: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    training_window: timedelta | None = None
    """How much history a retrain looks at; None is not said."""
    tainted_windows: tuple[TaintedWindow, ...] = ()
    expected_inputs: tuple[Field, ...] = ()
    retrain_gpu_hours: float = 0.0


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric on a holdout, with its standard error and sample size."""

    name: str
    value: float
    standard_error: float = 0.0
    sample_size: int = 0
    slice: str = ""
    """The part of the data it was measured on; empty is all of it."""


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
    embeddings_sha256: str = ""
    """Likewise of what it makes of the fixed anchors."""
    framework: str = ""
    training_data: tuple[TrainingData, ...] = ()
    signature: Signature = Signature()


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version; numbers count from 1 per model."""

    model_id: ModelId
    number: int
    facts: VersionFacts
    registered_at: datetime
    attempt_id: AttemptId | None = None
    load_checks: tuple[LoadCheck, ...] = ()
    """Oldest first."""

    @property
    def loads(self) -> bool | None:
        """What the newest load check said; None if nobody tried."""
        return self.load_checks[-1].passed if self.load_checks else None


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
