"""How `runway` behaves: JSON everywhere, mistakes, help, pipes, narrow terminals."""

import io
import json
import os
import subprocess
import sys

import pytest
from google.rpc import code_pb2
from runway_cli.main import COMMANDS, LazyGroup, run
from runway_cli.page import Column, Page, fit

from tests.api.control_plane_fake import ControlPlaneFake, failure
from tests.api.shells import Runner, text

JSON_COMMANDS = {
    "status": "server_version",
    "models list": "models",
    "models show air_time": "model",
    "models history air_time": "moves",
    "versions list air_time": "versions",
    "staleness show": "staleness",
    "staleness show air_time": "staleness",
    "staleness explain air_time": "sentences",
    "staleness history air_time": "evaluations",
    "staleness history air_time --changes": "changes",
    "staleness replay air_time --revision 40": "identical",
    "staleness evaluate air_time": "staleness",
    "impact weather": "reached",
    "impact weather --upstream": "reached",
    "graph": "dependencies",
    "graph diff --from 41": "nodes_added",
    "paths weather model:air_time": "total",
    "causes weather feature:temp": "causes",
    "what-if --retire weather": "affected",
    "nodes rename temp feature:x": "node",
    "nodes remove temp": "changed",
    "retrains list": "retrains",
    "retrains show rt_000001": "retrain",
    "retrains request air_time": "created",
    "retrains cancel rt_000001": "retrain",
    "rollouts list": "rollouts",
    "rollouts show ro_000001": "rollout",
    "rollouts promote air_time 4 --force --reason x": "rollout",
    "rollouts roll-back air_time": "rollout",
    "coverage air_time": "rows",
    "performance air_time": "rows",
    "join --from 2013-03-04": "models",
    "events": "events",
    "hold": "revision",
    "release": "revision",
}


@pytest.mark.parametrize("command", JSON_COMMANDS)
def test_json_everywhere(runway: Runner, command: str) -> None:
    ran = runway(f"{command} --json")
    assert (ran.code, ran.err) == (0, "")
    assert JSON_COMMANDS[command] in json.loads(ran.out)
    assert runway(f"--json {command}").out == ran.out


def test_json_keeps_the_contracts_names_and_defaults(runway: Runner) -> None:
    model = json.loads(runway("models list --json").out)["models"][1]
    assert model["model_id"] == "arrival_delay_jfk"
    assert model["task_type"] == "TASK_TYPE_BINARY"
    assert model["consumers"] == []


@pytest.mark.parametrize(
    ("command", "code", "complaint"),
    [
        ("models show arival_delay", 1, "there is no model 'arival_delay': did you mean arrival_delay_jfk?"),
        ("models show zzz", 1, "there is no model 'zzz': see `runway models list`"),
        ("staleness explain model:airtime", 1, "there is no model 'airtime': did you mean air_time?"),
        ("coverage arrival", 1, "there is no model 'arrival': did you mean arrival_delay_jfk?"),
        ("impact wether", 1, "there is no node 'wether': did you mean dataset:weather?"),
        ("impact dataset:wether", 1, "there is no node 'dataset:wether': did you mean dataset:weather?"),
        ("impact air_time", 1, "several nodes are called 'air_time': say which of consumer:air_time, model:air_time"),
        ("retrains show rt_00002", 1, "there is no retrain 'rt_00002': did you mean rt_000002 or rt_000001?"),
        ("rollouts promote air_time 4", 1, "v4 of air_time has not passed a validation: force it with a reason"),
        ("rollouts promote air_time 4 --force", 2, "--force needs --reason"),
        ("rollouts promote air_time four", 2, "'four' is not a version: write 3 or v3"),
        ("performance air_time --since yesterday", 2, "'yesterday' is not a time: write 2013-03-01"),
        ("modles", 2, "there is no command 'modles': did you mean models"),
        ("models shwo", 2, "there is no command 'shwo': did you mean show?"),
        ("qqq", 2, "there is no command 'qqq': see `runway --help`"),
        ("models list --tier 9", 2, "9 is not in the range 1<=x<=4"),
        ("models show", 2, "Missing argument 'MODEL'"),
    ],
)
def test_mistakes_are_answered_with_what_to_do(runway: Runner, command: str, code: int, complaint: str) -> None:
    ran = runway(command)
    assert ran.code == code
    assert ran.out == ""
    assert ran.err.startswith("runway: ")
    assert complaint in ran.err.splitlines()[0]


def test_nobody_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runway_cli.session.RETRY_FOR_S", 0.0)
    assert run(["--address", "127.0.0.1:1", "status"]) == 3
    assert capsys.readouterr().err == (
        "runway: cannot reach the control plane at 127.0.0.1:1: start it with `make up` or set RUNWAY_ADDRESS\n"
    )


def test_no_answer_and_invalid_input(runway: Runner, fake: ControlPlaneFake) -> None:
    fake.failures["OperationsService/GetStatus"].append(
        failure(code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "too slow: allow more time")
    )
    assert runway("status").code == 4
    fake.failures["RegistryService/GetModel"].append(
        failure(code_pb2.INVALID_ARGUMENT, "INVALID_ID", "model_id: no id", [("model_id", "no id"), ("team", "none")])
    )
    ran = runway("models show A")
    assert ran.code == 2
    assert ran.err == "runway: model_id: no id\n  model_id: no id\n  team: none\n"
    fake.failures["RegistryService/GetModel"].append(
        failure(code_pb2.INVALID_ARGUMENT, "INVALID_ID", "model_id: no id", [("model_id", "no id")])
    )
    assert runway("models show A").err == "runway: model_id: no id\n"


def test_help_says_the_exit_codes_and_imports_little() -> None:
    code = (
        "import sys\nfrom runway_cli.main import COMMANDS, LazyGroup, run\nassert run(['--help']) == 0\n"
        "heavy = {'grpc', 'google.protobuf', 'rich', 'pyarrow', 'runway_client'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "3 cannot reach the control plane, 4 no answer in time" in done.stdout
    for command in ("status", "models", "impact", "retrains", "watch"):
        assert f"\n  {command} " in done.stdout


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [
        [name, *inner]
        for name, entry in COMMANDS.items()
        for inner in ([[one] for one in entry.lazy] if isinstance(entry, LazyGroup) else [[]])
    ]
    assert len(paths) > 20
    for path in paths:
        assert run([*path, "--help"]) == 0
        out = capsys.readouterr().out
        assert "--json" in out
        assert out.startswith(f"Usage: runway {' '.join(path)} ")


def test_a_closed_pipe_is_nothing_to_talk_about(fake: ControlPlaneFake) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "runway_cli.main", "models", "list"],
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert done.stderr == b""


WIDE = [
    Column(title="MODEL"),
    Column(title="TEAM", spare=1),
    Column(title="OWNER", spare=2),
    Column(title="NOTE", prose=True),
]
ROWS = [["arrival_delay_jfk", "passenger_experience", "boris@example.com", "waits for the cooldown after air_time"]]


def printed(width: int | None) -> str:
    stream = io.StringIO()
    Page(stream, width=width, colours=False).table(WIDE, ROWS)
    return stream.getvalue()


def test_a_narrow_terminal_wraps_prose_then_leaves_out_columns_and_says_so() -> None:
    assert printed(None).count("\n") == 2
    assert printed(90) == text("""
MODEL              TEAM                  OWNER              NOTE
arrival_delay_jfk  passenger_experience  boris@example.com  waits for the cooldown after
                                                            air_time
""")
    assert printed(60) == text("""
MODEL              NOTE
arrival_delay_jfk  waits for the cooldown after air_time
(left out to fit: owner, team; a wider terminal or --json shows them)
""")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_ids_are_never_cut(width: int) -> None:
    assert "arrival_delay_jfk" in printed(width)
    layout = fit(WIDE, ROWS, width)
    if layout.hidden != ["owner", "team"]:
        assert sum(layout.widths) + 2 * (len(layout.widths) - 1) <= width


def test_colours_only_where_asked() -> None:
    stream = io.StringIO()
    Page(stream, width=80, colours=True).table([Column(title="VERDICT")], [["STALE"], ["x"]])
    assert stream.getvalue() == "\x1b[1mVERDICT\x1b[0m\n\x1b[1;31mSTALE\x1b[0m\nx\n"
    assert "\x1b" not in printed(80)


def test_text_from_elsewhere_cannot_repaint_the_screen(runway: Runner) -> None:
    out = runway("models show route_embedding").out
    assert "evil[2Jtext" in out
    assert "\x1b" not in out
