"""A model on a stream: its rows and labels in time, versions that are really trained, and how good they truly are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from bench.streams.concepts import REGIMES, Bools, Floats, Stream
from bench.streams.timeline import HOURS_PER_DAY, Timeline, timeline
from control_plane.backtest.world import Trained
from control_plane.core.ids import ModelId

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
WARM_DAYS = 30
"""Of stream before the backtest, so that the first versions have something to learn even if labels are 14 days late."""
ROWS_PER_HOUR = 100
TOLERANCE = 0.03
"""Accuracy that an owner does not want to lose."""
WINDOWS_DAYS = (1, 4, 14)
TRAINING_HOURS = 2.0
TRUTH_ROWS = 6000
FRESH_ROWS = 12_000
SHARE_STEPS = 4
"""A fresh version of a day in a change is one of so many mixtures."""
CELLS = 11
"""Ten bins and `missing`."""
CONSUMERS = 2
CONSUMER_NOISE = 0.10
"""What a consumer predicts is what the model predicts, but for so many rows that go otherwise for reasons of theirs."""

Cumulated = npt.NDArray[np.int64]


def _tree() -> DecisionTreeClassifier:
    return DecisionTreeClassifier(max_depth=8, min_samples_leaf=20, random_state=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All rows of one model's stream, in time; hour h has rows [h * ROWS_PER_HOUR, (h + 1) * ROWS_PER_HOUR)."""

    stream: Stream
    timeline: Timeline
    rows: Floats
    labels: Bools
    consumers: tuple[Bools, ...]
    """Outcomes of the consumers."""


def drawn_history(stream: Stream, seed: int, days: int) -> History:
    rng = np.random.default_rng([seed, 2026])
    line = timeline(stream, rng, WARM_DAYS, days)
    count = len(line.share) * ROWS_PER_HOUR
    rows = stream.rows(rng, count)
    regime, before, after = (
        np.repeat(one, ROWS_PER_HOUR).astype(np.float64) for one in (line.regime, line.before, line.after)
    )
    for one in range(1, REGIMES):
        chosen = regime == one
        rows[chosen] = stream.shifted(rows[chosen], one)
    share = np.repeat(line.share, ROWS_PER_HOUR)
    labels = _labelled(stream, rows, before, after, share, rng)
    flip = rng.random(count) < stream.noise
    labels = labels ^ flip
    consumers = tuple(labels ^ (rng.random(count) < CONSUMER_NOISE) for _ in range(CONSUMERS))
    return History(stream=stream, timeline=line, rows=rows, labels=labels, consumers=consumers)


def _labelled(
    stream: Stream,
    rows: Floats,
    before: Floats,
    after: Floats,
    share: Floats,
    rng: np.random.Generator,
) -> Bools:
    found = np.zeros(len(rows), np.bool_)
    concept = np.where(rng.random(len(rows)) < share, after, before)
    for one in np.unique(concept):
        chosen = concept == one
        found[chosen] = stream.labels(rows[chosen], float(one))
    return found


class Version:
    """A tree, and what it says about the rows that came after it."""

    def __init__(self, history: History, trained: Trained, tree: DecisionTreeClassifier, begin: int) -> None:
        self.trained = trained
        self.tree = tree
        self._history = history
        self._begin = begin
        self._right: Cumulated | None = None
        self._wrong: Bools | None = None
        self._consumers: list[Cumulated] = []
        self._counts: tuple[Cumulated, Cumulated] | None = None
        self.accuracy: dict[tuple[float, int], float] = {}

    @property
    def wrong(self) -> Bools:
        """Of each row from hour `begin` on."""
        if self._wrong is None:
            rows = self._history.rows[self._begin * ROWS_PER_HOUR :]
            self._wrong = self.tree.predict(rows) != self._history.labels[self._begin * ROWS_PER_HOUR :]
        return self._wrong

    def right_between(self, first: int, end: int) -> int:
        """Right answers to rows of hours [first, end)."""
        if self._right is None:
            by_hour = (~self.wrong).reshape(-1, ROWS_PER_HOUR).sum(axis=1)
            self._right = np.concatenate([[0], np.cumsum(by_hour)])
        return int(self._right[end - self._begin] - self._right[first - self._begin])

    def consumers_right(self, acts: Sequence[LogisticRegression], first: int, end: int) -> list[int]:
        """Right answers of each consumer, which acts on this version's score."""
        if not self._consumers:
            rows = self._history.rows[self._begin * ROWS_PER_HOUR :]
            score = self.tree.predict_proba(rows)[:, 1]
            for model, outcome in zip(acts, self._history.consumers, strict=True):
                right = model.predict(score[:, None]) == outcome[self._begin * ROWS_PER_HOUR :]
                by_hour = right.reshape(-1, ROWS_PER_HOUR).sum(axis=1)
                self._consumers.append(np.concatenate([[0], np.cumsum(by_hour)]))
        return [int(one[end - self._begin] - one[first - self._begin]) for one in self._consumers]

    def counts(self, first: int, end: int, reference: Floats) -> tuple[Cumulated, Cumulated]:
        """Counts by feature (features + 1 with the score, CELLS) of the reference and of hours [first, end)."""
        if self._counts is None:
            rows = self._with_score(self._history.rows[self._begin * ROWS_PER_HOUR :])
            held = self._with_score(reference)
            hours = np.repeat(np.arange(len(rows) // ROWS_PER_HOUR), ROWS_PER_HOUR)
            cumulated = np.zeros((hours[-1] + 2 if len(hours) else 1, rows.shape[1], CELLS), np.int64)
            of_reference = np.zeros((rows.shape[1], CELLS), np.int64)
            for at in range(rows.shape[1]):
                edges = np.unique(np.quantile(held[:, at], np.arange(1, CELLS - 1) / (CELLS - 1)))
                of_reference[at] = np.bincount(np.searchsorted(edges, held[:, at]), minlength=CELLS)
                cells = hours * CELLS + np.searchsorted(edges, rows[:, at])
                by_hour = np.bincount(cells, minlength=(len(cumulated) - 1) * CELLS).reshape(-1, CELLS)
                cumulated[1:, at] = np.cumsum(by_hour, axis=0)
            self._counts = (of_reference, cumulated)
        of_reference, cumulated = self._counts
        return of_reference, cumulated[end - self._begin] - cumulated[first - self._begin]

    def _with_score(self, rows: Floats) -> Floats:
        return np.column_stack([rows, self.tree.predict_proba(rows)[:, 1]])


class StreamModel:
    """One model of the fleet with all its versions."""

    def __init__(self, model_id: ModelId, history: History, delay_hours: int, *, blind: bool) -> None:
        self.model_id = model_id
        self.history = history
        self.blind = blind
        self._delay = delay_hours
        self._versions: dict[int, Version] = {}
        self._acts: list[LogisticRegression] = []
        self._fresh: dict[tuple[float, float, int], DecisionTreeClassifier] = {}
        rng = np.random.default_rng([len(history.rows), 5])
        usual = history.stream.rows(rng, TRUTH_ROWS)
        self._truth = [history.stream.shifted(usual, regime) for regime in range(REGIMES)]
        self._answers: dict[tuple[float, int], Bools] = {}
        self._fresh_accuracy: dict[tuple[float, float, int, float, int], float] = {}

    # --- versions ---

    def version(self, hour: int) -> Version:
        """Trained on what was labelled at this hour of the stream."""
        if hour not in self._versions:
            self._versions[hour] = self._fit(hour)
        return self._versions[hour]

    def _labelled(self, hour: int, days: int) -> slice:
        end = (hour - self._delay) * ROWS_PER_HOUR
        return slice(max(end - days * HOURS_PER_DAY * ROWS_PER_HOUR, 0), end)

    def _fit(self, hour: int) -> Version:
        """Even rows train, odd rows of the newest day choose how far back to look."""
        rows, labels = self.history.rows, self.history.labels
        held = self.held(hour)
        best, right = _tree(), -1.0
        for days in WINDOWS_DAYS:
            past = self._labelled(hour, days)
            tree = _tree().fit(rows[past][::2], labels[past][::2])
            share = float((tree.predict(rows[held]) == labels[held]).mean())
            if share > right + 1e-9:
                best, right = tree, share
        size = len(labels[held])
        trained = Trained(
            model_id=self.model_id,
            number=hour,
            trained_until=START + HOUR * (hour - self._delay - WARM_DAYS * HOURS_PER_DAY),
            metric="accuracy",
            higher_is_better=True,
            holdout=right,
            holdout_error=float(np.sqrt(right * (1 - right) / size)),
            holdout_size=size,
            estimated=False,
        )
        return Version(self.history, trained, best, hour)

    def held(self, hour: int) -> slice:
        """Rows of the newest labelled day that never train."""
        newest = self._labelled(hour, 1)
        return slice(newest.start + 1, newest.stop, 2)

    def acts(self) -> list[LogisticRegression]:
        """What the consumers make of the score: learnt with the first version, and left alone since."""
        if not self._acts:
            first = self.version(WARM_DAYS * HOURS_PER_DAY)
            past = self._labelled(WARM_DAYS * HOURS_PER_DAY, 7)
            score = first.tree.predict_proba(self.history.rows[past][1::2])[:, 1:]
            self._acts = [LogisticRegression().fit(score, outcome[past][1::2]) for outcome in self.history.consumers]
        return self._acts

    # --- truth ---

    def quality(self, version: Version, day: int) -> float:
        """Expected accuracy on a day of the stream."""
        return self._mean(lambda concept, regime: self._accuracy(version.tree, version.accuracy, concept, regime), day)

    def fresh_quality(self, day: int) -> float:
        """Of a version trained on what holds on that day."""
        noon = day * HOURS_PER_DAY + HOURS_PER_DAY // 2
        line = self.history.timeline
        step = round(float(line.share[noon]) * SHARE_STEPS)
        key = (float(line.before[noon]), float(line.after[noon]), step)
        if key not in self._fresh:
            self._fresh[key] = self._fresh_tree(*key)
        tree = self._fresh[key]

        def accuracy(concept: float, regime: int) -> float:
            at = (*key, concept, regime)
            if at not in self._fresh_accuracy:
                self._fresh_accuracy[at] = self._accuracy(tree, {}, concept, regime)
            return self._fresh_accuracy[at]

        return self._mean(accuracy, day)

    def _fresh_tree(self, before: float, after: float, step: int) -> DecisionTreeClassifier:
        stream = self.history.stream
        rng = np.random.default_rng([round(8 * before), round(8 * after), step, 11])
        rows = stream.rows(rng, FRESH_ROWS)
        part = len(rows) // REGIMES
        for regime in range(1, REGIMES):
            where = slice(regime * part, (regime + 1) * part)
            rows[where] = stream.shifted(rows[where], regime)
        share = np.full(len(rows), step / SHARE_STEPS)
        labels = _labelled(stream, rows, np.full(len(rows), before), np.full(len(rows), after), share, rng)
        return _tree().fit(rows, labels ^ (rng.random(len(rows)) < stream.noise))

    def _accuracy(
        self, tree: DecisionTreeClassifier, known: dict[tuple[float, int], float], concept: float, regime: int
    ) -> float:
        key = (concept, regime)
        if key not in known:
            rows = self._truth[regime]
            if key not in self._answers:
                self._answers[key] = self.history.stream.labels(rows, concept)
            clean = float((tree.predict(rows) == self._answers[key]).mean())
            noise = self.history.stream.noise
            known[key] = clean * (1 - noise) + (1 - clean) * noise
        return known[key]

    def _mean(self, accuracy: Callable[[float, int], float], day: int) -> float:
        line = self.history.timeline
        total = 0.0
        hours = range(day * HOURS_PER_DAY, (day + 1) * HOURS_PER_DAY)
        for hour in hours:
            regime, share = int(line.regime[hour]), float(line.share[hour])
            total += (1 - share) * accuracy(float(line.before[hour]), regime)
            total += share * accuracy(float(line.after[hour]), regime) if share else 0.0
        return total / len(hours)
