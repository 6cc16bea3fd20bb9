"""What is said about missing truth: a likely cause, with what speaks for it and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from control_plane.core.ground_truth.ids import Int64s
from control_plane.core.ground_truth.missing import MissingFacts

SHARE_MIN = 0.05
"""A cause that explains less of the missing is not worth a sentence, unless it is the only one."""
EXPECTED_MIN = 10.0
"""Outcomes that should have come: none of 10 is chance once in 20,000 times."""
SILENT_SHARE = 0.1
"""A slice or source is silent if its coverage is below this share of that of the rest."""
PART_MIN = 30
"""Predictions below which a slice or source says nothing."""


class Cause(StrEnum):
    """As in the contract."""

    OUTCOMES_STOPPED = "outcomes_stopped"
    IDS_DO_NOT_MATCH = "ids_do_not_match"
    SOURCE_SILENT = "source_silent"
    SAMPLING_MISMATCH = "sampling_mismatch"
    TOO_LATE = "too_late"
    NEVER_ANY = "never_any"
    NEVER_LABELLED = "never_labelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One likely cause."""

    cause: Cause
    explanation: str
    remedy: str
    share: float
    """Of the missing outcomes that it explains, 0 to 1."""
    version: int = 0
    """Of a finding about one version alone."""
    slice_name: str = ""


def asked_of(facts: MissingFacts, column: Int64s) -> int:
    """The sum over the stretch in question."""
    inside = (facts.hours >= facts.first) & (facts.hours < facts.last)
    return int(column[inside].sum())


def source_name(name: str) -> str:
    return name or "senders without a name"


def instant_of(hour: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hour)


def time_of(hour: int) -> str:
    return instant_of(hour).strftime("%Y-%m-%d %H:%M")


def listed(words: Sequence[str]) -> str:
    if len(words) > 1:
        return f"{', '.join(words[:-1])} and {words[-1]}"
    return words[0] if words else "nobody"
