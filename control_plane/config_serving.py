"""Serving systems and sources of metrics, as the configuration names them; docs/serving.md has an example of each.

Secrets are not written here but named: the configuration says which environment variable holds one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
"""As `rollout.serving` may say."""
TIMEOUT_S_MAX = 60.0
COMMON = ("kind", "timeout_s")
KEYS = {
    "webhook": ("url", "metrics_url", "metrics", "secret_variable"),
    "titus": ("address", "ca_file", "metrics"),
    "gateway": ("url", "namespace", "token_file", "ca_file", "metrics", "route", "version", "control", "rule"),
    "kserve": ("url", "namespace", "token_file", "ca_file", "metrics", "service"),
}
"""What each kind of serving system takes besides `COMMON`."""
REQUIRED = {"webhook": ("url",), "titus": ("address",), "gateway": ("url",), "kserve": ("url",)}
METRICS_KEYS = {
    "webhook": ("url", "secret_variable"),
    "prometheus": ("url", "token_file", "ca_file", "requests", "count", "sum", "sum_squares", "queries"),
}
QUERY_KEYS = ("count", "sum", "sum_squares")


class ServingConfigError(Exception):
    """A table that cannot be used; the message says where and what to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """One `[serving.<name>]`."""

    name: str
    kind: str
    settings: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 10.0
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """One `[metrics.<name>]`; `queries` by metric, "" for all others."""

    name: str
    kind: str
    settings: Mapping[str, str] = field(default_factory=dict)
    queries: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    timeout_s: float = 10.0
    secret: str = field(default="", repr=False)


def serving_configs(tables: object, where: str, environment: Mapping[str, str]) -> tuple[ServingConfig, ...]:
    """All serving systems. Raises ServingConfigError."""
    found = []
    for name, place, table in _named(tables, where):
        kind = _kind(table, KEYS, place)
        text = _texts(table, (*COMMON, *KEYS[kind]), place)
        for key in REQUIRED[kind]:
            if not text.get(key):
                raise ServingConfigError(f"{place} lacks {key}")
        _check_urls(text, place)
        if text.get("metrics") and text.get("metrics_url"):
            raise ServingConfigError(f"{place} has both metrics and metrics_url: one source of metrics is enough")
        found.append(
            ServingConfig(
                name=name,
                kind=kind,
                settings=text,
                timeout_s=_timeout(table, place),
                secret=_secret(text, place, environment),
            )
        )
    return tuple(found)


def metrics_configs(tables: object, where: str, environment: Mapping[str, str]) -> tuple[MetricsConfig, ...]:
    """All sources of metrics. Raises ServingConfigError."""
    found = []
    for name, place, table in _named(tables, where):
        kind = _kind(table, METRICS_KEYS, place)
        own = {key: value for key, value in table.items() if key != "queries"}
        text = _texts(own, (*COMMON, *METRICS_KEYS[kind]), place)
        if not text.get("url"):
            raise ServingConfigError(f"{place} lacks url")
        _check_urls(text, place)
        queries = {}
        for metric, query_place, query in _named(table.get("queries", {}), f"{place}.queries", any_name=True):
            queries[metric] = _complete(_texts(query, QUERY_KEYS, query_place), query_place)
        default = {key: text[key] for key in QUERY_KEYS if key in text}
        if default:
            queries[""] = _complete(default, place)
        if kind == "prometheus" and not queries:
            raise ServingConfigError(
                f"{place} has no queries: write count, sum and sum_squares as PromQL with $metric, $model, $arm and "
                "$range, or one table per metric under queries"
            )
        found.append(
            MetricsConfig(
                name=name,
                kind=kind,
                settings=text,
                queries=queries,
                timeout_s=_timeout(table, place),
                secret=_secret(text, place, environment),
            )
        )
    return tuple(found)


def check_metrics_known(serving: tuple[ServingConfig, ...], metrics: tuple[MetricsConfig, ...]) -> None:
    """Raise ServingConfigError where a system names a source of metrics that is not there."""
    known = {source.name for source in metrics}
    for system in serving:
        named = system.settings.get("metrics", "")
        if named and named not in known:
            have = f"there are {', '.join(sorted(known))}" if known else "there is none"
            raise ServingConfigError(f"serving.{system.name}: metrics={named!r} names no [metrics.{named}]; {have}")


def _named(tables: object, where: str, *, any_name: bool = False) -> list[tuple[str, str, dict[str, Any]]]:
    if not isinstance(tables, dict):
        raise ServingConfigError(f"{where} must be tables by name, as [{where}.demo]")
    found = []
    for name, table in tables.items():
        if not any_name and not NAME.fullmatch(name):
            raise ServingConfigError(f"{where}.{name}: names have small letters, digits and underscores")
        if not isinstance(table, dict):
            raise ServingConfigError(f"{where}.{name} must be a table")
        found.append((name, f"{where}.{name}", table))
    return found


def _kind(table: Mapping[str, Any], kinds: Mapping[str, object], place: str) -> str:
    kind = table.get("kind", "")
    if kind not in kinds:
        raise ServingConfigError(f"{place}: kind={kind!r} is none of {', '.join(sorted(kinds))}")
    return str(kind)


def _texts(table: Mapping[str, Any], known: tuple[str, ...], place: str) -> dict[str, str]:
    for key, value in table.items():
        if key not in known:
            meant = get_close_matches(key, known, n=1)
            hint = f"did you mean {meant[0]}?" if meant else f"known are {', '.join(sorted(known))}"
            raise ServingConfigError(f"{place}.{key} is not a setting; {hint}")
        if not isinstance(value, str) and key != "timeout_s":
            raise ServingConfigError(f"{place}.{key} must be text")
    for key in ("token_file", "ca_file"):
        if table.get(key) and not Path(table[key]).is_file():
            raise ServingConfigError(f"{place}.{key}: there is no file {table[key]}")
    return {key: value for key, value in table.items() if isinstance(value, str) and key != "kind"}


def _check_urls(text: Mapping[str, str], place: str) -> None:
    for key in ("url", "metrics_url"):
        if key in text:
            parts = urlsplit(text[key])
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ServingConfigError(f"{place}.{key}={text[key]!r}: write http://host:port/path")
            if parts.username or parts.password:
                raise ServingConfigError(
                    f"{place}.{key} holds a password: name its variable by secret_variable instead"
                )


def _timeout(table: Mapping[str, Any], place: str) -> float:
    value = table.get("timeout_s", 10.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= TIMEOUT_S_MAX:
        raise ServingConfigError(f"{place}.timeout_s must be seconds above 0 and at most {TIMEOUT_S_MAX:g}")
    return float(value)


def _secret(text: Mapping[str, str], place: str, environment: Mapping[str, str]) -> str:
    variable = text.get("secret_variable", "")
    if variable and not environment.get(variable):
        raise ServingConfigError(f"{place}: the environment variable {variable} that holds its secret is not set")
    return environment.get(variable, "") if variable else ""


def _complete(query: dict[str, str], place: str) -> dict[str, str]:
    if not query.get("count") or not query.get("sum"):
        raise ServingConfigError(
            f"{place} needs count and sum, and sum_squares unless the metric is of zeros and ones alone"
        )
    return query
