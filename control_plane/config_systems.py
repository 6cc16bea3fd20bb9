"""Systems that Runway calls, as the configuration names them: what splits traffic (`serving`), where canaries' numbers
come from (`metrics`), what runs retrains when it is called (`schedulers`). docs/serving.md and docs/schedulers.md have
an example of each.

Secrets are not written here but named: the configuration says which environment variable holds one.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
"""As `rollout.serving` and `retraining.scheduler` may say."""
TIMEOUT_S = 10.0
TIMEOUT_S_MAX = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of system: what must be said of it, and what may be, besides `kind` and `timeout_s`."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


SERVING = {
    "webhook": Kind(required=("url",), optional=("metrics_url", "metrics", "secret_variable")),
    "titus": Kind(required=("address",), optional=("ca_file", "metrics")),
    "gateway": Kind(
        required=("url",),
        optional=("namespace", "token_file", "ca_file", "metrics", "route", "version", "control", "rule"),
    ),
    "kserve": Kind(required=("url",), optional=("namespace", "token_file", "ca_file", "metrics", "service")),
}
METRICS = {
    "webhook": Kind(required=("url",), optional=("secret_variable",)),
    "prometheus": Kind(
        required=("url",), optional=("token_file", "ca_file", "requests", "count", "sum", "sum_squares")
    ),
}
SCHEDULERS = {
    "airflow": Kind(required=("url",), optional=("dag", "username", "secret_variable", "ca_file")),
    "maestro": Kind(required=("url",), optional=("workflow", "version", "user", "secret_variable", "ca_file")),
    "metaflow": Kind(required=("flow",), optional=("python", "home")),
}
URLS = ("url", "metrics_url")
FILES = ("token_file", "ca_file", "flow")
QUERY = Kind(required=("count", "sum"), optional=("sum_squares",))


class SystemConfigError(Exception):
    """A table that cannot be used; the message says where and what to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemConfig:
    """One table `[<what>.<name>]`."""

    name: str
    kind: str
    settings: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = TIMEOUT_S
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig(SystemConfig):
    """One `[metrics.<name>]`; `queries` by metric, "" for all others."""

    queries: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def serving_configs(tables: object, where: str, environment: Mapping[str, str]) -> tuple[SystemConfig, ...]:
    """All serving systems. Raises SystemConfigError."""
    found = []
    for name, place, table in _named(tables, where):
        config = _system(name, table, SERVING, place, environment)
        if config.settings.get("metrics") and config.settings.get("metrics_url"):
            raise SystemConfigError(f"{place} has both metrics and metrics_url: one source of metrics is enough")
        found.append(config)
    return tuple(found)


def metrics_configs(tables: object, where: str, environment: Mapping[str, str]) -> tuple[MetricsConfig, ...]:
    """All sources of metrics. Raises SystemConfigError."""
    found = []
    for name, place, table in _named(tables, where):
        own = {key: value for key, value in table.items() if key != "queries"}
        config = _system(name, own, METRICS, place, environment)
        queries = _queries(table, config.settings, place)
        if config.kind == "prometheus" and not queries:
            raise SystemConfigError(
                f"{place} has no queries: write count, sum and sum_squares as PromQL with $metric, $model, $arm and "
                "$range, or one table per metric under queries"
            )
        common = {f.name: getattr(config, f.name) for f in fields(config)}
        found.append(MetricsConfig(**common, queries=queries))
    return tuple(found)


def scheduler_configs(tables: object, where: str, environment: Mapping[str, str]) -> tuple[SystemConfig, ...]:
    """All schedulers that are called. Raises SystemConfigError."""
    found = []
    for name, place, table in _named(tables, where):
        config = _system(name, table, SCHEDULERS, place, environment)
        if config.settings.get("username") and not config.secret:
            raise SystemConfigError(f"{place} has a username but no secret_variable that names its password's variable")
        found.append(config)
    return tuple(found)


def check_metrics_known(serving: tuple[SystemConfig, ...], metrics: tuple[MetricsConfig, ...]) -> None:
    """Raise SystemConfigError where a serving system names a source of metrics that is not there."""
    known = {source.name for source in metrics}
    for system in serving:
        named = system.settings.get("metrics", "")
        if named and named not in known:
            have = f"there are {', '.join(sorted(known))}" if known else "there is none"
            raise SystemConfigError(f"serving.{system.name}: metrics={named!r} names no [metrics.{named}]; {have}")


def _named(tables: object, where: str, *, any_name: bool = False) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, place and content of each table."""
    if not isinstance(tables, dict):
        raise SystemConfigError(f"{where} must be tables by name, as [{where}.demo]")
    for name, table in tables.items():
        if not any_name and not NAME.fullmatch(name):
            raise SystemConfigError(f"{where}.{name}: names have small letters, digits and underscores")
        if not isinstance(table, dict):
            raise SystemConfigError(f"{where}.{name} must be a table")
        yield name, f"{where}.{name}", table


def _system(
    name: str, table: Mapping[str, Any], kinds: Mapping[str, Kind], place: str, environment: Mapping[str, str]
) -> SystemConfig:
    named = table.get("kind", "")
    if not isinstance(named, str) or named not in kinds:
        raise SystemConfigError(f"{place}: kind={named!r} is none of {', '.join(sorted(kinds))}")
    own = {key: value for key, value in table.items() if key not in {"kind", "timeout_s"}}
    settings = _texts(own, kinds[named], place, more=("kind", "timeout_s"))
    for key in URLS:
        if settings.get(key):
            _check_url(settings[key], f"{place}.{key}")
    for key in FILES:
        if settings.get(key) and not Path(settings[key]).is_file():
            raise SystemConfigError(f"{place}.{key}: there is no file {settings[key]}")
    return SystemConfig(
        name=name,
        kind=named,
        settings=settings,
        timeout_s=_timeout(table, place),
        secret=_secret(settings, place, environment),
    )


def _texts(table: Mapping[str, Any], kind: Kind, place: str, more: tuple[str, ...] = ()) -> dict[str, str]:
    """All settings of a table; `more` are known too, and read elsewhere."""
    known = (*more, *kind.required, *kind.optional)
    for key, value in table.items():
        if key not in known:
            meant = get_close_matches(key, known, n=1)
            hint = f"did you mean {meant[0]}?" if meant else f"known are {', '.join(sorted(known))}"
            raise SystemConfigError(f"{place}.{key} is not a setting; {hint}")
        if not isinstance(value, str):
            raise SystemConfigError(f"{place}.{key} must be text")
    for key in kind.required:
        if not table.get(key):
            raise SystemConfigError(f"{place} lacks {key}")
    return dict(table)


def _queries(table: Mapping[str, Any], settings: Mapping[str, str], place: str) -> dict[str, dict[str, str]]:
    of_all = {key: settings[key] for key in (*QUERY.required, *QUERY.optional) if key in settings}
    asked = [*_named(table.get("queries", {}), f"{place}.queries", any_name=True)]
    if of_all:
        asked.append(("", place, of_all))
    return {metric: _query(query, query_place) for metric, query_place, query in asked}


def _query(query: Mapping[str, Any], place: str) -> dict[str, str]:
    if not query.get("count") or not query.get("sum"):
        raise SystemConfigError(
            f"{place} needs count and sum, and sum_squares unless the metric is of zeros and ones alone"
        )
    return _texts(query, QUERY, place)


def _check_url(url: str, place: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SystemConfigError(f"{place}={url!r}: write http://host:port/path")
    if parts.username or parts.password:
        raise SystemConfigError(f"{place} holds a password: name its variable by secret_variable instead")


def _timeout(table: Mapping[str, Any], place: str) -> float:
    value = table.get("timeout_s", TIMEOUT_S)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= TIMEOUT_S_MAX:
        raise SystemConfigError(f"{place}.timeout_s must be seconds above 0 and at most {TIMEOUT_S_MAX:g}")
    return float(value)


def _secret(settings: Mapping[str, str], place: str, environment: Mapping[str, str]) -> str:
    variable = settings.get("secret_variable", "")
    if variable and not environment.get(variable):
        raise SystemConfigError(f"{place}: the environment variable {variable} that holds its secret is not set")
    return environment.get(variable, "") if variable else ""
