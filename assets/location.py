"""Makes Dagster's code location: the fleet as assets, and the sensors that keep it moving.

Dagster loads `assets.definitions`: the code server for everything, the worker of a run for the models of that run and
nothing else (the launcher names them in RUNWAY_ONLY_MODELS, which makes a run start in two seconds instead of ten on a
large fleet).
"""

import sys
from collections.abc import Callable, Mapping, Sequence

import dagster as dg
from runway_client import RunwayRpcError

from assets.fleet import Fleet, keep_last_good, last_good_path, read_last_good
from assets.flights.checks import CHECKS
from assets.following import Following, News
from assets.ground_truth import GROUND_TRUTH, Span, ground_truth_assets, span_of
from assets.grpc_plane import GrpcPlane
from assets.model_assets import Trainers, external_assets, model_assets, model_checks
from assets.plane import Connect, ControlPlane
from assets.sensors import (
    backfill_sensor,
    cancel_sensor,
    check_sensor,
    follow_clock_sensor,
    ground_truth_schedules,
    lease_sensor,
    production_sensor,
    reload_in_background,
    reload_sensor,
    run_status_sensor,
    staleness_sensor,
    wall_clock,
)
from assets.sensors.lease import LINGER_S
from assets.tags import only_models
from assets.trainer import TRAINERS

SENSOR_RETRY_FOR_S = 0.0
"""A sensor that finds the control plane away says so and looks again at its next tick."""

LOAD_RETRY_FOR_S = 5.0
"""A code location waits this long for a control plane that is starting, then shows the last good copy."""


def load_fleet(connect: Connect) -> Fleet:
    """The fleet now; while the control plane is away, as it was."""
    path = last_good_path()
    try:
        plane = connect()
        try:
            fleet = plane.fleet()
        finally:
            plane.close()
    except RunwayRpcError as error:
        kept = read_last_good(path)
        print(
            f"{error.message}; "
            + ("the fleet is shown as it was" if kept else "there is no earlier copy, so the fleet is empty"),
            file=sys.stderr,
        )
        return kept or Fleet()
    keep_last_good(fleet, path)
    return fleet


def load_for_worker(model_ids: tuple[str, ...], connect: Connect) -> Fleet:
    """Only the models of a run: from the last good copy, which the code server wrote when it loaded them."""
    model_ids = tuple(model_id for model_id in model_ids if model_id not in GROUND_TRUTH)
    if not model_ids:
        return Fleet()
    kept = read_last_good(last_good_path())
    if kept is not None and set(model_ids) <= {model.model_id for model in kept.models}:
        return kept.only(model_ids)
    return load_fleet(connect).only(model_ids)


def build_definitions(
    fleet: Fleet,
    connect: Connect,
    trainers: Trainers = TRAINERS,
    *,
    connect_sensors: Connect | None = None,
    news: News | None = None,
    clock: Callable[[], float] = wall_clock,
    linger_s: float = LINGER_S,
    span: Span | None = None,
    checks: Sequence[dg.AssetChecksDefinition] = CHECKS,
) -> dg.Definitions:
    """Everything the UI shows. Sensors hear from `news` what changed; by default from a watch of this process.

    `checks` are asset checks that candidates are asked for (assets/candidates.py).
    """
    look = connect_sensors or connect
    news = news or Following(look, fleet.revision)
    span = span or span_of()
    taken = GROUND_TRUTH & {model.model_id for model in fleet.models}
    if taken:
        print(f"a model is called {min(taken)}: joins are not shown as assets beside it", file=sys.stderr)
    joins = [] if taken else ground_truth_assets(connect, span)
    return dg.Definitions(
        assets=[
            *external_assets(fleet),
            *model_assets(fleet, connect, trainers),
            *joins,
        ],
        asset_checks=[*model_checks(fleet, look), *(of_candidates := checks_of(fleet, checks))],
        sensors=[
            lease_sensor(fleet, look, linger_s=linger_s),
            run_status_sensor(look),
            cancel_sensor(look),
            *([check_sensor([key for one in of_candidates for key in one.check_keys], look)] if of_candidates else []),
            staleness_sensor(fleet, look, news, clock),
            production_sensor(fleet, look, news),
            *([follow_clock_sensor(look, span, clock), backfill_sensor(look)] if joins else []),
            reload_sensor(fleet, look, news, reload_in_background, clock),
        ],
        schedules=ground_truth_schedules(look, span) if joins else [],
        # One op, one process: a process per step would cost each run another second and a half.
        executor=dg.in_process_executor,
    )


def build_worker_definitions(
    fleet: Fleet,
    connect: Connect,
    trainers: Trainers = TRAINERS,
    *,
    span: Span | None = None,
    checks: Sequence[dg.AssetChecksDefinition] = CHECKS,
) -> dg.Definitions:
    """What a worker needs to run the models in `fleet`, or joins."""
    return dg.Definitions(
        assets=model_assets(fleet, connect, trainers) or ground_truth_assets(connect, span or span_of()),
        asset_checks=[*model_checks(fleet, connect), *checks_of(fleet, checks)],
        executor=dg.in_process_executor,
    )


def checks_of(fleet: Fleet, checks: Sequence[dg.AssetChecksDefinition]) -> list[dg.AssetChecksDefinition]:
    """The checks of candidates whose models are in this fleet."""
    keys = {dg.AssetKey([model.model_id]) for model in fleet.models}
    return [one for one in checks if all(key.asset_key in keys for key in one.check_keys)]


def connected(retry_for_s: float | None = None) -> Connect:
    """How to reach the control plane of this environment."""

    def connect() -> ControlPlane:
        return GrpcPlane() if retry_for_s is None else GrpcPlane(retry_for_s=retry_for_s)

    return connect


def definitions_of(environment: Mapping[str, str]) -> dg.Definitions:
    """The definitions of this process, whichever it is."""
    wanted = only_models(environment)
    if wanted is not None:
        connect = connected()
        return build_worker_definitions(load_for_worker(wanted, connect), connect)
    fleet = load_fleet(connected(LOAD_RETRY_FOR_S))
    return build_definitions(fleet, connected(), connect_sensors=connected(SENSOR_RETRY_FOR_S))
