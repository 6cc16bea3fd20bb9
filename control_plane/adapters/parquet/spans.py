"""Served partials of a long window, read by the day where a day is whole and settled.

Two windows of a week are 336 hourly partials; as days and the hours at their ends they are some fifty. A day's merge is
kept in memory until a file or a join touches one of its hours, within a limit of bytes, oldest use first.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from control_plane.adapters.parquet.binning import HOURS_PER_DAY
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.serving import ServedHour, layer_of, served_hours
from control_plane.app.fact_reports import ServedBy
from control_plane.core.ground_truth.labels import LabelSpec
from control_plane.core.ground_truth.partials import EMPTY, Float64s, Partial, merge

KEPT_BYTES_MAX = 128 * 1024 * 1024
"""Merged days kept: two weeks of 500 busy models."""
UINT32_MAX = 2**32 - 1

_Key = tuple[str, int, str, int]
"""(model id, version, label type, day)."""


@dataclass(frozen=True, slots=True)
class _Day:
    """A merged day, its counts as narrow as they fit."""

    changes: int
    """Of the catalogue, when it was merged."""
    layer: ServedBy
    cell: npt.NDArray[np.uint16]
    count: npt.NDArray[np.unsignedinteger]
    sums: Float64s
    pending: int
    empty: bool
    design: float

    @property
    def size(self) -> int:
        """Bytes, about."""
        return 300 + self.cell.nbytes + self.count.nbytes + self.sums.nbytes

    def served(self) -> ServedHour:
        """As one entry."""
        partial = Partial(
            cell=self.cell.astype(np.int32), count=self.count.astype(np.int64), sums=self.sums, design=self.design
        )
        return ServedHour(self.layer, partial, self.pending)


class ServedSpans:
    """Reads windows of one version; whoever calls holds the facts' lock."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._days: OrderedDict[_Key, _Day] = OrderedDict()
        self._bytes = 0

    def between(
        self, model_id: str, version: int, spec: LabelSpec, first: int, last: int, mature_before: int
    ) -> dict[int, ServedHour]:
        """As `served_hours`, but a day may come as one entry under its first hour."""
        start, end = -(-first // HOURS_PER_DAY), last // HOURS_PER_DAY
        if start >= end:
            return served_hours(self._facts, model_id, version, spec, first, last, mature_before)
        live = {hour // HOURS_PER_DAY for hour in self._facts.speed.hours(model_id)}
        served: dict[int, ServedHour] = {}
        # Neighbours that are not kept are read in one go: the ends of the window, days with live hours, days unseen.
        run = first
        for day in range(start, end):
            known = self._known(model_id, version, spec, day) if day not in live else None
            if known is None and day not in live:
                known = self._merge(model_id, version, spec, day, mature_before)
            if known is None:
                continue
            served |= self._hours(model_id, version, spec, run, day * HOURS_PER_DAY, mature_before)
            run = (day + 1) * HOURS_PER_DAY
            if not known.empty:
                served[day * HOURS_PER_DAY] = known.served()
        return served | self._hours(model_id, version, spec, run, last, mature_before)

    def _hours(
        self, model_id: str, version: int, spec: LabelSpec, first: int, last: int, mature_before: int
    ) -> dict[int, ServedHour]:
        if first >= last:
            return {}
        return served_hours(self._facts, model_id, version, spec, first, last, mature_before)

    def _known(self, model_id: str, version: int, spec: LabelSpec, day: int) -> _Day | None:
        key = (model_id, version, spec.label_type, day)
        known = self._days.get(key)
        if known is None or known.changes != self._facts.catalog.changes_of(model_id, day):
            return None
        self._days.move_to_end(key)
        return known

    def _merge(self, model_id: str, version: int, spec: LabelSpec, day: int, mature_before: int) -> _Day:
        first = day * HOURS_PER_DAY
        hours = served_hours(self._facts, model_id, version, spec, first, first + HOURS_PER_DAY, mature_before)
        partial = merge(served.partial for served in hours.values()) if hours else EMPTY
        narrow = np.uint32 if int(partial.count.max(initial=0)) <= UINT32_MAX else np.uint64
        found = _Day(
            changes=self._facts.catalog.changes_of(model_id, day),
            layer=layer_of(hours.values()),
            cell=partial.cell.astype(np.uint16),
            count=partial.count.astype(narrow),
            sums=partial.sums.copy(),
            pending=sum(served.pending for served in hours.values()),
            empty=not hours,
            design=partial.design,
        )
        key = (model_id, version, spec.label_type, day)
        before = self._days.pop(key, None)
        self._bytes += found.size - (before.size if before is not None else 0)
        self._days[key] = found
        while self._bytes > KEPT_BYTES_MAX:
            self._bytes -= self._days.popitem(last=False)[1].size
        return found
