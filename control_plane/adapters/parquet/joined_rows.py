"""Joined rows of the batch join, summed up to partials.

Rows come in chunks of any order and of many models. Labels of one task and one meaning of absence are summed up
together, whatever model they are of: most chunks take one pass over their columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from control_plane.core.ground_truth.batch import slice_in
from control_plane.core.ground_truth.ids import Int64s
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import Float64s, Partial, Rows, merge, partials_of

Bools = npt.NDArray[np.bool_]

TABLE_MAX = 4_000_000
"""Distinct keys are found by table up to this many possible ones, beyond by sorting."""


@dataclass(frozen=True, slots=True)
class JoinedRows:
    """A chunk of n rows; each column has shape (n,)."""

    label: Int64s
    """Position of the label; -1 of an outcome without prediction."""
    hour: Int64s
    version: Int64s
    score: Float64s
    value: Float64s
    """NaN where there is no outcome."""
    delay_us: Int64s
    late: Bools
    imputed: Bools
    orphan: Int64s
    """Which outcome it is, if it has no prediction; else -1."""

    @staticmethod
    def read(chunk: pa.RecordBatch) -> "JoinedRows":
        """The columns as the join names them."""
        return JoinedRows(
            _column(chunk, "label").astype(np.int64),
            _column(chunk, "hour").astype(np.int64),
            _column(chunk, "version").astype(np.int64),
            _column(chunk, "score"),
            _column(chunk, "value"),  # null becomes NaN: no outcome
            _column(chunk, "delay_us"),
            _column(chunk, "late"),
            _column(chunk, "imputed"),
            _column(chunk, "orphan"),
        )

    def some(self, at: Bools) -> "JoinedRows":
        """The rows that a mask says."""
        return JoinedRows(
            self.label[at],
            self.hour[at],
            self.version[at],
            self.score[at],
            self.value[at],
            self.delay_us[at],
            self.late[at],
            self.imputed[at],
            self.orphan[at],
        )


class Summed:
    """Partials of the rows so far."""

    def __init__(
        self,
        labels: Sequence[tuple[str, LabelSpec]],
        mature_before: dict[str, int],
        slices: dict[str, frozenset[str]],
    ) -> None:
        """
        Args:
            labels: (model id, label) by position.
            mature_before: hours before this one are mature, by `model_id/label_type`.
            slices: slices that are counted by themselves, by model.
        """
        self.partials: dict[tuple[str, str, int], dict[int, Partial]] = {}
        self.slice_partials: dict[tuple[str, str, int], dict[tuple[str, int], Partial]] = {}
        self._labels = labels
        self._slices = slices
        self._window_us = np.array([spec.window_us for _, spec in labels], np.int64)
        self._mature_before = np.array(
            [mature_before[f"{model_id}/{spec.label_type}"] for model_id, spec in labels], np.int64
        )
        kinds: dict[tuple[str, bool], int] = {}
        self._kind = np.array(
            [kinds.setdefault((spec.task, spec.absence_means_negative), len(kinds)) for _, spec in labels], np.int64
        )
        self._kinds = len(kinds)

    def add(self, rows: JoinedRows) -> Int64s:
        """Sum up rows; returns the orphans among them."""
        alone = rows.label < 0
        lost: Int64s = rows.orphan[alone]
        if len(lost):
            rows = rows.some(~alone)
        for part in self._by_kind(rows):
            group, keys = grouped([part.label, part.hour, part.version])
            for (label, hour, version), partial in self._summed(part, group, keys):
                model_id, spec = self._labels[label]
                versions = self.partials.setdefault((model_id, spec.label_type, hour), {})
                versions[version] = merge([versions[version], partial]) if version in versions else partial
        return lost

    def add_slices(self, rows: JoinedRows, names: pa.Array) -> None:
        """Likewise by slice; a prediction is in one row for each of its slices."""
        encoded = names.dictionary_encode()
        texts: list[str] = encoded.dictionary.to_pylist()
        which = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        for position in np.unique(rows.label).tolist():
            model_id, spec = self._labels[position]
            at = rows.label == position
            known = self._slices.get(model_id, frozenset())
            counted = [slice_in(known, text) for text in texts]
            distinct = sorted(set(counted))
            place = np.array([distinct.index(name) for name in counted], np.int64)
            part = rows.some(at)
            group, keys = grouped([part.label, part.hour, part.version, place[which[at]]])
            for (_, hour, version, name), partial in self._summed(part, group, keys):
                slices = self.slice_partials.setdefault((model_id, spec.label_type, hour), {})
                key = (distinct[name], version)
                slices[key] = merge([slices[key], partial]) if key in slices else partial

    def _by_kind(self, rows: JoinedRows) -> list[JoinedRows]:
        if not len(rows.label):
            return []
        if self._kinds == 1:
            return [rows]
        kind = self._kind[rows.label]
        return [rows.some(kind == one) for one in np.unique(kind)]

    def _summed(
        self, rows: JoinedRows, group: Int64s, keys: list[tuple[int, ...]]
    ) -> list[tuple[tuple[int, ...], Partial]]:
        spec = self._labels[int(rows.label[0])][1]
        outside = rows.delay_us > self._window_us[rows.label]
        found = Rows(
            group=group,
            score=rows.score,
            value=np.where(outside, np.nan, rows.value),
            delay_us=rows.delay_us,
            late=rows.late,
            outside=outside,
            mature=rows.hour < self._mature_before[rows.label],
            imputed=rows.imputed,
        )
        return list(zip(keys, partials_of(spec, found, len(keys)), strict=True))


def grouped(columns: Sequence[Int64s]) -> tuple[Int64s, list[tuple[int, ...]]]:
    """Number the distinct rows of some integer columns.

    Args:
        columns: each of shape (n,), n > 0.
    Returns:
        The number of each row, shape (n,), and the rows by number, ascending.

    >>> grouped([np.array([7, 7, 5]), np.array([1, 2, 1])])
    (array([1, 2, 0]), [(5, 1), (7, 1), (7, 2)])
    """
    lows = [int(column.min()) for column in columns]
    spans = [int(column.max()) - low + 1 for column, low in zip(columns, lows, strict=True)]
    possible = 1
    for span in spans:
        possible *= span
    if possible > TABLE_MAX:
        distinct, group = np.unique(np.stack(columns), axis=1, return_inverse=True)
        return group.reshape(-1).astype(np.int64), [tuple(key) for key in distinct.T.tolist()]
    flat = np.zeros(len(columns[0]), np.int64)
    for column, low, span in zip(columns, lows, spans, strict=True):
        flat = flat * span + (column - low)
    present = np.zeros(possible, np.bool_)
    present[flat] = True
    found = np.flatnonzero(present)
    number = np.zeros(possible, np.int64)
    number[found] = np.arange(len(found))
    keys = []
    for one in found.tolist():
        key = []
        for low, span in zip(reversed(lows), reversed(spans), strict=True):
            one, rest = divmod(one, span)  # noqa: PLW2901 - taken apart digit by digit
            key.append(rest + low)
        keys.append(tuple(reversed(key)))
    return number[flat], keys


def _column(rows: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    column: npt.NDArray[Any] = rows.column(name).to_numpy(zero_copy_only=False)
    return column
