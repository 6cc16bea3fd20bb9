"""A command line of `runway` against a fake control plane: what it prints, and how it exits."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from runway_cli.main import run

from tests.api.canned_fleet import serve_fleet
from tests.api.control_plane_fake import ControlPlaneFake


class Ran(NamedTuple):
    """One command: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Runner = Callable[[str], Ran]


@pytest.fixture(scope="module")
def server() -> Iterator[ControlPlaneFake]:
    one = ControlPlaneFake()
    yield one
    one.close()


@pytest.fixture
def fake(server: ControlPlaneFake, monkeypatch: pytest.MonkeyPatch) -> ControlPlaneFake:
    server.answers.clear()
    server.calls.clear()
    server.failures.clear()
    serve_fleet(server)
    monkeypatch.setenv("RUNWAY_ADDRESS", server.address)
    monkeypatch.setenv("RUNWAY_ACTOR", "anna")
    return server


@pytest.fixture
def runway(fake: ControlPlaneFake, capsys: pytest.CaptureFixture[str]) -> Runner:
    def invoke(line: str) -> Ran:
        code = run(line.split())
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return invoke


def text(block: str) -> str:
    """A block of expected lines without the newline that begins it."""
    return block.removeprefix("\n")
