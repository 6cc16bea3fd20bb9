"""The streams: rows and labels by the rules of `river.datasets.synth`, for many rows at once.

SEA and Hyperplane draw their inputs evenly, so numpy draws them; Agrawal's are drawn as river draws them. Labels come
from river itself: its thresholds (SEA), its classification functions (Agrawal), its rule of weights (Hyperplane). A
test compares all three with river's generators row by row.

A *regime* shifts inputs and leaves the concept alone: the benign change that a drift alarm takes for trouble.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt
from river.datasets import synth

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

REGIMES = 3
"""0 is the usual one."""


class Stream(Protocol):
    """Where rows come from."""

    @property
    def name(self) -> str:
        """As people call it."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the inputs."""
        ...

    @property
    def noise(self) -> float:
        """Share of labels that are turned round."""
        ...

    @property
    def gradual(self) -> bool:
        """True: a concept moves to the next bit by bit, and may stand between two."""
        ...

    def rows(self, rng: np.random.Generator, count: int) -> Floats:
        """Inputs, shape (count, features)."""
        ...

    def shifted(self, rows: Floats, regime: int) -> Floats:
        """The same rows in another regime."""
        ...

    def concepts(self, rng: np.random.Generator, count: int) -> list[int]:
        """So many concepts, each other than the one before."""
        ...

    def labels(self, rows: Floats, concept: float) -> Bools:
        """True labels, without noise; concepts between two whole numbers are for `gradual` streams alone."""
        ...


class Sea:
    """Three inputs from 0 to 10; positive if the first two sum to more than a threshold (Street and Kim 2001)."""

    name = "SEA"
    features = ("x0", "x1", "x2")
    noise = 0.10
    gradual = False

    def rows(self, rng: np.random.Generator, count: int) -> Floats:
        """Even in each input."""
        return rng.uniform(0, 10, (count, 3))

    def shifted(self, rows: Floats, regime: int) -> Floats:
        """1: the third, which does not matter, lies high. 2: the second lies low: fewer are positive."""
        found = rows.copy()
        if regime == 1:
            found[:, 2] = 10 * (rows[:, 2] / 10) ** 0.4
        elif regime == 2:
            found[:, 1] = 10 * (rows[:, 1] / 10) ** 1.5
        return found

    def concepts(self, rng: np.random.Generator, count: int) -> list[int]:
        """River's variants."""
        return _walk(rng, count, 4)

    def labels(self, rows: Floats, concept: float) -> Bools:
        """By the threshold of river's variant."""
        threshold = synth.SEA(variant=int(concept))._threshold
        return np.asarray(rows[:, 0] + rows[:, 1] > threshold)


class Agrawal:
    """Nine inputs of loan applicants and ten rules for who gets the loan (Agrawal et al. 1993)."""

    name = "Agrawal"
    features = tuple(synth.Agrawal(classification_function=0, seed=0).feature_names)
    noise = 0.05
    gradual = False
    rules = (0, 1, 2, 3, 4, 6, 8)
    """Not 5, 7 and 9: nearly everybody (or nobody) gets the loan by 7 and 9, and 5 is 4 with another split."""

    def rows(self, rng: np.random.Generator, count: int) -> Floats:
        """As river's generator draws them."""
        salary = 20_000 + 130_000 * rng.random(count)
        commission = np.where(salary >= 75_000, 0, 10_000 + 75_000 * rng.random(count))
        zipcode = rng.integers(0, 9, count)
        columns = {
            "salary": salary,
            "commission": commission,
            "age": rng.integers(20, 81, count),
            "elevel": rng.integers(0, 5, count),
            "car": rng.integers(1, 21, count),
            "zipcode": zipcode,
            "hvalue": (8 - zipcode) * 100_000 * (0.5 + rng.random(count)),
            "hyears": rng.integers(1, 31, count),
            "loan": rng.random(count) * 500_000,
        }
        return np.column_stack([columns[name] for name in self.features]).astype(np.float64)

    def shifted(self, rows: Floats, regime: int) -> Floats:
        """1: cars and years in the house, which never matter much, grow. 2: applicants are younger."""
        found = rows.copy()
        at = {name: place for place, name in enumerate(self.features)}
        if regime == 1:
            found[:, at["car"]] = np.ceil(20 * (rows[:, at["car"]] / 20) ** 0.5)
            found[:, at["hyears"]] = np.ceil(30 * (rows[:, at["hyears"]] / 30) ** 0.6)
        elif regime == 2:
            found[:, at["age"]] = np.round(20 + 60 * ((rows[:, at["age"]] - 20) / 60) ** 1.4)
        return found

    def concepts(self, rng: np.random.Generator, count: int) -> list[int]:
        """River's classification functions, some of them."""
        return [self.rules[at] for at in _walk(rng, count, len(self.rules))]

    def labels(self, rows: Floats, concept: float) -> Bools:
        """By river's classification function, row by row."""
        rule = synth.Agrawal(classification_function=int(concept), seed=0)._classification_functions[int(concept)]
        order = ("salary", "commission", "age", "elevel", "car", "zipcode", "hvalue", "hyears", "loan")
        columns = [rows[:, self.features.index(name)].tolist() for name in order]
        return np.fromiter(map(rule, *columns), np.bool_, len(rows))


class Hyperplane:
    """Ten inputs from 0 to 1; positive on one side of a plane whose weights move (Hulten et al. 2001).

    A concept here is a plane: river's rule with the weights of a seeded generator that has moved for so many periods.
    In a period of change the plane goes from one to the next bit by bit, as river's `mag_change` does it.
    """

    name = "Hyperplane"
    features = tuple(f"x{at}" for at in range(10))
    noise = 0.05
    gradual = True
    step = 0.9
    """How far a weight goes in one period of change; river moves it by `mag_change` with each row."""
    moving = 6

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def rows(self, rng: np.random.Generator, count: int) -> Floats:
        """Even in each input."""
        return rng.random((count, 10))

    def shifted(self, rows: Floats, regime: int) -> Floats:
        """1: two inputs lie low and two high. 2: one lies very low."""
        found = rows.copy()
        if regime == 1:
            found[:, 6:8] = rows[:, 6:8] ** 1.5
            found[:, 8:10] = rows[:, 8:10] ** (1 / 1.5)
        elif regime == 2:
            found[:, 9] = rows[:, 9] ** 2
        return found

    def concepts(self, rng: np.random.Generator, count: int) -> list[int]:
        """Planes in their order."""
        return list(range(count))

    def weights(self, concept: float) -> Floats:
        """Weights of a plane; between two whole numbers the plane is on its way."""
        rng = np.random.default_rng([self._seed, 77])
        weights = rng.random(10)
        while concept > 0:
            # Each period moves some weights up and others down; river turns one round with probability `sigma`.
            direction = np.zeros(10)
            chosen = rng.permutation(10)[: self.moving]
            direction[chosen] = np.where(rng.random(self.moving) < 0.5, 1.0, -1.0)
            direction = np.where((weights < 0.3) & (direction < 0), 1.0, direction)
            weights = weights + direction * self.step * min(concept, 1.0)
            concept -= 1
        return weights

    def labels(self, rows: Floats, concept: float) -> Bools:
        """By river's rule: the weighted sum is at least half of what it could be."""
        return beyond(rows, self.weights(concept))


def beyond(rows: Floats, weights: Floats) -> Bools:
    """Which rows lie beyond the plane of these weights."""
    return np.asarray(rows @ weights >= weights.sum() * 0.5)


def _walk(rng: np.random.Generator, count: int, states: int) -> list[int]:
    """Seeded, and never the same twice in a row."""
    found = [int(rng.integers(states))]
    while len(found) < count:
        found.append(int((found[-1] + rng.integers(1, states)) % states))
    return found
