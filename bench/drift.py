"""[drift_100k_cpu_ratio_evidently, drift_100k_cpu_ratio_nannyml] Drift of 100 columns, 100,000 rows against as many.

Each tool runs in a process of its own on the same two Parquet files, 90 columns of numbers and 10 of categories, of
which nine numbers moved. Counted is CPU time of all threads from opening the files to the finished result, imports left
out (they are told beside it), and the largest memory the process ever had. The figure is theirs over ours.

The peers live in `.venv-peers` (requirements-peers.lock), made at the first run.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.table import Row
from tools import environment

IDS = ("drift_100k_cpu_ratio_evidently", "drift_100k_cpu_ratio_nannyml")
ASKED = (100, 10)
ROWS = 100_000
NUMBERS, CATEGORIES = 90, 10
MOVED_EVERY = 10
ROUNDS = 3
HERE = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    drifted: int
    work_cpu_s: float
    whole_cpu_s: float
    peak_mb: float


def run() -> list[Row]:
    """Measure in turns."""
    python = environment.peers()
    if python is None:
        note = "the peers' environment could not be made (see above): nothing to compare with"
        return [Row(id=one, value=float("nan"), unit="x", peers={}, note=note) for one in IDS]
    with tempfile.TemporaryDirectory() as work:
        files = [_written(Path(work) / f"{name}.parquet", seed, shift) for name, seed, shift in FILES]
        ours, peers = [], ([], [])  # type: tuple[list[_Cost], tuple[list[_Cost], list[_Cost]]]
        for _ in range(ROUNDS):
            ours.append(_run(sys.executable, "ours.py", files))
            peers[0].append(_run(python, "evidently_psi.py", files))
            peers[1].append(_run(python, "nannyml_js.py", files))
    moved = len(range(0, NUMBERS, MOVED_EVERY))
    if any(one.drifted != moved for one in ours):
        raise AssertionError(f"we found {ours[0].drifted} columns, {moved} moved")
    return [
        _row(one, name, asked, ours, theirs)
        for one, name, asked, theirs in zip(IDS, ("Evidently 0.7", "NannyML 0.13"), ASKED, peers, strict=True)
    ]


FILES = (("reference", 1, 0.0), ("current", 2, 0.5))


def _written(path: Path, seed: int, shift: float) -> str:
    rng = np.random.default_rng(seed)
    columns = {f"n{at}": rng.normal(shift * (at % MOVED_EVERY == 0), 1, ROWS) for at in range(NUMBERS)}
    named = {f"c{at}": pa.array(rng.choice(list("abcdefghij"), ROWS)) for at in range(CATEGORIES)}
    pq.write_table(pa.table(columns | named), path)
    return str(path)


def _run(python: str | Path, script: str, files: list[str]) -> _Cost:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    quiet = os.environ | {"NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [str(python), str(HERE / script), *files],
        capture_output=True,
        text=True,
        env=quiet,
        check=False,
        cwd=HERE.parent.parent,
    )
    if done.returncode:
        raise RuntimeError(f"{script} failed: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _Cost(whole_cpu_s=whole, **found)


def _row(one: str, name: str, asked: int, ours: list[_Cost], theirs: list[_Cost]) -> Row:
    def median(costs: list[_Cost], what: str) -> float:
        return float(statistics.median(getattr(cost, what) for cost in costs))

    own, other = median(ours, "work_cpu_s"), median(theirs, "work_cpu_s")
    return Row(
        id=one,
        value=other / own,
        unit="x",
        peers={},
        note=(
            f"CPU of {name} over ours, {ROWS:,} x {NUMBERS + CATEGORIES} against as many: {other:.2f} s against "
            f"{own:.2f} s; asked for >= {asked}. With imports and start {median(theirs, 'whole_cpu_s'):.1f} s against "
            f"{median(ours, 'whole_cpu_s'):.1f} s. Peak memory {median(theirs, 'peak_mb'):.0f} MB against "
            f"{median(ours, 'peak_mb'):.0f} MB. It calls {theirs[0].drifted} columns drifted, we {ours[0].drifted}."
        ),
    )
