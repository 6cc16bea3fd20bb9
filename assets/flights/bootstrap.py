"""Register the fleet and bring its first versions into production. Safe to repeat: what is there already stays.

python -m assets.flights.bootstrap
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from runway_client import Runway, RunwayRpcError, Why, connect, messages
from runway_client.fleet_files import read_fleet
from runway_client.times import to_timestamp

from assets.flights.artifacts import ArtifactError
from assets.flights.data import FlightsError
from assets.flights.features import CACHE_NAME, sources_of_features
from assets.flights.fleet import BY_ID, FIRST_DAY, FLEET, FlightModel
from assets.flights.training import Serving, Trained, TrainingError, described, train
from assets.grpc_messages import training_lineage
from assets.tags import TRAINER_SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = Path(__file__).with_name("fleet")
"""What people declare of the fleet; see docs/fleet.md."""

TRAININGS_AT_ONCE = 2


class FleetFilesError(Exception):
    """The files of the fleet cannot be applied as they are."""


def declared() -> messages.Manifest:
    """What the files say.

    Raises:
        FleetFilesError: with all that is wrong in them.
    """
    found = read_fleet(FILES)
    if found.problems:
        raise FleetFilesError("; ".join(map(str, found.problems)))
    return found.manifest


def register(runway: Runway) -> None:
    """Apply the files of the fleet, unless all its models are there: what was changed since stays."""
    known = {model.model_id for model in runway.registry.list_models()}
    if not known.issuperset(BY_ID):
        runway.fleet.apply(declared(), why=Why(reason="the flights fleet"))


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
        embeddings=what.embeddings,
        why=Why(request_id=f"flights/first/{model.model_id}/{what.artifact_sha256[:16]}"),
    )
    runway.rollouts.promote_version(
        model.model_id,
        version.version,
        force=True,
        why=Why(request_id=f"flights/promote/{model.model_id}/{version.version}", reason="the first version"),
    )
    runway.lineage.report_lineage(
        [training_lineage(model.model_id, version.version, what.reads, f"first-{what.artifact_sha256[:16]}")]
    )
    return version.version


def report_features(runway: Runway) -> None:
    """Tell which datasets the features were really made from: one job for each set of datasets."""
    made: dict[tuple[str, ...], list[str]] = {}
    for name, datasets in sources_of_features().items():
        made.setdefault(datasets, []).append(f"feature:{name}")
    runway.lineage.report_lineage(
        [
            messages.LineageRun(
                source=TRAINER_SOURCE,
                job=f"features_of_{'_'.join(one.partition(':')[2] for one in datasets)}",
                run_id=CACHE_NAME,
                state=messages.RUN_STATE_COMPLETE,
                inputs=[messages.LineageNode(node_id=one) for one in datasets],
                outputs=[messages.LineageNode(node_id=one) for one in sorted(features)],
            )
            for datasets, features in sorted(made.items())
        ]
    )


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
            report_features(runway)
    except (RunwayRpcError, ArtifactError, FlightsError, FleetFilesError, TrainingError) as error:
        print(f"flights: {error}", file=sys.stderr)
        return 1
    print(f"flights: {len(FLEET)} models in production, {made} of them new, {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
