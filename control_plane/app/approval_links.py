"""Links by which somebody approves a candidate without any other access: signed, for one person, and not for ever.

A link names rollout, approver and expiry; a keyed hash over them (HMAC-SHA256) makes it unforgeable: whoever changes
any of the three, or has no key, has a link that is not taken. Following it shows the evidence and changes nothing,
because mail programs and chats follow links by themselves; only the button on that page approves, as the approver the
link was made for, under the rules that hold for everybody (four eyes, in time). The rollout's state makes it good for
one use: a rollout does not wait for the same approver twice.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import msgspec

from control_plane.core.alerts.types import Alert
from control_plane.core.ids import RolloutId
from control_plane.core.rollout.canary import same_person
from control_plane.core.rollout.types import Rollout, RolloutState
from control_plane.core.state import State

PATH = "/approve"
EXPIRY_MAX = timedelta(days=30)
"""Of a link to a rollout that says no time itself."""
WAITING = (RolloutState.AWAITING_APPROVAL, RolloutState.AWAITING_DECISION)
FIELD_CHARS_MAX = 200


class BadLink(Exception):
    """The link is not one of ours, or no more; the text says which, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a link says: this person may approve this until then."""

    rollout_id: RolloutId
    approver: str
    expires_at: datetime


class ApprovalLinks:
    """Makes and reads links; without a secret or an address of its own it makes none and takes none."""

    def __init__(self, secret: str, web_url: str) -> None:
        self._key = secret.encode() if secret and web_url else b""
        self._web_url = web_url.rstrip("/")

    def __bool__(self) -> bool:
        return bool(self._key)

    def link(self, claim: Claim) -> str:
        """The link of a claim."""
        query = {
            "rollout": claim.rollout_id,
            "approver": claim.approver,
            "expires": str(int(claim.expires_at.timestamp())),
        }
        return f"{self._web_url}{PATH}?{urlencode({**query, 'signature': self._signature(query)})}"

    def read(self, query: Mapping[str, str], now: datetime) -> Claim:
        """What a link says, if it is good. Raises BadLink."""
        if not self._key:
            raise BadLink("this control plane takes no approvals by link")
        told = {name: query.get(name, "") for name in ("rollout", "approver", "expires")}
        if any(not value or len(value) > FIELD_CHARS_MAX for value in told.values()):
            raise BadLink("the link is not whole")
        if not hmac.compare_digest(
            self._signature(told).encode(), query.get("signature", "").encode("utf-8", "replace")
        ):
            raise BadLink("the link was not made by this control plane, or was changed")
        expires_at = datetime.fromtimestamp(int(told["expires"]), UTC)
        if now >= expires_at:
            raise BadLink(f"the link was good until {expires_at:%Y-%m-%d %H:%M} UTC")
        return Claim(rollout_id=RolloutId(told["rollout"]), approver=told["approver"], expires_at=expires_at)

    def _signature(self, told: Mapping[str, str]) -> str:
        # Lengths keep parts apart: no two claims have the same text.
        text = "".join(f"{len(told[name])}:{told[name]}," for name in ("rollout", "approver", "expires"))
        digest = hmac.new(self._key, b"runway approval v1\n" + text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def linked(self, alert: Alert, state: State) -> Alert:
        """An alert about a rollout that waits for people, with a link for each of its owners who may approve it."""
        if not self._key or alert.kind not in ("rollout_approval", "rollout_undecided"):
            return alert
        rollout = state.rollouts.get(RolloutId(alert.key.rpartition("/")[2]))
        if rollout is None or rollout.state not in WAITING:
            return alert
        lines = [f"Approve as {claim.approver}: {self.link(claim)}" for claim in claims_of(rollout, alert)]
        return msgspec.structs.replace(alert, detail="\n".join([alert.detail, *lines])) if lines else alert


def claims_of(rollout: Rollout, alert: Alert) -> list[Claim]:
    """Whom a link is made for: the model's owners, else its team; never whoever asked, nor who has approved already."""
    since = rollout.stepped_at or rollout.started_at
    until = rollout.approval_until or since + EXPIRY_MAX
    taken = [rollout.requested_by, *(approval.approver for approval in rollout.approvals)]
    people = alert.owners or tuple(f"team:{team}" for team in alert.teams)
    return [
        Claim(rollout_id=rollout.rollout_id, approver=person, expires_at=until)
        for person in people
        if person and len(person) <= FIELD_CHARS_MAX and not any(same_person(person, one) for one in taken)
    ]
