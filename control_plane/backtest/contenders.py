"""Who decides in a run: policies with their verdicts, a clock, one usual alarm, or somebody who knows the future.

| contender        | asks for a retrain when                                                                        |
|------------------|------------------------------------------------------------------------------------------------|
| current          | the policies in force then say so                                                              |
| policies         | the same with other policies upon them                                                         |
| every            | so much time has passed since the training window of what serves ended, or since it last asked |
| psi_only         | any feature's raw PSI is above 0.2: no test, no correction for sample size, no hysteresis      |
| performance_only | the policies say so with all weight on performance, and no age                                 |
| oracle           | production will be truly stale when a training that starts now ends, and what comes of it will |
|                  | not be, and will pass its validation                                                           |

All of them go through the same requests, cooldowns, limits, leases and validations. Only the oracle ignores cooldowns,
because it never asks in vain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import numpy as np

from control_plane.backtest.world import Trained, World
from control_plane.core.ids import ModelId
from control_plane.core.policies import Overrides
from control_plane.core.rules.types import Rule
from control_plane.core.staleness.evidence import Evidence, FeatureTable
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.statistics.fleet import row_drift

PSI_USUAL = 0.2
"""The alarm that most people begin with."""

NEVER_DAYS = 36_500.0
"""An age backstop that no model reaches."""

EVERY_MODEL = "*"
"""Instead of a scope: upon what every model says itself."""

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

Layers = Sequence[tuple[str, Overrides]]


class Kind(StrEnum):
    """What a contender goes by."""

    POLICIES = "policies"
    EVERY = "every"
    PSI_ONLY = "psi_only"
    ORACLE = "oracle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Who decides in one run. `layers` are set upon the policies of the world; `every` is for schedules."""

    name: str
    kind: Kind
    layers: tuple[tuple[str, Overrides], ...] = ()
    rules: tuple[Rule, ...] = ()
    """Each instead of the one of its name and scope."""
    every: timedelta | None = None

    @property
    def evaluates(self) -> bool:
        """Do verdicts decide?"""
        return self.kind is Kind.POLICIES

    @property
    def looks(self) -> bool:
        """Does it need evidence?"""
        return self.kind in (Kind.POLICIES, Kind.PSI_ONLY)


def current() -> Contender:
    """The policies in force then."""
    return Contender(name="current", kind=Kind.POLICIES)


def with_policies(name: str, *layers: tuple[str, Overrides], rules: Sequence[Rule] = ()) -> Contender:
    """The policies in force then with these upon them; the scope `*` is upon what every model says itself."""
    return Contender(name=name, kind=Kind.POLICIES, layers=layers, rules=tuple(rules))


def every(span: timedelta, name: str = "") -> Contender:
    """A fixed schedule. Raises ValueError for one that is shorter than an hour, the step of virtual time."""
    if span < HOUR:
        raise ValueError(f"{span} is shorter than an hour, the step of virtual time")
    return Contender(name=name or f"every {_span_words(span)}", kind=Kind.EVERY, every=span)


def psi_only() -> Contender:
    """The usual alarm."""
    return Contender(name="psi only", kind=Kind.PSI_ONLY)


def performance_only() -> Contender:
    """The performance signal alone."""
    silent = {f"staleness.weights.{name}": 0.0 for name in ("age", "input_drift", "prediction_drift", "concept_drift")}
    layer: Overrides = {**silent, "staleness.weights.performance": 1.0, "staleness.age_backstop_days": NEVER_DAYS}
    return Contender(name="performance only", kind=Kind.POLICIES, layers=((EVERY_MODEL, layer),))


def oracle() -> Contender:
    """Knows the future."""
    return Contender(name="oracle", kind=Kind.ORACLE)


def usual() -> list[Contender]:
    """Those that run where nobody names any."""
    return [current(), every(timedelta(days=7)), every(timedelta(days=30)), psi_only(), performance_only(), oracle()]


def _span_words(span: timedelta) -> str:
    return f"{span / DAY:g} d" if span >= DAY else f"{span / HOUR:g} h"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A model as it is looked at."""

    model_id: ModelId
    policy: StalenessPolicy
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What serves, and since when. `busy`: a retrain is asked for and has not ended."""

    trained: Trained
    since: datetime
    busy: bool
    margin: float
    """What its validation policy tolerates, in the metric's units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A retrain that is asked for by somebody else than a verdict."""

    model_id: ModelId
    why: str
    hurried: bool = False
    """Cooldowns do not hold it."""


class Decider(Protocol):
    """What asks for retrains beside the verdicts."""

    def wishes(self, fleet: Mapping[ModelId, Serving], looks: Sequence[Look], now: datetime) -> list[Wish]:
        """Retrains wanted at `now`; models that are busy are passed over by whoever asks."""
        ...


class Nobody:
    """Verdicts decide alone."""

    def wishes(self, fleet: Mapping[ModelId, Serving], looks: Sequence[Look], now: datetime) -> list[Wish]:
        """None, ever."""
        return []


class Schedule:
    """A retrain each so often."""

    def __init__(self, span: timedelta) -> None:
        self._span = span
        self._asked: dict[ModelId, datetime] = {}

    def wishes(self, fleet: Mapping[ModelId, Serving], looks: Sequence[Look], now: datetime) -> list[Wish]:
        """Those whose time has come."""
        found = []
        for model_id, serving in fleet.items():
            last = self._asked.get(model_id, serving.trained.trained_until)
            if now - last >= self._span and not serving.busy:
                self._asked[model_id] = now
                found.append(Wish(model_id=model_id, why=f"every {_span_words(self._span)}"))
        return found


class PsiAlarm:
    """Any feature's raw PSI above 0.2."""

    def wishes(self, fleet: Mapping[ModelId, Serving], looks: Sequence[Look], now: datetime) -> list[Wish]:
        """Those with such a feature."""
        found = []
        for look in looks:
            table = look.evidence.features
            if table is None or fleet[look.model_id].busy:
                continue
            psi = _psi(table)
            if psi.size and np.nanmax(psi, initial=0.0) > PSI_USUAL:
                at = int(np.nanargmax(psi))
                found.append(Wish(model_id=look.model_id, why=f"PSI of {table.names[at]} is {psi[at]:.2f}"))
        return found


def _psi(table: FeatureTable) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Raw PSI by feature; NaN where a side is empty."""
    if not table.names:
        return np.zeros(0)
    return np.asarray(row_drift(table.reference, table.current, table.cells).psi, np.float64)


class Oracle:
    """Retrains where it pays."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stale: dict[tuple[ModelId, int, datetime], bool] = {}

    def wishes(self, fleet: Mapping[ModelId, Serving], looks: Sequence[Look], now: datetime) -> list[Wish]:
        """Those that will be stale, and will be helped."""
        found = []
        for model_id, serving in fleet.items():
            if serving.busy:
                continue
            ready = now + HOUR * max(int(np.ceil(self._world.training_hours(model_id))), 1)
            if (
                ready < self._world.end
                and self._will_be_stale(serving.trained, ready)
                and self._pays(serving, now, ready)
            ):
                found.append(Wish(model_id=model_id, why="it will be stale", hurried=True))
        return found

    def _pays(self, serving: Serving, now: datetime, ready: datetime) -> bool:
        candidate = self._world.train(serving.trained.model_id, now)
        if self._will_be_stale(candidate, ready):
            return False
        found = self._world.compare(candidate, serving.trained, ready)
        return not_worse(found.candidate, found.production, serving.margin, candidate.higher_is_better)

    def _will_be_stale(self, trained: Trained, hour: datetime) -> bool:
        """Asked once a day: truth has that grain."""
        day = day_of(hour)
        key = (trained.model_id, trained.number, day)
        if key not in self._stale:
            self._stale[key] = self._world.truly_stale(trained, max(day, self._world.start))
        return self._stale[key]


def not_worse(candidate: float, production: float, margin: float, higher_is_better: bool) -> bool:
    """Is the candidate at most `margin` worse? A NaN is never good enough.

    >>> not_worse(0.71, 0.714, 0.005, True), not_worse(12.0, 11.0, 0.5, False), not_worse(float("nan"), 0.7, 0.1, True)
    (True, False, False)
    """
    gain = candidate - production if higher_is_better else production - candidate
    return bool(gain >= -margin)


def day_of(hour: datetime) -> datetime:
    """Midnight before."""
    return hour.replace(hour=0, minute=0, second=0, microsecond=0)


def decider(contender: Contender, world: World) -> Decider:
    """What asks for retrains in a run of this contender."""
    match contender.kind:
        case Kind.POLICIES:
            return Nobody()
        case Kind.EVERY:
            assert contender.every is not None
            return Schedule(contender.every)
        case Kind.PSI_ONLY:
            return PsiAlarm()
        case Kind.ORACLE:
            return Oracle(world)
