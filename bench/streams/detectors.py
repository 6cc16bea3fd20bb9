"""River's detectors as contenders: each alarm asks for a retrain, through the same requests, trainings and validations.

A detector hears the errors (0 or 1) of what serves, row by row, when their labels are there, and begins anew with each
promotion: what the version before did is no news about this one. Of a model without outcomes it hears nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from river import drift

from bench.streams.world import StreamsWorld
from control_plane.backtest.contenders import Look, Serving, Wish
from control_plane.core.ids import ModelId

HOUR = timedelta(hours=1)


class Detector(Protocol):
    """What river's detectors have in common."""

    @property
    def drift_detected(self) -> bool:
        """Did it ring at the last one?"""
        ...

    def update(self, x: int) -> None:
        """Hear one more error."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A detector by name. `make` gives a new one."""

    name: str
    family: str
    make: Callable[[], Detector]


def defaults() -> list[Settings]:
    """As river gives them."""
    return [
        Settings(name="ADWIN", family="ADWIN", make=drift.ADWIN),
        Settings(name="DDM", family="DDM", make=drift.binary.DDM),
        Settings(name="Page-Hinkley", family="Page-Hinkley", make=drift.PageHinkley),
    ]


def tuned() -> list[Settings]:
    """As somebody sets them who wants few alarms at the rates of these streams; one setting for all of them."""
    return [_adwin(1e-6), _ddm(1000, 4.0), _page_hinkley(0.02, 60.0)]


def _adwin(delta: float) -> Settings:
    return Settings(name=f"ADWIN delta {delta:g}", family="ADWIN", make=lambda: drift.ADWIN(delta=delta))  # type: ignore[no-untyped-call]


def _ddm(warm_start: int, threshold: float) -> Settings:
    return Settings(
        name=f"DDM warm {warm_start} x {threshold:g}",
        family="DDM",
        make=lambda: drift.binary.DDM(warm_start=warm_start, drift_threshold=threshold),
    )


def _page_hinkley(delta: float, threshold: float) -> Settings:
    return Settings(
        name=f"Page-Hinkley delta {delta:g}, threshold {threshold:g}",
        family="Page-Hinkley",
        make=lambda: drift.PageHinkley(min_instances=1000, delta=delta, threshold=threshold, alpha=1.0, mode="up"),
    )


@dataclass(slots=True)
class _Ear:
    """One detector on one model."""

    detector: Detector
    number: int
    heard_until: datetime
    """Predictions before this were heard."""


@dataclass(slots=True)
class DetectorAlarm:
    """Implements `contenders.Decider`."""

    world: StreamsWorld
    settings: Settings
    _ears: dict[ModelId, _Ear] = field(default_factory=dict)

    def wishes(self, fleet: Mapping[ModelId, Serving], looks: Sequence[Look], now: datetime) -> list[Wish]:
        """Models whose detector rang in what it heard this hour."""
        found = []
        for model_id, serving in fleet.items():
            if self.world.is_blind(model_id):
                continue
            rang = self._hear(model_id, serving, now)
            if rang and not serving.busy:
                found.append(Wish(model_id=model_id, why=self.settings.name))
        return found

    def _hear(self, model_id: ModelId, serving: Serving, now: datetime) -> bool:
        ear = self._ears.get(model_id)
        if ear is None or ear.number != serving.trained.number:
            ear = self._ears[model_id] = _Ear(self.settings.make(), serving.trained.number, serving.since)
        labelled = now - HOUR * self.world.label_delay_hours
        if labelled <= ear.heard_until:
            return False
        errors = self.world.errors(serving.trained, ear.heard_until, labelled)
        ear.heard_until = labelled
        rang = False
        for wrong in errors.tolist():
            ear.detector.update(wrong)
            rang = rang or ear.detector.drift_detected
        return rang
