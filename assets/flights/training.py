"""Training and validation of the fleet, with scikit-learn, on what is known at a given moment.

The newest days of the window (`HOLDOUT`) are kept from training. The candidate is measured on them, and compared there
with what is in production, flight by flight. Labels that are not known by then do not exist.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from runway_client import Runway, connect, messages
from runway_client.times import from_duration, from_timestamp
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from assets.attempt import sentence_of
from assets.flights import comparison, estimators
from assets.flights.artifacts import Artifact, load, store
from assets.flights.data import column, flights, instant
from assets.flights.embedding import RouteEmbedding, anchored, fit_routes, overlap, reconstruction_r2
from assets.flights.fleet import BY_ID, HISTORY, HOLDOUT, FlightModel, with_upstream
from assets.flights.importance import importances
from assets.flights.labels import outcomes
from assets.flights.mishap import mixed_up
from assets.flights.profile import reference_profile
from assets.flights.reading import read_by, recording
from assets.flights.scoring import Outputs, encode, inputs_of, is_categorical
from assets.plane import Evidence, Metric, Read, TrainedVersion, Validation
from assets.trainer import Trainer, TrainingOrder

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Say = Callable[[str], None]

ROWS_MAX = 24_000
"""Rows one fit looks at; more would not change the story, only its pace."""
ROWS_MIN = 500
"""Fewer labelled flights than this train nothing."""
SEED = 2013
FLIGHTS_TIMED = 30
"""Asked one by one, to see how long an answer takes."""
BYTES_PER_MB = 1_000_000


class TrainingError(Exception):
    """There is nothing to train on, or nothing to stand on; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a fit made."""

    artifact: Artifact
    trained_from: datetime
    trained_until: datetime
    metrics: tuple[Metric, ...]
    profile: bytes
    rows: int
    reads: tuple[str, ...] = ()
    """Nodes that the training loaded from, as it went."""
    embeddings: bytes = b""
    """What an embedding makes of the fixed anchors, as Arrow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What of the past may train, as the registry has it."""

    history: timedelta = HISTORY
    """How far back it reaches."""
    tainted: tuple[tuple[datetime, datetime], ...] = ()
    """Ranges [from, until) whose flights must not train."""
    mixed_up: bool = False
    """Outcomes belong to other flights; see mishap.py."""


ALL_DATA = TrainingData()


def training_data_of(model: messages.Model) -> TrainingData:
    """What the model's owner says about its training data."""
    return TrainingData(
        history=from_duration(model.training_window) if model.HasField("training_window") else HISTORY,
        tainted=tuple(
            # `from` is a word of Python.
            (from_timestamp(getattr(one, "from")), from_timestamp(one.until))
            for one in model.tainted_windows
        ),
    )


def window(data_until: datetime, history: timedelta = HISTORY) -> tuple[datetime, datetime, datetime]:
    """(from, cut, until): train on [from, cut), hold out [cut, until)."""
    return data_until - history, data_until - HOLDOUT, data_until


def untainted(rows: Rows, tainted: Iterable[tuple[datetime, datetime]]) -> Rows:
    """The rows whose flights were scheduled in none of these ranges."""
    scheduled = column(flights(), "scheduled", rows)
    kept = np.ones(len(rows), np.bool_)
    for start, end in tainted:
        kept &= (scheduled < instant(start)) | (scheduled >= instant(end))
    return rows[kept]


def rows_between(start: datetime, end: datetime, origin: str = "") -> Rows:
    """Flights scheduled in [start, end), of one airport or all; places in `flights()`."""
    table = flights()
    scheduled = column(table, "scheduled")
    first, last = np.searchsorted(scheduled, [instant(start), instant(end)])
    rows = np.arange(first, last, dtype=np.int64)
    return rows[column(table, "origin", rows) == origin] if origin else rows


def train(
    model: FlightModel, data_until: datetime, upstream: Mapping[str, Artifact], data: TrainingData = ALL_DATA
) -> Trained:
    """Fit a model on what is known at `data_until`.

    Args:
        upstream: artifacts of everything the model stands on, by id.
        data: how far back to look, and what to leave out. The holdout is never left out.
    Raises:
        TrainingError: too few labelled flights, or a training window within the holdout.
    """
    with recording() as reads:
        trained = _train(model, data_until, upstream, data)
    return replace(trained, reads=read_by(reads, "", model.model_id))


def _train(model: FlightModel, data_until: datetime, upstream: Mapping[str, Artifact], data: TrainingData) -> Trained:
    start, cut, until = window(data_until, data.history)
    if start >= cut:
        raise TrainingError(
            f"{model.model_id} has a training window of {data.history}, and the newest {HOLDOUT} of it are held out: "
            "make it longer"
        )
    rows = untainted(rows_between(start, cut, model.origin), data.tainted)
    holdout = rows_between(cut, until, model.origin)
    if model.task == "embedding":
        return _train_embedding(model, rows, holdout, start, cut)
    value, known_at = outcomes(model, rows)
    kept = _sampled(np.flatnonzero(~np.isnan(value) & (known_at <= instant(until))))
    if len(kept) < ROWS_MIN:
        raise TrainingError(
            f"{model.model_id} has {len(kept)} labelled flights between {start:%Y-%m-%d} and {cut:%Y-%m-%d}, "
            f"it takes {ROWS_MIN}"
        )
    rows, value = rows[kept], value[kept]
    if data.mixed_up:
        value = np.random.default_rng(SEED).permutation(value)
    raw = inputs_of(model, Outputs(rows, upstream))
    categories = {
        name: tuple(sorted({str(one) for one in column_values if one is not None}))
        for name, column_values in raw.items()
        if is_categorical(name)
    }
    blank = Artifact(model_id=model.model_id, inputs=tuple(raw), categories=categories)
    estimator = estimators.fit(
        lambda: _estimator(model, blank),
        encode(blank, raw),
        value,
        column(flights(), "scheduled", rows),
        (instant(start), instant(cut)),
    )
    artifact = Artifact(model_id=model.model_id, inputs=tuple(raw), categories=categories, estimator=estimator)
    held = Outputs(holdout, {**upstream, model.model_id: artifact})
    return Trained(
        artifact=artifact,
        trained_from=start,
        trained_until=cut,
        metrics=_measured(model, holdout, held.output(model.model_id), until),
        profile=_profile(model, raw, held, until),
        rows=len(rows),
    )


def _profile(model: FlightModel, raw: Mapping[str, npt.NDArray[Any]], held: Outputs, until: datetime) -> bytes:
    """Inputs as they were in training; scores, outcomes and importances on flights the model has not seen.

    Scores of flights whose outcome is known, so that outcomes and scores are counted over the same flights.
    """
    value, known_at = outcomes(model, held.rows)
    known = held.mask(model) & ~np.isnan(value) & (known_at <= instant(until))
    score = held.score(model.model_id)
    weight = importances(model, held, np.flatnonzero(known), value)
    if model.task != "binary":
        return reference_profile(raw, score[held.mask(model)], importance=weight)
    return reference_profile(raw, score[known], value[known] == 1, weight)


def _sampled(rows: Rows) -> Rows:
    """At most ROWS_MAX of them, the same ones every time."""
    if len(rows) <= ROWS_MAX:
        return rows
    return np.sort(np.random.default_rng(SEED).choice(rows, ROWS_MAX, replace=False))


def _estimator(model: FlightModel, blank: Artifact) -> estimators.Estimator:
    settings = {
        "max_iter": model.iterations,
        "learning_rate": 0.12,
        "max_leaf_nodes": 24,
        "min_samples_leaf": 40,
        "early_stopping": False,
        "random_state": SEED,
        "categorical_features": [name in blank.categories for name in blank.inputs],
    }
    return (
        HistGradientBoostingClassifier(**settings)
        if model.task == "binary"
        else HistGradientBoostingRegressor(**settings)
    )


def _train_embedding(model: FlightModel, rows: Rows, holdout: Rows, start: datetime, cut: datetime) -> Trained:
    fitted = fit_routes(rows)
    artifact = Artifact(model_id=model.model_id, inputs=model.features, estimator=fitted)
    value, error, count = reconstruction_r2(fitted, holdout)
    outputs = Outputs(rows, {model.model_id: artifact})
    return Trained(
        artifact=artifact,
        trained_from=start,
        trained_until=cut,
        metrics=(Metric(name=model.metric, value=value, standard_error=error, sample_size=count),),
        profile=reference_profile(inputs_of(model, outputs), outputs.score(model.model_id)),
        rows=len(rows),
        embeddings=anchored(fitted, _other_seed(rows)),
    )


def _other_seed(rows: Rows) -> RouteEmbedding:
    """The same training by another throw of the dice: principal components have none, so the flights are drawn anew."""
    return fit_routes(np.sort(np.random.default_rng(SEED).choice(rows, len(rows))))


def _measured(model: FlightModel, rows: Rows, output: Floats, until: datetime) -> tuple[Metric, ...]:
    value, known_at = outcomes(model, rows)
    known = ~np.isnan(value) & (known_at <= instant(until)) & ~np.isnan(output)
    return comparison.metrics(model.task, output[known], value[known])


def validate(
    model: FlightModel,
    data_until: datetime,
    candidate: Mapping[str, Artifact],
    production: Mapping[str, Artifact] | None,
) -> Evidence | Validation:
    """Compare a candidate with production on the holdout, flight by flight, and see what it costs to ask it.

    Args:
        candidate: the candidate and everything it stands on, by id.
        production: the same for what serves now; the rest of the fleet as it is for both.
    """
    start, cut, until = window(data_until)
    rows = rows_between(cut, until, model.origin)
    holdout = comparison.Holdout(start=cut, end=until)
    if model.task == "embedding":
        found = comparison.embeddings(model, rows, candidate, production, holdout)
        if production is None:
            return found
        fitted, serving = candidate[model.model_id].estimator, production[model.model_id].estimator
        again = _other_seed(rows_between(start, cut))
        return msgspec.structs.replace(found, embedding_overlap=overlap(fitted, serving, again))
    value, known_at = outcomes(model, rows)
    known = ~np.isnan(value) & (known_at <= instant(until))
    rows, value = rows[known], value[known]
    new = Outputs(rows, candidate).output(model.model_id)
    old = Outputs(rows, production).output(model.model_id) if production is not None else None
    by, names = (
        ("carrier", column(flights(), "carrier", rows))
        if model.origin
        else ("origin", column(flights(), "origin", rows))
    )
    compared = comparison.compare(model, new, old, value, holdout, np.char.add(f"{by}=", names.astype(str)))
    if isinstance(compared, Validation):
        return compared
    return msgspec.structs.replace(compared, latency_p99_ms=latency_p99_ms(model, rows, candidate))


def latency_p99_ms(model: FlightModel, rows: Rows, artifacts: Mapping[str, Artifact]) -> float:
    """How long one flight takes, with everything that the model stands on: 99th percentile, milliseconds."""
    taken_s = []
    for row in rows[:: max(1, len(rows) // FLIGHTS_TIMED)][:FLIGHTS_TIMED]:
        started_s = time.perf_counter()
        Outputs(np.array([row]), artifacts).output(model.model_id)
        taken_s.append(time.perf_counter() - started_s)
    return float(1000 * np.quantile(taken_s, 0.99))


class FlightsTrainer:
    """`Trainer` of the fleet: looks up what is in production, trains on top of it, stores the artifact."""

    def train(self, order: TrainingOrder, say: Say) -> TrainedVersion:
        """Train one model on what was known when it was leased."""
        model = BY_ID[order.model_id]
        with connect(actor="flights trainer") as runway:
            serving = Serving(runway)
            data = training_data_of(runway.registry.get_model(model.model_id))
        if model.task != "embedding" and mixed_up():
            data = replace(data, mixed_up=True)
            say("the demo's mishap: outcomes were joined to the wrong flights (assets/flights/mishap.py)")
        upstream = serving.artifacts(one.model_id for one in with_upstream(model.model_id)[:-1])
        trained = train(model, order.data_until, upstream, data)
        if data.tainted:
            say(f"left out {len(data.tainted)} tainted windows")
        say(
            f"trained on {trained.rows} flights, {trained.trained_from:%Y-%m-%d} to {trained.trained_until:%Y-%m-%d}: "
            + ", ".join(f"{metric.name} {metric.value:.4f}" for metric in trained.metrics)
        )
        return described(trained, {name: serving.versions[name].version for name in model.upstream})

    def validate(self, order: TrainingOrder, version: int, say: Say) -> Evidence | Validation:
        """Measure the version just trained beside the one in production, as it is stored."""
        model = BY_ID[order.model_id]
        with connect(actor="flights trainer") as runway:
            serving = Serving(runway)
            candidate = runway.registry.get_version(model.model_id, version=version)
        below = serving.artifacts(one.model_id for one in with_upstream(model.model_id)[:-1])
        try:
            fresh = load(candidate.artifact_uri, candidate.artifact_sha256)
        except Exception as error:  # unpickling raises anything
            why = f"it does not load from where it was stored: {sentence_of(error)}"
            return Validation(passed=False, metric=model.metric, candidate=0.0, explanation=why)
        new = {**below, model.model_id: fresh}
        old = {**below, **serving.artifacts([model.model_id])} if model.model_id in serving.versions else None
        found = validate(model, order.data_until, new, old)
        if isinstance(found, Validation):
            return found
        # It was read from where it is stored, its digest checked, and has answered: it loads.
        return msgspec.structs.replace(found, size_mb=candidate.artifact_size_bytes / BYTES_PER_MB, loads=True)


def in_production(runway: Runway) -> dict[str, int]:
    """Version in production by model of this fleet."""
    numbers = {model.model_id: model.aliases.get("production", 0) for model in runway.registry.list_models()}
    return {model_id: number for model_id, number in numbers.items() if model_id in BY_ID and number}


class Serving:
    """What is in production now, by model."""

    def __init__(self, runway: Runway) -> None:
        self.versions: dict[str, messages.ModelVersion] = {
            model_id: runway.registry.get_version(model_id, version=number)
            for model_id, number in in_production(runway).items()
        }

    def artifacts(self, model_ids: Iterable[str]) -> dict[str, Artifact]:
        """Loaded artifacts of these models.

        Raises:
            TrainingError: one of them has nothing in production.
        """
        found = {}
        for model_id in model_ids:
            if model_id not in self.versions:
                raise TrainingError(f"{model_id} has no production version to stand on: train it first")
            version = self.versions[model_id]
            found[model_id] = load(version.artifact_uri, version.artifact_sha256)
        return found


def described(trained: Trained, upstream_versions: Mapping[str, int]) -> TrainedVersion:
    """Store the artifact and say what it is."""
    stored = store(trained.artifact)
    versions = {f"model:{model_id}": number for model_id, number in upstream_versions.items()}
    return TrainedVersion(
        artifact_uri=stored.uri,
        artifact_sha256=stored.sha256,
        artifact_size_bytes=stored.size_bytes,
        trained_from=trained.trained_from,
        trained_until=trained.trained_until,
        metrics=trained.metrics,
        upstream_versions=dict(upstream_versions),
        reference_profile=trained.profile,
        embeddings=trained.embeddings,
        rows=trained.rows,
        reads=tuple(
            Read(node_id=node_id, version=f"v{number}" if (number := versions.get(node_id)) else "")
            for node_id in trained.reads
        ),
    )


TRAINER: Trainer = FlightsTrainer()
