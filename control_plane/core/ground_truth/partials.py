"""Mergeable partials: what is kept of an hour of joined predictions, so that any time range is a sum of hours.

A partial is a vector of integer counts (sparse, most hours are small) and a short vector of float sums. Merging
adds; the merge of hours equals the computation over all their rows, exactly for counts and up to float summation
order for sums. Per key (model, version, label type, prediction hour) there is one partial per layer, and the batch
layer's *replaces* the speed layer's: they are never added.

Layout of the counts: scalars (`COUNTS`), the histogram of label delays (`DELAY_EDGES_S`), and for binary labels the
histogram of scores by label (`SCORE_BINS` each) on the logit scale; then, in the order in which they were added so that
older partials still read (they have none of it), that of all scores, labelled or not, the number of guessed outcomes,
and the histogram of the delays of positives. Binning moves the AUC by about 1e-5 at 1 % positives, a hundredth of its
standard error, where 100 linear bins would move it by 0.016.

A partial of a sample is scaled to all ids by the inverse of its rate; its `design` says by how much that widens a
standard error.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from control_plane.core.ground_truth.ids import Int64s
from control_plane.core.ground_truth.labels import LabelSpec

Float64s = npt.NDArray[np.float64]

COUNTS = (
    "predicted",  # distinct predictions
    "joined",  # of these with an outcome inside the window
    "absent",  # of these counted as 0 because absence means negative
    "late",  # of `joined`, through outcomes that came after the speed view had let go of the hour
    "outside",  # of these with outcomes, but none inside the window
    "true_positive",
    "false_positive",
    "true_negative",
    "false_negative",
)
SUMS = (
    "log_loss",
    "log_loss_squared",
    "brier",  # squared error of the probability
    "brier_squared",
    "error",  # score - value
    "error_absolute",
    "error_squared",
    "error_fourth",
    "value",
    "value_squared",
    "log_loss_positive",  # of positives alone, so that classes can be weighted by how much of each has arrived
    "brier_positive",
)
SCORE_BINS = 1_024
LOGIT_MAX = 20.0
"""Scores beyond a logit of +-20 (2e-9) share the outermost bins: even a model that is far too sure of rare positives
stays inside."""
DELAY_EDGES_S: Float64s = np.concatenate([[0.0], 2.0 ** np.arange(24)])
"""Edges of the delay histogram: at or before the prediction, up to 1 s, 2 s, 4 s ... 97 days, beyond."""
DELAY_CELLS = len(DELAY_EDGES_S) + 1
DECISION_THRESHOLD = 0.5
PROBABILITY_MIN = 1e-15
"""Probabilities are clipped to [1e-15, 1 - 1e-15] for the log-loss, as is customary."""

_DELAY_AT = len(COUNTS)
_SCORE_AT = _DELAY_AT + DELAY_CELLS
_ALL_AT = _SCORE_AT + 2 * SCORE_BINS
_IMPUTED_AT = _ALL_AT + SCORE_BINS
_POSITIVE_DELAY_AT = _IMPUTED_AT + 1
CELLS = _POSITIVE_DELAY_AT + DELAY_CELLS
_HISTOGRAMS = (
    (_DELAY_AT, _SCORE_AT),
    (_SCORE_AT, _SCORE_AT + SCORE_BINS),
    (_SCORE_AT + SCORE_BINS, _ALL_AT),
    (_ALL_AT, _IMPUTED_AT),
    (_POSITIVE_DELAY_AT, CELLS),
)
_COUNT_AT = {name: at for at, name in enumerate(COUNTS)} | {"imputed": _IMPUTED_AT}
_SUM_AT = {name: at for at, name in enumerate(SUMS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """Counts and sums of one key. Counts are sparse: `count[i]` of cell `cell[i]`, cells ascending."""

    cell: npt.NDArray[np.int32]
    count: Int64s
    sums: Float64s
    design: float = 1.0
    """Kish's design effect, the number of rows it stands for over the number that would say as much: 1 / rate of a
    sample, 1 of everything. Standard errors grow by its root."""

    def of(self, name: str) -> int:
        """One of `COUNTS`, or `imputed`: of `joined`, those whose outcome was guessed."""
        at = int(np.searchsorted(self.cell, _COUNT_AT[name]))
        found = at < len(self.cell) and self.cell[at] == _COUNT_AT[name]
        return int(self.count[at]) if found else 0

    def sum_of(self, name: str) -> float:
        """One of `SUMS`."""
        return float(self.sums[_SUM_AT[name]])

    def dense(self) -> Int64s:
        """All counts, shape (CELLS,)."""
        cells = np.zeros(CELLS, np.int64)
        cells[self.cell] = self.count
        return cells

    def delays(self) -> Int64s:
        """Histogram of label delays, shape (DELAY_CELLS,)."""
        return self.dense()[_DELAY_AT:_SCORE_AT]

    def scores(self) -> Int64s:
        """Histogram of scores by label, shape (2, SCORE_BINS); row 1 holds the positives."""
        return self.dense()[_SCORE_AT:_ALL_AT].reshape(2, SCORE_BINS)

    def all_scores(self) -> Int64s:
        """Histogram of all scores, labelled or not, shape (SCORE_BINS,)."""
        return self.dense()[_ALL_AT:_IMPUTED_AT]

    def positive_delays(self) -> Int64s:
        """Histogram of the delays of positive outcomes, shape (DELAY_CELLS,); of a binary label."""
        return self.dense()[_POSITIVE_DELAY_AT:]

    @property
    def labelled(self) -> int:
        """Predictions whose truth is known: joined, or absent where absence means negative."""
        return self.of("joined") + self.of("absent")


EMPTY = Partial(cell=np.zeros(0, np.int32), count=np.zeros(0, np.int64), sums=np.zeros(len(SUMS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Distinct predictions with their winning outcomes, to be summed up by `group`. n rows in each column."""

    group: Int64s
    """0 .. groups - 1."""
    score: Float64s
    value: Float64s
    """NaN where there is no outcome inside the window."""
    delay_us: Int64s
    late: npt.NDArray[np.bool_]
    outside: npt.NDArray[np.bool_]
    """Has outcomes, but none inside the window."""
    mature: npt.NDArray[np.bool_]
    """The window has ended: only then does absence mean anything."""
    imputed: npt.NDArray[np.bool_]
    """The outcome was guessed."""


def score_bins(score: Float64s) -> Int64s:
    """Bin 0 .. SCORE_BINS - 1 of each probability, on the logit scale.

    >>> score_bins(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 512, 1023]
    """
    clipped = np.clip(score, PROBABILITY_MIN, 1 - PROBABILITY_MIN)
    logit = np.log(clipped / (1 - clipped))
    bins = np.floor((logit + LOGIT_MAX) * (SCORE_BINS / (2 * LOGIT_MAX))).astype(np.int64)
    return np.clip(bins, 0, SCORE_BINS - 1)


def partials_of(spec: LabelSpec, rows: Rows, groups: int) -> list[Partial]:
    """Sum joined rows up into one partial per group.

    Args:
        spec: task and meaning of absence.
        rows: distinct predictions, each at most once.
        groups: number of groups; groups without rows give `EMPTY`-like partials.
    """
    joined = ~np.isnan(rows.value)
    absent = ~joined & rows.mature & spec.absence_means_negative
    labelled = joined | absent
    value = np.where(absent, 0.0, rows.value)
    cells: list[Int64s] = []
    keys: list[Int64s] = []

    def tally(where: npt.NDArray[np.bool_], cell: Int64s | int) -> None:
        at = np.flatnonzero(where)
        keys.append(rows.group[at])
        cells.append(cell[at] if isinstance(cell, np.ndarray) else np.full(len(at), cell, np.int64))

    tally(np.ones(len(rows.group), np.bool_), _COUNT_AT["predicted"])
    tally(joined, _COUNT_AT["joined"])
    tally(absent, _COUNT_AT["absent"])
    tally(joined & rows.late, _COUNT_AT["late"])
    tally(~joined & rows.outside, _COUNT_AT["outside"])
    tally(joined & rows.imputed, _COUNT_AT["imputed"])
    delay = np.searchsorted(DELAY_EDGES_S, rows.delay_us / 1e6)
    tally(joined, _DELAY_AT + delay)
    if spec.task == "binary":
        positive, chosen = value == 1, rows.score >= DECISION_THRESHOLD
        tally(labelled & positive & chosen, _COUNT_AT["true_positive"])
        tally(labelled & ~positive & chosen, _COUNT_AT["false_positive"])
        tally(labelled & ~positive & ~chosen, _COUNT_AT["true_negative"])
        tally(labelled & positive & ~chosen, _COUNT_AT["false_negative"])
        bins = score_bins(rows.score)
        tally(labelled, _SCORE_AT + SCORE_BINS * positive + bins)
        tally(np.ones(len(rows.group), np.bool_), _ALL_AT + bins)
        tally(joined & positive, _POSITIVE_DELAY_AT + delay)
    sums = _sums(spec, rows.group[labelled], rows.score[labelled], value[labelled], groups)
    return _sparse(np.concatenate(keys), np.concatenate(cells), sums, groups)


def count_at(name: str) -> int:
    """The cell of one of `COUNTS`, or of `imputed`."""
    return _COUNT_AT[name]


def score_cells(dense: Float64s) -> Float64s:
    """Of all cells, those of scores by label; shape (2, SCORE_BINS)."""
    return dense[_SCORE_AT:_ALL_AT].reshape(2, SCORE_BINS)


def score_bin_edges() -> Float64s:
    """Interior edges of the score bins as probabilities, ascending; shape (SCORE_BINS - 1,)."""
    logit = (np.arange(1, SCORE_BINS) / SCORE_BINS * 2 - 1) * LOGIT_MAX
    return np.asarray(1 / (1 + np.exp(-logit)), np.float64)


def _sums(spec: LabelSpec, group: Int64s, score: Float64s, value: Float64s, groups: int) -> Float64s:
    """Float sums by group, shape (groups, len(SUMS)). Only those of the task are filled."""
    sums = np.zeros((groups, len(SUMS)))
    error = score - value
    columns: dict[str, Float64s] = {"value": value, "value_squared": value * value}
    if spec.task == "binary":
        probability = np.clip(score, PROBABILITY_MIN, 1 - PROBABILITY_MIN)
        loss = -np.where(value == 1, np.log(probability), np.log1p(-probability))
        brier = error * error
        columns |= {"log_loss": loss, "log_loss_squared": loss * loss, "brier": brier, "brier_squared": brier * brier}
        columns |= {"log_loss_positive": loss * value, "brier_positive": brier * value}
    else:
        squared = error * error
        columns |= {"error": error, "error_absolute": np.abs(error), "error_squared": squared}
        columns |= {"error_fourth": squared * squared}
    for name, column in columns.items():
        sums[:, _SUM_AT[name]] = np.bincount(group, column, groups)
    return sums


def _sparse(group: Int64s, cell: Int64s, sums: Float64s, groups: int) -> list[Partial]:
    """Count equal (group, cell) pairs."""
    flat, count = _counted(group * CELLS + cell, groups * CELLS)
    starts = np.searchsorted(flat, np.arange(groups + 1) * CELLS)
    cells = (flat % CELLS).astype(np.int32)
    return [Partial(cell=cells[a:b], count=count[a:b], sums=sums[at]) for at, (a, b) in enumerate(pairwise(starts))]


def _counted(flat: Int64s, size: int) -> tuple[Int64s, Int64s]:
    """Distinct values in ascending order and how often each comes: by table for many rows, else by sorting."""
    if size > 2 * len(flat):
        distinct, count = np.unique(flat, return_counts=True)
        return distinct, count.astype(np.int64)
    table = np.bincount(flat, minlength=size)
    distinct = np.flatnonzero(table)
    return distinct, table[distinct].astype(np.int64)


def merge(partials: Iterable[Partial]) -> Partial:
    """The sum of partials of one task; `EMPTY` of none."""
    parts: Sequence[Partial] = tuple(partials)
    if len(parts) == 1:
        return parts[0]
    return merge_weighted([(part, 1.0) for part in parts])


def merge_weighted(parts: Sequence[tuple[Partial, float]]) -> Partial:
    """The sum of partials, each of which stands for `weight` times its rows: 1 / rate of a sample.

    Counts are summed as floats and rounded once, histograms so that any range of cells holds what it should but for one
    row. The design effect is Kish's over the labelled rows (over all of them
    if none is): N / n_eff with n_eff = (sum w n)^2 / sum w^2 n.
    """
    if not parts:
        return EMPTY
    if len(parts) == 1 and parts[0][1] == 1:
        return parts[0][0]
    cells = np.bincount(
        np.concatenate([part.cell for part, _ in parts]),
        np.concatenate([part.count * weight for part, weight in parts]),
        CELLS,
    )  # float64 holds integers exactly up to 2^53
    counts = np.rint(cells).astype(np.int64)
    if any(weight != round(weight) for _, weight in parts):
        for start, end in _HISTOGRAMS:
            # Rounded as they add up: each cell alone would round every single row of a sample the same way.
            upto = np.rint(np.cumsum(cells[start:end])).astype(np.int64)
            counts[start:end] = np.diff(upto, prepend=0)
    at = np.flatnonzero(counts)
    sums = np.sum([part.sums * weight for part, weight in parts], axis=0)
    return Partial(cell=at.astype(np.int32), count=counts[at], sums=sums, design=_design(parts))


def _design(parts: Sequence[tuple[Partial, float]]) -> float:
    if all(weight == 1 and part.design == 1 for part, weight in parts):
        return 1.0
    labelled = [part.labelled for part, _ in parts]
    rows = labelled if any(labelled) else [part.of("predicted") for part, _ in parts]
    total = sum(weight * n for (_, weight), n in zip(parts, rows, strict=True))
    if total <= 0:
        return 1.0
    return float(sum(weight**2 * n * part.design for (part, weight), n in zip(parts, rows, strict=True)) / total)


def difference(after: Partial, before: Partial) -> Partial:
    """What must be added to `before` to make it `after`; counts may be negative."""
    minus = Partial(cell=before.cell, count=-before.count, sums=-before.sums)
    return merge([after, minus])


def pack(partial: Partial) -> bytes:
    """For storage; `unpack` is the inverse."""
    head = np.int32(len(partial.cell)).tobytes()
    tail = np.float64(partial.design).tobytes()
    return head + partial.cell.tobytes() + partial.count.tobytes() + partial.sums.tobytes() + tail


_SUMS_BEFORE_DESIGN = 10
"""What partials held that were stored before they had a design."""


def unpack(packed: bytes) -> Partial:
    """Read what `pack` wrote, also before later sums were added."""
    size = int(np.frombuffer(packed, np.int32, 1)[0])
    floats = np.frombuffer(packed, np.float64, -1, 4 + 12 * size)
    early = len(floats) == _SUMS_BEFORE_DESIGN
    return Partial(
        cell=np.frombuffer(packed, np.int32, size, 4),
        count=np.frombuffer(packed, np.int64, size, 4 + 4 * size),
        sums=np.concatenate([floats, np.zeros(len(SUMS) - len(floats))]) if early else floats[: len(SUMS)],
        design=1.0 if early else float(floats[-1]),
    )
