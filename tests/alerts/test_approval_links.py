"""Signed approval links: whom they let do what, and what is not taken."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from control_plane.api.approvals import Approvals
from control_plane.api.plane import Outcome
from control_plane.app.approval_links import ApprovalLinks, BadLink, Claim
from control_plane.core.alerts.types import Alert, Severity
from control_plane.core.commands import Command, ReportValidation
from control_plane.core.decide import decide
from control_plane.core.ids import ModelId, RolloutId
from control_plane.core.rollout.types import Rollout, RolloutState, Validation
from control_plane.core.state import State
from tests.core.fleets import Fleet

KEY = "a key of thirty-two characters.."
NOW = datetime(2013, 3, 1, tzinfo=UTC)
CLAIM = Claim(rollout_id=RolloutId("ro_1"), approver="grace", expires_at=NOW + timedelta(hours=1))
LINKS = ApprovalLinks(KEY, "http://runway.example/")


def query(link: str) -> dict[str, str]:
    """The parts of a link."""
    return dict(parse_qsl(urlsplit(link).query))


def test_a_link_says_what_it_was_made_for_and_no_longer_than_it_was_made_for() -> None:
    link = LINKS.link(CLAIM)
    assert link.startswith("http://runway.example/approve?")
    assert LINKS.read(query(link), NOW) == CLAIM
    with pytest.raises(BadLink, match="was good until"):
        LINKS.read(query(link), CLAIM.expires_at)


@given(st.sampled_from(["rollout", "approver", "expires", "signature"]), st.text(min_size=1, max_size=30))
def test_whatever_is_changed_is_noticed(part: str, value: str) -> None:
    told = query(LINKS.link(CLAIM))
    if told[part] == value:
        return
    with pytest.raises(BadLink):
        LINKS.read({**told, part: value}, NOW)


@pytest.mark.parametrize("part", ["rollout", "approver", "expires", "signature"])
def test_what_is_missing_is_noticed(part: str) -> None:
    told = query(LINKS.link(CLAIM))
    del told[part]
    with pytest.raises(BadLink):
        LINKS.read(told, NOW)


def test_a_link_of_another_key_is_not_taken_and_without_a_key_none_is() -> None:
    other = ApprovalLinks("another key of 32 characters....", "http://runway.example")
    with pytest.raises(BadLink):
        LINKS.read(query(other.link(CLAIM)), NOW)
    for none in (ApprovalLinks("", "http://runway.example"), ApprovalLinks(KEY, "")):
        assert not none
        with pytest.raises(BadLink):
            none.read(query(LINKS.link(CLAIM)), NOW)
        assert none.linked(an_alert("ro_1"), State()).detail == ""


def test_parts_cannot_be_moved_into_one_another() -> None:
    one = Claim(rollout_id=RolloutId("ro_1"), approver="2", expires_at=NOW)
    two = Claim(rollout_id=RolloutId("ro_"), approver="12", expires_at=NOW)
    assert query(LINKS.link(one))["signature"] != query(LINKS.link(two))["signature"]


def an_alert(rollout_id: str) -> Alert:
    """About a rollout that waits."""
    return Alert(
        key=f"rollout_approval/{rollout_id}",
        kind="rollout_approval",
        severity=Severity.WARNING,
        since=NOW,
        summary="it waits",
        owners=("grace", "ada"),
    )


# The page


@dataclass
class FleetPlane:
    """A plane without a log."""

    fleet: Fleet = field(default_factory=Fleet)
    submitted: list[Command] = field(default_factory=list)

    def now(self) -> datetime:
        return self.fleet.now

    async def submit(self, command: Command, mutation: object) -> Outcome:
        self.submitted.append(command)
        decide(self.fleet.state, command, self.fleet.now)
        result = self.fleet.do(command)
        return Outcome(state=self.fleet.state, result=result, revision=self.fleet.state.revision)

    async def read(self, options: object) -> State:
        return self.fleet.state

    async def release(self) -> None:
        """Nothing is on its way."""


@dataclass(frozen=True)
class Page:
    status: int
    headers: dict[str, str]
    text: str


async def ask(plane: FleetPlane, method: str, url: str, form: dict[str, str] | None = None) -> Page:
    """One request to the application itself."""
    app = Starlette(routes=Approvals(plane, LINKS).routes())
    parts = urlsplit(url)
    body = urlencode(form).encode() if form is not None else b""
    got: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: object) -> None:
        got.append(dict(message))  # type: ignore[call-overload]

    headers = [(b"content-type", b"application/x-www-form-urlencoded")] if form is not None else []
    scope = {
        "type": "http",
        "method": method,
        "path": parts.path,
        "query_string": parts.query.encode(),
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
    }
    await app(scope, receive, send)
    found = {k.decode(): v.decode() for k, v in got[0]["headers"]}  # type: ignore[attr-defined]
    text = b"".join(one.get("body", b"") for one in got[1:]).decode()  # type: ignore[misc]
    return Page(int(str(got[0]["status"])), found, text)


@pytest.fixture
def plane() -> FleetPlane:
    """A tier-1 model whose candidate, asked for by ada, waits for one approval."""
    found = FleetPlane()
    fleet = found.fleet
    model_id = fleet.model("eta", tier=1, serving=True)
    fleet.request(model_id)
    [attempt] = fleet.lease()
    version = fleet.train(attempt)
    validation = Validation(
        passed=True,
        metric="auc",
        candidate=0.9,
        production=0.8,
        standard_error=0.01,
        sample_size=1000,
        explanation="<b>better</b>",
    )
    fleet.do(ReportValidation(model_id=model_id, version=version, validation=validation))
    assert waiting(found).state is RolloutState.AWAITING_APPROVAL
    return found


def waiting(plane: FleetPlane) -> Rollout:
    """The newest rollout."""
    state = plane.fleet.state
    return state.rollouts[state.models[ModelId("eta")].rollout_ids[-1]]


def link_for(plane: FleetPlane, approver: str) -> str:
    """A link of the waiting rollout."""
    rollout_id = plane.fleet.state.models[ModelId("eta")].rollout_ids[-1]
    return LINKS.link(Claim(rollout_id=rollout_id, approver=approver, expires_at=plane.now() + timedelta(hours=1)))


async def test_looking_shows_the_evidence_and_changes_nothing(plane: FleetPlane) -> None:
    revision = plane.fleet.state.revision
    page = await ask(plane, "GET", link_for(plane, "grace"))
    assert page.status == 200
    assert "Approve as grace" in page.text
    assert "auc 0.9" in page.text
    assert "<b>better</b>" not in page.text  # what others wrote is text, never markup
    assert (plane.fleet.state.revision, plane.submitted) == (revision, [])
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    fields = dict(re.findall(r"name='(\w+)' value='([^']*)'", page.text))
    assert set(fields) == set(parse_qs(urlsplit(link_for(plane, "grace")).query))


async def test_the_button_approves_once_as_the_one_whom_the_link_was_made_for(plane: FleetPlane) -> None:
    link = link_for(plane, "grace")
    page = await ask(plane, "POST", "/approve", query(link))
    assert page.status == 200
    assert "grace approved it" in page.text
    rollout = waiting(plane)
    assert [approval.approver for approval in rollout.approvals] == ["grace"]
    again = await ask(plane, "POST", "/approve", query(link))
    assert again.status == 200
    assert "already" in again.text
    assert len(plane.submitted) == 1
    assert "<button" not in (await ask(plane, "GET", link)).text


async def test_a_link_that_was_changed_or_is_over_approves_nothing(plane: FleetPlane) -> None:
    told = query(link_for(plane, "grace"))
    for bad in ({**told, "approver": "mallory"}, {**told, "signature": "x"}, {}):
        assert (await ask(plane, "POST", "/approve", bad)).status == 403
    plane.fleet.now += timedelta(hours=2)
    page = await ask(plane, "POST", "/approve", told)
    assert page.status == 403
    assert "was good until" in page.text
    assert plane.submitted == []


async def test_a_rollout_that_is_not_there_and_a_body_that_is_no_form_are_answered(plane: FleetPlane) -> None:
    link = LINKS.link(Claim(rollout_id=RolloutId("ro_none"), approver="grace", expires_at=NOW + timedelta(days=99)))
    assert (await ask(plane, "GET", link)).status == 404
    assert (await ask(plane, "POST", "/approve")).status == 400
    assert (await ask(plane, "POST", "/approve", {"rollout": "x" * 9000})).status == 400
    assert (await ask(plane, "PUT", "/approve")).status == 405


async def test_four_eyes_hold_for_links_too(plane: FleetPlane) -> None:
    page = await ask(plane, "POST", "/approve", query(link_for(plane, "tester")))  # who asked for the retrain
    assert page.status == 403
    assert "asked for this version: somebody else must approve it" in page.text
    assert waiting(plane).approvals == ()
    assert waiting(plane).state is RolloutState.AWAITING_APPROVAL
