"""Erasures: what was done to the facts is put on record, with a receipt."""

from datetime import datetime

from control_plane.core.commands import EraseFacts, Result
from control_plane.core.decide.decision import Decision
from control_plane.core.erasure import receipt_sha256
from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.events import FactsErased
from control_plane.core.state import State


def record_erasure(state: State, command: EraseFacts, now: datetime) -> Decision:
    """The receipt; one that leaves something behind is no receipt."""
    left = [one.layer for one in command.layers if one.left]
    if left:
        raise Invalid(
            Reason.INVALID_ARGUMENT,
            Violation(
                field="layers",
                rule="left",
                message=f"something is left in {', '.join(left)}: send the request again under a new request id",
            ),
        )
    erasure_id = f"erasure-{state.erasures_count + 1}"
    event = FactsErased(
        erasure_id=erasure_id,
        erased_at=now,
        actor=command.actor,
        reason=command.reason,
        prediction_ids=command.prediction_ids,
        ids_sha256=command.ids_sha256,
        layers=command.layers,
        receipt_sha256=receipt_sha256(
            erasure_id,
            now,
            command.actor,
            command.reason,
            command.prediction_ids,
            command.ids_sha256,
            command.layers,
        ),
    )
    return Decision(events=(event,), result=Result(changed=1))
