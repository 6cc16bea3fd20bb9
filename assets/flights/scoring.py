"""What models say about flights: each model's inputs are features and the outputs of the models it consumes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from assets.flights.artifacts import Artifact
from assets.flights.data import column, flights
from assets.flights.embedding import embedding_columns
from assets.flights.features import FEATURE, features
from assets.flights.fleet import BY_ID, FlightModel
from assets.flights.reading import note

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


class Outputs:
    """Outputs of a set of models for some flights, each computed once.

    Args:
        rows: which flights, as places in `flights()`, ascending.
        artifacts: the models that may be asked for, by id.
    """

    def __init__(self, rows: Rows, artifacts: Mapping[str, Artifact]) -> None:
        self.rows = rows
        self._artifacts = artifacts
        self._known: dict[str, Floats] = {}
        origin = column(flights(), "origin", rows)
        self._of_origin = {name: origin == name for name in ("EWR", "JFK", "LGA")}

    def artifact(self, model_id: str) -> Artifact:
        """One of the models that may be asked for."""
        return self._artifacts[model_id]

    def mask(self, model: FlightModel) -> npt.NDArray[np.bool_]:
        """Which of the rows a model is about."""
        return self._of_origin[model.origin] if model.origin else np.ones(len(self.rows), np.bool_)

    def output(self, model_id: str) -> Floats:
        """A model's output for all rows, NaN where it is not about them; shape (n,), embeddings (n, d)."""
        if model_id not in self._known:
            self._known[model_id] = self._computed(BY_ID[model_id])
        return self._known[model_id]

    def _computed(self, model: FlightModel) -> Floats:
        artifact = self._artifacts[model.model_id]
        mask = self.mask(model)
        raw = inputs_of(model, self)
        if model.task == "embedding":
            return np.asarray(artifact.estimator.transform(self.rows), np.float64)
        matrix = encode(artifact, raw)[mask]
        found = np.full(len(self.rows), np.nan)
        if len(matrix):
            scheduled = column(flights(), "scheduled", self.rows[mask])
            found[mask] = artifact.estimator.scores(matrix, scheduled)
        return found

    def score(self, model_id: str) -> Floats:
        """The number that is logged as the prediction: probability, minutes, or length of the embedding."""
        found = self.output(model_id)
        return np.linalg.norm(found, axis=1) if found.ndim > 1 else found


def inputs_of(model: FlightModel, outputs: Outputs) -> dict[str, npt.NDArray[Any]]:
    """A model's input columns for the rows of `outputs`: its features, then what it consumes."""
    table = features()
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in model.features:
        columns[name] = column(table, name, outputs.rows)
        note(f"feature:{name}", model.model_id)
    for upstream_id in model.upstream:
        upstream = BY_ID[upstream_id]
        found = outputs.output(upstream_id)
        note(f"model:{upstream_id}", model.model_id)
        if upstream.task == "embedding":
            columns |= embedding_columns(found)
        else:
            before = columns.get(upstream.output)
            # The three airports' models fill one column between them.
            columns[upstream.output] = found if before is None else np.where(np.isnan(before), found, before)
    return columns


def encode(artifact: Artifact, raw: Mapping[str, npt.NDArray[Any]]) -> Floats:
    """Input columns as the estimator takes them, shape (n, inputs); an unknown category is missing."""
    encoded = []
    for name in artifact.inputs:
        values = raw[name]
        if name in artifact.categories:
            code = {value: float(at) for at, value in enumerate(artifact.categories[name])}
            encoded.append(np.array([code.get(value, np.nan) for value in values], np.float64))
        else:
            encoded.append(values.astype(np.float64))
    return np.column_stack(encoded)


def is_categorical(name: str) -> bool:
    """Whether an input column holds categories."""
    return name in FEATURE and FEATURE[name].categorical
