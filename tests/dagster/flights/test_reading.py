"""What trainings and features really read, against what the files declare: they may differ, and today they do not."""

import pyarrow as pa
import pytest

from assets.flights import training
from assets.flights.artifacts import Artifact
from assets.flights.bootstrap import declared
from assets.flights.data import Instants
from assets.flights.features import FEATURES, compute, sources_of_features
from assets.flights.fleet import BY_ID, FIRST_DAY, FlightModel
from assets.flights.labels import outcomes
from assets.flights.reading import note, read_by, recording
from assets.flights.training import described, train
from assets.plane import Read

MANIFEST = declared()


def upstream(node_id: str) -> set[str]:
    return {edge.upstream_id for edge in MANIFEST.dependencies if edge.downstream_id == node_id}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, year_features: pa.Table) -> None:
    monkeypatch.setattr(training, "ROWS_MAX", 2_000)


def test_a_training_reads_what_is_declared_and_says_which_version() -> None:
    made: dict[str, Artifact] = {}
    for model_id in ("route_embedding", "air_time"):
        trained = train(BY_ID[model_id], FIRST_DAY, made)
        made[model_id] = trained.artifact
        assert set(trained.reads) == upstream(f"model:{model_id}")
    reads = described(trained, {"route_embedding": 7}).reads
    assert Read(node_id="model:route_embedding", version="v7") in reads
    assert Read(node_id="feature:temp") in reads


def test_a_read_that_nobody_declared_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    def peeking(model: FlightModel, rows: training.Rows) -> tuple[training.Floats, Instants]:
        note("dataset:planes", model.model_id)
        return outcomes(model, rows)

    monkeypatch.setattr(training, "outcomes", peeking)
    trained = train(BY_ID["weather_disruption"], FIRST_DAY, {})
    assert set(trained.reads) - upstream("model:weather_disruption") == {"dataset:planes"}


def test_features_are_made_from_the_datasets_that_are_declared(year: pa.Table) -> None:
    made = sources_of_features()
    assert made == {feature.name: (f"dataset:{feature.dataset}",) for feature in FEATURES}
    assert compute(year.slice(0, 50)).schema.metadata


def test_recordings_are_apart() -> None:
    with recording() as outer:
        note("dataset:weather")
        with recording() as inner:
            note("dataset:planes")
        note("dataset:airports")
    note("dataset:schedule")
    assert read_by(outer, "") == ("dataset:airports", "dataset:weather")
    assert read_by(inner, "") == ("dataset:planes",)
