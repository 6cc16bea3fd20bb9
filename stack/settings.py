"""What a run of the stack is told: command line first, then environment, then defaults."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

DEFAULT_HOME = ".runway"
DEFAULT_ADDRESS = "127.0.0.1:7433"
DEFAULT_WEB_ADDRESS = "127.0.0.1:3070"
DEFAULT_SERVING_ADDRESS = "127.0.0.1:7435"
SECONDS_PER_DAY_DEFAULT = 4.0
"""A month passes in two minutes: the first drift (March) shows within five minutes of `make up`."""


class StackError(Exception):
    """Something stands in the way; the message says what, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Which part of the year is replayed, and how fast."""

    first_day: date | None
    days: int | None
    seconds_per_day: float

    def arguments(self) -> tuple[str, ...]:
        """As the replay's command line takes it."""
        given = ["--seconds-per-day", f"{self.seconds_per_day:g}"]
        if self.first_day is not None:
            given += ["--from", self.first_day.isoformat()]
        if self.days is not None:
            given += ["--days", str(self.days)]
        return tuple(given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run of the stack."""

    home: Path
    """State directory, absolute."""
    address: Address
    """The control plane's gRPC."""
    web_address: Address
    """Dagster's web interface."""
    database_url: str | None
    """A Postgres of the user's; None brings our own."""
    replay: Replay
    serving_address: Address = Address("127.0.0.1", 7435)
    """The fleet's own server, which splits its traffic."""
    people: bool = True
    """Whether the demo's people approve, hurt and break things in place of a viewer who only watches."""
    engine: str = "embedded"
    """Who joins predictions with outcomes: `embedded`, or `spark` with Kafka before it."""


def parse_address(text: str, variable: str) -> Address:
    """`host:port` as a pair.

    Raises:
        StackError: it is not one; names the variable it came from.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise StackError(f"{variable}={text!r} is not an address: write host:port, for example 127.0.0.1:7433.")
    return Address(host.strip("[]"), int(port))


def home_of(environment: Mapping[str, str] = os.environ) -> Path:
    """The state directory this environment names."""
    return Path(environment.get("RUNWAY_HOME") or DEFAULT_HOME).absolute()


def settings_of(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Everything a run is told, checked.

    Raises:
        StackError: a value cannot be used.
    """
    seconds_per_day = float(arguments.seconds_per_day)
    if not 0 < seconds_per_day <= 86_400:
        raise StackError("SECONDS_PER_DAY must be more than 0 and at most 86400.")
    if arguments.days is not None and arguments.days < 1:
        raise StackError("DAYS must be at least 1.")
    if arguments.first_day is not None and arguments.first_day.year != 2013:
        raise StackError("FROM must be a day of 2013, the year the flights are of.")
    return Settings(
        home=home_of(environment),
        address=parse_address(environment.get("RUNWAY_ADDRESS") or DEFAULT_ADDRESS, "RUNWAY_ADDRESS"),
        web_address=parse_address(environment.get("RUNWAY_WEB_ADDRESS") or DEFAULT_WEB_ADDRESS, "RUNWAY_WEB_ADDRESS"),
        database_url=environment.get("RUNWAY_DATABASE_URL") or None,
        replay=Replay(first_day=arguments.first_day, days=arguments.days, seconds_per_day=seconds_per_day),
        serving_address=parse_address(
            environment.get("RUNWAY_SERVING_ADDRESS") or DEFAULT_SERVING_ADDRESS, "RUNWAY_SERVING_ADDRESS"
        ),
        people=getattr(arguments, "people", True),
        engine=getattr(arguments, "engine", "embedded"),
    )
