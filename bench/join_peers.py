"""The same join as a user would write it: `python -m bench.join_peers duckdb|pandas FOLDER`.

Reads the Delta tables that `bench.join_rows` wrote and prints CPU, memory and the same answer as one line of JSON: by
model and hour the distinct predictions, those with an outcome inside seven days (highest revision wins), and the
positives. No histogram of scores or delays, no loss: the peers do less than we do.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq

WINDOW_US = 7 * 86_400_000_000
_GLOBAL_JOIN = """
WITH p AS (
    SELECT prediction_id, min(model_id) AS model_id, min(hour) AS hour, min(predicted_at) AS predicted_at
    FROM read_parquet($predictions, hive_partitioning = false) GROUP BY prediction_id),
o AS (
    SELECT p.prediction_id, arg_max(o.value, o.revision) AS value
    FROM read_parquet($outcomes, hive_partitioning = false) o JOIN p USING (model_id, prediction_id)
    WHERE epoch_us(o.observed_at) - epoch_us(p.predicted_at) <= $window GROUP BY p.prediction_id)
SELECT p.model_id, p.hour, count(*), count(o.value), coalesce(sum(o.value), 0)::BIGINT
FROM p LEFT JOIN o USING (prediction_id) GROUP BY ALL
"""


def main() -> int:
    """Prints the cost and the answer."""
    parser = argparse.ArgumentParser(prog="bench.join_peers")
    parser.add_argument("peer", choices=("duckdb", "pandas"))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    files = {
        kind: sorted(str(path) for path in (arguments.folder / "tables" / kind).glob("day=*/*.parquet"))
        for kind in ("predictions", "outcomes")
    }
    before = time.process_time()
    answer = (_duckdb if arguments.peer == "duckdb" else _pandas)(files, arguments.folder / "spill")
    cpu_s = time.process_time() - before
    rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu_s": cpu_s, "rss_mib": rss_mib, "answer": answer}))
    return 0


def _duckdb(files: dict[str, list[str]], spill: Path) -> dict[str, list[int]]:
    """One join of everything."""
    connection = duckdb.connect(":memory:", config={"temp_directory": str(spill)})
    rows = connection.execute(_GLOBAL_JOIN, {**files, "window": WINDOW_US}).fetchall()
    return {f"{model_id}/{hour}": [int(n) for n in counts] for model_id, hour, *counts in rows}


def _pandas(files: dict[str, list[str]], _: Path) -> dict[str, list[int]]:
    predictions = _frame(files["predictions"], ["prediction_id", "predicted_at", "model_id", "hour"])
    outcomes = _frame(files["outcomes"], ["prediction_id", "observed_at", "value", "revision"])
    predictions = predictions.drop_duplicates("prediction_id")
    joined = predictions[["prediction_id", "predicted_at"]].merge(outcomes, on="prediction_id")
    joined = joined[joined.observed_at - joined.predicted_at <= pd.Timedelta(days=7)]
    best = joined.sort_values("revision").drop_duplicates("prediction_id", keep="last")
    merged = predictions.merge(best[["prediction_id", "value"]], on="prediction_id", how="left")
    found = merged.groupby(["model_id", "hour"], observed=True).value.agg(["size", "count", "sum"])
    return {f"{model_id}/{hour}": [int(n) for n in counts] for (model_id, hour), *counts in found.itertuples()}


def _frame(files: list[str], columns: list[str]) -> pd.DataFrame:
    return pd.concat([pq.read_table(file, columns=columns, partitioning=None).to_pandas() for file in files])


if __name__ == "__main__":
    sys.exit(main())
