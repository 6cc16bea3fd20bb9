"""`python -m bench`: run every benchmark, print one table, write `bench/results.json`.

A benchmark is a module of this package with `IDS`, the ids it measures, and `run() -> list[dict]`, one row per id:
`{id, value, unit, peers: {name: value}, note}`. Each module runs in a process of its own, so that none inherits the
heap, threads or signal handlers of another, and one that crashes costs one row, not the table.
"""

import argparse
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

import bench
from bench.table import Row, failure, print_table, rows_from

RESULTS = Path(__file__).parent / "results.json"

MODULE_S_MAX = 1800
"""A module that takes longer hangs: the longest, 100 M rows of ingest, takes minutes."""

ERROR_LINE_CHARS_MAX = 300


def main() -> int:
    """Exit code: 0, 1 if a benchmark failed, 2 if there is no such id."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure, print one table, write bench/results.json.")
    parser.add_argument("--only", default=os.environ.get("ONLY", ""), help="measure one id")
    parser.add_argument("--child", nargs=2, metavar=("MODULE", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, file = arguments.child
        Path(file).write_text(json.dumps(importlib.import_module(name).run()))
        return 0
    modules, rows = _discover()
    if arguments.only:
        known = sorted(i for ids in modules.values() for i in ids)
        modules = {name: ids for name, ids in modules.items() if arguments.only in ids}
        if not modules:
            print(f"bench: there is no {arguments.only!r}; known are {', '.join(known)}", file=sys.stderr)
            return 2
        rows = []
    for name, ids in modules.items():
        print(f"measuring {', '.join(ids)} ...", flush=True)
        rows += [row for row in _run(name, ids, arguments.only) if arguments.only in ("", row["id"])]
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    print_table(rows)
    return int(any(row["value"] is None for row in rows))


def _discover() -> tuple[dict[str, tuple[str, ...]], list[Row]]:
    """Benchmarks by module name, and a row for each module that cannot even be imported."""
    found: dict[str, tuple[str, ...]] = {}
    broken: list[Row] = []
    for info in sorted(pkgutil.iter_modules(bench.__path__), key=lambda info: info.name):
        if info.name == "__main__":
            continue
        name = f"bench.{info.name}"
        try:
            ids = getattr(importlib.import_module(name), "IDS", ())
        except Exception as error:  # whatever is wrong with one module, the others run
            broken.append(failure(name, repr(error)))
            continue
        if ids:
            found[name] = tuple(ids)
    return found, broken


def _run(name: str, ids: tuple[str, ...], only: str) -> list[Row]:
    """Run one module in its own process; failures become rows."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "rows.json"
        command = [sys.executable, "-m", "bench", "--child", name, str(file)]
        try:
            done = subprocess.run(
                command,
                env={**os.environ, "ONLY": only},
                timeout=MODULE_S_MAX,
                check=False,
                stderr=subprocess.PIPE,
                text=True,
            )
        except subprocess.TimeoutExpired:
            return [failure(i, f"not done after {MODULE_S_MAX} s") for i in ids]
        if done.returncode:
            sys.stderr.write(done.stderr)
            lines = done.stderr.strip().splitlines() or ["no message"]
            return [failure(i, f"exit {done.returncode}: {lines[-1][:ERROR_LINE_CHARS_MAX]}") for i in ids]
        try:
            rows = rows_from(json.loads(file.read_text()))
        except (KeyError, TypeError, ValueError) as error:
            return [failure(name, f"its rows cannot be read: {error!r}")]
    missing = [i for i in ids if only in ("", i) and i not in {row["id"] for row in rows}]
    return rows + [failure(i, "run() gave no row for it") for i in missing]


if __name__ == "__main__":
    sys.exit(main())
