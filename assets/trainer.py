"""Who trains a model: a small protocol, and the registry that finds the trainer of a model by its `trainer` tag.

The tag names an entry of `TRAINERS`, never a module: what is registered over the network must not choose what code
runs.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import import_module
from typing import Protocol, cast

import msgspec

from assets.fleet import Model
from assets.plane import Evidence, TrainedVersion, Validation

TRAINER_TAG = "trainer"
TRAINER_DEFAULT = "flights"


class TrainingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be trained."""

    model_id: str
    attempt_id: str
    retrain_id: str
    data_until: datetime
    """Train on data before this."""
    causes: tuple[str, ...] = ()
    run_id: str = ""
    memory_scale: int = 1
    """Take this many times the usual memory: an earlier attempt ran out of it."""


class Trainer(Protocol):
    """Trains and validates the models of a fleet. Runs in a process of its own; may take hours; may raise anything."""

    def train(self, order: TrainingOrder, say: Callable[[str], None]) -> TrainedVersion:
        """Train, store the artifact, describe it. `say` writes a sentence to the run's log."""
        ...

    def validate(self, order: TrainingOrder, version: int, say: Callable[[str], None]) -> Validation | Evidence:
        """Compare the version just trained with production on a holdout that neither has seen.

        Evidence is judged by Runway, by the model's policies; a Validation says itself whether it passed.
        """
        ...


class NoTrainerError(Exception):
    """Nobody here can train this model; trying again is pointless."""


def _flights() -> Trainer:
    return cast(Trainer, import_module("assets.flights.training").TRAINER)


TRAINERS: Mapping[str, Callable[[], Trainer]] = {"flights": _flights}
"""Tag value -> how to get the trainer; imported when first used, because it brings scikit-learn with it."""


def trainer_of(model: Model, trainers: Mapping[str, Callable[[], Trainer]] = TRAINERS) -> Trainer:
    """The trainer of a model.

    Raises:
        NoTrainerError: its tag names none.
    """
    name = model.tags.get(TRAINER_TAG, TRAINER_DEFAULT)
    if name not in trainers:
        raise NoTrainerError(
            f"{model.model_id} names the trainer {name!r} and there is none of that name: "
            f"set its tag `{TRAINER_TAG}` to one of {', '.join(sorted(trainers))}"
        )
    return trainers[name]()
