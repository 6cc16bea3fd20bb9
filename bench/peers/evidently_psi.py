"""PSI of every column by Evidently's drift preset. Arguments: reference, current; prints JSON."""

import json
import sys
import time
from pathlib import Path

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset


def main() -> None:
    """Read both files, run the preset, take its result as a dict, say what it cost."""
    started_s = time.process_time()
    reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
    numbers = [name for name in reference if reference[name].dtype.kind == "f"]
    definition = DataDefinition(
        numerical_columns=numbers, categorical_columns=[name for name in reference if name not in numbers]
    )
    report = Report([DataDriftPreset(method="psi")])
    found = report.run(Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)).dict()
    drifted = next(one["value"]["count"] for one in found["metrics"] if "DriftedColumnsCount" in one["metric_name"])
    print(
        json.dumps(
            {
                "drifted": int(drifted),
                "work_cpu_s": time.process_time() - started_s,
                # Not ru_maxrss: a child begins with the most that its parent ever had.
                "peak_mb": int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
