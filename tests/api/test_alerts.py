"""Alerts and destinations by RPC and by `runway`, against a whole control plane."""

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from runway_cli.main import run
from runway_client import Runway, Why, connect, messages

from control_plane.app.replica import Submission
from control_plane.core.commands import AdvanceClock, RecordEvaluation
from control_plane.core.ids import ModelId
from control_plane.core.staleness.verdict import Action
from tests.api.served_plane import ServedPlane
from tests.core.fleets import an_evaluation

NOW = datetime(2013, 3, 4, 6, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


class Shell:
    """Runs `runway`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ran:
        self._capsys.readouterr()
        code = 0
        try:
            code = run(list(arguments))
        except SystemExit as done:
            code = int(done.code or 0)
        found = self._capsys.readouterr()
        return Ran(code, found.out, found.err)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedPlane]:
    monkeypatch.setenv("HOOK_SECRET", "a secret of the hook")
    one = ServedPlane(tmp_path / "home", monkeypatch)
    one.start()
    monkeypatch.setenv("RUNWAY_ADDRESS", one.address)
    monkeypatch.setenv("RUNWAY_ACTOR", "anna")
    monkeypatch.setenv("COLUMNS", "160")
    yield one
    one.stop()
    one.close()


@pytest.fixture
def runway(served: ServedPlane) -> Iterator[Runway]:
    with connect(served.address, "anna") as one:
        served.look_no_more()
        served.submit(Submission(command=AdvanceClock(to=NOW), actor="a", reason=""))
        for name in ("eta", "fare"):
            one.registry.register_model(
                messages.Model(
                    model_id=name,
                    team="crew",
                    owner="team:crew",
                    tier=messages.TIER_2,
                    task_type=messages.TASK_TYPE_BINARY,
                    policies=messages.Policies(retraining=messages.RetrainingPolicy(automatic=False)),
                )
            )
        yield one


@pytest.fixture
def shell(runway: Runway, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def hook() -> Iterator[tuple[str, list[bytes]]]:
    """A receiver on this machine, and what it took."""
    taken: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", taken
    server.shutdown()
    thread.join()
    server.server_close()


def in_production(runway: Runway, name: str) -> None:
    """A version of the model serves."""
    until = Timestamp()
    until.FromDatetime(NOW)
    version = messages.ModelVersion(
        model_id=name, artifact_uri="file:///x", artifact_sha256="a" * 64, trained_until=until
    )
    number = int(runway.registry.register_version(version).version)
    runway.rollouts.promote_version(name, number, force=True, why=Why(reason="a test"))


def break_data(served: ServedPlane, *models: str) -> None:
    """The newest look at these models says that their data is at fault."""
    for name in models:
        look = msgspec.structs.replace(
            an_evaluation(1, NOW, stale=True),
            recommended_action=Action.ALERT_DATA_OWNER,
            data_quality=("no row of weather for 6 h",),
        )
        for _ in range(3):
            served.submit(
                Submission(command=RecordEvaluation(model_id=ModelId(name), evaluation=look), actor="a", reason="")
            )


def test_a_fleet_at_rest_says_so(shell: Shell) -> None:
    ran = shell("alerts")
    assert (ran.code, ran.out) == (0, "Nothing is wrong that anybody has to know.\n")
    assert shell("destinations", "list").out.startswith("Nobody is told")


def test_a_destination_is_set_shown_tried_and_removed(shell: Shell, hook: tuple[str, list[bytes]]) -> None:
    url, taken = hook
    ran = shell(
        *("destinations", "set", "hook", "--kind", "webhook", "--url", url, "--secret-variable", "HOOK_SECRET"),
        *("--allow-private", "--event", "RolloutEnded"),
    )
    assert ran.code == 0, ran.err
    assert "destinations try hook" in ran.out
    assert shell("destinations", "try", "hook").code == 0
    assert json.loads(taken[0])["type"] == "dev.runway.Test.v1"
    [shown] = json.loads(shell("destinations", "list", "--json").out)["destinations"]
    assert (shown["name"], shown["set_by"], shown["kinds"]) == ("hook", "anna", ["RolloutEnded"])
    assert shell("destinations", "remove", "hook").out == "hook is removed.\n"
    assert shell("destinations", "remove", "hook").code == 1
    assert shell("destinations", "try", "hook").code == 1


def test_a_receiver_in_our_own_network_is_not_called_unless_that_is_meant(
    shell: Shell, hook: tuple[str, list[bytes]]
) -> None:
    url, taken = hook
    shell("destinations", "set", "hook", "--kind", "slack", "--url", url)
    ran = shell("destinations", "try", "hook")
    assert ran.code == 1
    assert "is on this machine" in ran.out
    assert "--allow-private" in ran.out
    assert taken == []


def test_all_that_is_wrong_with_a_destination_is_said(shell: Shell) -> None:
    ran = shell("destinations", "set", "hook", "--kind", "webhook", "--url", "ftp://x", "--event", "Nothing")
    assert ran.code == 2
    for field in ("destination.url", "destination.kinds", "destination.secret_variable"):
        assert field in ran.err


@pytest.mark.parametrize("quiet", ["22", "x-y", "25-6"])
def test_hours_that_are_none_are_refused(shell: Shell, quiet: str) -> None:
    ran = shell("destinations", "set", "s", "--kind", "slack", "--url", "https://x.example/", "--quiet", quiet)
    assert ran.code == 2


def test_forty_models_on_one_dataset_are_one_alert_until_they_are_well(
    shell: Shell, runway: Runway, served: ServedPlane
) -> None:
    for name in ("eta", "fare"):
        in_production(runway, name)
    runway.graph.declare_nodes([messages.Node(node_id="dataset:weather")])
    runway.graph.declare_dependencies(
        [
            messages.Dependency(
                upstream_id="dataset:weather", downstream_id=f"model:{name}", type=messages.DEPENDENCY_TYPE_TRAINED_ON
            )
            for name in ("eta", "fare")
        ]
    )
    break_data(served, "eta", "fare")
    [alert] = json.loads(shell("alerts", "--json").out)["alerts"]
    assert alert["key"] == "data_fault/dataset:weather"
    assert alert["model_ids"] == ["eta", "fare"]
    shown = shell("alerts").out
    assert "the data of 2 models is at fault (behind it: dataset:weather)" in shown
    assert "no row of weather for 6 h" in shown
    assert shell("alerts", "--team", "others").out == "Nothing is wrong that anybody has to know.\n"
    assert "data_fault" in shell("alerts", "--model", "eta").out
    assert shell("alerts", "silence", alert["key"], "--for", "2h").code == 0
    assert "silenced until 2013-03-04 08:00 by anna" in shell("alerts").out
    assert shell("alerts", "silence", alert["key"], "--for", "0").code == 0
    assert "silenced" not in shell("alerts").out


def test_an_alert_that_is_not_there_cannot_be_silenced(shell: Shell) -> None:
    ran = shell("alerts", "silence", "rule/none/model:eta", "--for", "2h")
    assert ran.code == 1
    assert "there is no alert" in ran.err
    assert shell("alerts", "silence", "x", "--for", "soon").code == 2


def test_events_reach_a_hook_that_was_set_by_rpc(runway: Runway, hook: tuple[str, list[bytes]]) -> None:
    url, taken = hook
    runway.alerts.set_destination(
        messages.Destination(
            name="hook",
            kind=messages.DESTINATION_KIND_WEBHOOK,
            url=url,
            secret_variable="HOOK_SECRET",
            allow_private=True,
        )
    )
    runway.operations.hold_retraining()

    async def arrived() -> None:
        while not taken:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(arrived(), 30))
    assert json.loads(taken[0])["type"] == "dev.runway.RetrainingHeld.v1"
