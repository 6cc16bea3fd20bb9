"""Everything that can have happened. Events are facts in the past tense; `evolve` applies them and never refuses.

An event's kind on the log is its class name, its version `SCHEMA_VERSION`. A field may be added with a default;
anything else is a new version with an upcaster, and every version ever written stays in `tests/golden`.
"""

from datetime import datetime
from typing import get_args

import msgspec

from control_plane.core.commands import Result
from control_plane.core.events.alerts import (
    AlertSilenced,
    DestinationRemoved,
    DestinationSet,
)
from control_plane.core.events.fleet import (
    AliasMoved,
    ClockAdvanced,
    CoverageAlertCleared,
    CoverageAlertRaised,
    FactsErased,
    LifecycleChanged,
    LoadChecked,
    ModelRegistered,
    ModelUpdated,
    PoliciesSet,
    RuleRemoved,
    RuleSet,
    RulesMatched,
    StreakChanged,
    VerdictChanged,
    VersionRegistered,
)
from control_plane.core.events.graph import (
    DependenciesDeclared,
    DependenciesRetracted,
    EdgesSettled,
    LineagePolicySet,
    LineageReported,
    NodesDeclared,
    NodesDiscovered,
    NodesMoved,
    NodesRemoved,
    OverrideCleared,
    OverrideSet,
    UnfinishedRunsDropped,
)
from control_plane.core.events.retraining import (
    AttemptEnded,
    BreakerChanged,
    CascadeCooldownStarted,
    CascadeSettled,
    LeaseRenewed,
    LimitsSet,
    RetrainEnded,
    RetrainHeld,
    RetrainingHeld,
    RetrainingReleased,
    RetrainJoined,
    RetrainLeased,
    RetrainReleased,
    RetrainRequested,
)
from control_plane.core.events.rollout import (
    ApprovalAsked,
    CanaryJudged,
    CheckReported,
    FreezeRemoved,
    FreezeSet,
    RolloutApproved,
    RolloutEnded,
    RolloutHeld,
    RolloutReleased,
    RolloutsGrouped,
    RolloutStarted,
    RolloutStepped,
    UpliftMeasured,
    ValidationReported,
    WeightReported,
)

__all__ = [
    "EVENT_KINDS",
    "SCHEMA_VERSION",
    "AlertSilenced",
    "AliasMoved",
    "ApprovalAsked",
    "AttemptEnded",
    "BreakerChanged",
    "CanaryJudged",
    "CascadeCooldownStarted",
    "CascadeSettled",
    "CheckReported",
    "ClockAdvanced",
    "CoverageAlertCleared",
    "CoverageAlertRaised",
    "DependenciesDeclared",
    "DependenciesRetracted",
    "DestinationRemoved",
    "DestinationSet",
    "EdgesSettled",
    "Envelope",
    "Event",
    "FactsErased",
    "FreezeRemoved",
    "FreezeSet",
    "LeaseRenewed",
    "LifecycleChanged",
    "LimitsSet",
    "LineagePolicySet",
    "LineageReported",
    "LoadChecked",
    "ModelRegistered",
    "ModelUpdated",
    "NodesDeclared",
    "NodesDiscovered",
    "NodesMoved",
    "NodesRemoved",
    "OverrideCleared",
    "OverrideSet",
    "PoliciesSet",
    "RetrainEnded",
    "RetrainHeld",
    "RetrainJoined",
    "RetrainLeased",
    "RetrainReleased",
    "RetrainRequested",
    "RetrainingHeld",
    "RetrainingReleased",
    "RolloutApproved",
    "RolloutEnded",
    "RolloutHeld",
    "RolloutReleased",
    "RolloutStarted",
    "RolloutStepped",
    "RolloutsGrouped",
    "RuleRemoved",
    "RuleSet",
    "RulesMatched",
    "StreakChanged",
    "UnfinishedRunsDropped",
    "UpliftMeasured",
    "ValidationReported",
    "VerdictChanged",
    "VersionRegistered",
    "WeightReported",
    "decode_event",
    "encode_event",
    "event_kind",
]

Event = (
    ModelRegistered
    | ModelUpdated
    | PoliciesSet
    | RuleSet
    | RuleRemoved
    | RulesMatched
    | LifecycleChanged
    | LoadChecked
    | VersionRegistered
    | AliasMoved
    | NodesDeclared
    | DependenciesDeclared
    | DependenciesRetracted
    | NodesDiscovered
    | NodesRemoved
    | NodesMoved
    | LineageReported
    | EdgesSettled
    | OverrideSet
    | OverrideCleared
    | LineagePolicySet
    | UnfinishedRunsDropped
    | StreakChanged
    | VerdictChanged
    | CoverageAlertRaised
    | CoverageAlertCleared
    | RetrainRequested
    | RetrainJoined
    | RetrainLeased
    | LeaseRenewed
    | AttemptEnded
    | RetrainEnded
    | RolloutStarted
    | CheckReported
    | ValidationReported
    | RolloutEnded
    | CascadeCooldownStarted
    | LimitsSet
    | RetrainingHeld
    | RetrainingReleased
    | ClockAdvanced
    | FactsErased
    | RetrainHeld
    | RetrainReleased
    | CascadeSettled
    | BreakerChanged
    | ApprovalAsked
    | RolloutApproved
    | RolloutStepped
    | WeightReported
    | CanaryJudged
    | RolloutHeld
    | RolloutReleased
    | RolloutsGrouped
    | FreezeSet
    | FreezeRemoved
    | UpliftMeasured
    | DestinationSet
    | DestinationRemoved
    | AlertSilenced
)

SCHEMA_VERSION = 2
"""Version of the event schema written now; a log entry of a higher one stops the start."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """An event with its place in the log.

    `request_digest` and `result` stand on the last event of a command that carried a request id; they are what makes
    a repeated request get its first answer.
    """

    seq: int
    epoch: int
    at: datetime
    actor: str
    reason: str
    event: Event
    request_id: str = ""
    request_digest: str = ""
    result: Result | None = None
    prev_hash: bytes = b""
    hash: bytes = b""


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """JSON of an event, tag included; the same event gives the same bytes."""
    return _encoder.encode(event)


def decode_event(payload: bytes | str) -> Event:
    """Inverse of `encode_event`. Raises msgspec.ValidationError on an unknown kind or a broken field."""
    return _decoder.decode(payload)


def event_kind(event: Event) -> str:
    """Name of an event's kind, as in the log."""
    return type(event).__name__


EVENT_KINDS = frozenset(kind.__name__ for kind in get_args(Event))
"""Names of all kinds there are."""
