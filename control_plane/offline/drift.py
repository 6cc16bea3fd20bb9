"""Drift between two files, by the same rules as the control plane's, without one.

    from control_plane.offline.drift import report
    found = report(Path("january.parquet"), Path("june.parquet"))
    [(column.name, column.psi_debiased) for column in found.columns if column.drifted]

Bins come from the reference: deciles of numbers, the top categories of everything else, `missing` apart. A column has
drifted if its chi-square test is a Benjamini-Hochberg discovery among all columns and its debiased PSI is above the
threshold. Columns are read one after the other, so memory is that of one column.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from control_plane.core.staleness.evidence import FeatureTable, PredictionCounts, flat_feature_table
from control_plane.core.staleness.input_drift import input_drifts
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.signals import prediction_drifts
from control_plane.core.statistics.bins import Bins, CategoricalBins, categorical_groups, numeric_bins, plausible_range
from control_plane.core.statistics.fleet import discoveries, row_drift
from control_plane.core.statistics.sample import Float64s, Int64s
from control_plane.offline import tables
from control_plane.offline.tables import Left, Table, TableError, opened

__all__ = ["Column", "Options", "Report", "Slice", "TableError", "report"]

SLICES_MAX = 20
"""Values of the slicing column that are compared, the most frequent ones."""
SLICE_TOP = 5
ROWS_FEW = 100
"""Below, a report says that only large drift can be told from chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is compared, and from when on it is drift."""

    columns: Collection[str] = ()
    """Only these; empty: all that both files have."""
    exclude: Collection[str] = ()
    categorical: Collection[str] = ()
    """Numbers that are names, such as a zip code."""
    prediction: str = ""
    """The column of the model's scores, reported apart."""
    by: str = ""
    """Compare the parts of the data by this column too."""
    psi_moderate: float = StalenessPolicy().psi_moderate
    psi_significant: float = StalenessPolicy().psi_significant
    false_discovery_rate: float = StalenessPolicy().false_discovery_rate


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column of both files."""

    name: str
    kind: str
    psi: float
    psi_debiased: float
    p_value: float
    drifted: bool
    strength: str
    """none, moderate or significant."""
    missing_then: float
    missing_now: float
    cells: tuple[str, ...]
    reference: tuple[int, ...]
    current: tuple[int, ...]


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the data."""

    name: str
    reference_rows: int
    current_rows: int
    drifted: int
    top: tuple[tuple[str, float], ...]
    """(column, debiased PSI) of drifted ones, the strongest first."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """Distance of the scores."""

    name: str
    kl: float
    kl_debiased: float
    js_distance: float
    p_value: float
    significant: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What two files say."""

    reference: str
    current: str
    reference_rows: int
    current_rows: int
    columns: tuple[Column, ...]
    """The most drifted first."""
    left_out: tuple[tuple[str, str], ...]
    """(column, why)."""
    drifted: int
    drifted_share: float
    data_quality: tuple[str, ...]
    prediction: Prediction | None = None
    slices: tuple[Slice, ...] = ()
    notes: tuple[str, ...] = ()
    psi_moderate: float
    psi_significant: float
    false_discovery_rate: float

    @property
    def sentence(self) -> str:
        """All in one."""
        rows = f"{self.current_rows:,} row{'s' * (self.current_rows != 1)} against {self.reference_rows:,}"
        if not self.drifted:
            return f"None of {len(self.columns)} columns drifted ({rows})."
        top = ", ".join(f"{one.name} (PSI {one.psi:.2f})" for one in self.columns[:3] if one.drifted)
        more = " and more" if self.drifted > 3 else ""
        return f"{self.drifted} of {len(self.columns)} columns drifted ({rows}): {top}{more}."


@dataclass(slots=True)
class _Counted:
    """What was counted so far, column by column."""

    names: list[str] = field(default_factory=list)
    bins: list[Bins] = field(default_factory=list)
    reference: list[Int64s] = field(default_factory=list)
    current: list[Int64s] = field(default_factory=list)
    outside: list[int] = field(default_factory=list)
    left_out: list[Left] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    by_slice: list[tuple[Int64s, Int64s]] = field(default_factory=list)
    """Counts of the slices of each column: shapes (slices, cells)."""


def report(reference: Path, current: Path, options: Options | None = None) -> Report:
    """Compare two files.

    Raises:
        TableError: a file cannot be read, or there is nothing to compare; the message says what to do.
    """
    options = options or Options()
    with opened(reference) as then, opened(current) as now:
        names = _chosen(then, now, options)
        counted = _Counted()
        slicing = _Slicing.of(then, now, options.by) if options.by else None
        for name in names:
            _count(name, then, now, options, counted, slicing)
        _only_in_one(then, now, options, counted)
        if not counted.names:
            why = "; ".join(f"{left.name}: {left.why}" for left in counted.left_out[:5])
            raise TableError(f"there is no column to compare ({why})")
        return _reported(then, now, options, counted, slicing)


def _chosen(then: Table, now: Table, options: Options) -> list[str]:
    both = [name for name in then.types if name in now.types]
    asked = [*options.columns, *options.exclude, *options.categorical, *filter(None, (options.prediction, options.by))]
    for name in asked:
        if name not in then.types and name not in now.types:
            meant = tables.near(name, sorted({*then.types, *now.types}))
            hint = f"did you mean {' or '.join(meant)}?" if meant else f"there are {', '.join([*then.types][:10])}"
            raise TableError(f"no column {name!r}: {hint}")
    if not both:
        raise TableError(
            f"the files share no column: {then.path.name} has {', '.join([*then.types][:5])}, "
            f"{now.path.name} has {', '.join([*now.types][:5])}"
        )
    return [
        name
        for name in both
        if (not options.columns or name in options.columns) and name not in options.exclude and name != options.by
    ]


def _only_in_one(then: Table, now: Table, options: Options, counted: _Counted) -> None:
    for table, other in ((then, now), (now, then)):
        for name in table.types:
            if name not in other.types and (not options.columns or name in options.columns):
                counted.left_out.append(Left(name, f"only {table.path.name} has it"))


def _count(name: str, then: Table, now: Table, options: Options, counted: _Counted, slicing: "_Slicing | None") -> None:
    """Bins of a column from the reference, and counts of both."""
    kind = tables.kind_of(name, then.types[name], now.types[name])
    if isinstance(kind, Left):
        counted.left_out.append(kind)
        return
    before, after = then.column(name), now.column(name)
    named = name in options.categorical
    if not named and name not in options.columns and tables.identifier(before, kind):
        counted.left_out.append(Left(name, "every value is another one: it is an identifier"))
        return
    if kind == "numeric" and not named:
        old, new = tables.numbers(before), tables.numbers(after)
        if old is not None and new is not None:
            _count_numbers(name, old, new, counted, slicing)
            return
        counted.notes.append(f"{name} holds numbers in one file and text in the other: compared as categories")
    _count_categories(name, before, after, counted, slicing)


def _count_numbers(name: str, old: Any, new: Any, counted: _Counted, slicing: "_Slicing | None") -> None:
    bins = numeric_bins(old)
    counted.names.append(name)
    counted.bins.append(bins)
    counted.reference.append(bins.count(old))
    counted.current.append(bins.count(new))
    low, high = plausible_range(*_range(old))
    least, most = _range(new)
    beyond = np.count_nonzero((new < low) | (new > high)) if least < low or most > high else 0
    counted.outside.append(int(beyond))
    infinite = sum(int(np.count_nonzero(np.isinf(one))) for one in (old, new))
    if infinite:
        counted.notes.append(f"{name} holds {infinite:,} infinite values: they count in the outermost bins")
    if slicing is not None:
        edges = np.asarray(bins.edges)
        cells = [
            np.where(np.isnan(column), bins.cells - 1, np.searchsorted(edges, column, side="left"))
            for column in (old, new)
        ]
        counted.by_slice.append(slicing.tally(cells[0], cells[1], bins.cells))


def _range(values: Float64s) -> tuple[float, float]:
    """Least and largest finite value; an empty range that holds everything if there is none."""
    with np.errstate(invalid="ignore"):
        low, high = float(np.fmin.reduce(values)), float(np.fmax.reduce(values))
    if np.isfinite(low) and np.isfinite(high):
        return low, high
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (-np.inf, np.inf)


def _count_categories(
    name: str, before: pa.ChunkedArray, after: pa.ChunkedArray, counted: _Counted, slicing: "_Slicing | None"
) -> None:
    groups = tables.groups(before)
    bins = categorical_groups(groups)
    counted.names.append(name)
    counted.bins.append(bins)
    counted.reference.append(bins.count_groups(groups))
    counted.current.append(bins.count_groups(tables.groups(after)))
    counted.outside.append(0)
    if slicing is not None:
        cells = [_category_cells(bins, column) for column in (before, after)]
        counted.by_slice.append(slicing.tally(cells[0], cells[1], bins.cells))


def _category_cells(bins: CategoricalBins, column: pa.ChunkedArray) -> Int64s:
    """Cell of each row; only the distinct values are looked at one by one."""
    encoded = column.combine_chunks().dictionary_encode()
    cells = [int(np.argmax(bins.count_groups({value: 1}))) for value in encoded.dictionary.to_pylist()]
    at = encoded.indices.fill_null(len(cells)).to_numpy(zero_copy_only=False)
    found: Int64s = np.array([*cells, bins.cells - 1], np.int64)[at]
    return found


@dataclass(slots=True)
class _Slicing:
    """The values of the slicing column, and which of them each row has."""

    names: list[str]
    then: Int64s
    now: Int64s

    @staticmethod
    def of(then: Table, now: Table, by: str) -> "_Slicing":
        for table in (then, now):
            if by not in table.types:
                raise TableError(f"{table.path.name} has no column {by!r} to slice by")
        names, old = tables.slices_of(now.column(by), SLICES_MAX)
        place = {name: at for at, name in enumerate(names)}
        before, at = tables.slices_of(then.column(by), len(place) + SLICES_MAX * 50)
        moved = np.array([*(place.get(name, -1) for name in before), -1], np.int64)
        return _Slicing(names, moved[at], old)

    def tally(self, old: Int64s, new: Int64s, cells: int) -> tuple[Int64s, Int64s]:
        """Counts by slice, shapes (slices, cells)."""
        found = []
        for which, cell in ((self.then, old), (self.now, new)):
            inside = which >= 0
            flat = np.bincount(which[inside] * cells + cell[inside], minlength=len(self.names) * cells)
            found.append(flat.reshape(len(self.names), cells).astype(np.int64))
        return found[0], found[1]


def _table(counted: _Counted, reference: Sequence[Int64s], current: Sequence[Int64s], outside: bool) -> FeatureTable:
    return flat_feature_table(
        names=tuple(counted.names),
        categorical=np.array([isinstance(one, CategoricalBins) for one in counted.bins]),
        cells=np.array([one.cells for one in counted.bins], np.int64),
        reference=np.concatenate(reference),
        current=np.concatenate(current),
        categories={
            name: bins.labels
            for name, bins in zip(counted.names, counted.bins, strict=True)
            if isinstance(bins, CategoricalBins)
        },
        outside=np.array(counted.outside, np.int64) if outside else None,
    )


def _reported(then: Table, now: Table, options: Options, counted: _Counted, slicing: _Slicing | None) -> Report:
    policy = StalenessPolicy(
        psi_moderate=options.psi_moderate,
        psi_significant=max(options.psi_significant, options.psi_moderate),
        false_discovery_rate=options.false_discovery_rate,
    )
    table = _table(counted, counted.reference, counted.current, outside=True)
    rows = row_drift(table.reference, table.current, table.cells)
    found = discoveries(rows.p_value[None, :], np.array([policy.false_discovery_rate]))[0]
    columns = []
    for at, name in enumerate(counted.names):
        if name == options.prediction:
            continue
        less, p = float(rows.psi_debiased[at]), float(rows.p_value[at])
        drifted = bool(found[at]) and less > policy.psi_moderate
        columns.append(
            Column(
                name=name,
                kind="categorical" if table.categorical[at] else "numeric",
                psi=_finite(float(rows.psi[at])),
                psi_debiased=_finite(less),
                p_value=_finite(p, 1.0),
                drifted=drifted,
                strength="none" if not drifted else "significant" if less > policy.psi_significant else "moderate",
                missing_then=float(counted.reference[at][-1] / then.rows),
                missing_now=float(counted.current[at][-1] / now.rows),
                cells=counted.bins[at].labels,
                reference=tuple(counted.reference[at].tolist()),
                current=tuple(counted.current[at].tolist()),
            )
        )
    columns.sort(key=lambda one: (not one.drifted, -one.psi_debiased, one.name))
    for one in (then, now):
        if one.rows < ROWS_FEW:
            few = f"{one.path.name} has {one.rows} row{'s' * (one.rows != 1)}"
            counted.notes.append(f"{few}: only large drift can be told from chance")
    [drift] = input_drifts([table], [policy])
    moved = sum(one.drifted for one in columns)
    return Report(
        reference=str(then.path),
        current=str(now.path),
        reference_rows=then.rows,
        current_rows=now.rows,
        columns=tuple(columns),
        left_out=tuple((left.name, left.why) for left in sorted(counted.left_out)),
        drifted=moved,
        drifted_share=moved / len(columns) if columns else 0.0,
        data_quality=drift.faults if drift is not None else (),
        prediction=_prediction(options, counted, policy),
        slices=_slices(counted, slicing, policy) if slicing is not None else (),
        notes=tuple(counted.notes),
        psi_moderate=policy.psi_moderate,
        psi_significant=policy.psi_significant,
        false_discovery_rate=policy.false_discovery_rate,
    )


def _prediction(options: Options, counted: _Counted, policy: StalenessPolicy) -> Prediction | None:
    if options.prediction not in counted.names:
        return None
    at = counted.names.index(options.prediction)
    [found] = prediction_drifts([PredictionCounts(reference=counted.reference[at], current=counted.current[at])])
    if found is None:
        return None
    return Prediction(
        name=options.prediction,
        kl=found.kl,
        kl_debiased=found.kl_debiased,
        js_distance=found.js,
        p_value=found.p_value,
        significant=found.p_value <= policy.false_discovery_rate,
    )


def _slices(counted: _Counted, slicing: _Slicing, policy: StalenessPolicy) -> tuple[Slice, ...]:
    """Each part against the same part of the reference; the level is shared among the parts (Bonferroni)."""
    found = []
    level = policy.false_discovery_rate / max(len(slicing.names), 1)
    for at, name in enumerate(slicing.names):
        old = [then[at] for then, _ in counted.by_slice]
        new = [now[at] for _, now in counted.by_slice]
        table = _table(counted, old, new, outside=False)
        rows = row_drift(table.reference, table.current, table.cells)
        moved = discoveries(rows.p_value[None, :], np.array([level]))[0] & (rows.psi_debiased > policy.psi_moderate)
        order = sorted(np.flatnonzero(moved).tolist(), key=lambda one: -float(rows.psi_debiased[one]))
        found.append(
            Slice(
                name=name,
                reference_rows=int(np.count_nonzero(slicing.then == at)),
                current_rows=int(np.count_nonzero(slicing.now == at)),
                drifted=len(order),
                top=tuple((counted.names[one], float(rows.psi_debiased[one])) for one in order[:SLICE_TOP]),
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.drifted, one.name)))


def _finite(value: float, instead: float = 0.0) -> float:
    """JSON knows no NaN; a column that is empty on one side has no distance."""
    return value if np.isfinite(value) else instead
