"""Reference profiles: what a version saw at training time, as counts. Stored once per content, by sha256.

Format, version 1 (JSON; `docs/profile.md` shows an example):

    {"features": {"temp": {"kind": "numeric", "edges": [..k], "counts": [..k + 2]},
                  "carrier": {"kind": "categorical", "categories": [..k], "counts": [..k + 2]}},
     "prediction": {"edges": [..k], "counts": [..k + 1]}}

Counts follow the cells of `core.statistics.bins`: a number equal to an edge belongs below it, `missing` is last,
a category outside the list is `other`, before `missing`. The features may also be a list of objects with `name`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from control_plane.adapters.parquet.segments import write_durably
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.statistics.bins import Bins, CategoricalBins, NumericBins, canonical_key
from control_plane.core.statistics.sample import InvalidSample

Int64s = npt.NDArray[np.int64]

CACHED_PROFILES_MAX = 4_096
"""Parsed profiles kept in memory: eight versions of each of 500 models."""
CELLS_MAX = 2_000_000
"""Cells of one profile: 5,000 features of 256 fine bins, and some; more is a mistake."""


class _Histogram(msgspec.Struct, frozen=True):
    """One histogram as written; which of edges and categories counts is said by `kind`."""

    counts: tuple[int, ...]
    kind: str = "numeric"
    name: str = ""
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()


class _Profile(msgspec.Struct, frozen=True):
    features: dict[str, _Histogram] | list[_Histogram] = {}
    prediction: _Histogram | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureBins:
    """Bins of one feature, its counts at training time, and where its cells begin in the vector of all cells."""

    name: str
    bins: Bins
    reference: Int64s
    start: int

    @property
    def kind(self) -> Literal["numeric", "categorical"]:
        """What the feature is."""
        return "numeric" if isinstance(self.bins, NumericBins) else "categorical"

    def takes(self, column: pa.Array) -> bool:
        """False if text came for a numeric feature. Numbers may be categories."""
        return isinstance(self.bins, CategoricalBins) or bool(pa.types.is_float64(column.type))

    def cells_of(self, column: pa.Array) -> Int64s:
        """Cell of each row of a column that `takes` accepts, counted from `start`."""
        if isinstance(self.bins, CategoricalBins):
            return _categorical_cells(self.bins, column)
        missing = self.bins.cells - 1
        if column.null_count == 0:
            return self._numeric_cells(column.to_numpy())
        values = column.to_numpy(zero_copy_only=False)  # null becomes NaN, which validation has excluded
        cells = self._numeric_cells(values)
        cells[np.isnan(values)] = missing
        return cells

    def _numeric_cells(self, values: npt.NDArray[np.float64]) -> Int64s:
        edges = np.asarray(self.bins.edges if isinstance(self.bins, NumericBins) else (), np.float64)
        cells: Int64s = np.searchsorted(edges, values, side="left").astype(np.int64)
        return cells

    def score_cells(self, score: npt.NDArray[np.float64]) -> Int64s:
        """Cell of each score, for the bins of the prediction."""
        return self._numeric_cells(score)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A parsed reference profile. `features` are ordered by name; the prediction's cells come last."""

    digest: str
    features: tuple[FeatureBins, ...]
    prediction: FeatureBins | None
    cells: int
    """Length of the vector of all cells."""

    def check(self, columns: dict[str, pa.Array]) -> None:
        """Refuse a batch whose feature columns contradict the profile.

        Raises:
            Invalid: `INVALID_BATCH` naming each such column.
        """
        wrong = [one for one in self.features if one.name in columns and not one.takes(columns[one.name])]
        if wrong:
            says = "the version's reference profile says numeric: send float64"
            violations = [_violation(f"feature.{one.name}", "type", says) for one in wrong]
            raise Invalid(Reason.INVALID_BATCH, *violations)


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


def parse_profile(text: bytes) -> Profile:
    """Parse and check a profile.

    Raises:
        Invalid: `INVALID_ARGUMENT` with every histogram that does not add up.
    """
    try:
        written = msgspec.json.decode(text, type=_Profile)
    except msgspec.MsgspecError as error:
        raise Invalid(Reason.INVALID_ARGUMENT, _violation("reference_profile", "json", str(error)[:300])) from error
    given = written.features
    named = sorted(given.items()) if isinstance(given, dict) else sorted((one.name, one) for one in given)
    violations: list[Violation] = []
    features: list[FeatureBins] = []
    start = 0
    for at, (name, histogram) in enumerate(named):
        if not name or (at and named[at - 1][0] == name):
            violations.append(_violation("features", "name", f"{name!r} is empty or there twice"))
            continue
        found = _bins(f"features.{name}", name, histogram, start, violations)
        if found is not None:
            features.append(found)
            start += len(found.reference)
    prediction = None
    if written.prediction is not None:
        prediction = _bins("prediction", "prediction", _with_missing(written.prediction), start, violations)
        start += len(prediction.reference) if prediction is not None else 0
    if start > CELLS_MAX:
        violations.append(_violation("features", "cells_max", f"{start:,} cells, at most {CELLS_MAX:,}"))
    if violations:
        raise Invalid(Reason.INVALID_ARGUMENT, *violations)
    digest = hashlib.sha256(text).hexdigest()
    return Profile(digest=digest, features=tuple(features), prediction=prediction, cells=start)


def _with_missing(prediction: _Histogram) -> _Histogram:
    """A prediction is never missing; its histogram may leave that cell out."""
    if len(prediction.counts) == len(prediction.edges) + 1:
        return msgspec.structs.replace(prediction, counts=(*prediction.counts, 0))
    return prediction


def _bins(field: str, name: str, histogram: _Histogram, start: int, violations: list[Violation]) -> FeatureBins | None:
    """Bins and counts of one histogram, or a violation."""
    bins: Bins
    try:
        match histogram.kind:
            case "numeric":
                bins = NumericBins(edges=histogram.edges)
            case "categorical":
                bins = CategoricalBins(categories=histogram.categories)
            case _:
                violations.append(_violation(field, "kind", "the kind is numeric or categorical"))
                return None
    except InvalidSample as error:
        violations.append(_violation(field, "bins", error.message))
        return None
    if len(histogram.counts) != bins.cells or min(histogram.counts, default=0) < 0:
        violations.append(
            _violation(field, "counts", f"{len(histogram.counts)} counts, there are {bins.cells} cells, each 0 or more")
        )
        return None
    return FeatureBins(name=name, bins=bins, reference=np.array(histogram.counts, np.int64), start=start)


def _violation(field: str, rule: str, message: str) -> Violation:
    return Violation(field=field, rule=rule, message=message)


class ProfileStore:
    """Profiles on disk, one file per content."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._parsed: dict[str, Profile] = {}

    def put(self, text: bytes) -> str:
        """Check and store a profile durably; returns its sha256. The same content again changes nothing."""
        profile = parse_profile(text)
        path = self._path(profile.digest)
        if not path.exists():
            write_durably(path, text)
        self._keep(profile)
        return profile.digest

    def text(self, digest: str) -> bytes | None:
        """The JSON as it was put; None if there is none."""
        path = self._path(digest)
        return path.read_bytes() if path.exists() else None

    def get(self, digest: str) -> Profile | None:
        """The parsed profile; None if there is none."""
        known = self._parsed.get(digest)
        if known is not None:
            return known
        text = self.text(digest)
        if text is None:
            return None
        profile = parse_profile(text)
        self._keep(profile)
        return profile

    def _keep(self, profile: Profile) -> None:
        while len(self._parsed) >= CACHED_PROFILES_MAX:
            self._parsed.pop(next(iter(self._parsed)))
        self._parsed[profile.digest] = profile

    def _path(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise Invalid(Reason.INVALID_ARGUMENT, _violation("digest", "sha256", "64 lower-case hex digits"))
        return self._directory / f"{digest}.json"
