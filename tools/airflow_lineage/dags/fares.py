"""A small pipeline as somebody would write it, and the ways in which Airflow learns what a task reads and writes.

clean     inlets and outlets that are Airflow assets
features  assets that the task itself names while it runs (hook lineage)
train     OpenLineage datasets as inlets and outlets: one is a model by its type facet
score     reads the model by the id that Runway knows it by
broken    fails, although it lists outputs
"""

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
from airflow.sdk import Asset, dag, task
from openlineage.client.event_v2 import Dataset
from openlineage.client.facet_v2 import dataset_type_dataset, dataset_version_dataset

RAW = Asset("file:///data/fares/raw.csv")
CLEAN = Asset("file:///data/fares/clean.parquet")
FEATURES = "file:///data/fares/features.parquet"


def model(name: str, version: str) -> Dataset:
    """A model in the words of OpenLineage."""
    facets = {
        "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(datasetType="MODEL"),
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=version),
    }
    return Dataset(namespace="mlflow://models", name=name, facets=facets)


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False)
def fares() -> None:
    """From raw fares to scores."""

    @task(inlets=[RAW], outlets=[CLEAN])
    def clean() -> None:
        print("cleaned")

    @task
    def features(**context: Any) -> None:
        collector = get_hook_lineage_collector()
        collector.add_input_asset(context["ti"], uri=CLEAN.uri)
        collector.add_output_asset(context["ti"], uri=FEATURES)

    @task(
        inlets=[
            Dataset(namespace="file", name="/data/fares/features.parquet"),
            Dataset(namespace="runway", name="weather"),
        ],
        outlets=[model("fare", "7")],
    )
    def train() -> None:
        print("trained")

    @task(
        inlets=[model("fare", "7"), Dataset(namespace="runway", name="model:air_time")],
        outlets=[Dataset(namespace="postgres://db:5432", name="shop.public.scores")],
    )
    def score() -> None:
        print("scored")

    @task(inlets=[model("fare", "7")], outlets=[Dataset(namespace="postgres://db:5432", name="shop.public.never")])
    def broken() -> None:
        raise ValueError("on purpose")

    clean() >> features() >> train() >> score() >> broken()


fares()
