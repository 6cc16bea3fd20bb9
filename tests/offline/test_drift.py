"""Drift between two files: the same numbers as the library, every kind of odd column, and errors that help."""

import datetime as dt
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from runway_cli.main import EXIT_OK, EXIT_USAGE, run

from control_plane.core.statistics.drift import benjamini_hochberg, chi_square, psi, psi_debiased
from control_plane.offline.drift import Options, Report, TableError, report
from control_plane.offline.drift_page import page
from control_plane.offline.tables import numbers

ROWS = 4_000


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def compared(tmp_path: Path, then: dict[str, Any], now: dict[str, Any], **options: Any) -> Report:
    return report(parquet(tmp_path / "then.parquet", then), parquet(tmp_path / "now.parquet", now), Options(**options))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """`wind` moved, `calm` did not, `carrier` is a category that did not."""

    def columns(seed: int, shift: float) -> dict[str, Any]:
        draw = rng(seed)
        return {
            "wind": draw.normal(shift, 1, ROWS),
            "calm": draw.normal(0, 1, ROWS),
            "carrier": draw.choice(["UA", "B6", "EV"], ROWS),
        }

    return parquet(tmp_path / "a.parquet", columns(1, 0.0)), parquet(tmp_path / "b.parquet", columns(2, 1.0))


def test_the_numbers_are_the_librarys(pair: tuple[Path, Path]) -> None:
    found = report(*pair)
    assert [one.name for one in found.columns if one.drifted] == ["wind"]
    for one in found.columns:
        r, c = np.array(one.reference), np.array(one.current)
        assert (r.sum(), c.sum()) == (ROWS, ROWS)
        assert one.psi == pytest.approx(psi(r, c), rel=1e-9)
        assert one.psi_debiased == pytest.approx(psi_debiased(r, c), rel=1e-9)
        assert one.p_value == pytest.approx(chi_square(r, c)[2], rel=1e-6, abs=1e-300)
    found_by_library = benjamini_hochberg(np.array([one.p_value for one in found.columns]))
    assert [bool(one) for one in found_by_library] == [True, False, False]
    assert found.sentence.startswith("1 of 3 columns drifted (4,000 rows against 4,000): wind (PSI ")


def test_csv_gives_what_parquet_gives(pair: tuple[Path, Path], tmp_path: Path) -> None:
    now = tmp_path / "b.csv"
    pyarrow.csv.write_csv(pq.read_table(pair[1]), now)
    packed = tmp_path / "b.csv.gz"
    packed.write_bytes(gzip.compress(now.read_bytes()))
    wanted = report(*pair).columns
    assert report(pair[0], now).columns == wanted
    assert report(pair[0], packed).columns == wanted


def test_odd_columns_are_compared_or_left_out_with_a_reason(tmp_path: Path) -> None:
    numbers = rng().normal(0, 1, ROWS)
    odd: dict[str, Any] = {
        "constant": np.ones(ROWS),
        "all_missing": pa.nulls(ROWS, pa.float64()),
        "null_type": pa.nulls(ROWS),
        "truth": pa.array(numbers > 0),
        "money": pa.array([Decimal(f"{one:.2f}") for one in numbers]),
        "small": pa.array(numbers.astype(np.float32)),
        "counted": pa.array(rng().integers(0, 5, ROWS)),
        "named": pa.array(rng().choice(["a", "b"], ROWS)).dictionary_encode(),
        "cities": pa.array([f"city {one}" for one in rng().integers(0, 900, ROWS)]),
        "order_id": pa.array(np.arange(ROWS)),
        "session": pa.array([f"s{one}" for one in range(ROWS)]),
        "day": pa.array([dt.date(2026, 1, 1)] * ROWS),
        "at": pa.array([dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * ROWS),
        "tags": pa.array([["x"]] * ROWS),
        "blob": pa.array([b"x"] * ROWS),
    }
    found = compared(tmp_path, odd, odd)
    left = dict(found.left_out)
    assert set(left) == {"order_id", "session", "day", "at", "tags", "blob"}
    assert left["order_id"] == left["session"] == "every value is another one: it is an identifier"
    assert left["tags"] == "it holds lists or structures"
    assert found.drifted == 0
    assert all(np.isfinite([one.psi, one.psi_debiased, one.p_value]).all() for one in found.columns)
    assert json.loads(json.dumps([one.p_value for one in found.columns]))


def test_infinite_values_count_at_the_ends_and_are_noted(tmp_path: Path) -> None:
    values = rng().normal(0, 1, ROWS)
    values[:7] = np.inf
    found = compared(tmp_path, {"x": values}, {"x": values})
    assert found.drifted == 0
    assert found.notes == ("x holds 14 infinite values: they count in the outermost bins",)


def test_categories_never_seen_and_vanished(tmp_path: Path) -> None:
    then = rng(1).choice(["a", "b", "c"], ROWS)
    found = compared(tmp_path, {"c": then}, {"c": np.where(then == "a", "new", then)})
    assert found.columns[0].drifted
    assert any("c: " in fault for fault in found.data_quality)


def test_one_row_is_too_little_for_anything(tmp_path: Path) -> None:
    found = compared(tmp_path, {"x": [1.0], "c": ["a"]}, {"x": [2.0], "c": ["b"]})
    assert found.drifted == 0
    assert found.data_quality == ()
    assert "now.parquet has 1 row: only large drift can be told from chance" in found.notes


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.float64(), [1.5, None, -3.0]),
        (pa.float32(), [1.5, None, -3.0]),
        (pa.int64(), [1, None, -3]),
        (pa.bool_(), [True, None, False]),
        (pa.decimal128(8, 2), [Decimal("1.25"), None, Decimal("-3")]),
        (pa.int64(), [None, None, None]),
    ],
)
def test_parts_of_arrays_are_read_where_they_begin(kind: pa.DataType, values: list[Any]) -> None:
    whole = pa.array(values * 9, kind)
    for column in (
        pa.chunked_array([whole]),
        pa.chunked_array([whole[3:], whole[1:14], whole[:0]]),
        pa.chunked_array([], kind),
    ):
        expected = [np.nan if one is None else float(one) for one in column.to_pylist()]
        np.testing.assert_array_equal(numbers(column), np.array(expected))


def test_text_that_reads_as_numbers_is_numbers(tmp_path: Path) -> None:
    values = rng().normal(0, 1, ROWS).round(3)
    found = compared(tmp_path, {"x": values}, {"x": [f" {one} " for one in values]})
    assert found.columns[0].kind == "numeric"
    assert found.columns[0].psi == 0
    mixed = compared(tmp_path, {"x": values}, {"x": [f"{one} m" for one in values]})
    assert mixed.columns[0].kind == "categorical"
    assert mixed.notes == ("x holds numbers in one file and text in the other: compared as categories",)


def test_columns_of_one_file_only_are_told(tmp_path: Path) -> None:
    found = compared(tmp_path, {"x": [1.0] * 9, "old": [1.0] * 9}, {"x": [1.0] * 9, "new": [1.0] * 9})
    assert found.left_out == (("new", "only now.parquet has it"), ("old", "only then.parquet has it"))


def test_a_hundred_thousand_categories(tmp_path: Path) -> None:
    many = [f"{one % 60_000}" for one in range(100_000)]
    found = compared(tmp_path, {"zip": many}, {"zip": many}, categorical=("zip",))
    assert len(found.columns[0].cells) == 22
    assert not found.columns[0].drifted


def test_slices_and_prediction(tmp_path: Path) -> None:
    country = rng(3).choice(["US", "DE"], ROWS)
    score = rng(4).random(ROWS)
    then = {"country": country, "x": rng(5).normal(0, 1, ROWS), "score": score}
    now = {"country": country, "x": rng(6).normal(0, 1, ROWS) + 2 * (country == "DE"), "score": score**2}
    found = compared(tmp_path, then, now, by="country", prediction="score")
    assert [(one.name, one.drifted) for one in found.slices] == [("DE", 2), ("US", 1)]
    assert found.slices[0].top[0][0] == "x"
    assert found.prediction is not None
    assert found.prediction.significant
    assert "score" not in [one.name for one in found.columns]


def test_the_page_stands_alone(pair: tuple[Path, Path]) -> None:
    text = page(report(*pair))
    assert "<svg" in text
    assert "wind" in text
    for outside in ('src="', 'href="http', "url(http", "@import"):
        assert outside not in text


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.csv", None, "there is no file"),
        ("empty.csv", b"", "is empty: give a file with a header and rows"),
        ("head.csv", b"a,b\n", "has a header and no rows"),
        ("twice.csv", b"a,a\n1,2\n", "has the column 'a' more than once"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n", "is neither Parquet nor CSV that can be read"),
        ("cut.parquet", b"PAR1 and then nothing", "begins like Parquet and is damaged"),
        ("bad.csv.gz", b"\x1f\x8b and no gzip", "is neither Parquet nor CSV that can be read"),
    ],
)
def test_files_that_cannot_be_used(
    pair: tuple[Path, Path], tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TableError, match=says):
        report(pair[0], path)


def test_a_csv_in_latin_1_is_read(tmp_path: Path) -> None:
    path = tmp_path / "towns.csv"
    path.write_bytes("town\nZürich\nGenève\n".encode("latin-1") * 1)
    assert report(path, path).columns[0].cells[:2] == ("Genève", "Zürich")


def test_the_command(pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    then, now = map(str, pair)
    target = tmp_path / "page.html"
    assert run(["drift", then, now, "--html", str(target)]) == EXIT_OK
    assert "1 of 3 columns drifted" in capsys.readouterr().out
    assert target.read_text().startswith("<!doctype html>")
    assert run(["drift", then, now, "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["drifted"] == 1
    assert run(["drift", then, now, "--fail-on-drift"]) == 1
    assert run(["drift", then, then, "--fail-on-drift"]) == EXIT_OK
    capsys.readouterr()
    assert run(["drift", then, now, "--column", "wint"]) == EXIT_USAGE
    assert "no column 'wint': did you mean wind?" in capsys.readouterr().err
    assert run(["drift", then, str(tmp_path / "nothing.csv")]) == EXIT_USAGE
    assert "give a Parquet or CSV file" in capsys.readouterr().err
    assert run(["drift", then, now, "--open"]) == EXIT_USAGE
