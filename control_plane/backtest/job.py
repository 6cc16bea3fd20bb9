"""A backtest in a process of its own: `python -m control_plane.backtest FOLDER`.

The folder holds a recording (see `recording`) and `contenders.json`; on standard output comes a line of JSON for each
step, and in the end there is `report.json` or, if policies cannot be, `violations.json`. The process is nice to others:
it yields the processor to whoever serves.
"""

import gc
import os
import sys
from pathlib import Path

import msgspec

from control_plane.backtest.comparison import compare
from control_plane.backtest.contenders import Contender
from control_plane.backtest.recorded import RecordedWorld
from control_plane.backtest.recording import take_recording
from control_plane.backtest.report import Report, decode_report, encode_report
from control_plane.core.errors import Invalid, Reason, Violation

CONTENDERS = "contenders.json"
REPORT = "report.json"
VIOLATIONS = "violations.json"

NICENESS = 15
"""Of 19: a server on the same cores keeps answering."""

EXIT_INVALID = 2


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """How far a contender's run is."""

    contender: str
    done: float


class ContenderForm(msgspec.Struct, frozen=True, kw_only=True):
    """Contenders as the folder keeps them."""

    contenders: tuple[Contender, ...]


def write_contenders(folder: Path, contenders: list[Contender]) -> None:
    """For `main` in the other process."""
    (folder / CONTENDERS).write_bytes(msgspec.json.encode(ContenderForm(contenders=tuple(contenders))))


def read_contenders(folder: Path) -> tuple[Contender, ...]:
    """Inverse of `write_contenders`."""
    return msgspec.json.decode((folder / CONTENDERS).read_bytes(), type=ContenderForm).contenders


def read_outcome(folder: Path) -> Report:
    """What the other process came to.

    Raises:
        Invalid: policies or rules that no server would take.
        FileNotFoundError: it ended before it had anything to say.
    """
    if (folder / VIOLATIONS).exists():
        told = msgspec.json.decode((folder / VIOLATIONS).read_bytes(), type=tuple[Violation, ...])
        raise Invalid(Reason.INVALID_ARGUMENT, *told)
    return decode_report((folder / REPORT).read_bytes())


def main(arguments: list[str]) -> int:
    """Exit code: 0 with a report, 2 with violations."""
    os.nice(NICENESS)
    folder = Path(arguments[0])
    contenders = read_contenders(folder)
    head, models = take_recording(folder)
    world = RecordedWorld(head, models)
    gc.collect()
    gc.freeze()  # what was read stays: later collections need not walk it

    def told(contender: str, done: float) -> None:
        sys.stdout.write(msgspec.json.encode(Step(contender=contender, done=done)).decode() + "\n")
        sys.stdout.flush()

    try:
        report = compare(
            world, contenders, limits=head.limits, rules=head.rules, warnings=head.warnings, progress=told, in_two=True
        )
    except Invalid as error:
        (folder / VIOLATIONS).write_bytes(msgspec.json.encode(error.violations))
        return EXIT_INVALID
    (folder / REPORT).write_bytes(encode_report(report))
    return 0
