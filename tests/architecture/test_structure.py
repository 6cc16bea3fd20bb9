"""What the folders promise one another: layers, reasons, limits, sizes."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grpc
import pytest
from runway.v1 import errors_pb2

from control_plane.api.errors import CODES
from control_plane.core.errors import Reason

ROOT = Path(__file__).parents[2]
FOLDERS = ("control_plane", "assets", "stack", "clients/python/runway_client", "clients/python/runway_cli")
LINES_MAX = 475
"""About 400, and some for a reason. Beyond it a file holds two things."""

TEST_LINES_MAX = 700
"""A suite is read test by test."""

LIMIT = re.compile(r"[A-Z][A-Z0-9_]*_MAX")


def sources(*folders: str) -> list[Path]:
    """Python files, without generated ones."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_every_reason_has_a_code_and_a_name_in_the_contract() -> None:
    assert set(CODES) == set(Reason)
    names = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name} - {
        "UNSPECIFIED"
    }
    assert names == {reason.value for reason in Reason}
    assert all(reason.name == reason.value for reason in Reason)
    assert grpc.StatusCode.OK not in CODES.values()


def test_reasons_that_ask_to_try_again_have_codes_that_clients_retry() -> None:
    again = {
        Reason.NOT_LEADER,
        Reason.STORE_UNAVAILABLE,
        Reason.SHUTTING_DOWN,
        Reason.APPEND_OUTCOME_UNKNOWN,
        Reason.REVISION_NOT_REACHED,
    }
    assert {reason for reason, code in CODES.items() if code is grpc.StatusCode.UNAVAILABLE} == again


def test_every_reason_is_given_somewhere() -> None:
    text = "\n".join(path.read_text() for path in sources("control_plane") if path.name != "errors.py")
    given = {reason for reason in Reason if f"Reason.{reason.name}" in text}
    reserved = {
        # gRPC answers these itself, before our code; see docs/errors.md.
        Reason.MESSAGE_TOO_LARGE,
        # The class of an error is its reason.
        Reason.APPEND_OUTCOME_UNKNOWN,
        # Versions are numbered by the server: none can be there already.
        Reason.VERSION_ALREADY_EXISTS,
    }
    assert set(Reason) - given - reserved == set()


def test_imports_keep_to_the_layers() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-4000:]


def test_every_limit_is_used() -> None:
    """A limit that nothing reads bounds nothing."""
    defined: dict[str, Path] = {}
    uses: Counter[str] = Counter()
    for path in sources(*FOLDERS):
        tree = ast.parse(path.read_text())
        for node in tree.body:
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            defined |= {t.id: path for t in targets if isinstance(t, ast.Name) and LIMIT.fullmatch(t.id)}
        for inner in ast.walk(tree):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
                uses[inner.id] += 1
            elif isinstance(inner, ast.Attribute):
                uses[inner.attr] += 1
    assert len(defined) > 30
    assert sorted(f"{path.relative_to(ROOT)}: {name}" for name, path in defined.items() if not uses[name]) == []


@pytest.mark.parametrize("folder", [*FOLDERS, "tests", "bench", "tools"])
def test_files_stay_short_enough_to_be_read(folder: str) -> None:
    lines = {path: len(path.read_text().splitlines()) for path in sources(folder)}
    lines_max = TEST_LINES_MAX if folder == "tests" else LINES_MAX
    assert [f"{path.relative_to(ROOT)}: {count}" for path, count in lines.items() if count > lines_max] == []


def test_every_module_says_why_it_exists() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(*FOLDERS)
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def test_nothing_is_called_by_a_name_that_says_nothing() -> None:
    empty = re.compile(r"manager|helper|utils|process|handle", re.IGNORECASE)
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sources("control_plane")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, kinds) and empty.search(node.name)
    ]
    assert found == []
    assert [path.name for path in sources(*FOLDERS) if re.search("manager|helper|utils", path.stem)] == []


def test_core_reads_no_clock_and_no_environment() -> None:
    forbidden = re.compile(r"\b(datetime\.now|time\.(time|monotonic)|os\.environ|random\.|uuid4|print\()")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sources("control_plane/core")
        for line in path.read_text().splitlines()
        if forbidden.search(line) and not line.lstrip().startswith((">>>", "...", "#"))
    ]
    assert found == []
