"""Alerts and where they are told.

An alert is no event: which there are follows from the state and the time (`rules.active_alerts`). So none is lost, none
outlives its cause, and a restart raises nothing twice: its key stays the same while the cause lasts.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from control_plane.core.ids import ModelId, TeamId


class Severity(StrEnum):
    """How loud; in this order."""

    INFO = "INFO"
    WARNING = "WARNING"
    PAGE = "PAGE"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody has to know now; one for each cause, however many models it hits."""

    key: str
    kind: str
    severity: Severity
    since: datetime
    summary: str
    detail: str = ""
    cause: str = ""
    model_ids: tuple[ModelId, ...] = ()
    teams: tuple[TeamId, ...] = ()
    owners: tuple[str, ...] = ()


class DestinationKind(StrEnum):
    """What is spoken there."""

    WEBHOOK = "WEBHOOK"
    ALERTMANAGER = "ALERTMANAGER"
    PAGERDUTY = "PAGERDUTY"
    SLACK = "SLACK"


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where alerts and lifecycle events go. The secret is named, never kept."""

    name: str
    kind: DestinationKind
    url: str
    secret_variable: str = ""
    teams: tuple[str, ...] = ()
    severity_min: Severity = Severity.INFO
    kinds: tuple[str, ...] = ()
    quiet_start_hour: int = 0
    quiet_end_hour: int = 0
    allow_private: bool = False
    set_by: str = ""
    since: int = 0
    """Revision at which it was first set: it is sent what happens after that."""
    disabled: str = ""
    """Why nothing is sent there until it is set again; empty if it is."""


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody is told about an alert until then."""

    key: str
    until: datetime
    by: str
    reason: str = ""
