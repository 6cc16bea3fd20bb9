"""Tries a destination out: a message that says it is a test, now, and what came back."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from control_plane.app.delivery import Channel, Told, Undelivered
from control_plane.core.alerts.types import Alert, Destination, DestinationKind, Severity


class TestSender(Protocol):
    """How a test is sent to a webhook; see adapters/alerts/webhook.py."""

    async def test(self, destination: Destination, secret: str, wall: datetime) -> str:
        """What came back, in words. Raises Undelivered."""
        ...


class Trial:
    """What it takes to try a destination out."""

    def __init__(
        self, sender: TestSender, channels: Mapping[DestinationKind, Channel], secret: Callable[[str], str]
    ) -> None:
        self._sender = sender
        self._channels = channels
        self._secret = secret

    async def tried(self, destination: Destination) -> tuple[bool, str]:
        """Was it taken, and what came back, in words? A page is raised and taken back at once."""
        wall = datetime.now(UTC)
        secret = self._secret(destination.secret_variable)
        try:
            if destination.kind is DestinationKind.WEBHOOK:
                return True, f"it was taken: {await self._sender.test(destination, secret, wall)}"
            told = Told(alert=a_test(wall), at=wall)
            channel = self._channels[destination.kind]
            said = await channel.tell(destination, secret, [told], [], wall)
            await channel.tell(destination, secret, [], [told], datetime.now(UTC))
        except Undelivered as error:
            return False, str(error)
        return True, f"it was raised and taken back: {said}"


def a_test(wall: datetime) -> Alert:
    """An alert that says that there is none."""
    return Alert(
        key="test/runway",
        kind="test",
        severity=Severity.INFO,
        since=wall,
        summary="this is a test of Runway: nothing is wrong",
        detail="Somebody tried this destination out.",
        cause="runway",
    )
