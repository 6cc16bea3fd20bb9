"""Shows versions that came into production without a run here: the first ones, promotions by hand, rollbacks.

What is in production is fetched when the watch of this process has heard that an alias moved.

A retrain materializes its model itself. Everything else that moves `production` would leave the asset as it was, or
never materialized at all; this sensor reports a runless materialization for it. While a run of the model lives nothing
is reported, because that run may be about to say it itself.
"""

import dagster as dg
import msgspec
from runway_client import RunwayRpcError

from assets.fleet import Fleet
from assets.following import News, Topic
from assets.model_assets import materialization_of
from assets.plane import Connect, ControlPlane
from assets.sensors.lease import live_runs
from assets.tags import MODEL_TAG

EVERY_S = 4
VERSIONS_PER_TICK_MAX = 50
"""One small read and about 10 ms of writing each: below two seconds."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The cursor."""

    versions: dict[str, int] = {}
    """Model -> version last shown."""
    revision: int = -1
    """The newest change of aliases that was looked at."""
    more: bool = False
    """The last look left something for later: runs that live, or more than one tick shows."""


def production_sensor(fleet: Fleet, connect: Connect, news: News) -> dg.SensorDefinition:
    """The sensor; `fleet` is what this code location has loaded."""
    known_models = {model.model_id for model in fleet.models}

    @dg.sensor(
        name="show_production",
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Shows versions that came into production without a run here.",
    )
    def show_production(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        shown = read_cursor(context.cursor)
        changed = news.changed(Topic.PRODUCTION, shown.revision)
        if changed is None and not shown.more:
            return dg.SensorResult(skip_reason="Nothing moved.")
        versions = {model_id: version for model_id, version in shown.versions.items() if model_id in known_models}
        plane = connect()
        try:
            productions = plane.productions()
            # Read after what is in production: a run that promoted it and is over by now has materialized it by now.
            busy = {run.tags.get(MODEL_TAG) for run in live_runs(context.instance)}
            moved = [
                model_id
                for model_id, version in sorted(productions.items())
                if model_id in known_models and versions.get(model_id) != version
            ]
            now = [model_id for model_id in moved if model_id not in busy][:VERSIONS_PER_TICK_MAX]
            for model_id in now:
                show(context.instance, plane, model_id, productions[model_id])
                versions[model_id] = productions[model_id]
        except RunwayRpcError as error:
            return dg.SensorResult(skip_reason=error.message)
        finally:
            plane.close()
        after = Shown(
            versions=dict(sorted(versions.items())),
            revision=shown.revision if changed is None else changed,
            more=len(now) < len(moved),
        )
        names = ", ".join(f"{name} version {versions[name]}" for name in now)
        return dg.SensorResult(
            skip_reason=f"In production: {names}." if names else "Nothing moved.",
            cursor=msgspec.json.encode(after).decode(),
        )

    return show_production


def show(instance: dg.DagsterInstance, plane: ControlPlane, model_id: str, version: int) -> None:
    """Materialize a version unless the newest materialization is of it."""
    newest = instance.get_latest_materialization_event(dg.AssetKey([model_id]))
    made = newest.asset_materialization if newest is not None else None
    if made is not None and "version" in made.metadata and made.metadata["version"].value == version:
        return
    instance.report_runless_asset_event(materialization_of(model_id, version, plane.version(model_id, version)))


def read_cursor(text: str | None) -> Shown:
    """The cursor; a blank one for none, or one of another age."""
    try:
        return msgspec.json.decode(text or "{}", type=Shown)
    except msgspec.DecodeError:
        return Shown()
