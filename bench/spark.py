"""[batch_vs_spark_ratio] The batch join against Spark on the same files, by the CPU of all processes.

`bench.join_rows` makes Delta tables as the server leaves them, and joins them with the embedded engine. Then our
Spark job joins the same tables, on `local[2]`: its driver, JVM and Python workers are counted. Both give partials by
model and hour, and they must agree. `RUNWAY_BENCH_SPARK_ROWS` is the number of predictions; outcomes are six tenths.
"""

import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from bench.batch_join import printed
from bench.join_rows import LABEL, MODELS, START_US, model_name
from bench.table import Row
from control_plane.core.ground_truth.partials import unpack
from control_plane.core.ground_truth.tables import LABELS_FILE, PARTIALS
from stack.spark import Cluster
from tools.jars import engines

IDS = ("batch_vs_spark_ratio",)

ROWS = int(os.environ.get("RUNWAY_BENCH_SPARK_ROWS", "3000000"))
JOB_S_MAX = 1500.0


def run() -> list[Row]:
    """Ours, then Spark."""
    with tempfile.TemporaryDirectory(prefix="runway-bench-") as directory:
        folder = Path(directory)
        ours = printed("bench.join_rows", str(folder / "facts"), str(ROWS))
        tables = folder / "facts" / "tables"
        labels = {model_name(at): [LABEL] for at in range(MODELS)}
        (tables / LABELS_FILE).write_bytes(msgspec.json.encode(labels))
        begun = time.monotonic()
        cpu_s = _spark_cpu_s(Cluster(folder / "spark", engines()), tables)
        wall_s = time.monotonic() - begun
        if _answer(tables) != {key: counted for key, counted in ours["answer"].items() if any(counted)}:
            raise RuntimeError("Spark and the embedded engine do not agree")
    return [
        Row(
            id="batch_vs_spark_ratio",
            value=cpu_s / ours["join_cpu_s"],
            unit="x",
            peers={"Spark local[2], CPU-s": cpu_s, "embedded, CPU-s": ours["join_cpu_s"]},
            note=(
                f"target >= 10; {ROWS / 1e6:.0f} M x {ours['outcomes'] / 1e6:.1f} M on the same Delta tables, the same "
                f"partials; Spark took {wall_s:.0f} s on the wall, its start included"
            ),
        )
    ]


def _spark_cpu_s(cluster: Cluster, tables: Path) -> float:
    """CPU seconds of the job with all its processes."""
    start = datetime.fromtimestamp(START_US / 1e6, UTC)
    since, until = (start - timedelta(days=1)).isoformat(), (start + timedelta(days=30)).isoformat()
    job = cluster.submit("batch", "--tables", str(tables), "--from", since, "--to", until)
    seen: dict[int, float] = {}
    until_s = time.monotonic() + JOB_S_MAX
    while job.poll() is None:
        if time.monotonic() > until_s:
            cluster.stop()
            raise TimeoutError("the Spark job takes too long")
        for process in psutil.process_iter(["pid"]):
            try:
                if os.getpgid(process.pid) == job.pid or os.getsid(process.pid) == job.pid:
                    used = process.cpu_times()
                    seen[process.pid] = max(seen.get(process.pid, 0.0), used.user + used.system)
            except (psutil.Error, ProcessLookupError):
                continue
        time.sleep(0.2)
    if job.returncode:
        log = (cluster.home / "job.log").read_text(errors="replace")
        raise RuntimeError(f"the Spark job failed: {log[-2000:]}")
    return sum(seen.values())


def _answer(tables: Path) -> dict[str, list[int]]:
    """As `bench.join_rows` tells it."""
    answer: dict[str, list[int]] = {}
    for action in pa.table(DeltaTable(str(tables / PARTIALS)).get_add_actions(flatten=True)).to_pylist():
        for row in pq.read_table(tables / PARTIALS / action["path"], partitioning=None).to_pylist():
            found = [unpack(one["packed"]) for one in row["versions"]]
            counted = [
                sum(partial.of("predicted") for partial in found),
                sum(partial.of("joined") for partial in found),
                sum(partial.of("true_positive") + partial.of("false_negative") for partial in found),
            ]
            if any(counted):
                answer[f"{row['model_id']}/{row['hour']}"] = counted
    return answer
