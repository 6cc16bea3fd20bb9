"""Facts about outcomes that are missing: small, and all that the rules of `causes` look at."""

from dataclasses import dataclass, field

import numpy as np

from control_plane.core.ground_truth.coverage import PartCoverage
from control_plane.core.ground_truth.ids import Int64s
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import DELAY_CELLS

SHARE_CELLS = 256
"""Cells of the hash of ids: fine enough for samples of one in a hundred."""


def no_cells() -> Int64s:
    """An empty histogram of hash shares."""
    return np.zeros(SHARE_CELLS, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHours:
    """When outcomes of one sender were observed."""

    source: str
    hours: tuple[int, ...]
    """Hours since 1970 with outcomes, ascending."""
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdFacts:
    """What a look at ids themselves says: of some of the hours, every distinct id."""

    predicted: Int64s
    """Predictions by hash share, shape (SHARE_CELLS,)."""
    joined: Int64s
    """Of these, those with an outcome, in or outside the window."""
    orphaned: Int64s
    """Outcomes without prediction."""
    timeless: int = 0
    """Of the orphans, ids that carry no time."""
    predictions_timeless: int = 0
    changed: str = ""
    """How the ids of most orphans become those of predictions: `its bytes are reversed`."""
    changed_ids: int = 0
    sources: tuple[tuple[str, int, int], ...] = ()
    """(source, outcomes, of these orphans)."""
    prediction_sources: tuple[tuple[str, int, int], ...] = ()
    """(source, predictions, of these joined)."""

    @property
    def orphans(self) -> int:
        """Outcomes without prediction."""
        return int(self.orphaned.sum())

    @property
    def outcomes(self) -> int:
        """Distinct ids of outcomes."""
        return self.orphans + int(self.joined.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingFacts:
    """What is known about a stretch of predictions, and what came before it. n hours."""

    label: LabelSpec
    first: int
    """The stretch in question, in hours since 1970: first <= hour < last."""
    last: int
    until: int
    """The hour up to which outcomes could have come: now."""
    hours: Int64s
    """Mature hours with predictions, ascending, also before `first`: history teaches what is usual."""
    mature: Int64s
    known: Int64s
    outside: Int64s
    """Predictions whose outcomes all came after the window."""
    orphans: int
    """Outcomes without prediction, with a time in their ids that is inside the stretch."""
    orphans_timeless: int
    """Whose ids carry no time."""
    delays: Int64s = field(default_factory=lambda: np.zeros(DELAY_CELLS, np.int64))
    """Of the joined, as in `Partial.delays`."""
    outcomes_ever: int = 0
    """Outcomes of this label type that were ever stored, of any prediction."""
    other_labels: tuple[str, ...] = ()
    """Label types of which outcomes came."""
    sources: tuple[SourceHours, ...] = ()
    slices: tuple[PartCoverage, ...] = ()
    """Of the stretch."""
    versions: tuple[PartCoverage, ...] = ()
    ids: IdFacts | None = None
