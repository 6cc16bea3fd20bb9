"""Where alerts are told."""

from control_plane.core.alerts.types import Destination, Silence
from control_plane.core.events.base import EventBase


class DestinationSet(EventBase, frozen=True, kw_only=True):
    """Alerts and lifecycle events go there from now on."""

    destination: Destination


class DestinationRemoved(EventBase, frozen=True, kw_only=True):
    """They do no more."""

    name: str


class AlertSilenced(EventBase, frozen=True, kw_only=True):
    """Nobody is told about an alert for some time."""

    silence: Silence
