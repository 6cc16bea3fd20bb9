"""How far the inputs of every model moved, all models at once.

The fleet's features are stacked by width into tall matrices, tested row by row, and laid out again as
(models, features) for what is decided per model: which drifts are discoveries, how much of the model they
make up, and which are no drift at all but broken data.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from control_plane.core.staleness.data_quality import FAULTS_MAX, describe, row_faults
from control_plane.core.staleness.evidence import FeatureTable, IntMatrix
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.verdict import FeatureDrift
from control_plane.core.statistics.fleet import RowDrift, discoveries, row_drift
from control_plane.core.statistics.sample import Bools, Float64s, Int64s

TOP_FEATURES = 5
"""Named in an evaluation; an owner looks at the first two or three."""
ROWS_AT_ONCE = 6_000
"""Features stacked at a time: some thirty models, whose matrices then stay in the cache from step to step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputDrift:
    """What the features of one model say."""

    value: float
    """min(1, importance-weighted mean strength / drifted_share_full), see `input_drifts`."""
    share: float
    """Share of drifted features, by importance."""
    features: int
    drifted: int
    sample_size: int
    top: tuple[FeatureDrift, ...]
    faults: tuple[str, ...]


def input_drifts(tables: Sequence[FeatureTable], policies: Sequence[StalenessPolicy]) -> list[InputDrift | None]:
    """Input drift of each model; None if no feature has counts on both sides.

    A feature has *drifted* if its chi-square test is a Benjamini-Hochberg discovery among the model's
    features and its debiased PSI is above `psi_moderate`. Its strength is then min(1, debiased PSI /
    psi_significant), times `seasonal_weight` if the PSI is usual for the season, and 0 otherwise. The signal
    is the mean strength weighted by importance (all alike if every importance is 0), divided by
    `drifted_share_full`, at most 1: it rises with every PSI and with every further feature that drifts.
    """
    found: list[InputDrift | None] = []
    start = rows = 0
    for end, table in enumerate(tables, start=1):
        rows += len(table.names)
        if rows >= ROWS_AT_ONCE or end == len(tables):
            found.extend(_input_drifts(tables[start:end], policies[start:end]))
            start, rows = end, 0
    return found


def _input_drifts(tables: Sequence[FeatureTable], policies: Sequence[StalenessPolicy]) -> list[InputDrift | None]:
    layout = _Layout.of([len(table.names) for table in tables])
    stacks = _stacks(tables)
    rows = _tested(stacks)
    p_value, debiased, psi = (layout.spread(column, np.nan) for column in (rows.p_value, rows.psi_debiased, rows.psi))
    importance = layout.spread(np.concatenate([table.importance for table in tables]), 0.0)
    usual = layout.spread(np.concatenate([table.psi_usual for table in tables]), 0.0)

    def per_model(name: str) -> Float64s:
        return np.array([[getattr(policy, name)] for policy in policies], np.float64)

    tested = ~np.isnan(p_value)
    significant = discoveries(p_value, per_model("false_discovery_rate")[:, 0])
    drifted = significant & (debiased > per_model("psi_moderate"))
    strength = np.where(drifted, np.minimum(debiased / per_model("psi_significant"), 1.0), 0.0)
    strength = np.where((usual > 0) & (debiased <= usual), strength * per_model("seasonal_weight"), strength)
    weight = importance * tested
    weight = np.where(weight.sum(axis=1, keepdims=True) > 0, weight, tested)
    heft = np.maximum(weight.sum(axis=1), np.finfo(np.float64).tiny)
    share = (weight * drifted).sum(axis=1) / heft
    value = np.minimum((weight * strength).sum(axis=1) / heft / per_model("drifted_share_full")[:, 0], 1.0)
    size = layout.spread(rows.current_size, 0.0).max(axis=1)
    top = _strongest(np.where(drifted, debiased + 1e6, debiased))
    columns = zip(
        *(np.take_along_axis(m, top, axis=1).tolist() for m in (psi, debiased, p_value, drifted)), strict=True
    )
    faults = _faults(tables, stacks, layout, layout.gather(significant))
    found: list[InputDrift | None] = []
    for at, (table, leading, numbers) in enumerate(zip(tables, top.tolist(), columns, strict=True)):
        if not tested[at].any():
            found.append(None)
            continue
        found.append(
            InputDrift(
                value=float(value[at]),
                share=float(share[at]),
                features=int(np.count_nonzero(tested[at])),
                drifted=int(np.count_nonzero(drifted[at])),
                sample_size=int(size[at]),
                top=tuple(
                    FeatureDrift(name=table.names[column], psi=own, psi_debiased=less, p_value=p, drifted=moved)
                    for column, own, less, p, moved in zip(leading, *numbers, strict=True)
                    if column < len(table.names) and not math.isnan(p)
                ),
                faults=faults[at],
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each row of the tall form stands in the (models, features) form."""

    model: Int64s
    column: Int64s
    shape: tuple[int, int]

    @staticmethod
    def of(sizes: list[int]) -> "_Layout":
        lengths = np.array(sizes, np.int64)
        starts = np.cumsum(lengths) - lengths
        model = np.repeat(np.arange(lengths.size), lengths)
        column = np.arange(model.size) - np.repeat(starts, lengths)
        return _Layout(model, column, (lengths.size, max(int(lengths.max()), 1)))

    def spread(self, values: Float64s, empty: float) -> Float64s:
        """Tall (rows,) to (models, features), `empty` where a model has fewer features."""
        if values.size == self.shape[0] * self.shape[1]:  # all models have as many features
            return values.reshape(self.shape)
        whole = np.full(self.shape, empty)
        whole[self.model, self.column] = values
        return whole

    def gather(self, values: Bools) -> Bools:
        """(models, features) to tall (rows,)."""
        return values[self.model, self.column]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stack:
    """The rows of all tables of one width, and where they stand in the tall form."""

    rows: Int64s
    reference: IntMatrix
    current: IntMatrix
    cells: Int64s
    categorical: Bools


def _stacks(tables: Sequence[FeatureTable]) -> list[_Stack]:
    widths = [table.reference.shape[1] for table in tables]
    ends = np.cumsum([len(table.names) for table in tables]).tolist()
    found = []
    for width in sorted(set(widths)):
        group = [at for at, own in enumerate(widths) if own == width]
        found.append(
            _Stack(
                rows=np.concatenate([np.arange(ends[at] - len(tables[at].names), ends[at]) for at in group]),
                reference=np.concatenate([tables[at].reference for at in group]),
                current=np.concatenate([tables[at].current for at in group]),
                cells=np.concatenate([tables[at].cells for at in group]),
                categorical=np.concatenate([tables[at].categorical for at in group]),
            )
        )
    return found


def _tested(stacks: list[_Stack]) -> RowDrift:
    """The tests of all rows, in the order of the tables."""
    parts = [row_drift(stack.reference, stack.current, stack.cells) for stack in stacks]
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate([stack.rows for stack in stacks]), kind="stable")
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


def _faults(
    tables: Sequence[FeatureTable], stacks: list[_Stack], layout: _Layout, significant: Bools
) -> list[tuple[str, ...]]:
    """Data-quality findings of each model, looked for among significant rows only; features in their
    order.
    """
    found: dict[int, list[tuple[int, str]]] = {}
    for stack in stacks:
        suspects = np.flatnonzero(significant[stack.rows])
        if not suspects.size:
            continue
        faults = row_faults(
            stack.reference[suspects], stack.current[suspects], stack.cells[suspects], stack.categorical[suspects]
        )
        for place in np.flatnonzero(faults.burst | faults.constant | faults.vanished).tolist():
            row = int(stack.rows[suspects[place]])
            model, column = int(layout.model[row]), int(layout.column[row])
            found.setdefault(model, []).append((column, describe(tables[model], column, faults, place)))
    return [_shortened([text for _, text in sorted(found.get(at, []))]) for at in range(len(tables))]


def _shortened(faults: list[str]) -> tuple[str, ...]:
    if len(faults) <= FAULTS_MAX:
        return tuple(faults)
    return (*faults[:FAULTS_MAX], f"and {len(faults) - FAULTS_MAX} more features")
