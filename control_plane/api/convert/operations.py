"""Log entries as watchers and auditors see them."""

from msgspec.structs import replace
from runway.v1 import operations_pb2

from control_plane.api.convert.common import timestamp
from control_plane.core.events import Envelope, RetrainLeased, encode_event, event_kind, event_model
from control_plane.core.ids import LeaseToken
from control_plane.core.sentences import sentence

HIDDEN = LeaseToken("***")


def event(envelope: Envelope) -> operations_pb2.Event:
    """One entry of the log. Lease tokens stay between Runway and the scheduler."""
    happened = envelope.event
    if isinstance(happened, RetrainLeased):
        happened = replace(happened, lease_token=HIDDEN)
    return operations_pb2.Event(
        revision=envelope.seq,
        at=timestamp(envelope.at),
        actor=envelope.actor,
        reason=envelope.reason,
        request_id=envelope.request_id,
        kind=event_kind(happened),
        model_id=event_model(happened) or "",
        sentence=sentence(envelope),
        payload_json=encode_event(happened).decode(),
    )
