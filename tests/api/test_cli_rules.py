"""`runway rules` against a real control plane: what people read, and how it exits."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from runway_cli.main import run
from runway_client import Runway, Why, connect, messages

from control_plane.app.replica import Submission
from control_plane.core.commands import AdvanceClock, RecordEvaluation
from control_plane.core.ids import ModelId
from tests.api.served_plane import ServedPlane
from tests.core.fleets import an_evaluation

OFF = "no retrain: retraining.automatic is off"
NOW = datetime(2013, 3, 4, 6, tzinfo=UTC)
STALE = "verdict == STALE && confidence >= MEDIUM && tier <= 2 && !season.expected"


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


class Shell:
    """Runs `runway` against a fleet of three models, two of them stale."""

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
    one = ServedPlane(tmp_path / "home", monkeypatch)
    one.start()
    monkeypatch.setenv("RUNWAY_ADDRESS", one.address)
    monkeypatch.setenv("RUNWAY_ACTOR", "anna")
    monkeypatch.setenv("COLUMNS", "120")
    yield one
    one.stop()
    one.close()


@pytest.fixture
def runway(served: ServedPlane) -> Iterator[Runway]:
    with connect(served.address, "anna") as one:
        served.look_no_more()
        served.submit(Submission(command=AdvanceClock(to=NOW), actor="a", reason=""))
        for name, stale in (("air_time", True), ("crew_overtime", True), ("bag_volume", False)):
            one.registry.register_model(
                messages.Model(
                    model_id=name,
                    team="crew",
                    owner="team:crew",
                    tier=messages.TIER_2,
                    task_type=messages.TASK_TYPE_BINARY,
                    # Else the plan would request retrains between two commands of a test.
                    policies=messages.Policies(retraining=messages.RetrainingPolicy(automatic=False)),
                )
            )
            until = Timestamp()
            until.FromDatetime(NOW)
            version = messages.ModelVersion(
                model_id=name, artifact_uri="file:///x", artifact_sha256="a" * 64, trained_until=until
            )
            number = int(one.registry.register_version(version).version)
            one.rollouts.promote_version(name, number, force=True, why=Why(reason="a test"))
            for _ in range(3):
                look = RecordEvaluation(model_id=ModelId(name), evaluation=an_evaluation(number, NOW, stale=stale))
                served.submit(Submission(command=look, actor="evaluator", reason="looked"))
        yield one


@pytest.fixture
def shell(runway: Runway, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_a_rule_is_checked_set_listed_and_removed(shell: Shell) -> None:
    checked = shell("rules", "check", "--when", STALE, "--then", "require-approval")
    assert (checked.code, checked.out) == (
        0,
        "This rule would act on 2 models now: air_time, crew_overtime.\n"
        f"  {OFF} -> no retrain until somebody asks for it for 2 models: air_time and crew_overtime\n",
    )
    arguments = (
        "ask_us",
        "--when",
        STALE,
        "--then",
        "require-approval",
        "--priority",
        "5",
        "--reason",
        "GPUs are short",
    )
    dry = shell("rules", "set", *arguments, "--dry-run")
    assert dry.out.startswith("rule ask_us (fleet) would be at version 1.\nThis rule would act on 2 models now")
    assert "no rule is set" in shell("rules", "list").out
    done = shell("rules", "set", *arguments)
    assert done.code == 0
    assert done.out.startswith("rule ask_us (fleet) is at version 1 (revision ")
    assert f"This rule acts on 2 models now: air_time, crew_overtime.\n  {OFF} -> no retrain until" in done.out
    listed = shell("rules", "list").out
    assert ("ask_us" in listed, "require-approval" in listed, "GPUs are short" in listed) == (True, True, True)
    mine = shell("rules", "list", "--model", "air_time").out
    assert "require-approval, by ask_us (fleet), since" in mine
    assert "retraining waits for somebody to ask (`runway retrains request air_time`): ask_us (fleet)" in mine
    assert "None holds for bag_volume now." in shell("rules", "list", "--model", "bag_volume").out
    assert shell("rules", "remove", "ask_us", "--reason", "enough").out.startswith("rule ask_us (fleet) is removed")
    gone = shell("rules", "remove", "ask_us")
    assert (gone.code, gone.err) == (
        1,
        "runway: no rule 'ask_us' in scope fleet: `runway rules list` shows what there is\n",
    )


def test_what_is_wrong_with_a_rule_has_a_caret_under_it(shell: Shell) -> None:
    wrong = shell("rules", "check", "--when", "verdict == STALEE && tierr < 2", "--then", "retrain")
    assert (wrong.code, wrong.out) == (
        2,
        "  verdict == STALEE && tierr < 2\n"
        "             ^ 1:12 there is no STALEE: did you mean STALE?\n"
        "                       ^ 1:22 there is no tierr: did you mean tier?\n",
    )
    refused = shell("rules", "set", "bad", "--when", "tier = 1", "--then", "page")
    assert refused.code == 2
    assert "  tier = 1\n       ^ 1:6 `=` is not expected here: write == to compare\n" in refused.err
    assert "runway: rule.when: 1:6: `=` is not expected here: write == to compare" in refused.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--when", "true", "--then", "nap"), "'nap' is none of retrain, retrain-off-peak, require-approval, ignore"),
        (("--when", "true"), "Missing option '--then'"),
        (("--when", "true", "--then", "page", "--scope", "tier:9"), "scope"),
        (("--when", "true", "--then", "page", "--scope", "nope"), "no model 'nope'"),
    ],
)
def test_a_slip_on_the_command_line_is_told(shell: Shell, arguments: tuple[str, ...], told: str) -> None:
    ran = shell("rules", "check", *arguments)
    assert ran.code in (1, 2)
    assert told in ran.err


def test_a_rule_of_several_lines_comes_from_standard_input(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("verdict == STALE &&\n  owner == team\n"))
    assert "on no model now" in shell("rules", "check", "--when", "-", "--then", "alert").out
    monkeypatch.setattr("sys.stdin", io.StringIO("verdict == STALE &&\n  ownr == team\n"))
    assert shell("rules", "check", "--when", "-", "--then", "alert").out == (
        "  verdict == STALE &&\n    ownr == team\n    ^ 2:3 there is no ownr: did you mean owner?\n"
    )


def test_the_context_and_json(shell: Shell) -> None:
    shown = shell("rules", "context").out
    assert "season.expected" in shown
    assert "map(string, double)" in shown
    fields = json.loads(shell("rules", "context", "--json").out)["fields"]
    assert {"name": "STALE", "type": "int", "description": "The number 3.", "example": "STALE"} in fields
    checked = json.loads(shell("rules", "check", "--when", STALE, "--then", "page", "--json").out)
    assert checked["model_ids"] == ["air_time", "crew_overtime"]
    assert checked["effects"][0] == {"model_id": "air_time", "now": OFF, "then": f"{OFF}, page"}


def test_a_policy_whose_weights_do_not_sum_to_1_is_refused_with_their_sum(shell: Shell) -> None:
    weights = [f"staleness.weights.{name}=0.3" for name in ("age", "input_drift", "prediction_drift", "performance")]
    refused = shell("policies", "set", "fleet", *weights)
    assert refused.code == 2
    assert "weights sum to 1.2, not to 1" in refused.err
