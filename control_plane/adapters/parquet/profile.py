"""A parsed reference profile: bins, and where each histogram lies in the vectors of counts.

Three vectors belong to a profile. *Cells*: the coarse bins of all features by name, then those of the score; every
hour is kept. Behind them, as part of the same vector, one count for each feature whose range is known: values outside
it. *Fine cells*: the fine bins of the features that have some; every day is kept.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.statistics.bins import Bins, CategoricalBins, NumericBins, canonical_key, plausible_range

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class FineBins:
    """Fine bins of one numeric feature, its counts at training time, and where they begin in the fine cells."""

    bins: NumericBins
    reference: Int64s
    start: int

    @cached_property
    def edges(self) -> Float64s:
        """The edges as an array."""
        return np.asarray(self.bins.edges, np.float64)


@dataclass(frozen=True, kw_only=True)
class FeatureBins:
    """Bins of one feature, its counts at training time, and where its cells begin in the vector of all cells."""

    name: str
    bins: Bins
    reference: Int64s
    start: int
    importance: float = 1.0
    low: float = -np.inf
    high: float = np.inf
    outside_at: int = -1
    """Where values outside [low, high] are counted; -1 if the range is not known."""
    fine: FineBins | None = None

    @property
    def kind(self) -> Literal["numeric", "categorical"]:
        """What the feature is."""
        return "numeric" if isinstance(self.bins, NumericBins) else "categorical"

    @property
    def end(self) -> int:
        """One past its last cell."""
        return self.start + len(self.reference)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """A name for each cell."""
        return self.bins.labels

    @cached_property
    def edges(self) -> Float64s:
        """The edges as an array; none of a category."""
        return np.asarray(self.bins.edges if isinstance(self.bins, NumericBins) else (), np.float64)

    @cached_property
    def _coarse_of_fine(self) -> Int64s | None:
        """The cell of each fine cell, if every edge is a fine edge too: then one search finds both."""
        if self.fine is None or not set(self.edges.tolist()) <= set(self.fine.bins.edges):
            return None
        inside: Int64s = np.searchsorted(self.edges, np.append(self.fine.edges, np.inf), side="left").astype(np.int64)
        return np.append(inside, self.bins.cells - 1)

    def takes(self, column: pa.Array) -> bool:
        """False if text came for a numeric feature. Numbers may be categories."""
        return isinstance(self.bins, CategoricalBins) or bool(pa.types.is_float64(column.type))

    def binned(self, column: pa.Array) -> "Binned":
        """Cells of the rows of a column that `takes` accepts."""
        if isinstance(self.bins, CategoricalBins):
            return Binned(_categorical_cells(self.bins, column))
        missing = None
        if column.null_count == 0:
            values = column.to_numpy()
        else:
            values = column.to_numpy(zero_copy_only=False)  # null becomes NaN, which validation has excluded
            missing = np.isnan(values)
        outside = None
        if self.outside_at >= 0:
            low, high = plausible_range(self.low, self.high)
            outside = (values < low) | (values > high)
            outside = outside if outside.any() else None
        if self.fine is None:
            return Binned(_numeric_cells(self.edges, values, missing), None, outside)
        fine = _numeric_cells(self.fine.edges, values, missing)
        coarse = self._coarse_of_fine
        cells = coarse[fine] if coarse is not None else _numeric_cells(self.edges, values, missing)
        return Binned(cells, fine, outside)

    def score_cells(self, score: Float64s) -> Int64s:
        """Cell of each score, for the bins of the prediction."""
        return _numeric_cells(self.edges, score, None)


@dataclass(frozen=True, slots=True)
class Binned:
    """A column as cells, counted from the feature's own start; shapes (n,)."""

    cells: Int64s
    fine: Int64s | None = None
    outside: Bools | None = None
    """Rows outside the range; None if there are none, or nobody looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A parsed reference profile. `features` are ordered by name; the prediction's cells come last."""

    digest: str
    features: tuple[FeatureBins, ...]
    prediction: FeatureBins | None
    positives: Int64s | None
    """Positive outcomes of the holdout by score bin, shape (bins,); None if they were not given."""
    cells: int
    """Length of the vector of all cells."""
    width: int
    """The same with the counts of values outside their range."""
    fine_cells: int
    """Length of the vector of all fine cells."""
    slices: dict[str, dict[str, Int64s]] = field(default_factory=dict)
    """Slice -> feature -> counts at training time, over the feature's bins."""

    def check(self, columns: dict[str, pa.Array]) -> None:
        """Refuse a batch whose feature columns contradict the profile.

        Raises:
            Invalid: `INVALID_BATCH` naming each such column.
        """
        wrong = [one for one in self.features if one.name in columns and not one.takes(columns[one.name])]
        if wrong:
            says = "the version's reference profile says numeric: send float64"
            violations = [Violation(field=f"feature.{one.name}", rule="type", message=says) for one in wrong]
            raise Invalid(Reason.INVALID_BATCH, *violations)


def _numeric_cells(edges: Float64s, values: Float64s, missing: Bools | None) -> Int64s:
    cells: Int64s = np.searchsorted(edges, values, side="left").astype(np.int64)
    if missing is not None:
        cells[missing] = len(edges) + 1
    return cells


def _categorical_cells(bins: CategoricalBins, column: pa.Array) -> Int64s:
    """Cells by canonical key; only the distinct values are looked at one by one."""
    place = {name: at for at, name in enumerate(bins.categories)}
    other, missing = bins.cells - 2, bins.cells - 1
    encoded = pc.dictionary_encode(column)
    keys = [canonical_key(value) for value in encoded.dictionary.to_pylist()]
    cells = np.array([missing if key is None else place.get(key, other) for key in keys] + [missing], np.int64)
    at = pc.fill_null(encoded.indices, len(keys)).to_numpy(zero_copy_only=False)
    found: Int64s = cells[at]
    return found
