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
from control_plane.core.staleness.evidence import FeatureTable
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.verdict import FeatureDrift
from control_plane.core.statistics.fleet import RowDrift, Workspace, discoveries, tables_drift
from control_plane.core.statistics.sample import Bools, Float64s, Int64s

Kind = TypeVar("Kind", Bools, Float64s)

TOP_FEATURES = 5
"""Named in an evaluation; an owner looks at the first two or three."""
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
    for end, table in enumerate(tables, start=1):
        rows += len(table.names)
        if rows >= ROWS_AT_ONCE or end == len(tables):
            found.extend(_input_drifts(tables[start:end], policies[start:end], rates[start:end], spaces))
            start, rows = end, 0
    return found


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
) -> list[InputDrift | None]:
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
    columns = zip(*(np.take_along_axis(m, top, axis=1).tolist() for m in picked), strict=True)
    faults = _faults(tables, significant, layout.spread(rows.current_size == 0, False), size)
    found: list[InputDrift | None] = []
    numbers = zip(value.tolist(), mean.tolist(), share.tolist(), size.tolist(), *counts, strict=True)
    for table, own, leading, drifts, broken in zip(tables, numbers, top.tolist(), columns, faults, strict=True):
        own_value, own_mean, own_share, own_size, tested, drifted, expected, seasonal = own
        if not tested:
            found.append(None)
            continue
        named = [
            (_feature(table, column, number), number[6])
            for column, number in zip(leading, zip(*drifts, strict=True), strict=True)
            if column < len(table.names) and not math.isnan(number[2])
        ]
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
                top=tuple([feature for feature, _ in named]),
                top_weights=tuple([heft for _, heft in named]),
                faults=broken,
            )
        )
    return found


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


def _feature(table: FeatureTable, column: int, number: tuple[float, ...]) -> FeatureDrift:
    psi, debiased, p_value, drifted, expected, usual, _ = number
    return FeatureDrift(
        name=table.names[column],
        psi=psi,
        psi_debiased=debiased,
        p_value=p_value,
        drifted=bool(drifted),
        seasonally_expected=bool(expected),
        psi_usual=max(usual, 0.0),
        importance=float(table.importance[column]),
    )


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


def _faults(tables: Sequence[FeatureTable], significant: Bools, silent: Bools, size: Float64s) -> list[tuple[str, ...]]:
    """Data-quality findings of each model, looked for among significant rows only; features in their
    order, then those that do not arrive at all. `significant` and `silent` have shape (models, features).
    """
    found: list[tuple[str, ...]] = [()] * len(tables)
    suspects: dict[int, list[tuple[int, Int64s]]] = {}
    for at in np.flatnonzero(significant.any(axis=1)).tolist():
        suspects.setdefault(tables[at].reference.shape[1], []).append((at, np.flatnonzero(significant[at])))
    for _, group in sorted(suspects.items()):
        own = [(tables[at], rows) for at, rows in group]
        faults = row_faults(
            np.concatenate([table.reference[rows] for table, rows in own]),
            np.concatenate([table.current[rows] for table, rows in own]),
            np.concatenate([table.cells[rows] for table, rows in own]),
            np.concatenate([table.categorical[rows] for table, rows in own]),
            np.concatenate([_outside(table)[rows] for table, rows in own]),
            np.concatenate([table.psi_usual[rows] for table, rows in own]),
        )
        if not (any_of := faults.any()).any():
            continue
        start = 0
        for at, rows in group:
            places = np.flatnonzero(any_of[start : start + rows.size]).tolist()
            found[at] = shortened([describe(tables[at], int(rows[one]), faults, start + one) for one in places])
            start += rows.size
    for at in np.flatnonzero(silent.any(axis=1)).tolist():
        found[at] += never_arrived(tables[at], int(size[at]))
    return found


def _outside(table: FeatureTable) -> Int64s:
    return table.outside if table.outside is not None else np.zeros(len(table.names), np.int64)
