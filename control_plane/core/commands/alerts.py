"""Where alerts are told, and which are not."""

from control_plane.core.alerts.types import Destination, Silence
from control_plane.core.commands.base import CommandBase


class SetDestination(CommandBase, frozen=True, kw_only=True):
    """Send alerts and lifecycle events there."""

    destination: Destination


class RemoveDestination(CommandBase, frozen=True, kw_only=True):
    """Send nothing there any more."""

    name: str


class SilenceAlert(CommandBase, frozen=True, kw_only=True):
    """Tell nobody about an alert for some time."""

    silence: Silence
