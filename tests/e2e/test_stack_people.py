"""The demo's people do what they tell, once, and only when nobody else did; what is away they try again."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2
from runway_client import Runway, connect, messages, to_timestamp

from assets.flights.mishap import mix_up_file
from assets.launcher import DRILL_FILE as LAUNCHERS_DRILL_FILE
from stack import people
from stack.dagster_home import DRILL_FILE
from stack.home import Home
from stack.people import ASKED_FOR, MIX_UP_FILE, People
from tests.api.control_plane_fake import ControlPlaneFake, failure

PATIENT_LOOKS = int(people.PATIENCE_S / people.LOOK_EVERY_S)
APPROVE, REQUEST = "RolloutService/ApproveRollout", "RetrainingService/RequestRetrain"


@dataclass(slots=True)
class Fleet:
    """What the control plane says, and what was done to it."""

    fake: ControlPlaneFake
    rollouts: list[messages.Rollout] = field(default_factory=list)
    retrains: list[messages.Retrain] = field(default_factory=list)
    breaker: messages.BreakerState.ValueType = messages.BREAKER_STATE_CLOSED

    def __post_init__(self) -> None:
        now = to_timestamp(datetime(2013, 3, 7, 16, tzinfo=UTC))
        self.fake.answers.update(
            {
                "OperationsService/GetStatus": lambda _r, _c: messages.GetStatusResponse(now=now),
                "RolloutService/ListRollouts": self._listed,
                "RetrainingService/ListRetrains": self._retrained,
                "SchedulersService/ListSchedulers": lambda _r, _c: messages.ListSchedulersResponse(
                    schedulers=[messages.Scheduler(scheduler="dagster", breaker=self.breaker)]
                ),
                APPROVE: lambda _r, _c: messages.ApproveRolloutResponse(),
                REQUEST: lambda _r, _c: messages.RequestRetrainResponse(),
            }
        )

    def _listed(self, request: Any, _context: grpc.ServicerContext) -> messages.ListRolloutsResponse:
        return messages.ListRolloutsResponse(rollouts=[one for one in self.rollouts if one.state in request.states])

    def _retrained(self, request: Any, _context: grpc.ServicerContext) -> messages.ListRetrainsResponse:
        return messages.ListRetrainsResponse(retrains=[one for one in self.retrains if one.state in request.states])

    def ran(self, count: int) -> None:
        """So many retrains have been through a training."""
        ended = messages.RETRAIN_STATE_PROMOTED
        self.retrains = [messages.Retrain(retrain_id=f"rt_{at:06d}", state=ended) for at in range(count)]

    def asked_for(self) -> list[str]:
        """Models that were asked for, in order."""
        return [one.model_id for one in self.fake.requests(REQUEST)]


@dataclass(slots=True)
class FleetServer:
    """The demo's serving system as far as it is hurt: answers `/harm` by the next of its codes, then by 200."""

    codes: list[int] = field(default_factory=list)
    asked: list[dict[str, object]] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def server() -> Iterator[FleetServer]:
    told = FleetServer()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(told.codes.pop(0) if told.codes else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    told.address = f"127.0.0.1:{listening.server_port}"
    try:
        yield told
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fake = ControlPlaneFake()
    try:
        yield Fleet(fake)
    finally:
        fake.close()


@pytest.fixture
def runway(fleet: Fleet) -> Iterator[Runway]:
    with connect(fleet.fake.address, actor=people.APPROVER) as opened:
        yield opened


@dataclass(slots=True)
class Crowd:
    """The people, and all that they say and do to files."""

    people: People
    lines: list[str]
    drill: Path
    mix_up: Path

    def said(self, words: str) -> int:
        return sum(words in line for line in self.lines)


@pytest.fixture
def crowd(fleet: Fleet, server: FleetServer, tmp_path: Path) -> Crowd:
    lines: list[str] = []
    drill, mix_up = tmp_path / DRILL_FILE, tmp_path / MIX_UP_FILE
    return Crowd(People(fleet.fake.address, server.address, drill, mix_up, lines.append), lines, drill, mix_up)


def looks(crowd: Crowd, runway: Runway, count: int) -> None:
    for _ in range(count):
        crowd.people.look(runway)


def waiting(rollout_id: str = "ro_000001") -> messages.Rollout:
    return messages.Rollout(
        rollout_id=rollout_id, model_id="arrival_delay_jfk", version=2, state=messages.ROLLOUT_STATE_AWAITING_APPROVAL
    )


def canary(serving: str = "demo") -> messages.Rollout:
    return messages.Rollout(
        rollout_id="ro_000002",
        model_id="missed_connection_ewr",
        version=2,
        state=messages.ROLLOUT_STATE_CANARY,
        serving=serving,
    )


def test_somebody_approves_what_nobody_else_did(fleet: Fleet, crowd: Crowd, runway: Runway) -> None:
    fleet.rollouts = [waiting()]
    looks(crowd, runway, PATIENT_LOOKS - 1)
    assert (fleet.fake.requests(APPROVE), crowd.lines) == ([], [])
    crowd.people.look(runway)
    [approved] = fleet.fake.requests(APPROVE)
    assert (approved.rollout_id, approved.mutation.actor) == ("ro_000001", "maria")
    assert crowd.said("Mar 07 16:00  maria approves arrival_delay_jfk version 2") == 1
    assert crowd.said("`runway --actor maria rollouts approve ro_000001`") == 1


def test_what_a_viewer_approves_is_not_approved_again(fleet: Fleet, crowd: Crowd, runway: Runway) -> None:
    fleet.rollouts = [waiting()]
    looks(crowd, runway, PATIENT_LOOKS - 1)
    fleet.rollouts = []
    looks(crowd, runway, 3)
    assert (fleet.fake.requests(APPROVE), crowd.lines) == ([], [])


def test_each_rollout_has_patience_of_its_own(fleet: Fleet, crowd: Crowd, runway: Runway) -> None:
    fleet.rollouts = [waiting()]
    looks(crowd, runway, PATIENT_LOOKS // 2)
    fleet.rollouts = [waiting("ro_000009")]
    looks(crowd, runway, PATIENT_LOOKS - 1)
    assert fleet.fake.requests(APPROVE) == []
    crowd.people.look(runway)
    assert [one.rollout_id for one in fleet.fake.requests(APPROVE)] == ["ro_000009"]


def test_an_approval_that_is_refused_is_told_and_tried_later(fleet: Fleet, crowd: Crowd, runway: Runway) -> None:
    no = failure(code_pb2.FAILED_PRECONDITION, "FOUR_EYES", "maria asked for it: somebody else must approve")
    fleet.fake.failures[APPROVE].append(no)
    fleet.rollouts = [waiting()]
    looks(crowd, runway, PATIENT_LOOKS)
    assert crowd.said("maria could not: maria asked for it: somebody else must approve") == 1
    looks(crowd, runway, PATIENT_LOOKS - 1)
    assert len(fleet.fake.requests(APPROVE)) == 1
    crowd.people.look(runway)
    assert len(fleet.fake.requests(APPROVE)) == 2


def test_the_first_canary_is_hurt_and_no_other(fleet: Fleet, server: FleetServer, crowd: Crowd, runway: Runway) -> None:
    fleet.rollouts = [canary(serving="")]
    crowd.people.look(runway)
    assert server.asked == []
    fleet.rollouts = [canary()]
    looks(crowd, runway, 3)
    assert server.asked == [
        {"model_id": "missed_connection_ewr", "version": 2, "engagement": people.HARM, "latency_ms": 0.0}
    ]
    assert crowd.said("the demo hurts missed_connection_ewr version 2") == 1


def test_a_canary_is_hurt_once_its_server_can_be_told(
    fleet: Fleet, server: FleetServer, crowd: Crowd, runway: Runway
) -> None:
    server.codes = [503]
    fleet.rollouts = [canary()]
    looks(crowd, runway, 4)
    assert len(server.asked) == 2


def test_one_training_is_given_the_wrong_outcomes(fleet: Fleet, crowd: Crowd, runway: Runway) -> None:
    crowd.people.look(runway)
    assert not crowd.mix_up.exists()
    fleet.ran(people.MIX_UP_AFTER_RETRAINS)
    crowd.people.look(runway)
    assert crowd.mix_up.exists()
    crowd.mix_up.unlink()  # as the training does that makes the mistake
    looks(crowd, runway, 3)
    assert not crowd.mix_up.exists()
    assert crowd.said("the demo makes a mistake") == 1


def out(fleet: Fleet, crowd: Crowd, runway: Runway) -> None:
    """The outage begins."""
    fleet.ran(people.OUTAGE_AFTER_RETRAINS)
    crowd.people.look(runway)
    assert crowd.drill.exists()


def test_an_outage_lasts_until_its_breaker_was_seen(fleet: Fleet, crowd: Crowd, runway: Runway) -> None:
    fleet.ran(people.OUTAGE_AFTER_RETRAINS - 1)
    crowd.people.look(runway)
    assert not crowd.drill.exists()
    out(fleet, crowd, runway)
    assert fleet.asked_for() == list(ASKED_FOR)
    assert all(one.ignore_cooldown for one in fleet.fake.requests(REQUEST))
    open_looks = int(people.OPEN_S / people.LOOK_EVERY_S)
    looks(crowd, runway, open_looks + 1)
    assert crowd.drill.exists(), "its breaker is still closed"
    fleet.breaker = messages.BREAKER_STATE_OPEN
    looks(crowd, runway, open_looks - 1)
    assert crowd.drill.exists()
    crowd.people.look(runway)
    assert not crowd.drill.exists()
    assert crowd.said("Dagster's launcher works again") == 1
    looks(crowd, runway, 3)
    assert (crowd.drill.exists(), fleet.asked_for()) == (False, list(ASKED_FOR))


def test_an_outage_that_nobody_notices_ends(fleet: Fleet, crowd: Crowd, runway: Runway) -> None:
    out(fleet, crowd, runway)
    looks(crowd, runway, int(people.OUTAGE_S_MAX / people.LOOK_EVERY_S) - 1)
    assert crowd.drill.exists()
    crowd.people.look(runway)
    assert not crowd.drill.exists()


def test_what_cannot_be_asked_for_stops_nobody(fleet: Fleet, crowd: Crowd, runway: Runway) -> None:
    no = failure(code_pb2.FAILED_PRECONDITION, "RETRAINING_HELD", "air_time is held")
    fleet.fake.failures[REQUEST].append(no)
    out(fleet, crowd, runway)
    assert crowd.said("maria could not ask for air_time: air_time is held") == 1
    assert [crowd.said(f"maria asks for {one}") for one in ASKED_FOR] == [0, 1, 1]


async def test_a_control_plane_that_is_away_is_waited_for_and_nothing_is_left_broken(
    fleet: Fleet, crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "LOOK_EVERY_S", 0.01)
    crowd.drill.touch()  # as a stack that was killed leaves it
    fleet.ran(people.OUTAGE_AFTER_RETRAINS)
    fleet.fake.failures["OperationsService/GetStatus"].extend(
        failure(code_pb2.FAILED_PRECONDITION, "NOT_LEADER", "somebody else leads") for _ in range(3)
    )
    acting = asyncio.create_task(crowd.people.act())
    await until(lambda: crowd.said("maria asks for") == len(ASKED_FOR))
    assert crowd.drill.exists()
    assert crowd.mix_up.exists()
    acting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await acting
    assert not crowd.drill.exists()
    assert not crowd.mix_up.exists()


async def until(condition: Callable[[], bool]) -> None:
    """Await what a thread does."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def test_files_lie_where_they_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who put them there and those who look for them share no code: the demo is no part of the product."""
    assert LAUNCHERS_DRILL_FILE == DRILL_FILE
    home = Home(tmp_path)
    monkeypatch.setenv("RUNWAY_HOME", str(home.path))
    assert mix_up_file() == home.path / MIX_UP_FILE
