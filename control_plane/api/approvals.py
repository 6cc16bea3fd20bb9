"""The page behind a signed approval link: GET shows the evidence and changes nothing, POST approves.

GET  /approve?rollout=..&approver=..&expires=..&signature=..
POST /approve   the same four, as the form of that page sends them
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from html import escape
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qsl

import structlog
from runway.v1 import common_pb2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from control_plane.api.openlineage.answers import status_of
from control_plane.api.plane import Outcome
from control_plane.app.approval_links import PATH, WAITING, ApprovalLinks, BadLink, Claim
from control_plane.core.alerts_of_releases import evidence
from control_plane.core.commands import ApproveRollout, Command
from control_plane.core.errors import NotFound, RunwayError
from control_plane.core.rollout.types import Rollout
from control_plane.core.state import State

log = structlog.get_logger()

BODY_BYTES_MAX = 8 * 1024
"""Four short fields."""
FIELDS_MAX = 10

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""The address is a secret: it is kept nowhere and given to nobody; and nobody puts the button under another page."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; color: #1c1e21 }
pre { white-space: pre-wrap; background: #f4f5f7; padding: 1rem; border-radius: 6px; font-size: 14px }
button { font: inherit; padding: .6rem 1.4rem; border: 0; border-radius: 6px; background: #0b6b3a; color: #fff }
p.no { color: #a4262c }
"""


class ApprovalPlane(Protocol):
    """What is needed of the control plane; see `control_plane.api.plane.Plane`."""

    async def submit(self, command: Command, mutation: common_pb2.Mutation) -> Outcome:
        """Decide and make durable."""
        ...

    async def read(self, options: common_pb2.ReadOptions) -> State:
        """The state."""
        ...

    async def release(self) -> None:
        """Wait until everything that could have been seen just now is in the log."""
        ...

    def now(self) -> datetime:
        """The control plane's time."""
        ...


class Approvals:
    """The page's two halves."""

    def __init__(self, plane: ApprovalPlane, links: ApprovalLinks) -> None:
        self._plane = plane
        self._links = links

    def routes(self) -> list[Route]:
        """Where they are; none without links."""
        if not self._links:
            return []
        return [
            Route(PATH, _answered(self._show), methods=["GET"]),
            Route(PATH, _answered(self._approve), methods=["POST"]),
        ]

    async def _show(self, request: Request) -> HTMLResponse:
        claim = self._links.read(request.query_params, self._plane.now())
        rollout = (await self._plane.read(common_pb2.ReadOptions())).rollout(claim.rollout_id)
        page = waiting_page(rollout, claim, request.query_params)
        await self._plane.release()
        return page

    async def _approve(self, request: Request) -> HTMLResponse:
        form = dict(parse_qsl((await _body(request)).decode("utf-8", "replace"), max_num_fields=FIELDS_MAX))
        claim = self._links.read(form, self._plane.now())
        before = (await self._plane.read(common_pb2.ReadOptions())).rollout(claim.rollout_id)
        if any(approval.approver == claim.approver for approval in before.approvals) or before.state not in WAITING:
            page = waiting_page(before, claim, {})
        else:
            command = ApproveRollout(rollout_id=claim.rollout_id, approver=claim.approver)
            mutation = common_pb2.Mutation(actor=claim.approver, reason="approved by a signed link")
            outcome = await self._plane.submit(command, mutation)
            after = outcome.state.rollout(claim.rollout_id)
            page = html(
                f"{after.model_id} version {after.version} is approved",
                f"<p>{escape(claim.approver)} approved it; the rollout is {escape(words(after))} now.</p>",
            )
            log.info("rollout.approved_by_link", rollout=claim.rollout_id, approver=claim.approver)
        await self._plane.release()
        return page


def words(rollout: Rollout) -> str:
    """Where a rollout stands."""
    return rollout.state.value.lower().replace("_", " ")


def waiting_page(rollout: Rollout, claim: Claim, link: Mapping[str, str]) -> HTMLResponse:
    """The evidence, and a button if there is still something to approve."""
    title = f"{rollout.model_id} version {rollout.version}"
    shown = f"<pre>{escape(evidence(rollout) or 'nothing is known of it yet')}</pre>"
    if any(approval.approver == claim.approver for approval in rollout.approvals):
        said = f"<p>{escape(claim.approver)} has approved it already; it is {escape(words(rollout))} now.</p>"
        return html(f"{title} is approved", said + shown)
    if rollout.state not in WAITING:
        said = f"<p>It waits for nobody any more: it is {escape(words(rollout))}. {escape(rollout.conclusion)}</p>"
        return html(title, said + shown)
    if rollout.requested_by == claim.approver:
        said = f"<p class='no'>{escape(claim.approver)} asked for it: somebody else must approve it.</p>"
        return html(title, said + shown, HTTPStatus.FORBIDDEN)
    fields = "".join(
        f"<input type='hidden' name='{name}' value='{escape(link.get(name, ''), quote=True)}'>"
        for name in ("rollout", "approver", "expires", "signature")
    )
    until = f" until {rollout.approval_until:%Y-%m-%d %H:%M} UTC" if rollout.approval_until else ""
    asked = "needs a decision" if rollout.state.value == "AWAITING_DECISION" else "waits for approval"
    return html(
        f"{title} {asked}",
        f"<p>It {asked}{until}. Nothing happens before you press the button.</p>{shown}"
        f"<form method='post' action='{PATH}'>{fields}<button>Approve as {escape(claim.approver)}</button></form>",
    )


def html(title: str, body: str, status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    """A small page; `body` is HTML, `title` text."""
    text = (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<meta name='robots' content='noindex'><title>{escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{escape(title)}</h1>{body}</html>"
    )
    return HTMLResponse(text, status_code=status, headers=HEADERS)


def _refusal(title: str, why: str, status: HTTPStatus) -> HTMLResponse:
    return html(title, f"<p class='no'>{escape(why)}.</p>", status)


def _answered(ask: Callable[[Request], Awaitable[HTMLResponse]]) -> Callable[[Request], Awaitable[HTMLResponse]]:
    async def answer(request: Request) -> HTMLResponse:
        try:
            return await ask(request)
        except BadLink as error:
            return _refusal("This link cannot be used", str(error), HTTPStatus.FORBIDDEN)
        except (ValueError, ClientDisconnect):
            return _refusal("This link cannot be used", "what was sent is no form of this page", HTTPStatus.BAD_REQUEST)
        except NotFound as error:
            return _refusal("There is no such rollout", error.message, HTTPStatus.NOT_FOUND)
        except RunwayError as error:
            return _refusal("It was not approved", error.message, status_of(error))

    return answer


async def _body(request: Request) -> bytes:
    """The form. Raises ValueError if it is none or too large."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise ValueError("no form")
    found = b""
    async for chunk in request.stream():
        found += chunk
        if len(found) > BODY_BYTES_MAX:
            raise ValueError("too large")
    return found
