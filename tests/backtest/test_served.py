"""Backtests from end to end: history sent to the real server, run in another process, shown by the command line."""

import json
import queue
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from runway.v1 import backtest_pb2
from runway_cli.main import run
from runway_client import InvalidRequest, NotFound, Runway, connect, messages, to_duration, to_timestamp

from tests.api.served_plane import ServedPlane
from tests.backtest.histories import BORN, DAYS, DRIFT_DAY, tell_history

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)
END = BORN + DAYS * DAY
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedPlane]:
    with pytest.MonkeyPatch.context() as patch:
        one = ServedPlane(tmp_path_factory.mktemp("plane"), patch)
        one.start()
        try:
            with connect(one.address, "anna") as client:
                tell_history(client)
            yield one
        finally:
            one.stop()
            one.close()


@pytest.fixture
def runway(served: ServedPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runway]:
    monkeypatch.setenv("RUNWAY_ADDRESS", served.address)
    with connect(served.address, "anna") as client:
        yield client


EAGER = messages.Policies(
    retraining=messages.RetrainingPolicy(automatic=True),
    staleness=messages.StalenessPolicy(stale_threshold=0.3, at_risk_threshold=0.2),
)


def test_history_runs_under_several_policies(runway: Runway) -> None:
    heard: list[str] = []
    before = runway.operations.get_status().revision
    report = runway.backtest.run_backtest(
        BORN + HOUR,
        END,
        contenders=[
            messages.Contender(name="current", current=True),
            messages.Contender(name="eager", policies=EAGER),
            messages.Contender(name="weekly", every=to_duration(7 * DAY)),
            messages.Contender(name="oracle", oracle=True),
        ],
        progress=lambda name, done: heard.append(name),
    )
    found = {one.name: one for one in report.results}
    assert list(found) == ["current", "eager", "weekly", "oracle"]
    assert set(heard) == {"reading history", "current", "eager", "weekly", "oracle"}
    assert report.models == 2
    assert any("late" in warning for warning in report.warnings)
    assert found["current"].retrains == 0, "the recorded policies are not automatic"
    drifted_hours = 24 * (DAYS - DRIFT_DAY)
    assert drifted_hours * 0.8 <= found["current"].stale_hours <= drifted_hours * 1.2
    assert {row.model_id for row in found["eager"].retrain_log} == {"delay"}
    assert found["eager"].retrain_log[0].truly_stale
    assert found["eager"].retrain_log[0].reason
    assert found["oracle"].stale_hours < found["eager"].stale_hours < found["current"].stale_hours
    assert found["weekly"].retrains == 2
    assert report.estimated
    assert "estimated" in report.reading
    since = runway.operations.list_events(after_revision=before)
    assert {event.actor for event in since} <= {"runway"}, "only the evaluator of the live fleet wrote anything"


def test_a_caller_who_goes_away_ends_the_backtest_and_too_many_are_sent_away(
    served: ServedPlane, runway: Runway
) -> None:
    """One runs at a time: had the first not ended, the last would wait for it for minutes."""
    long = backtest_pb2.RunBacktestRequest(
        start_time=to_timestamp(BORN + HOUR),
        end_time=to_timestamp(END),
        contenders=[messages.Contender(name=f"c{at}", policies=EAGER) for at in range(20)],
    )
    streams: list[Any] = [runway.backtest.stub.RunBacktest(long) for _ in range(6)]
    refusals: queue.Queue[Any] = queue.Queue()

    def follow(stream: Any) -> None:
        try:
            for _ in stream:
                pass
        except grpc.RpcError as error:
            refusals.put(error)

    followers = [threading.Thread(target=follow, args=(stream,)) for stream in streams]
    for one in followers:
        one.start()
    first = refusals.get(timeout=60)
    assert first.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "try again" in first.details()
    for stream in streams:
        stream.cancel()
    for one in followers:
        one.join(30)
    report = runway.backtest.run_backtest(
        BORN + HOUR, BORN + DAY, contenders=[messages.Contender(name="mine", oracle=True)], deadline_s=60
    )
    assert report.models == 2


def test_the_same_history_gives_the_same_report(runway: Runway) -> None:
    contenders = [messages.Contender(name="eager", policies=EAGER)]
    reports = [
        runway.backtest.run_backtest(BORN + HOUR, END, model_ids=["delay"], contenders=contenders) for _ in range(2)
    ]
    assert reports[0] == reports[1]


def test_layers_speak_to_their_scopes(runway: Runway) -> None:
    layers = messages.ContenderLayers(layers=[messages.PolicyLayer(scope="model:delay", policies=EAGER)])
    report = runway.backtest.run_backtest(BORN + HOUR, END, contenders=[messages.Contender(name="mine", layers=layers)])
    assert report.results[0].retrains > 0


@pytest.mark.parametrize(
    ("start", "end", "models", "field", "words"),
    [
        (BORN + HOUR, BORN + HOUR, (), "end_time", "at least an hour"),
        (BORN + 2 * DAY, BORN + DAY, (), "end_time", "at least an hour"),
        (BORN + HOUR, END + DAY, (), "end_time", "future"),
        (BORN - 40 * DAY, END, (), "start_time", "reach back"),
        (BORN + HOUR, END, ("late",), "start_time", "late had no version in production"),
        (BORN - 500 * DAY, END, (), "start_time", "at most 400 days"),
    ],
)
def test_what_history_cannot_answer_is_refused(
    runway: Runway, start: object, end: object, models: tuple[str, ...], field: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        runway.backtest.run_backtest(start, end, model_ids=models)  # type: ignore[arg-type]
    assert [violation.field for violation in refused.value.violations] == [field]


def test_a_time_without_predictions_is_refused(runway: Runway) -> None:
    with pytest.raises(InvalidRequest, match="no predictions"):
        runway.backtest.run_backtest(BORN + 10 * DAY, END, model_ids=["late"])


def test_unknown_models_and_broken_contenders_are_told(runway: Runway) -> None:
    with pytest.raises(NotFound, match="dely"):
        runway.backtest.run_backtest(BORN + HOUR, END, model_ids=["dely"])
    twice = [messages.Contender(name="a", current=True), messages.Contender(name="a", oracle=True)]
    with pytest.raises(InvalidRequest, match="two contenders"):
        runway.backtest.run_backtest(BORN + HOUR, END, contenders=twice)
    with pytest.raises(InvalidRequest, match="1 hour"):
        short = messages.Contender(name="short", every=to_duration(timedelta(minutes=5)))
        runway.backtest.run_backtest(BORN + HOUR, END, contenders=[short])
    wrong = messages.Policies(staleness=messages.StalenessPolicy(weights=messages.StalenessPolicy.Weights(age=0.5)))
    with pytest.raises(InvalidRequest, match=r"wrong: .*weights sum"):
        runway.backtest.run_backtest(BORN + HOUR, END, contenders=[messages.Contender(name="wrong", policies=wrong)])


def write_policy(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(text)
    return str(file)


def test_the_command_line_shows_a_table_json_and_a_page(
    runway: Runway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_policy(
        tmp_path,
        "new.yaml",
        "retraining: {automatic: true}\nstaleness: {stale_threshold: 0.3, at_risk_threshold: 0.2}\n",
    )
    page = tmp_path / "page.html"
    asked = ["backtest", "--policy", new, "--from", "2013-03-01T01:00", "--to", "2013-03-15", "--html", str(page)]
    assert run([*asked, "--only", "current,new,oracle"]) == 0
    shown = capsys.readouterr().out
    rows = [line.split()[0] for line in shown.splitlines() if re.match(r"(current|new|oracle) ", line)]
    assert rows[:3] == ["current", "new", "oracle"]
    assert "new makes" in shown
    assert "estimated" in shown
    text = page.read_text()
    assert "<svg" in text
    assert not re.search(r'(src|href)="(?!#)', re.sub(r'xlink:href="#', "", text)), "nothing from elsewhere"
    assert run([*asked, "--json", "--only", "new", "--model", "delay"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in report["results"]] == ["new"]
    assert report["models"] == 1


def test_a_manifest_of_policies_and_rules_is_a_contender(
    runway: Runway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "policies:\n  - scope: model:delay\n    policies:\n      retraining: {automatic: true}\n"
    new = write_policy(tmp_path, "fleet.yaml", text)
    asked = ["backtest", "--policy", new, "--from", "2013-03-01T01:00", "--to", "2013-03-15", "--only", "fleet"]
    assert run([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["name"] == "fleet"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--only", "orcale"], 2, "oracle"),
        (["--only", "every"], 2, "every 7 d"),
        (["--every", "weekly"], 2, "no span"),
        (["--every", "5m"], 2, "an hour"),
        (["--from", "yesterday"], 2, "--from"),
        (["--to", "2013-13-01"], 2, "--to"),
        (["--policy", "nowhere.yaml"], 1, "nowhere.yaml"),
        (["--model", "dely", "--from", "2013-03-02", "--to", "2013-03-10"], 1, "delay"),
        (["--from", "2013-03-10", "--to", "2013-03-02"], 2, "after it starts"),
        (["--html", "/no/such/folder/page.html"], 2, "no folder"),
    ],
)
def test_mistypes_are_answered_with_what_to_write(
    runway: Runway, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert run(["backtest", *arguments]) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("staleness:\n  stale_treshold: 0.5\n", r"new\.yaml:2: staleness\.stale_treshold: .*stale_threshold"),
        ("staleness: {stale_threshold: high}\n", r"new\.yaml:1: staleness\.stale_threshold: "),
        ("staleness: {weights: {age: 0.5}\n", r"new\.yaml:\d+: "),
        ("", "says nothing"),
        ("policies:\n  - scope: flet\n    policies: {staleness: {cadence: 1h}}\n", r"scope|flet"),
    ],
)
def test_a_wrong_policy_file_names_line_and_field(
    runway: Runway, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    new = write_policy(tmp_path, "new.yaml", text)
    asked = ["backtest", "--policy", new, "--from", "2013-03-01T01:00", "--to", "2013-03-15"]
    assert run(asked) == 2
    assert re.search(words, capsys.readouterr().err)
