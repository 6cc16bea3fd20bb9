"""What Dagster needs from the control plane: a port, and its one implementation over the Python client.

The port is narrow and speaks plain values, so that sensors and ops can be tested against an in-memory control plane and
the same tests run against a real server.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

import msgspec
from runway_client import RunwayRpcError

from assets.failures import FailureClass
from assets.fleet import Fleet

LEASE_GONE = frozenset({"LEASE_LOST", "RETRAIN_FINISHED", "ATTEMPT_NOT_FOUND", "RETRAIN_NOT_FOUND"})
"""Reasons after which the work of an attempt must stop: somebody decided that it is over."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How many retrains may run at once."""

    running_max: int
    running_per_team_max: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The control plane at a glance: cheap enough to ask every second."""

    revision: int
    models: int
    nodes: int
    dependencies: int
    limits: Limits
    now: datetime | None = None
    """The control plane's clock."""
    driven: bool = False
    """Whether that clock is moved by a replay instead of by time."""


class ModelJoined(msgspec.Struct, frozen=True, kw_only=True):
    """What joining a stretch of time came to for a model."""

    model_id: str
    predicted: int
    joined: int
    coverage: float | None
    """Of mature predictions; None if none is mature."""
    coverage_min: float
    """What its policy asks for; 0 of a model that never gets outcomes."""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What joining a stretch of time came to."""

    hours_joined: int
    hours_live: int
    """Hours that the speed layer still serves."""
    predicted: int
    joined: int
    late: int
    orphans: int
    engine: str
    cpu_s: float
    models: tuple[ModelJoined, ...] = ()

    @property
    def coverage(self) -> float | None:
        """Over all models that should have outcomes and of which something is mature, by their predictions."""
        known = [
            (one.predicted, one.coverage)
            for one in self.models
            if one.coverage is not None and one.predicted and one.coverage_min > 0
        ]
        total = sum(predicted for predicted, _ in known)
        return sum(predicted * coverage for predicted, coverage in known) / total if total else None


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The right to run one attempt."""

    attempt_id: str
    retrain_id: str
    model_id: str
    lease_token: str
    team: str
    tier: int
    data_until: datetime
    """The control plane's clock when it was leased: train on data before this."""
    causes: tuple[str, ...] = ()
    resource_class: str = "default"
    memory_scale: int = 1
    """Give the training this many times its usual memory."""
    group: str = ""
    """The cascade or the applied plan that it belongs to."""
    probe: bool = False
    """It tries Dagster out after an outage."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric on a holdout."""

    name: str
    value: float
    standard_error: float = 0.0
    sample_size: int = 0


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """A node that a training loaded from, and which version of it if it is a model (`v3`)."""

    node_id: str
    version: str = ""


class TrainedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a trainer made."""

    artifact_uri: str
    artifact_sha256: str
    artifact_size_bytes: int
    trained_until: datetime
    trained_from: datetime | None = None
    metrics: tuple[Metric, ...] = ()
    upstream_versions: dict[str, int] = {}
    reference_profile: bytes = b""
    embeddings: bytes = b""
    """What an embedding makes of its fixed anchors; see the contract's RegisterVersion."""
    code_revision: str = ""
    rows: int = 0
    reads: tuple[Read, ...] = ()
    """What was really loaded, if the trainer knows; reported as lineage."""


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate against production on the same holdout."""

    passed: bool
    metric: str
    candidate: float
    production: float | None = None
    standard_error: float = 0.0
    sample_size: int = 0
    explanation: str = ""
    holdout_from: datetime | None = None
    holdout_until: datetime | None = None


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """The primary metric on a part of the holdout."""

    slice: str
    """`carrier=UA`."""
    candidate: float
    production: float
    standard_error: float
    """Of the difference, paired."""
    sample_size: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a candidate beside production, on the same fresh rows. Runway judges it by policy."""

    metric: str
    candidate: float
    production: float | None = None
    standard_error: float = 0.0
    """Of the difference, paired."""
    sample_size: int = 0
    higher_is_better: bool | None = None
    """Of metrics that the contract does not know."""
    slices: tuple[Slice, ...] = ()
    calibration_error: float | None = None
    latency_p99_ms: float | None = None
    size_mb: float | None = None
    loads: bool | None = None
    embedding_overlap: float | None = None
    """With the embeddings in production, as a share of the noise floor."""
    holdout_from: datetime | None = None
    holdout_until: datetime | None = None


class Validated(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a candidate: refused, promoted, or on its way (checks, approval, canary)."""

    passed: bool
    promoted: bool
    validation: Validation
    """As Runway has it."""
    checks: dict[str, str] = {}
    """What each check found, in a sentence."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A retrain that waits."""

    retrain_id: str
    model_id: str
    held_by: str = ""
    ignore_cooldown: bool = False


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A version that waits for checks before it may go on."""

    rollout_id: str
    model_id: str
    version: int
    checks: tuple[str, ...]
    """Names of those that nobody has reported."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A model's standing with the numbers that plot."""

    model_id: str
    verdict: str
    """FRESH, AT_RISK, STALE or UNKNOWN."""
    score: float | None = None
    score_low: float | None = None
    score_high: float | None = None
    version: int = 0
    evaluated_at: datetime | None = None
    top_psi: float | None = None
    top_feature: str = ""
    signals: dict[str, float] = {}
    """Signals that are there, in their own units."""
    confidence: str = ""
    reasons: tuple[str, ...] = ()
    recommended_action: str = ""
    threshold: float | None = None
    """Score from which on it is STALE."""
    metrics: dict[str, float] = {}
    """Metrics as they are now: `auc`, `brier`; of a part of the data `auc country=US`."""
    would_change: tuple[str, ...] = ()
    """What would bring another verdict, in sentences."""
    season: str = ""
    forecast: str = ""
    rules: str = ""
    """What the rules in force make of it."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened, or (without a kind) everything up to a revision has been told."""

    revision: int
    kind: str = ""
    """`ModelRegistered`, `VerdictChanged` ..."""
    model_id: str = ""


class ControlPlane(Protocol):
    """The port. Every method may raise `RunwayRpcError`; `Refused` with a reason of LEASE_GONE means: stop the work."""

    def fleet(self) -> Fleet:
        """Registry and graph."""
        ...

    def status(self) -> Status:
        """Counts, revision and limits."""
        ...

    def changes(self, after_revision: int, kinds: Sequence[str]) -> Iterator[Change]:
        """Changes of these kinds (none: of all) after a revision and how far they go, as they come, until closed.

        Raises:
            Refused(WATCH_TOO_OLD): more was missed than is kept.
        """
        ...

    def lease(self, known_attempt_ids: list[str], leases_max: int) -> list[Lease]:
        """What may run now, and again what we hold but do not know."""
        ...

    def renew(self, attempt_id: str, lease_token: str, run: str) -> None:
        """Still running."""
        ...

    def register_version(self, lease: Lease, trained: TrainedVersion, run: str) -> int:
        """Register what an attempt made; its version number."""
        ...

    def report_success(self, lease: Lease, version: int, run: str, duration_s: float) -> None:
        """The attempt made `version`."""
        ...

    def report_lineage(self, model_id: str, version: int, reads: Sequence[Read], run: str) -> None:
        """What the training of a version really read; idempotent."""
        ...

    def report_failure(
        self,
        attempt_id: str,
        lease_token: str,
        failure: str,
        run: str,
        *,
        permanent: bool,
        failure_class: FailureClass = "",
    ) -> None:
        """The attempt failed, in a sentence; without a class it is read from that."""
        ...

    def report_started(self) -> None:
        """Dagster has started a run: its circuit breaker hears of it."""
        ...

    def report_never_started(self, attempt_id: str, lease_token: str, failure: str, run: str) -> None:
        """Dagster could not start the run of an attempt: no attempt of the training's own, and a failed call."""
        ...

    def report_validation(self, model_id: str, version: int, report: Validation | Evidence) -> Validated:
        """What became of the candidate: by a verdict that is told, or by Runway's own on the evidence."""
        ...

    def unchecked(self) -> list[Candidate]:
        """Candidates that wait for checks."""
        ...

    def report_check(self, model_id: str, version: int, name: str, *, passed: bool, explanation: str) -> None:
        """What a check of a candidate found. Refused once the candidate is on its way no more."""
        ...

    def candidate_of_attempt(self, retrain_id: str, attempt_id: str) -> int | None:
        """The version of an attempt that is still waiting for its validation; None if none is."""
        ...

    def waiting(self) -> list[Waiting]:
        """Retrains that wait."""
        ...

    def hold_retrain(self, retrain_id: str, why: str) -> None:
        """Let a waiting retrain wait until it is released."""
        ...

    def release_retrain(self, retrain_id: str) -> None:
        """Let a held retrain go on."""
        ...

    def cancelled(self, retrain_id: str) -> str:
        """Why a retrain was cancelled or superseded, in a sentence; empty if it was not."""
        ...

    def verdicts(self) -> list[Verdict]:
        """The standing of the fleet, worst first."""
        ...

    def productions(self) -> dict[str, int]:
        """Model -> version in production, of models that have one."""
        ...

    def version(self, model_id: str, version: int) -> TrainedVersion:
        """What is known about a version; its profile is left out."""
        ...

    def evaluate(self, model_id: str) -> Verdict:
        """Look at a model now."""
        ...

    def request_retrain(self, model_id: str, reason: str, request_id: str) -> str:
        """Ask for a retrain, whoever would run it; what it is called."""
        ...

    def join_partition(self, start: datetime, end: datetime, *, authoritative: bool) -> Joined:
        """Join the predictions made in [start, end) with their outcomes, and wait for it."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


Connect = Callable[[], ControlPlane]
"""How to reach the control plane; whoever connects closes."""


def lease_is_gone(error: RunwayRpcError) -> bool:
    """Does this error mean that the attempt is over?"""
    return error.reason in LEASE_GONE
