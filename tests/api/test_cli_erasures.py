"""`runway erase` and `runway erasures` against a real control plane, and ids that the client hashes."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from runway_client import PredictionBatch, Runway, connect
from runway_client.arrow import prediction_ids
from runway_client.ids import hashed

from control_plane.app.replica import Submission
from control_plane.core.commands import AdvanceClock
from control_plane.core.ground_truth.ids import NO_HOUR, id_columns, id_hours
from tests.api.served_plane import ServedPlane
from tests.api.test_cli_facts import MADE, NOW, arrow, register
from tests.api.test_cli_rules import Shell

IDS = [uuid.UUID(bytes=bytes(one)) for one in prediction_ids(MADE, range(len(MADE)))]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    served = ServedPlane(tmp_path / "home", monkeypatch)
    served.start()
    monkeypatch.setenv("RUNWAY_ADDRESS", served.address)
    monkeypatch.setenv("COLUMNS", "140")
    with connect(served.address, "anna") as runway:
        served.look_no_more()
        served.submit(Submission(command=AdvanceClock(to=NOW), actor="a", reason=""))
        register(runway, "air_time")
        fill(runway)
        yield Shell(capsys)
    served.stop()
    served.close()


def fill(runway: Runway) -> None:
    batch = PredictionBatch(batch_id="1", model_id="air_time", version=1, arrow_ipc=arrow())
    assert len(list(runway.ingest_predictions([batch]))) == 1


def test_a_receipt_is_shown_and_listed(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text(f"{IDS[0]}\n{IDS[1].hex}\n\n")
    ran = shell("erase", "--file", str(file), "--prediction-id", str(IDS[2]), "--reason", "asked by letter", "--yes")
    assert ran.code == 0, ran
    for said in ("erasure-1", "erased 3 predictions", "asked by letter", "A second search found 0.", "speed view"):
        assert said in ran.out
    assert ran.out.endswith(shell("erasures").out)  # the log of the control plane is before it
    told = json.loads(shell("erasures", "--json").out)
    [receipt] = told["receipts"]
    assert receipt["erasure_id"] == "erasure-1"
    found = {layer["layer"]: int(layer.get("found", 0)) for layer in receipt["layers"]}
    assert 0 < found["predictions"] == found["segments"] <= 3  # half of the rows were sampled out


def test_nothing_was_erased_yet(shell: Shell) -> None:
    assert "Nothing was ever erased." in shell("erasures").out


@pytest.mark.parametrize("given", [[], ["--prediction-id", "nonsense", "--yes"], ["--prediction-id", str(IDS[0])]])
def test_slips_are_refused(shell: Shell, given: list[str]) -> None:
    assert shell("erase", *given).code == 2
    assert "Nothing was ever erased." in shell("erasures").out


def test_a_hashed_id_is_made_again_only_with_the_key() -> None:
    at = datetime(2024, 1, 1, 13, 30, tzinfo=UTC)
    one = hashed("order 17", b"key", at)
    assert len(one) == 16
    assert one == hashed("order 17", b"key", at)
    assert one not in {hashed("order 17", b"other", at), hashed("order 18", b"key", at)}
    assert uuid.UUID(bytes=one).version == 7
    assert uuid.UUID(bytes=hashed("order 17", b"key")).version == 8


def test_a_hashed_id_carries_the_hour_only_if_it_is_told_one() -> None:
    at = datetime(2024, 1, 1, 13, 30, tzinfo=UTC)
    raw = np.frombuffer(hashed("a", b"k", at) + hashed("a", b"k"), np.uint8).reshape(2, 16)
    hour = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(hours=1)
    assert id_hours(id_columns(raw)).tolist() == [hour, NO_HOUR]
