"""Schedulers that Runway calls, as the configuration names them; docs/schedulers.md has an example of each.

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
"""As `retraining.scheduler` may say."""
TIMEOUT_S_MAX = 60.0
COMMON = ("kind", "timeout_s")
KEYS = {
    "airflow": ("url", "dag", "username", "secret_variable", "ca_file"),
    "maestro": ("url", "workflow", "version", "user", "secret_variable", "ca_file"),
    "metaflow": ("flow", "python", "home"),
}
"""What each kind takes besides `COMMON`."""
REQUIRED = {"airflow": ("url",), "maestro": ("url",), "metaflow": ("flow",)}


class SchedulerConfigError(Exception):
    """A table that cannot be used; the message says where and what to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """One `[schedulers.<name>]`."""

    name: str
    kind: str
    settings: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 10.0
    secret: str = field(default="", repr=False)


def scheduler_configs(tables: object, where: str, environment: Mapping[str, str]) -> tuple[SchedulerConfig, ...]:
    """All schedulers that are called. Raises SchedulerConfigError."""
    if not isinstance(tables, dict):
        raise SchedulerConfigError(f"{where} must be tables by name, as [{where}.airflow]")
    return tuple(_one(name, table, f"{where}.{name}", environment) for name, table in tables.items())


def _one(name: str, table: object, place: str, environment: Mapping[str, str]) -> SchedulerConfig:
    if not NAME.fullmatch(name):
        raise SchedulerConfigError(f"{place}: names have small letters, digits and underscores")
    if not isinstance(table, dict):
        raise SchedulerConfigError(f"{place} must be a table")
    kind = table.get("kind", "")
    if kind not in KEYS:
        raise SchedulerConfigError(f"{place}: kind={kind!r} is none of {', '.join(sorted(KEYS))}")
    text = _texts(table, (*COMMON, *KEYS[kind]), place)
    for key in REQUIRED[kind]:
        if not text.get(key):
            raise SchedulerConfigError(f"{place} lacks {key}")
    if "url" in text:
        _check_url(text["url"], f"{place}.url")
    for key in ("ca_file", "flow"):
        if text.get(key) and not Path(text[key]).is_file():
            raise SchedulerConfigError(f"{place}.{key}: there is no file {text[key]}")
    variable = text.get("secret_variable", "")
    if variable and not environment.get(variable):
        raise SchedulerConfigError(f"{place}: the environment variable {variable} that holds its secret is not set")
    if text.get("username") and not variable:
        raise SchedulerConfigError(f"{place} has a username but no secret_variable that names its password's variable")
    return SchedulerConfig(
        name=name,
        kind=str(kind),
        settings=text,
        timeout_s=_timeout(table, place),
        secret=environment.get(variable, "") if variable else "",
    )


def _texts(table: Mapping[str, Any], known: tuple[str, ...], place: str) -> dict[str, str]:
    for key, value in table.items():
        if key not in known:
            meant = get_close_matches(key, known, n=1)
            hint = f"did you mean {meant[0]}?" if meant else f"known are {', '.join(sorted(known))}"
            raise SchedulerConfigError(f"{place}.{key} is not a setting; {hint}")
        if not isinstance(value, str) and key != "timeout_s":
            raise SchedulerConfigError(f"{place}.{key} must be text")
    return {key: value for key, value in table.items() if isinstance(value, str) and key != "kind"}


def _check_url(url: str, place: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SchedulerConfigError(f"{place}={url!r}: write http://host:port")
    if parts.username or parts.password:
        raise SchedulerConfigError(f"{place} holds a password: name its variable by secret_variable instead")


def _timeout(table: Mapping[str, Any], place: str) -> float:
    value = table.get("timeout_s", 10.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= TIMEOUT_S_MAX:
        raise SchedulerConfigError(f"{place}.timeout_s must be seconds above 0 and at most {TIMEOUT_S_MAX:g}")
    return float(value)
