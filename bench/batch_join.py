"""[batch_100m_cpu_s, batch_100m_rss_mib, gt_growth_ratio] The batch join of 100 M predictions with 60 M outcomes.

`bench.join_rows` makes the rows, seals them as the server does (rows to days, hours and buckets, Parquet, the
commits of the Delta tables and of the catalogue) and joins all hours to stored partials, in a process of its own whose
CPU and memory are counted. By default a tenth of the rows is joined and the CPU is told for 100 M;
`RUNWAY_BENCH_JOIN_ROWS=100000000` joins all of them.

Peers on the same files, each with the same answer (compared by model and hour): one global join in DuckDB, and a merge
in pandas, on a tenth of the rows. Both only join: the time of writing the tables is not in their figures.

The growth is the CPU per row at the largest size over that at a tenth of it; 1 is linear.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.table import Row

IDS = ("batch_100m_cpu_s", "batch_100m_rss_mib", "gt_growth_ratio")

FULL = 100_000_000
ROWS = int(os.environ.get("RUNWAY_BENCH_JOIN_ROWS", "10000000"))
PANDAS_ROWS_MAX = 2_000_000
DUCKDB_ROWS_MAX = 20_000_000
"""A global join of more does not fit in the memory of a small machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ours:
    rows: int
    seal_cpu_s: float
    join_cpu_s: float
    merge_cpu_s: float
    rss_mib: float
    outcomes: int

    @property
    def cpu_s(self) -> float:
        return self.seal_cpu_s + self.join_cpu_s


def run() -> list[Row]:
    """Measure at a tenth, then in full; peers at the size that they can hold."""
    peers_cpu: dict[str, float] = {}
    peers_rss: dict[str, float] = {}
    small = _measured(ROWS // 10, peers_cpu, peers_rss, ["pandas"] if ROWS // 10 <= PANDAS_ROWS_MAX else [])
    large = _measured(ROWS, peers_cpu, peers_rss, ["duckdb"] if ROWS <= DUCKDB_ROWS_MAX else [])
    scale = FULL / large.rows
    size = f"{large.rows / 1e6:.0f} M x {large.outcomes / 1e6:.0f} M"
    growth = (large.cpu_s / large.rows) / (small.cpu_s / small.rows)
    return [
        Row(
            id="batch_100m_cpu_s",
            value=large.cpu_s * scale,
            unit="CPU-s",
            peers=peers_cpu,
            note=(
                f"target < 60 with routing and partials; {size} joined, told for 100 M: routing "
                f"{large.seal_cpu_s * scale:.1f}, join and partials {large.join_cpu_s * scale:.1f}; merging small "
                f"files of past days, once: {large.merge_cpu_s * scale:.1f}; peers only join"
            ),
        ),
        Row(
            id="batch_100m_rss_mib",
            value=large.rss_mib,
            unit="MiB",
            peers=peers_rss,
            note=f"target < 1,024; the largest of the whole process, {size}; at a tenth {small.rss_mib:,.0f}",
        ),
        Row(
            id="gt_growth_ratio",
            value=growth,
            unit="x",
            peers={},
            note=(
                f"target 0.85 to 1.15: CPU per row at {large.rows / 1e6:.0f} M over that at {small.rows / 1e6:.0f} M "
                "(linear is 1)"
            ),
        ),
    ]


def _measured(rows: int, cpu: dict[str, float], rss: dict[str, float], peers: list[str]) -> _Ours:
    """Our join of so many rows, and peers on the same files."""
    with tempfile.TemporaryDirectory(prefix="runway-bench-") as folder:
        found = printed("bench.join_rows", folder, str(rows))
        ours = _Ours(
            rows=int(found["predictions"]),
            seal_cpu_s=float(found["seal_cpu_s"]),
            join_cpu_s=float(found["join_cpu_s"]),
            merge_cpu_s=float(found["merge_cpu_s"]),
            rss_mib=float(found["rss_mib"]),
            outcomes=int(found["outcomes"]),
        )
        for peer in peers:
            theirs = printed("bench.join_peers", peer, folder)
            if theirs["answer"] != found["answer"]:
                raise AssertionError(f"{peer} and we do not agree")
            named = f"{peer}, all at once" if peer == "duckdb" else f"{peer} merge"
            of = f"({ours.rows / 1e6:.0f} M rows)"
            cpu[f"{named}, told for 100 M {of}"] = float(theirs["cpu_s"]) * FULL / ours.rows
            rss[f"{named} {of}"] = float(theirs["rss_mib"])
    return ours


def printed(module: str, *arguments: str) -> dict[str, Any]:
    """What a module of the benchmarks prints as one line of JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=Path(__file__).parent.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{module}: {done.stderr.strip().splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


if __name__ == "__main__":
    for row in run():
        print(row)
