"""The port to looks: every evaluation that was made, and the evidence of those that matter.

A look is no event (most change nothing), so looks are not in the log. They are kept beside the facts, on this machine,
and can be lost without losing a verdict; the evidence behind a verdict is written before the verdict is.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from control_plane.core.ids import ModelId
from control_plane.core.staleness.evidence import ScoreAt
from control_plane.core.staleness.verdict import Evaluation

LOOKS_KEPT = timedelta(days=400)
"""Thirteen months: a look can be compared with the one of a year ago."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation of one model. A later one at the same time takes its place: a driven clock may stand still."""

    model_id: ModelId
    evaluation: Evaluation


class Looks(Protocol):
    """What the application asks of a store of looks. Calls block for milliseconds: make them in a thread.

    Errors: `Unavailable` (STORE_UNAVAILABLE).
    """

    def record(self, looks: Sequence[Look], evidence: Mapping[str, bytes]) -> None:
        """Keep looks and evidence by sha256, all or nothing, durable on return."""
        ...

    def between(self, model_id: ModelId, start: datetime, end: datetime, limit: int) -> list[Look]:
        """Looks made in [start, end), newest first, at most so many."""
        ...

    def thinned(self, model_id: ModelId, start: datetime, end: datetime, points: int) -> list[Look]:
        """Looks made in [start, end), newest first: of each of `points` equal stretches of it the newest."""
        ...

    def first_at(self, model_id: ModelId, start: datetime, end: datetime) -> datetime | None:
        """When the first look in [start, end) was made."""
        ...

    def made_at(self, model_id: ModelId, at: datetime) -> Look | None:
        """The look at exactly this time."""
        ...

    def latest(self) -> dict[ModelId, Evaluation]:
        """The newest look at each model."""
        ...

    def scores(self, model_id: ModelId, version: int, before: datetime, points: int) -> tuple[ScoreAt, ...]:
        """Scores of a version before a time, oldest first: of each of `points` equal stretches the newest."""
        ...

    def evidence(self, digest: str) -> bytes | None:
        """Evidence as it was recorded; None if it is not there."""
        ...

    def expire(self, before: datetime) -> int:
        """Forget looks made before a time, and evidence recorded before it; how many looks."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...
