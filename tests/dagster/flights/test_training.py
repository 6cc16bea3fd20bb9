"""Training, artifacts and the comparison of candidate and production."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runway_client import messages
from runway_client.times import to_duration, to_timestamp
from sklearn.metrics import roc_auc_score

from assets.flights import comparison
from assets.flights.artifacts import Artifact, ArtifactError, load, store
from assets.flights.comparison import Holdout, compare
from assets.flights.data import column, flights, instant
from assets.flights.fleet import BY_ID, FIRST_DAY, FLEET, HOLDOUT
from assets.flights.scoring import Outputs
from assets.flights.training import (
    TrainingData,
    TrainingError,
    rows_between,
    train,
    training_data_of,
    untainted,
    validate,
    window,
)
from assets.grpc_messages import evidence_message
from assets.plane import Evidence, Validation
from control_plane.api.convert.rollout import evidence_from
from control_plane.core.rollout import types as core
from control_plane.core.rollout.gate import direction_of, gate

HOLDOUT_SPAN = Holdout(start=datetime(2013, 2, 1, tzinfo=UTC), end=datetime(2013, 2, 10, tzinfo=UTC))
DELAY = BY_ID["departure_delay_jfk"]


@pytest.fixture(scope="module")
def weather_model(year_features: pa.Table) -> Artifact:
    return train(BY_ID["weather_disruption"], FIRST_DAY, {}).artifact


def test_training_is_repeatable_and_better_than_chance(year_features: pa.Table) -> None:
    first = train(BY_ID["plane_reliability"], FIRST_DAY, {})
    again = train(BY_ID["plane_reliability"], FIRST_DAY, {})
    assert first.metrics == again.metrics
    assert first.metrics[0].name == "auc"
    assert first.metrics[0].value > 0.6
    assert store(first.artifact).sha256 == store(again.artifact).sha256
    assert first.trained_until == FIRST_DAY - HOLDOUT


def test_models_stand_on_the_outputs_of_others(year_features: pa.Table) -> None:
    route = train(BY_ID["route_embedding"], FIRST_DAY, {}).artifact
    air = train(BY_ID["air_time"], FIRST_DAY, {"route_embedding": route})
    assert "route_embedding_0" in air.artifact.inputs
    assert air.metrics[0].name == "mae"
    assert air.metrics[0].value < 12
    rows = rows_between(*window(FIRST_DAY)[1:])[:50]
    outputs = Outputs(rows, {"route_embedding": route, "air_time": air.artifact})
    assert outputs.output("route_embedding").shape == (50, 4)
    assert np.isfinite(outputs.score("air_time")).all()


def test_tainted_windows_do_not_train_and_the_window_says_how_far_back(year_features: pa.Table) -> None:
    start, cut, _ = window(FIRST_DAY)
    day = timedelta(days=1)
    message = messages.Model(
        training_window=to_duration(20 * day),
        tainted_windows=[_tainted(cut - 5 * day, cut - 3 * day), _tainted(cut - 4 * day, cut - 2 * day)],
    )
    data = training_data_of(message)
    assert data.history == 20 * day
    assert data.tainted == ((cut - 5 * day, cut - 3 * day), (cut - 4 * day, cut - 2 * day))
    rows = rows_between(start, cut)
    clean = untainted(rows, data.tainted)
    scheduled = column(flights(), "scheduled", clean)
    assert not ((scheduled >= instant(cut - 5 * day)) & (scheduled < instant(cut - 2 * day))).any()
    assert len(rows) - len(clean) == len(rows_between(cut - 5 * day, cut - 2 * day)) > 0
    whole = train(BY_ID["plane_reliability"], FIRST_DAY, {}, TrainingData(history=20 * day))
    less = train(BY_ID["plane_reliability"], FIRST_DAY, {}, data)
    assert less.trained_from == FIRST_DAY - 20 * day
    assert less.rows < whole.rows
    assert training_data_of(messages.Model()) == TrainingData()
    with pytest.raises(TrainingError, match="make it longer"):
        train(BY_ID["plane_reliability"], FIRST_DAY, {}, TrainingData(history=HOLDOUT))


def _tainted(start: datetime, until: datetime) -> messages.TaintedWindow:
    window = messages.TaintedWindow(until=to_timestamp(until), reason="the scanner was broken")
    getattr(window, "from").CopyFrom(to_timestamp(start))
    return window


def test_a_model_of_one_airport_says_nothing_about_the_others(weather_model: Artifact) -> None:
    rows = rows_between(*window(FIRST_DAY)[1:])[:200]
    outputs = Outputs(rows, {"weather_disruption": weather_model})
    mask = outputs.mask(DELAY)
    assert 0 < mask.sum() < len(rows)


def test_the_reference_profile_counts_every_row(year_features: pa.Table) -> None:
    trained = train(BY_ID["plane_reliability"], FIRST_DAY, {})
    profile = msgspec.json.decode(trained.profile)
    assert set(profile["features"]) == set(trained.artifact.inputs)
    for name, histogram in profile["features"].items():
        assert sum(histogram["counts"]) == trained.rows, name
        cells = len(histogram.get("edges", histogram.get("categories"))) + 2
        assert len(histogram["counts"]) == cells, name


def test_an_artifact_that_was_changed_is_refused(weather_model: Artifact) -> None:
    stored = store(weather_model)
    assert load(stored.uri, stored.sha256).model_id == "weather_disruption"
    path = Path(urlsplit(stored.uri).path)
    data = path.read_bytes()
    load.cache_clear()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="the registry says"):
        load(stored.uri, stored.sha256)
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        load(stored.uri, stored.sha256)


def judged(found: Evidence, **policy: float) -> core.Validation:
    """By the gate itself, at the fleet's margin."""
    told = evidence_from(evidence_message(found))
    policies = msgspec.structs.replace(core.ValidationPolicy(margin=0.005), **policy)
    return gate(told, policies, direction_of(told), canary=False)


def test_the_measured_auc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    value = (rng.random(2_000) < 0.3).astype(float)
    score = np.round(rng.normal(size=2_000) + value, 1)
    found = comparison.metrics("binary", score, value)[0]
    assert found.value == pytest.approx(roc_auc_score(value, score), abs=1e-12)
    assert 0.005 < found.standard_error < 0.03


def test_a_worse_candidate_is_refused_and_an_equal_one_passes() -> None:
    rng = np.random.default_rng(2)
    value = (rng.random(4_000) < 0.3).astype(float)
    good = value + rng.normal(size=4_000)
    worse = value * 0.3 + rng.normal(size=4_000)
    found = compare(DELAY, worse, good, value, HOLDOUT_SPAN)
    assert isinstance(found, Evidence)
    assert found.production == pytest.approx(roc_auc_score(value, good))
    assert found.candidate == pytest.approx(roc_auc_score(value, worse))
    assert not judged(found).passed
    for new, old in ((good, good), (good, worse), (good, None)):
        same = compare(DELAY, new, old, value, HOLDOUT_SPAN)
        assert isinstance(same, Evidence)
        assert judged(same).passed


def test_a_slice_that_got_worse_is_seen_where_the_whole_is_not() -> None:
    rng = np.random.default_rng(3)
    value = (rng.random(20_000) < 0.3).astype(float)
    good = value + rng.normal(size=20_000)
    carrier = rng.choice(["carrier=UA", "carrier=AA", "carrier=VX"], p=[0.6, 0.37, 0.03], size=20_000)
    new = np.where(carrier == "carrier=VX", -good, good)
    found = compare(DELAY, new, good, value, HOLDOUT_SPAN, carrier)
    assert isinstance(found, Evidence)
    assert [one.slice for one in found.slices] == ["carrier=UA", "carrier=AA", "carrier=VX"]
    said = judged(found, slice_margin=0.05)
    assert "slice:carrier=VX" in {check.name for check in said.checks if not check.passed}


@given(st.integers(0, 2**32 - 1), st.floats(-0.2, 0.2))
def test_the_calibration_error_is_that_of_bins_counted_one_by_one(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    score = rng.random(503)
    value = (rng.random(503) < np.clip(score + shift, 0, 1)).astype(float)
    ranked = sorted(range(503), key=lambda at: (score[at], at))
    sizes = [503 // 10 + (1 if at < 503 % 10 else 0) for at in range(10)]
    total, start = 0.0, 0
    for size in sizes:
        members = ranked[start : start + size]
        total += abs(sum(score[at] for at in members) - sum(value[at] for at in members))
        start += size
    assert comparison.calibration_error(score, value) == pytest.approx(total / 503, abs=1e-9)


def test_too_few_flights_compare_nothing() -> None:
    few = np.array([0.0, 1.0] * 20)
    refused = compare(DELAY, few, few, few, HOLDOUT_SPAN)
    assert isinstance(refused, Validation)
    assert not refused.passed
    assert "40 labelled flights" in refused.explanation


def test_the_real_year_refuses_a_real_candidate(weather_model: Artifact) -> None:
    """In April a weather model retrained on February and March is worse than the one trained on January."""
    model = BY_ID["weather_disruption"]
    april = datetime(2013, 4, 1, tzinfo=UTC)
    candidate = train(model, april, {}).artifact
    found = validate(model, april, {model.model_id: candidate}, {model.model_id: weather_model})
    assert isinstance(found, Evidence)
    assert not judged(found).passed
    assert {"primary", "slice:origin=EWR", "slice:origin=JFK", "slice:origin=LGA", "latency"} <= {
        check.name for check in judged(found, slice_margin=0.5).checks
    }
    assert found.sample_size > 5_000


def test_every_model_names_a_metric_that_its_training_measures() -> None:
    assert {model.metric for model in FLEET} == {"auc", "mae", "reconstruction_r2"}
