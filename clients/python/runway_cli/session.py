"""What all commands of one invocation share: the connection, the clock, and where output goes."""

import getpass
import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from runway_client import Runway

    from runway_cli.page import Page

RETRY_FOR_S = 2.0
"""A person waits; long enough for a change of leader, short enough to say soon that nobody is there."""

Command = TypeVar("Command", bound=Callable[..., Any])


class Session:
    """One invocation. Everything is made on first use, so that `--help` makes nothing."""

    def __init__(self, *, address: str | None, actor: str | None, as_json: bool) -> None:
        self._address = address
        self._actor = actor
        self.as_json = as_json

    @cached_property
    def runway(self) -> "Runway":
        """The control plane."""
        client = importlib.import_module("runway_client")
        actor = self._actor or os.environ.get("RUNWAY_ACTOR") or _login()
        return cast("Runway", client.connect(self._address, actor, retry_for_s=RETRY_FOR_S))

    @cached_property
    def now(self) -> datetime:
        """The control plane's clock, against which ages are told; in a demo it is not the clock on the wall."""
        client = importlib.import_module("runway_client")
        return cast("datetime", client.from_timestamp(self.runway.operations.get_status().now))

    @cached_property
    def page(self) -> "Page":
        """Standard output for people."""
        module = importlib.import_module("runway_cli.page")
        return cast("Page", module.Page.of(sys.stdout))

    def emit(self, message: "Message") -> None:
        """Write a message of the contract as JSON: the contract's field names, defaults included, int64 as strings."""
        json_format = importlib.import_module("google.protobuf.json_format")
        click.echo(
            json_format.MessageToJson(
                message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=2
            )
        )

    def emit_named(self, parts: "Mapping[str, Message | Sequence[Message]]") -> None:
        """Several messages of the contract as one JSON object, by name; each as `emit` writes it."""
        json_format = importlib.import_module("google.protobuf.json_format")

        def plain(message: "Message") -> object:
            return json_format.MessageToDict(
                message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )

        told = {
            name: [plain(one) for one in part] if isinstance(part, Sequence) else plain(part)
            for name, part in parts.items()
        }
        click.echo(json.dumps(told, indent=2))

    def emit_line(self, message: "Message") -> None:
        """The same on one line, for streams; written at once."""
        json_format = importlib.import_module("google.protobuf.json_format")
        text = json_format.MessageToJson(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
        )
        click.echo(text)
        sys.stdout.flush()

    def close(self) -> None:
        """Hang up, if anything was asked."""
        if "runway" in self.__dict__:
            self.runway.close()


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _turn_on_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    if value:
        ctx.ensure_object(Session).as_json = True
    return value


def json_option(command: Command) -> Command:
    """`--json` on a command."""
    option = click.option(
        "--json", is_flag=True, expose_value=False, callback=_turn_on_json, help="The answer as JSON, for scripts."
    )
    return option(command)


def change_options(command: Command) -> Command:
    """What every change takes: why, and whether only to check."""
    reason = click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit log.")
    dry = click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
    return reason(dry(command))
