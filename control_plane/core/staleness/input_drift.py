"""How far the inputs of every model moved, all models at once.

The fleet's features are stacked by width into tall matrices, tested row by row, and laid out again as
(models, features) for what is decided per model: which drifts are discoveries, how much of the model they
make up, and which are no drift at all but broken data.

A look is replayed alone and must come out the same bit for bit, so no number here may depend on who else is in
the batch: rows are summed cell by cell, models feature by feature within their own segment.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import msgspec
import numpy as np

from control_plane.core.staleness.data_quality import describe, never_arrived, row_faults, shortened
from control_plane.core.staleness.evidence import FeatureTable, even_importance
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.verdict import FeatureDrift
from control_plane.core.statistics.fleet import RowDrift, Workspace, discoveries, tables_drift
from control_plane.core.statistics.sample import Bools, Float64s, Int64s

Kind = TypeVar("Kind", Bools, Float64s)

TOP_FEATURES = 5
"""Named in an evaluation; an owner looks at the first two or three."""
FAULT_PSI_MIN = 0.02
"""No fault moves a histogram by less, so only rows beyond are looked into: the mildest null burst, and a fifth of the
values beyond one end of the range, have PSI 0.08."""
ROWS_AT_ONCE = 14_000
"""Features decided on at a time: columns of 110 kB, which stay in the cache and cost no fresh pages."""


class InputDrift(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the features of one model say."""

    value: float
    """min(1, `strength` / drifted_share_full), see `input_drifts`."""
    strength: float
    """Mean strength of the features' drift, weighted by importance."""
    share: float
    """Share of drifted features, by importance."""
    features: int
    drifted: int
    expected: int
    """Drifted features that are inside their usual range for the season."""
    seasonal: bool
    """Is there a usual range of any drifted feature?"""
    sample_size: int
    top: tuple[FeatureDrift, ...]
    top_weights: tuple[float, ...]
    """What each of `top` weighs among all features; these and the others' sum to 1."""
    faults: tuple[str, ...]


def input_drifts(
    tables: Sequence[FeatureTable], policies: Sequence[StalenessPolicy], levels: Sequence[float] | None = None
) -> list[InputDrift | None]:
    """Input drift of each model; None if no feature has counts on both sides.

    A feature has *drifted* if its chi-square test is a Benjamini-Hochberg discovery among the model's
    features and its debiased PSI is above `psi_moderate`. Its strength is then min(1, debiased PSI /
    psi_significant), times `seasonal_weight` if the PSI is usual for the season, and 0 otherwise. The signal
    is the mean strength weighted by importance (all alike if every importance is 0), divided by
    `drifted_share_full`, at most 1: it rises with every PSI and with every further feature that drifts.

    Args:
        levels: false discovery rate of each table; None takes the policy's.
    """
    found: list[InputDrift | None] = []
    rates = levels if levels is not None else [policy.false_discovery_rate for policy in policies]
    start = rows = 0
    spaces: dict[int, Workspace] = {}
    suspects = _Suspects(by_width={}, silent=[])
    for end, table in enumerate(tables, start=1):
        rows += len(table.names)
        if rows >= ROWS_AT_ONCE or end == len(tables):
            chunk = slice(start, end)
            found.extend(_input_drifts(tables[chunk], policies[chunk], rates[chunk], spaces, suspects, start))
            start, rows = end, 0
    for at, faults in _faults(tables, suspects).items():
        drift = found[at]
        if drift is not None:
            found[at] = msgspec.structs.replace(drift, faults=faults)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suspects:
    """Rows that may have faults, found while testing and looked into all at once."""

    by_width: dict[int, list[tuple[int, Int64s]]]
    """By the width of the table: which table, which of its rows."""
    silent: list[tuple[int, int]]
    """Tables in which a feature has no current row, and how many the others have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdicts:
    """Which features drifted and how strongly, all of shape (models, features)."""

    tested: Bools
    drifted: Bools
    usual: Bools
    """There is a usual range, and the PSI is inside."""
    seasonal: Bools
    strength: Float64s


def _input_drifts(
    tables: Sequence[FeatureTable],
    policies: Sequence[StalenessPolicy],
    rates: Sequence[float],
    spaces: dict[int, Workspace],
    suspects: _Suspects,
    first: int,
) -> list[InputDrift | None]:
    """Those of one chunk, whose first table is `first` of all."""
    layout = _Layout.of([len(table.names) for table in tables])
    rows = _tested(tables, layout, spaces)
    p_value, debiased, psi = (layout.spread(column, np.nan) for column in (rows.p_value, rows.psi_debiased, rows.psi))
    importance = np.concatenate([table.importance for table in tables])
    usual: Float64s = layout.spread(np.concatenate([table.psi_usual for table in tables]), 0.0)
    significant = discoveries(p_value, np.array(rates, np.float64))
    seen = _verdicts(policies, p_value, debiased, usual, significant)
    mean, share, weight = _means(layout, importance, seen)
    value = np.minimum(mean / np.array([policy.drifted_share_full for policy in policies]), 1.0)
    counts = [
        np.count_nonzero(one, axis=1).tolist()
        for one in (seen.tested, seen.drifted, seen.usual & seen.drifted, seen.seasonal & seen.drifted)
    ]
    size = layout.spread(rows.current_size, 0.0).max(axis=1, initial=0.0)
    top = _strongest(np.where(seen.drifted, debiased + 1e6, debiased))
    picked = (psi, debiased, p_value, seen.drifted, seen.usual & seen.drifted, usual, weight)
    columns = [np.take_along_axis(matrix, top, axis=1).reshape(-1).tolist() for matrix in picked]
    _suspect(tables, suspects, first, significant & (psi > FAULT_PSI_MIN))
    silent = layout.spread(rows.current_size == 0, False).any(axis=1)
    suspects.silent.extend((first + at, int(size[at])) for at in np.flatnonzero(silent).tolist())
    found: list[InputDrift | None] = []
    numbers = zip(tables, value.tolist(), mean.tolist(), share.tolist(), size.tolist(), *counts, strict=True)
    leading = top.tolist()
    for at, (table, own_value, own_mean, own_share, own_size, tested, drifted, expected, seasonal) in enumerate(
        numbers
    ):
        if not tested:
            found.append(None)
            continue
        named, hefts = _named(table, leading[at], columns, at * top.shape[1])
        found.append(
            InputDrift(
                value=own_value,
                strength=own_mean,
                share=own_share,
                features=tested,
                drifted=drifted,
                expected=expected,
                seasonal=seasonal > 0,
                sample_size=int(own_size),
                top=named,
                top_weights=hefts,
                faults=(),
            )
        )
    return found


def _named(
    table: FeatureTable, leading: list[int], columns: list[list[float]], start: int
) -> tuple[tuple[FeatureDrift, ...], tuple[float, ...]]:
    """The leading features of one model with their weights; its numbers begin at `start` of each column."""
    psi, debiased, p_value, drifted, expected, usual, weight = columns
    found, hefts = [], []
    names, plain = table.names, table.importance is even_importance(len(table.names))
    for at, column in enumerate(leading, start=start):
        if column >= len(names) or math.isnan(p_value[at]):
            continue
        found.append(
            FeatureDrift(
                name=names[column],
                psi=psi[at],
                psi_debiased=debiased[at],
                p_value=p_value[at],
                drifted=bool(drifted[at]),
                seasonally_expected=bool(expected[at]),
                psi_usual=max(usual[at], 0.0),
                importance=1.0 if plain else float(table.importance[column]),
            )
        )
        hefts.append(weight[at])
    return tuple(found), tuple(hefts)


def _suspect(tables: Sequence[FeatureTable], suspects: _Suspects, first: int, odd: Bools) -> None:
    """Remember the odd rows of a chunk; shape (models, features)."""
    if odd.any():
        models, rows = np.nonzero(odd)
        ends = np.searchsorted(models, np.arange(len(tables) + 1))
        for at in np.flatnonzero(np.diff(ends)).tolist():
            width = tables[at].reference.shape[1]
            suspects.by_width.setdefault(width, []).append((first + at, rows[ends[at] : ends[at + 1]]))


def _verdicts(
    policies: Sequence[StalenessPolicy], p_value: Float64s, debiased: Float64s, usual: Float64s, significant: Bools
) -> _Verdicts:
    moderate, full, season = (
        np.array([[getattr(policy, name)] for policy in policies], np.float64)
        for name in ("psi_moderate", "psi_significant", "seasonal_weight")
    )
    drifted = significant & (debiased > moderate)
    strength = np.where(drifted, np.minimum(debiased / full, 1.0), 0.0)
    seasonal = usual > 0
    inside = seasonal & (debiased <= usual)
    if inside.any():
        strength = np.where(inside, strength * season, strength)
    return _Verdicts(tested=~np.isnan(p_value), drifted=drifted, usual=inside, seasonal=seasonal, strength=strength)


def _means(layout: "_Layout", importance: Float64s, seen: _Verdicts) -> tuple[Float64s, Float64s, Float64s]:
    """Mean strength and share of the drifted, both of shape (models,), and what each feature weighs in them."""
    weight = importance * layout.gather(seen.tested)
    heft = layout.sums(weight)
    if not heft.all():  # models whose importances are all 0: their features weigh alike
        weight = np.where(np.repeat(heft, layout.sizes) > 0, weight, layout.gather(seen.tested))
        heft = layout.sums(weight)
    heft = np.maximum(heft, np.finfo(np.float64).tiny)
    mean = layout.sums(weight * layout.gather(seen.strength)) / heft
    share = layout.sums(weight * layout.gather(seen.drifted)) / heft
    return mean, share, layout.spread(weight, 0.0) / heft[:, None]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each row of the tall form stands in the (models, features) form."""

    sizes: Int64s
    starts: Int64s
    model: Int64s
    column: Int64s
    shape: tuple[int, int]
    even: bool
    """All models have as many features: the one form is the other, reshaped."""

    @staticmethod
    def of(sizes: list[int]) -> "_Layout":
        lengths = np.array(sizes, np.int64)
        starts = np.cumsum(lengths) - lengths
        model = np.repeat(np.arange(lengths.size), lengths)
        column = np.arange(model.size) - np.repeat(starts, lengths)
        shape = (lengths.size, max(int(lengths.max()), 1))
        return _Layout(lengths, starts, model, column, shape, model.size == shape[0] * shape[1])

    def spread(self, values: Kind, empty: float) -> Kind:
        """Tall (rows,) to (models, features), `empty` where a model has fewer features."""
        if self.even:
            return values.reshape(self.shape)
        whole = np.full(self.shape, empty, values.dtype)
        whole[self.model, self.column] = values
        return whole

    def gather(self, values: Kind) -> Kind:
        """(models, features) to tall (rows,)."""
        return values.reshape(-1) if self.even else values[self.model, self.column]

    def sums(self, values: Float64s) -> Float64s:
        """Sum of each model's segment of a tall (rows,), in an order that depends on its own length alone."""
        found = np.zeros(self.sizes.size)
        filled = np.flatnonzero(self.sizes)
        if filled.size:
            found[filled] = np.add.reduceat(values, self.starts[filled], dtype=np.float64)
        return found


def _tested(tables: Sequence[FeatureTable], layout: _Layout, spaces: dict[int, Workspace]) -> RowDrift:
    """The tests of all rows, in the order of the tables; tables of one width together."""
    widths = [table.reference.shape[1] for table in tables]
    parts, rows = [], []
    for width in sorted(set(widths)):
        group = [at for at, own in enumerate(widths) if own == width]
        own = [tables[at] for at in group]
        space = spaces.get(width) or spaces.setdefault(width, Workspace.of(width, ROWS_AT_ONCE))
        cells = np.concatenate([table.cells for table in own])
        parts.append(tables_drift([(table.reference, table.current) for table in own], cells, space))
        rows.append(
            np.concatenate([np.arange(layout.starts[at], layout.starts[at] + layout.sizes[at]) for at in group])
        )
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate(rows), kind="stable")
    names = [field.name for field in fields(RowDrift)]
    return RowDrift(**{name: np.concatenate([getattr(part, name) for part in parts])[order] for name in names})


def _strongest(rank: Float64s) -> Int64s:
    """Columns of the largest values of each row, largest first, the first of equals; -1 where there are no
    more.
    """
    rank = np.where(np.isnan(rank), np.finfo(np.float64).min, rank)  # above -inf, which marks the taken ones
    models = np.arange(len(rank))
    found = np.zeros((len(rank), min(TOP_FEATURES, rank.shape[1])), np.int64)
    for place in range(found.shape[1]):
        found[:, place] = rank.argmax(axis=1)
        rank[models, found[:, place]] = -np.inf
    return found


def _faults(tables: Sequence[FeatureTable], suspects: _Suspects) -> dict[int, tuple[str, ...]]:
    """Data-quality findings by model, features in their order, then those that do not arrive at all."""
    found: dict[int, tuple[str, ...]] = {}
    for _, group in sorted(suspects.by_width.items()):
        own = [(tables[at], rows) for at, rows in group]
        counted = any(table.outside is not None for table, _ in own)
        faults = row_faults(
            np.concatenate([table.reference[rows] for table, rows in own]),
            np.concatenate([table.current[rows] for table, rows in own]),
            np.concatenate([table.cells[rows] for table, rows in own]),
            np.concatenate([table.categorical[rows] for table, rows in own]),
            np.concatenate([_outside(table)[rows] for table, rows in own]) if counted else None,
            np.concatenate([table.psi_usual[rows] for table, rows in own]) if counted else None,
        )
        faulty = faults.any()
        start = 0
        for at, rows in group if faulty.any() else ():
            places = np.flatnonzero(faulty[start : start + rows.size]).tolist()
            if places:
                found[at] = shortened([describe(tables[at], int(rows[one]), faults, start + one) for one in places])
            start += rows.size
    for at, size in suspects.silent:
        absent = never_arrived(tables[at], size)
        if absent:
            found[at] = found.get(at, ()) + absent
    return found


def _outside(table: FeatureTable) -> Int64s:
    return table.outside if table.outside is not None else np.zeros(len(table.names), np.int64)
