"""Register the fleet and bring its first versions into production. Safe to repeat: what is there already stays.

python -m assets.flights.bootstrap
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from runway_client import Runway, RunwayRpcError, Why, connect, messages
from runway_client.times import to_timestamp

from assets.flights.artifacts import ArtifactError
from assets.flights.data import FlightsError
from assets.flights.features import DATASETS, FEATURES
from assets.flights.fleet import FIRST_DAY, FLEET, OWNERS, FlightModel
from assets.flights.policies import policies
from assets.flights.training import Serving, Trained, TrainingError, described, train

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS = {
    "binary": messages.TASK_TYPE_BINARY,
    "regression": messages.TASK_TYPE_REGRESSION,
    "embedding": messages.TASK_TYPE_EMBEDDING,
}
TIERS = {1: messages.TIER_1, 2: messages.TIER_2, 3: messages.TIER_3, 4: messages.TIER_4}
TRAININGS_AT_ONCE = 2


def register(runway: Runway) -> None:
    """Datasets, features, models and what depends on what."""
    known = {model.model_id for model in runway.registry.list_models()}
    runway.graph.declare_nodes(_nodes())
    for model in FLEET:
        if model.model_id not in known:
            runway.registry.register_model(
                _registered(model), why=Why(request_id=f"flights/register/{model.model_id}", reason="the flights fleet")
            )
    runway.graph.declare_dependencies(_dependencies())


def _nodes() -> list[messages.Node]:
    datasets = [
        messages.Node(node_id=f"dataset:{name}", description=text, team="data", owner="team:data")
        for name, text in DATASETS.items()
    ]
    features = [
        messages.Node(node_id=f"feature:{one.name}", description=one.description, team="data", owner="team:data")
        for one in FEATURES
    ]
    return datasets + features


def _dependencies() -> list[messages.Dependency]:
    derived = [
        messages.Dependency(
            upstream_id=f"dataset:{one.dataset}",
            downstream_id=f"feature:{one.name}",
            type=messages.DEPENDENCY_TYPE_DERIVED_FROM,
        )
        for one in FEATURES
    ]
    read = [
        messages.Dependency(
            upstream_id=f"feature:{name}",
            downstream_id=f"model:{model.model_id}",
            type=messages.DEPENDENCY_TYPE_READS_FEATURE,
        )
        for model in FLEET
        for name in model.features
    ]
    consumed = [
        messages.Dependency(
            upstream_id=f"model:{upstream}",
            downstream_id=f"model:{model.model_id}",
            type=messages.DEPENDENCY_TYPE_EMBEDS
            if upstream == "route_embedding"
            else messages.DEPENDENCY_TYPE_CONSUMES_OUTPUT,
        )
        for model in FLEET
        for upstream in model.upstream
    ]
    return derived + read + consumed


def _registered(model: FlightModel) -> messages.Model:
    return messages.Model(
        model_id=model.model_id,
        owner=OWNERS[model.team],
        team=model.team,
        tier=TIERS[model.tier],
        task_type=TASKS[model.task],
        description=model.description,
        tags={"fleet": "flights", "trainer": "flights"},
        consumers=model.consumers,
        policies=policies(model),
    )


def bring_into_production(runway: Runway) -> int:
    """Train, register and promote a first version of each model that serves nothing yet; how many."""
    serving = Serving(runway)
    artifacts = serving.artifacts(serving.versions)
    numbers = {model_id: version.version for model_id, version in serving.versions.items()}
    made = 0
    with ThreadPoolExecutor(TRAININGS_AT_ONCE) as pool:
        for wave in _waves(set(artifacts)):
            for model, trained in zip(wave, pool.map(lambda one: train(one, FIRST_DAY, artifacts), wave), strict=True):
                artifacts[model.model_id] = trained.artifact
                numbers[model.model_id] = _promote_first(runway, model, trained, numbers)
                made += 1
                print(f"  {model.model_id}: {_measured(trained)}", flush=True)
    return made


def _waves(done: set[str]) -> "Iterator[list[FlightModel]]":
    """Models that serve nothing yet, those first whose upstream is there."""
    done = set(done)
    while waiting := [model for model in FLEET if model.model_id not in done]:
        wave = [model for model in waiting if done.issuperset(model.upstream)]
        yield wave
        done.update(model.model_id for model in wave)


def _promote_first(runway: Runway, model: FlightModel, trained: Trained, numbers: dict[str, int]) -> int:
    what = described(trained, {upstream: numbers[upstream] for upstream in model.upstream})
    version = runway.registry.register_version(
        messages.ModelVersion(
            model_id=model.model_id,
            artifact_uri=what.artifact_uri,
            artifact_sha256=what.artifact_sha256,
            artifact_size_bytes=what.artifact_size_bytes,
            trained_from=to_timestamp(trained.trained_from),
            trained_until=to_timestamp(trained.trained_until),
            metrics=[
                messages.Metric(
                    name=one.name, value=one.value, standard_error=one.standard_error, sample_size=one.sample_size
                )
                for one in what.metrics
            ],
            upstream_versions=what.upstream_versions,
        ),
        reference_profile=what.reference_profile,
        why=Why(request_id=f"flights/first/{model.model_id}/{what.artifact_sha256[:16]}"),
    )
    runway.rollouts.promote_version(
        model.model_id,
        version.version,
        force=True,
        why=Why(request_id=f"flights/promote/{model.model_id}/{version.version}", reason="the first version"),
    )
    return version.version


def _measured(trained: Trained) -> str:
    metric = trained.metrics[0]
    return f"{metric.name} {metric.value:.4f} on {metric.sample_size} held out, {trained.rows} flights"


def main() -> int:
    """Exit code: 0 when the fleet is in production, 1 with a sentence when it cannot be."""
    started = time.monotonic()
    try:
        with connect(actor="flights fleet") as runway:
            if runway.operations.get_status().now.ToDatetime(tzinfo=FIRST_DAY.tzinfo) < FIRST_DAY:
                runway.operations.advance_clock(FIRST_DAY, why=Why(reason="the replay begins here"))
            register(runway)
            made = bring_into_production(runway)
    except (RunwayRpcError, ArtifactError, FlightsError, TrainingError) as error:
        print(f"flights: {error}", file=sys.stderr)
        return 1
    print(f"flights: {len(FLEET)} models in production, {made} of them new, {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
