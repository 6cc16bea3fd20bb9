"""Lifecycle events as CloudEvents 1.0 over webhooks signed as Standard Webhooks says.

    webhook-id: 4711
    webhook-timestamp: 1763900000
    webhook-signature: v1,<base64 of HMAC-SHA256 over "4711.1763900000.<body>">

A receiver computes the same, compares in constant time, and refuses what is older than some minutes. The id is the
event's place in the log: whoever has seen it drops it.
"""

import base64
import binascii
import hashlib
import hmac
from datetime import datetime

import msgspec

from control_plane.adapters.alerts.saying import said
from control_plane.app.delivery import Post, Undelivered
from control_plane.core.alerts.types import Destination
from control_plane.core.events import Envelope, encode_event, event_kind
from control_plane.core.sentences import sentence
from control_plane.core.subjects import event_model

SECRET_PREFIX = "whsec_"  # noqa: S105 - a prefix


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """CloudEvents 1.0 in structured JSON; `subject` is the model, if it is about one."""

    specversion: str = msgspec.field(default="")
    id: str
    source: str
    type: str
    subject: str = ""
    time: datetime
    datacontenttype: str = msgspec.field(default="")
    sequence: str
    data: object


class EventData(msgspec.Struct, frozen=True, kw_only=True):
    """An event: as the log has it, and in words."""

    payload: msgspec.Raw
    sentence: str
    actor: str
    reason: str
    revision: int


def cloud_event(envelope: Envelope, source: str) -> bytes:
    """An event of the log as a CloudEvent."""
    data = EventData(
        payload=msgspec.Raw(encode_event(envelope.event)),
        sentence=sentence(envelope),
        actor=envelope.actor,
        reason=envelope.reason,
        revision=envelope.seq,
    )
    return msgspec.json.encode(
        CloudEvent(
            specversion="1.0",
            id=str(envelope.seq),
            source=source,
            type=f"dev.runway.{event_kind(envelope.event)}.v1",
            subject=event_model(envelope.event) or "",
            time=envelope.at,
            datacontenttype="application/json",
            sequence=f"{envelope.seq:020d}",
            data=data,
        )
    )


def signing_key(secret: str) -> bytes:
    """The key of a secret: `whsec_` and base64, as such secrets are given out, or any other text as it is."""
    if secret.startswith(SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError) as error:
            raise Undelivered("the secret begins with whsec_ but what follows is not base64") from error
    return secret.encode()


def signed(secret: str, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers that prove who sends."""
    timestamp = str(int(at.timestamp()))
    digest = hmac.new(signing_key(secret), f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


class Webhook:
    """Sends events to one kind of receiver: any."""

    def __init__(self, post: Post, source: str) -> None:
        self._post = post
        self._source = source

    async def send(self, destination: Destination, secret: str, envelope: Envelope, wall: datetime) -> str:
        """One event; what came back, in words. Raises Undelivered."""
        body = cloud_event(envelope, self._source)
        return await self._sent(destination, secret, str(envelope.seq), body, wall)

    async def test(self, destination: Destination, secret: str, wall: datetime) -> str:
        """A message that is no event, to see whether the way is open. Raises Undelivered."""
        message_id = f"test-{int(wall.timestamp() * 1000)}"
        body = msgspec.json.encode(
            {
                "specversion": "1.0",
                "id": message_id,
                "source": self._source,
                "type": "dev.runway.Test.v1",
                "time": wall,
                "datacontenttype": "application/json",
                "data": {"sentence": f"Runway tries out the destination {destination.name}"},
            }
        )
        return await self._sent(destination, secret, message_id, body, wall)

    async def _sent(self, destination: Destination, secret: str, message_id: str, body: bytes, wall: datetime) -> str:
        if not secret:
            raise Undelivered(
                f"the environment variable {destination.secret_variable} of the control plane is not set: without it "
                "nothing can be signed"
            )
        headers = signed(secret, message_id, wall, body)
        headers["content-type"] = "application/cloudevents+json; charset=utf-8"
        return await said(self._post, destination, secret, body, headers)
