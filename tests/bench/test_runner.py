"""The benchmark runner: one broken module costs its own rows only."""

import json
import sys
from pathlib import Path

import pytest

from bench import __main__ as runner
from bench.fleet import make_fleet
from bench.table import Row, failure, print_table, rows_from


def test_a_module_that_fails_is_a_row_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = Row(id="good", value=1.5, unit="ms", peers={"other": 2}, note="[fine]")
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(runner, "_discover", lambda: ({"bench.no_such_module": ("bad",), "bench.good": ("good",)}, []))
    real = runner._run
    monkeypatch.setattr(
        runner, "_run", lambda name, ids, only: rows_from([good]) if name == "bench.good" else real(name, ids, only)
    )
    monkeypatch.setattr(sys, "argv", ["bench"])
    monkeypatch.delenv("ONLY", raising=False)
    assert runner.main() == 1
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [(row["id"], row["value"]) for row in rows] == [("bad", None), ("good", 1.5)]
    assert "ModuleNotFoundError" in rows[0]["note"]
    assert "[fine]" in capsys.readouterr().out


def test_an_unknown_id_is_named_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "nope"])
    assert runner.main() == 2
    assert "impact_5k_p99_ms" in capsys.readouterr().err


def test_every_module_of_the_package_can_be_imported() -> None:
    found, broken = runner._discover()
    assert broken == []
    ids = [i for ids in found.values() for i in ids]
    assert len(ids) == len(set(ids))
    assert {"impact_5k_p99_ms", "read_vs_echo_ratio", "start_5k_s"} <= set(ids)


def test_rows_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(KeyError):
        rows_from([{"id": "x"}])  # type: ignore[typeddict-item]  # that is the point


def test_the_table_shows_failures(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([failure("broken", "because")])
    assert "FAILED: because" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_fleet() -> None:
    fleet = make_fleet(models=50, others=50, dependencies=300)
    assert fleet == make_fleet(models=50, others=50, dependencies=300)
    assert len(set(fleet.dependencies)) == 300
    assert len(set(fleet.node_ids)) == 100
