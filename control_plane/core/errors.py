"""What can go wrong: `Invalid` (your input), `Refused` (the state forbids it), `Unavailable` (try again).

Every error carries a `Reason` of the contract (`proto/runway/v1/errors.proto`, same names; a test proves it) and
typed details. An ambiguous append is a kind of its own, because neither answer would be true.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Machine-readable cause of an error; the wire enum is `ERROR_REASON_` + the name."""

    INVALID_ID = "INVALID_ID"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    INVALID_SAMPLE = "INVALID_SAMPLE"
    INVALID_BATCH = "INVALID_BATCH"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    VERSION_NOT_FOUND = "VERSION_NOT_FOUND"
    NODE_NOT_FOUND = "NODE_NOT_FOUND"
    DEPENDENCY_NOT_FOUND = "DEPENDENCY_NOT_FOUND"
    RETRAIN_NOT_FOUND = "RETRAIN_NOT_FOUND"
    ATTEMPT_NOT_FOUND = "ATTEMPT_NOT_FOUND"
    ROLLOUT_NOT_FOUND = "ROLLOUT_NOT_FOUND"
    ALIAS_NOT_FOUND = "ALIAS_NOT_FOUND"
    MODEL_ALREADY_EXISTS = "MODEL_ALREADY_EXISTS"
    VERSION_ALREADY_EXISTS = "VERSION_ALREADY_EXISTS"
    DEPENDENCY_CYCLE = "DEPENDENCY_CYCLE"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    LEASE_LOST = "LEASE_LOST"
    RETRAIN_FINISHED = "RETRAIN_FINISHED"
    ROLLOUT_FINISHED = "ROLLOUT_FINISHED"
    VALIDATION_REQUIRED = "VALIDATION_REQUIRED"
    NO_PREVIOUS_VERSION = "NO_PREVIOUS_VERSION"
    CLOCK_NOT_DRIVEN = "CLOCK_NOT_DRIVEN"
    CLOCK_MOVED_BACK = "CLOCK_MOVED_BACK"
    WATCH_TOO_OLD = "WATCH_TOO_OLD"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    NOT_LEADER = "NOT_LEADER"
    APPEND_OUTCOME_UNKNOWN = "APPEND_OUTCOME_UNKNOWN"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    REVISION_NOT_REACHED = "REVISION_NOT_REACHED"
    INTERNAL = "INTERNAL"
    MODEL_HAS_CONSUMERS = "MODEL_HAS_CONSUMERS"
    MODEL_RETIRED = "MODEL_RETIRED"
    LOAD_CHECK_REQUIRED = "LOAD_CHECK_REQUIRED"
    POLICY_NOT_FOUND = "POLICY_NOT_FOUND"
    OVERRIDE_EXISTS = "OVERRIDE_EXISTS"
    OVERRIDE_NOT_FOUND = "OVERRIDE_NOT_FOUND"
    NODE_ALREADY_EXISTS = "NODE_ALREADY_EXISTS"
    NODE_IN_USE = "NODE_IN_USE"
    HISTORY_NOT_KEPT = "HISTORY_NOT_KEPT"
    INVALID_LINEAGE = "INVALID_LINEAGE"
    RULE_NOT_FOUND = "RULE_NOT_FOUND"
    EVALUATION_NOT_FOUND = "EVALUATION_NOT_FOUND"
    EVIDENCE_NOT_KEPT = "EVIDENCE_NOT_KEPT"
    PLAN_CHANGED = "PLAN_CHANGED"
    SCHEDULER_NOT_FOUND = "SCHEDULER_NOT_FOUND"
    APPROVAL_REQUIRED = "APPROVAL_REQUIRED"
    APPROVAL_NOT_YOURS = "APPROVAL_NOT_YOURS"
    ROLLOUT_NOT_WAITING = "ROLLOUT_NOT_WAITING"
    FREEZE_NOT_FOUND = "FREEZE_NOT_FOUND"
    FROZEN = "FROZEN"
    DESTINATION_NOT_FOUND = "DESTINATION_NOT_FOUND"
    ALERT_NOT_FOUND = "ALERT_NOT_FOUND"
    RETRAIN_NOT_WAITING = "RETRAIN_NOT_WAITING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken rule of the input: which field, which rule, what to write instead."""

    field: str
    rule: str
    message: str


@dataclass(eq=False)
class RunwayError(Exception):
    """Base of every error that reaches a caller; never raised itself."""

    reason: Reason
    message: str
    details: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


class Invalid(RunwayError):
    """The input is wrong; sending it again will fail again. Carries *all* violations found."""

    def __init__(self, reason: Reason, *violations: Violation, **details: str) -> None:
        told = (f"{v.field}: {v.message}" if v.field else v.message for v in violations)
        super().__init__(reason, "; ".join(told), dict(details))
        self.violations = violations


class Refused(RunwayError):
    """The input is fine but the state forbids it."""

    def __init__(self, reason: Reason, message: str, **details: str) -> None:
        super().__init__(reason, message, dict(details))


class NotFound(Refused):
    """The thing named does not exist."""


class Unavailable(RunwayError):
    """Not now; the same request may succeed later. Nothing was changed."""

    def __init__(self, reason: Reason, message: str, **details: str) -> None:
        super().__init__(reason, message, dict(details))


class AppendOutcomeUnknown(RunwayError):
    """The log may or may not hold the batch: step down, replay, then answer from what the log says."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.APPEND_OUTCOME_UNKNOWN, message)
