"""The format of reference profiles: JSON in, a checked `Profile` out, and the other way round for a re-baselined one.

Version 2 (`docs/profile.md` has every part; all beyond `kind`, bins and `counts` is optional, so version 1 is valid):

    {"features": {"temp": {"kind": "numeric", "edges": [..k], "counts": [..k + 2], "importance": 0.4,
                           "low": -5.0, "high": 41.0, "fine": {"edges": [..f], "counts": [..f + 2]}},
                  "carrier": {"kind": "categorical", "categories": [..k], "counts": [..k + 2]}},
     "prediction": {"edges": [..k], "counts": [..k + 1], "positives": [..k + 1]},
     "slices": {"country=US": {"features": {"temp": [..k + 2]}}}}

Counts follow the cells of `core.statistics.bins`: a number equal to an edge belongs below it, `missing` is last, a
category outside the list is `other`, before `missing`. The features may also be a list of objects with `name`.
"""

import hashlib
import math
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import numpy.typing as npt

from control_plane.adapters.parquet.profile import FeatureBins, FineBins, Profile
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.ground_truth.batch import SLICES_MAX
from control_plane.core.statistics.bins import Bins, CategoricalBins, NumericBins
from control_plane.core.statistics.sample import COUNT_MAX, InvalidSample

Int64s = npt.NDArray[np.int64]

CELLS_MAX = 2_000_000
"""Cells of one profile, fine ones included: 5,000 features of 256 fine bins, and some; more is a mistake."""
FINE_EDGES_MAX = 1_023
"""Fine edges of one feature; 255 are usual, and every day of every feature is kept over them."""


class _Fine(msgspec.Struct, frozen=True):
    edges: tuple[float, ...]
    counts: tuple[int, ...]


class _Histogram(msgspec.Struct, frozen=True, omit_defaults=True):
    """One histogram as written; which of edges and categories counts is said by `kind`."""

    counts: tuple[int, ...]
    kind: str = "numeric"
    name: str = ""
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    importance: float = 1.0
    low: float | None = None
    high: float | None = None
    fine: _Fine | None = None
    positives: tuple[int, ...] | None = None


class _Slice(msgspec.Struct, frozen=True):
    features: dict[str, tuple[int, ...]] = {}


class _Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    features: dict[str, _Histogram] | list[_Histogram] = {}
    prediction: _Histogram | None = None
    slices: dict[str, _Slice] = {}


@dataclass(slots=True)
class _Layout:
    """What was found so far, and what is wrong."""

    violations: list[Violation] = field(default_factory=list)
    cells: int = 0
    fine_cells: int = 0

    def wrong(self, where: str, rule: str, message: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(field=where, rule=rule, message=message))


def parse_profile(text: bytes) -> Profile:
    """Parse and check a profile.

    Raises:
        Invalid: `INVALID_ARGUMENT` with every histogram that does not add up.
    """
    try:
        written = msgspec.json.decode(text, type=_Profile)
    except msgspec.MsgspecError as error:
        says = Violation(field="reference_profile", rule="json", message=str(error)[:300])
        raise Invalid(Reason.INVALID_ARGUMENT, says) from error
    layout = _Layout()
    features = _features(layout, written)
    prediction = None
    positives = None
    if written.prediction is not None:
        given = _with_missing(written.prediction)
        prediction = _bins(layout, "prediction", "prediction", given)
        positives = _positives(layout, given)
    if layout.cells + layout.fine_cells > CELLS_MAX:
        says_cells = f"{layout.cells + layout.fine_cells:,} cells, at most {CELLS_MAX:,}"
        layout.wrong("features", "cells_max", says_cells)
    slices = _slices(layout, written.slices, {one.name: one for one in features})
    if layout.violations:
        raise Invalid(Reason.INVALID_ARGUMENT, *layout.violations)
    width = layout.cells
    placed = []
    for feature in features:
        ranged = math.isfinite(feature.low) or math.isfinite(feature.high)
        placed.append(replace(feature, outside_at=width) if ranged else feature)
        width += ranged
    return Profile(
        digest=hashlib.sha256(text).hexdigest(),
        features=tuple(placed),
        prediction=prediction,
        positives=positives,
        cells=layout.cells,
        width=width,
        fine_cells=layout.fine_cells,
        slices=slices,
    )


def _features(layout: _Layout, written: _Profile) -> list[FeatureBins]:
    given = written.features
    named = sorted(given.items()) if isinstance(given, dict) else sorted((one.name, one) for one in given)
    features = []
    for at, (name, histogram) in enumerate(named):
        if not name or (at and named[at - 1][0] == name):
            layout.wrong("features", "name", f"{name!r} is empty or there twice")
            continue
        if histogram.positives is not None:
            layout.wrong(f"features.{name}", "positives", "outcomes are counted by score: give them with `prediction`")
        found = _bins(layout, f"features.{name}", name, histogram)
        if found is not None:
            features.append(found)
    return features


def _with_missing(prediction: _Histogram) -> _Histogram:
    """A prediction is never missing; its histogram may leave that cell out."""
    if len(prediction.counts) == len(prediction.edges) + 1:
        return msgspec.structs.replace(prediction, counts=(*prediction.counts, 0))
    return prediction


def _bins(layout: _Layout, where: str, name: str, histogram: _Histogram) -> FeatureBins | None:
    """Bins and counts of one histogram, or violations."""
    bins: Bins
    try:
        match histogram.kind:
            case "numeric":
                bins = NumericBins(edges=histogram.edges)
            case "categorical":
                bins = CategoricalBins(categories=histogram.categories)
            case _:
                layout.wrong(where, "kind", "the kind is numeric or categorical")
                return None
    except InvalidSample as error:
        layout.wrong(where, "bins", error.message)
        return None
    if not _counts_fit(histogram.counts, bins.cells):
        layout.wrong(where, "counts", _counts_sentence(histogram.counts, bins.cells))
        return None
    _check_extras(layout, where, histogram)
    found = FeatureBins(
        name=name,
        bins=bins,
        reference=np.array(histogram.counts, np.int64),
        start=layout.cells,
        importance=histogram.importance,
        low=-np.inf if histogram.low is None else histogram.low,
        high=np.inf if histogram.high is None else histogram.high,
        fine=_fine(layout, f"{where}.fine", histogram),
    )
    layout.cells += len(found.reference)
    return found


def _check_extras(layout: _Layout, where: str, histogram: _Histogram) -> None:
    if not (math.isfinite(histogram.importance) and histogram.importance >= 0):
        layout.wrong(f"{where}.importance", "range", f"{histogram.importance} is not a finite number of 0 or more")
    ends = [end for end in (histogram.low, histogram.high) if end is not None]
    if histogram.kind == "categorical" and (ends or histogram.fine is not None):
        layout.wrong(where, "kind", "`low`, `high` and `fine` are of numbers: leave them out of a category")
    elif not all(math.isfinite(end) for end in ends) or sorted(ends) != ends:
        layout.wrong(where, "range", f"low {histogram.low} and high {histogram.high} are finite, and in this order")


def _fine(layout: _Layout, where: str, histogram: _Histogram) -> FineBins | None:
    """Fine bins over the same rows."""
    fine = histogram.fine
    if fine is None or histogram.kind != "numeric":
        return None
    try:
        bins = NumericBins(edges=fine.edges)
    except InvalidSample as error:
        layout.wrong(where, "bins", error.message)
        return None
    if len(fine.edges) > FINE_EDGES_MAX:
        layout.wrong(where, "edges_max", f"{len(fine.edges):,} edges, at most {FINE_EDGES_MAX:,}")
        return None
    if not _counts_fit(fine.counts, bins.cells):
        layout.wrong(where, "counts", _counts_sentence(fine.counts, bins.cells))
        return None
    if (sum(fine.counts), fine.counts[-1]) != (sum(histogram.counts), histogram.counts[-1]):
        says = f"{sum(fine.counts):,} rows of which {fine.counts[-1]:,} missing"
        of = f"{sum(histogram.counts):,} of which {histogram.counts[-1]:,}"
        layout.wrong(where, "same_rows", f"the fine bins count {says}, the others {of}: count the same rows")
        return None
    found = FineBins(bins=bins, reference=np.array(fine.counts, np.int64), start=layout.fine_cells)
    layout.fine_cells += bins.cells
    return found


def _positives(layout: _Layout, prediction: _Histogram) -> Int64s | None:
    """Positive outcomes by score bin, without the cell for missing."""
    given = prediction.positives
    if given is None:
        return None
    bins = len(prediction.edges) + 1
    if len(given) == bins + 1 and given[-1] == 0:
        given = given[:-1]
    if len(given) != bins or min(given, default=0) < 0:
        layout.wrong("prediction.positives", "counts", f"{len(given)} counts, there are {bins} bins, each 0 or more")
        return None
    over = [at for at, (count, of) in enumerate(zip(given, prediction.counts, strict=False)) if count > of]
    if over:
        says = f"bin {over[0]}: {given[over[0]]:,} positives of {prediction.counts[over[0]]:,} rows"
        layout.wrong("prediction.positives", "counts_max", says)
        return None
    return np.array(given, np.int64)


def _slices(
    layout: _Layout, given: dict[str, _Slice], features: dict[str, FeatureBins]
) -> dict[str, dict[str, Int64s]]:
    """Counts of slices, over the same bins as all the data."""
    if len(given) > SLICES_MAX:
        layout.wrong("slices", "slices_max", f"{len(given)} slices, at most {SLICES_MAX}")
    found: dict[str, dict[str, Int64s]] = {}
    for name, one in sorted(given.items()):
        key, equals, value = name.partition("=")
        if not (key and equals and value):
            layout.wrong(f"slices.{name}", "name", "a slice is named as `country=US`")
        for feature, counts in sorted(one.features.items()):
            where = f"slices.{name}.features.{feature}"
            bins = features.get(feature)
            if bins is None:
                layout.wrong(where, "name", "the profile has no such feature")
            elif not _counts_fit(counts, len(bins.reference)):
                layout.wrong(where, "counts", _counts_sentence(counts, len(bins.reference)))
            else:
                found.setdefault(name, {})[feature] = np.array(counts, np.int64)
    return found


def _counts_fit(counts: tuple[int, ...], cells: int) -> bool:
    return len(counts) == cells and min(counts, default=0) >= 0 and sum(counts) <= COUNT_MAX


def _counts_sentence(counts: tuple[int, ...], cells: int) -> str:
    return f"{len(counts)} counts, there are {cells} cells, each 0 or more"


def written_profile(features: dict[str, FeatureBins]) -> bytes:
    """The JSON of a profile of these features, without a prediction; places are given anew when it is parsed."""
    histograms = {
        name: _Histogram(
            kind=one.kind,
            edges=one.bins.edges if isinstance(one.bins, NumericBins) else (),
            categories=one.bins.categories if isinstance(one.bins, CategoricalBins) else (),
            counts=tuple(one.reference.tolist()),
            importance=one.importance,
            low=one.low if math.isfinite(one.low) else None,
            high=one.high if math.isfinite(one.high) else None,
            fine=None
            if one.fine is None
            else _Fine(edges=one.fine.bins.edges, counts=tuple(one.fine.reference.tolist())),
        )
        for name, one in sorted(features.items())
    }
    return msgspec.json.encode(_Profile(features=histograms))
