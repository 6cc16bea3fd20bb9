"""Schedulers as they are configured, by name."""

from collections.abc import Iterable

from control_plane.adapters.schedulers.airflow import DAG, AirflowScheduler
from control_plane.adapters.schedulers.maestro import WORKFLOW, MaestroScheduler
from control_plane.adapters.schedulers.metaflow import MetaflowScheduler
from control_plane.app.schedulers import Scheduler
from control_plane.config_systems import SystemConfig


def schedulers_of(configs: Iterable[SystemConfig]) -> dict[str, Scheduler]:
    """All schedulers that are called."""
    return {config.name: scheduler_of(config) for config in configs}


def scheduler_of(config: SystemConfig) -> Scheduler:
    """One of them."""
    get = config.settings.get
    match config.kind:
        case "airflow":
            return AirflowScheduler(
                config.settings["url"],
                config.name,
                dag=get("dag", DAG),
                username=get("username", ""),
                secret=config.secret,
                ca_file=get("ca_file", ""),
                timeout_s=config.timeout_s,
            )
        case "maestro":
            return MaestroScheduler(
                config.settings["url"],
                config.name,
                workflow=get("workflow", WORKFLOW),
                version=get("version", "active"),
                user=get("user", "runway"),
                secret=config.secret,
                ca_file=get("ca_file", ""),
                timeout_s=config.timeout_s,
            )
        case "metaflow":
            return MetaflowScheduler(
                config.settings["flow"],
                config.name,
                python=get("python", ""),
                home=get("home", ""),
                timeout_s=config.timeout_s,
            )
        case kind:
            raise ValueError(f"no scheduler of kind {kind!r}")
