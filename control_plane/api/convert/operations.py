"""Log entries as watchers and auditors see them."""

from msgspec.structs import replace
from runway.v1 import operations_pb2

from control_plane.api.convert.common import timestamp
from control_plane.core.events import Envelope, RetrainLeased, encode_event, event_kind
from control_plane.core.ids import LeaseToken
from control_plane.core.sentences import sentence
from control_plane.core.state import State
from control_plane.core.subjects import event_model, team_of

HIDDEN = LeaseToken("***")

PAYLOAD_BYTES_MAX = 4 * 2**20
"""A change of a whole graph in one event may be larger than a message can be; its sentence still tells of it."""


def event(envelope: Envelope, state: State) -> operations_pb2.Event:
    """One entry of the log; `state` is at least as new. Lease tokens stay between Runway and the scheduler."""
    happened = envelope.event
    if isinstance(happened, RetrainLeased):
        happened = replace(happened, lease_token=HIDDEN)
    payload = encode_event(happened)
    return operations_pb2.Event(
        revision=envelope.seq,
        at=timestamp(envelope.at),
        actor=envelope.actor,
        reason=envelope.reason,
        request_id=envelope.request_id,
        kind=event_kind(happened),
        model_id=event_model(happened) or "",
        sentence=sentence(envelope),
        payload_json=payload.decode() if len(payload) <= PAYLOAD_BYTES_MAX else "",
        team=team_of(state, envelope) or "",
    )
