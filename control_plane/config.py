"""Configuration: one frozen object, read once from a TOML file and the environment. Unknown keys are refused.

Thresholds and policies are not here: they are data in the log.
"""

import os
import tomllib
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from control_plane.config_systems import (
    MetricsConfig,
    SystemConfig,
    SystemConfigError,
    check_metrics_known,
    metrics_configs,
    scheduler_configs,
    serving_configs,
)
from control_plane.core.alerts.rules import url_fault

ENVIRONMENT_PREFIX = "RUNWAY_"
CONFIG_FILE_VARIABLE = "RUNWAY_CONFIG"
LIKENESS_MIN = 0.8
"""Other programs of Runway read variables with our prefix, so an unknown one is no error, but one that is nearly a
setting is a slip that would be missed for long."""

PORT_MAX = 65_535
MESSAGE_BYTES_MOST = 2**31 - 1
"""gRPC takes this limit as a 32-bit number."""

DRAIN_S_MAX = 3600.0
"""A server that takes longer to stop is killed by whoever waits for it."""

APPROVAL_KEY_CHARS_MIN = 16
"""A shorter one could be tried out."""

ENGINES = ("embedded", "spark")
TABLES = ("serving", "metrics", "schedulers")
"""Settings that are tables by name; see config_systems.py."""

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


class ConfigError(Exception):
    """The configuration cannot be used; the message says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of a control plane. Environment: `RUNWAY_` + the name in capitals."""

    database_url: str = ""
    """libpq URL of Postgres. Required."""
    home: Path = Path(".runway")
    """Folder for facts (predictions, outcomes, histograms)."""
    address: str = "127.0.0.1:7433"
    """host:port to listen on; loopback unless you say otherwise. Port 0 takes a free one."""
    lineage_address: str = "127.0.0.1:7434"
    """host:port to take OpenLineage events on, over HTTP; empty takes none."""
    web_url: str = ""
    """How people reach `lineage_address`: http(s)://host, the beginning of approval links; empty is that address."""
    approval_key: str = ""
    """Signs approval links, 16 characters or more; empty makes none."""
    tables_url: str = ""
    """Where the Delta tables of facts are: a folder, or `s3://bucket/prefix`; empty is a folder in `home`."""
    engine: str = "embedded"
    """Who joins: `embedded` (this process and DuckDB) or `spark` (streaming and batch, over the same tables)."""
    spark_job: str = ""
    """Command that runs `control_plane.offline.spark_job`, when somebody asks for a join; empty if a scheduler does."""
    speed_url: str = ""
    """Where the speed view is shared: `redis://host:port/0`; empty keeps it in this process alone."""
    kafka_brokers: str = ""
    """host:port,host:port to take predictions and outcomes from; empty takes none."""
    kafka_predictions_topic: str = "runway.predictions"
    kafka_outcomes_topic: str = "runway.outcomes"
    inbox: str = ""
    """Folder or `s3://bucket/prefix` that Parquet files of facts are dropped in; empty watches none."""
    clock: str = "wall"
    """`wall`, or `driven`: time moves only by AdvanceClock (demo, backtests)."""
    reflection: bool = True
    """Serve gRPC reflection."""
    message_bytes_max: int = 32 * 1024 * 1024
    """Largest message taken; a bigger batch must be split."""
    snapshot_every: int = 1_000
    """Events between snapshots."""
    drain_s: float = 10.0
    """How long a stopping server waits for calls to end."""
    log_level: str = "info"
    serving: tuple[SystemConfig, ...] = ()
    """What splits traffic: tables [serving.<name>] of the file, or the same as TOML in RUNWAY_SERVING."""
    metrics: tuple[MetricsConfig, ...] = ()
    """Where canaries' numbers come from: tables [metrics.<name>], or RUNWAY_METRICS."""
    schedulers: tuple[SystemConfig, ...] = ()
    """What runs retrains when it is called: tables [schedulers.<name>], or RUNWAY_SCHEDULERS."""

    def masked(self) -> dict[str, str]:
        """All settings as text, the password of the database left out."""
        shown = {f.name: str(getattr(self, f.name)) for f in fields(self)}
        shown["approval_key"] = "***" if self.approval_key else ""
        parts = urlsplit(self.database_url)
        if parts.password:
            host = parts.netloc.rpartition("@")[2]
            shown["database_url"] = urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))
        return shown


def load(environment: dict[str, str] | None = None) -> Config:
    """Read defaults, then the TOML file named by RUNWAY_CONFIG, then RUNWAY_* variables.

    Raises:
        ConfigError: an unknown key, a value that does not fit, or no database.
    """
    environment = dict(os.environ) if environment is None else environment
    config = Config()
    file = environment.get(CONFIG_FILE_VARIABLE)
    if file:
        try:
            table = tomllib.loads(Path(file).read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{CONFIG_FILE_VARIABLE}={file} cannot be read: {error}") from error
        for key, value in table.items():
            if key in TABLES:
                config = _with_tables(config, key, value, f"{file}: {key}", environment)
            else:
                config = _with(config, key, str(value), f"{file}: {key}")
    known = {f.name for f in fields(Config)}
    for variable, value in environment.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if variable.startswith(ENVIRONMENT_PREFIX) and name in TABLES:
            config = _with_tables(config, name, _toml(value, variable), variable, environment)
        elif variable.startswith(ENVIRONMENT_PREFIX) and name in known:
            config = _with(config, name, value, variable)
        elif variable.startswith(ENVIRONMENT_PREFIX) and variable != CONFIG_FILE_VARIABLE:
            meant = get_close_matches(name, known, n=1, cutoff=LIKENESS_MIN)
            if meant:
                raise ConfigError(f"{variable} is not a setting; {ENVIRONMENT_PREFIX}{meant[0].upper()} is one")
    return _checked(config)


def _with(config: Config, name: str, text: str, where: str) -> Config:
    known = {f.name: f for f in fields(Config)}
    if name not in known:
        raise ConfigError(f"{where} is not a setting; known are {', '.join(sorted(known))}")
    before = getattr(config, name)
    value: object
    try:
        if isinstance(before, bool):
            value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        elif isinstance(before, Path):
            value = Path(text)
        else:
            value = type(before)(text)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{where}={text!r} is not a {type(before).__name__}") from error
    return replace(config, **{name: value})  # type: ignore[arg-type]  # checked against the field's own type above


def _toml(text: str, variable: str) -> object:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{variable} is not TOML: {error}") from error


def _with_tables(config: Config, name: str, tables: object, where: str, environment: dict[str, str]) -> Config:
    try:
        if name == "serving":
            return replace(config, serving=serving_configs(tables, where, environment))
        if name == "schedulers":
            return replace(config, schedulers=scheduler_configs(tables, where, environment))
        return replace(config, metrics=metrics_configs(tables, where, environment))
    except SystemConfigError as error:
        raise ConfigError(str(error)) from error


def _checked(config: Config) -> Config:
    try:
        check_metrics_known(config.serving, config.metrics)
    except SystemConfigError as error:
        raise ConfigError(str(error)) from error
    if not config.database_url:
        raise ConfigError(
            "no database: set RUNWAY_DATABASE_URL=postgresql://user@host/name, or run `make up`, which brings one"
        )
    if config.engine not in ENGINES:
        raise ConfigError(f"engine={config.engine!r}: use {' or '.join(ENGINES)}")
    if config.engine == "spark" and not config.kafka_brokers:
        raise ConfigError("engine=spark takes its rows from Kafka: set RUNWAY_KAFKA_BROKERS=host:port too")
    if config.speed_url and urlsplit(config.speed_url).scheme not in {"redis", "rediss"}:
        raise ConfigError(f"speed_url={config.speed_url!r}: write redis://host:port/0, or nothing")
    if config.clock not in {"wall", "driven"}:
        raise ConfigError(f"clock={config.clock!r}: use wall or driven")
    if not _is_address(config.address):
        raise ConfigError(f"address={config.address!r}: write host:port, for example 127.0.0.1:7433")
    if not 1024 <= config.message_bytes_max <= MESSAGE_BYTES_MOST:
        raise ConfigError(f"message_bytes_max must be at least 1024 and at most {MESSAGE_BYTES_MOST}")
    if config.lineage_address and not _is_address(config.lineage_address):
        raise ConfigError(
            f"lineage_address={config.lineage_address!r}: write host:port, for example 127.0.0.1:7434, or nothing"
        )
    _check_links(config)
    if config.snapshot_every < 1:
        raise ConfigError("snapshot_every must be at least 1")
    if not 0 <= config.drain_s <= DRAIN_S_MAX:
        raise ConfigError(f"drain_s must be from 0 to {DRAIN_S_MAX:g} seconds")
    if config.log_level.lower() not in LOG_LEVELS:
        raise ConfigError(f"log_level={config.log_level!r}: use one of {', '.join(LOG_LEVELS)}")
    return config


def _check_links(config: Config) -> None:
    if config.web_url and url_fault(config.web_url):
        raise ConfigError(f"web_url: {url_fault(config.web_url)}")
    if config.approval_key and len(config.approval_key) < APPROVAL_KEY_CHARS_MIN:
        raise ConfigError(
            f"approval_key is too short: use {APPROVAL_KEY_CHARS_MIN} characters or more, as from "
            "`openssl rand -hex 32`"
        )


def _is_address(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    return bool(colon and host) and port.isdecimal() and port.isascii() and len(port) <= 5 and int(port) <= PORT_MAX
