"""`runway staleness` against a real control plane: what an owner reads, replays of looks, and how it exits."""

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from runway_cli.line_chart import Point, bar, line_chart
from runway_cli.main import run
from runway_client import PredictionBatch, Runway, Why, connect, messages

from control_plane.app.replica import Submission
from control_plane.core.commands import AdvanceClock
from tests.api.served_plane import ServedPlane
from tests.api.test_staleness import PROFILE
from tests.ground_truth.arrows import ipc, prediction_columns, some_predictions, us

NOON = datetime(2013, 3, 4, 12, 30, tzinfo=UTC)
ROWS = 2_000


class Shell:
    """Runs `runway`; gives its exit code, stdout and stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, line: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = 0
        try:
            code = run(line.split())
        except SystemExit as done:
            code = int(done.code or 0)
        found = self._capsys.readouterr()
        return code, found.out, found.err


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


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


def clock_to(served: ServedPlane, at: datetime) -> None:
    served.submit(Submission(command=AdvanceClock(to=at), actor="a", reason=""))


def send(runway: Runway, at: datetime, *, shifted: bool) -> None:
    """Predictions of the hours before a time."""
    first = int(at.timestamp())
    rows = some_predictions(ROWS, start_us=us(at - timedelta(hours=3)), first=first)
    wind = np.random.default_rng(first).random(ROWS) * (0.1 if shifted else 1.0)
    data = ipc(prediction_columns(rows) | {"feature.wind": pa.array(wind)})
    [answer] = runway.ground_truth.ingest_predictions(
        [PredictionBatch(batch_id=f"b{first}", model_id="air_time", version=1, arrow_ipc=data)]
    )
    assert answer.rows == ROWS


@pytest.fixture
def drifted(served: ServedPlane) -> Iterator[Runway]:
    """`air_time` was well for some hours, then its wind moved."""
    with connect(served.address, "anna") as runway:
        clock_to(served, NOON)
        trained = Timestamp()
        trained.FromDatetime(NOON - timedelta(days=2))
        policy = messages.StalenessPolicy(
            hysteresis_k=1, hysteresis_n=1, stale_threshold=0.2, at_risk_threshold=0.1, evaluate_on_evidence=False
        )
        runway.policies.set_policies("fleet", messages.Policies(staleness=policy), why=Why(reason="test"))
        runway.registry.register_model(
            messages.Model(
                model_id="air_time",
                team="crew",
                owner="team:crew",
                tier=messages.TIER_1,
                task_type=messages.TASK_TYPE_BINARY,
            )
        )
        version = messages.ModelVersion(
            model_id="air_time", artifact_uri="mem://1", artifact_sha256="0" * 64, trained_until=trained
        )
        runway.registry.register_version(version, reference_profile=PROFILE)
        runway.rollouts.promote_version("air_time", 1, force=True, why=Why(reason="first"))
        for hour in range(6):
            at = NOON + timedelta(hours=hour)
            clock_to(served, at)
            send(runway, at, shifted=hour >= 3)
            runway.staleness.evaluate_model("air_time", why=Why(reason="test"))
        yield runway


def test_explain_tells_why_and_draws_the_score(drifted: Runway, shell: Shell) -> None:
    code, out, _ = shell("staleness explain air_time")
    assert code == 0
    assert out.startswith("air_time is STALE since 2013-03-04 ")
    sentences, _, charts = out.partition("score over time")
    assert "wind" in sentences
    assert "What to do" in sentences
    assert len(sentences.strip().splitlines()) <= 14
    assert "0.20 |" in charts
    assert any(0x2800 < ord(character) <= 0x28FF for character in charts), "drawn in braille"
    assert "PSI of the most drifted features\nwind" in charts


def test_a_terminal_that_knows_no_unicode_gets_ascii(
    drifted: Runway, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    _, out, _ = shell("staleness explain air_time")
    charts = out.partition("score over time")[2]
    assert "*" in charts
    assert "#" in charts
    assert charts.isascii()


def test_show_gives_the_numbers(drifted: Runway, shell: Shell) -> None:
    _, out, _ = shell("staleness show air_time")
    for heading in ("signals", "most drifted features", "reasons", "what would change it", "what to do"):
        assert f"\n{heading}\n" in out, heading
    assert "weighted average" in out


def test_history_lists_looks_newest_first(drifted: Runway, shell: Shell) -> None:
    code, out, _ = shell("staleness history air_time --limit 3")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["LOOKED", "AT"]
    assert [line[:16] for line in lines[1:4]] == [f"2013-03-04 {hour}:30" for hour in (17, 16, 15)]
    assert lines[4].startswith("there are more: --limit 12")
    _, out, _ = shell("staleness history air_time --from 2013-03-04T13:00 --to 2013-03-04T15:00 --json")
    found = json.loads(out)["evaluations"]
    assert [one["evaluated_at"] for one in found] == ["2013-03-04T14:30:00Z", "2013-03-04T13:30:00Z"]
    _, out, _ = shell("staleness history air_time --points 2")
    assert len(out.splitlines()) == 3
    _, out, _ = shell("staleness history air_time --changes")
    assert "STALE" in out.splitlines()[1]
    assert shell("staleness history air_time --from 2015-01-01")[1] == (
        "there was no look at air_time from 2015-01-01 00:00\n"
    )


def test_every_verdict_change_is_replayed_bit_for_bit(drifted: Runway, shell: Shell) -> None:
    changes = drifted.staleness.list_verdict_changes("air_time")
    assert len(changes) >= 2
    for change in changes:
        code, out, _ = shell(f"staleness replay air_time --revision {change.revision}")
        assert code == 0, out
        assert "identical, bit for bit" in out
    code, out, _ = shell("staleness replay air_time --at 2013-03-04T15:30")
    assert (code, "looked at on 2013-03-04 15:30:00" in out) == (0, True)
    assert shell("staleness replay air_time")[0] == 0, "without a name: what brought the verdict about"


def test_tampered_evidence_is_detected(drifted: Runway, shell: Shell, tmp_path: Path) -> None:
    change = drifted.staleness.list_verdict_changes("air_time")[0]
    digest = change.evaluation.evidence_sha256
    other = sqlite3.connect(tmp_path / "home" / "looks.sqlite")
    [[blob]] = other.execute("SELECT data FROM evidence WHERE sha256 != ? LIMIT 1", (digest,)).fetchall()
    other.execute("UPDATE evidence SET data = ? WHERE sha256 = ?", (blob, digest))
    other.commit()
    other.close()
    code, _, err = shell(f"staleness replay air_time --revision {change.revision}")
    assert code != 0
    assert "it was changed or damaged after it was written" in err


def test_a_replay_that_differs_says_where_and_ends_with_1(
    drifted: Runway, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = messages.ReplayEvaluationResponse(identical=False, differences=["score was 0.71, is 0.7"])
    monkeypatch.setattr("runway_client.staleness.Staleness.replay_evaluation", lambda *_args, **_named: answer)
    code, out, _ = shell("staleness replay air_time --revision 1")
    assert code == 1
    assert "DIFFERS:\n- score was 0.71, is 0.7\n" in out


def test_evaluate_looks_now(drifted: Runway, shell: Shell, served: ServedPlane) -> None:
    clock_to(served, NOON + timedelta(hours=6))
    code, out, _ = shell("staleness evaluate air_time --reason curious")
    assert code == 0
    assert "evaluated now." in out
    _, out, _ = shell("staleness history air_time --limit 1")
    assert "2013-03-04 18:30:00" in out


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("history airtime", 1, "did you mean air_time?"),
        ("replay airtime --revision 1", 1, "did you mean air_time?"),
        ("replay air_time --revision 1 --at 2013-03-04", 2, "not by both"),
        ("replay air_time --revision 1", 1, "no verdict of air_time changed at revision 1: its last changes are"),
        ("replay air_time --at 2013-01-01", 1, "there was no look at air_time until 2013-01-01 00:00"),
        ("replay air_time --at yesterday", 2, "write 2013-03-01 or 2013-03-01T12:00 (UTC)"),
        ("history air_time --from 2013-03-05 --to 2013-03-04", 2, "swap the two"),
        ("evaluate airtime", 1, "did you mean air_time?"),
        ("explian air_time", 2, "did you mean explain or replay?"),
    ],
)
def test_mistypes_are_answered_with_a_remedy(drifted: Runway, shell: Shell, line: str, code: int, says: str) -> None:
    found, _, err = shell(f"staleness {line}")
    assert says in err
    assert found == code


def test_a_chart_marks_versions_and_survives_odd_numbers() -> None:
    points = [
        Point(NOON + timedelta(days=day), float("nan") if day == 3 else 0.1 * (day % 5), "v1" if day < 6 else "v2")
        for day in range(12)
    ]
    lines = line_chart(points, 0.6, width=60, unicode=False)
    assert lines[-2].strip() == "^v2"
    assert all(len(line) <= 60 for line in lines)
    assert line_chart(points[:1], 0.6, width=60, unicode=True) == []
    assert line_chart([points[0], points[0]], 0.6, width=60, unicode=True) == []
    flat = [Point(NOON + timedelta(days=day), 0.0) for day in range(3)]
    assert line_chart(flat, 0.0, width=10, unicode=True), "nothing to divide by"
    assert bar(float("nan"), 1.0, 10, unicode=True) == ""
