"""Univariate drift of every column by NannyML, all rows as one chunk. Arguments: reference, current; prints JSON."""

import json
import sys
import time
from pathlib import Path

import nannyml as nml
import pandas as pd


def main() -> None:
    """Read both files, fit and calculate (Jensen-Shannon, the nearest to PSI it has), say what it cost."""
    started_s = time.process_time()
    reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
    calculator = nml.UnivariateDriftCalculator(
        column_names=list(reference.columns),
        treat_as_categorical=[name for name in reference if reference[name].dtype.kind != "f"],
        continuous_methods=["jensen_shannon"],
        categorical_methods=["jensen_shannon"],
        chunk_size=len(current),
    )
    calculator.fit(reference)
    found = calculator.calculate(current).filter(period="analysis").to_df()
    alerts = [column for column in found.columns if column[-1] == "alert" and bool(found[column].any())]
    print(
        json.dumps(
            {
                "drifted": len(alerts),
                "work_cpu_s": time.process_time() - started_s,
                # Not ru_maxrss: a child begins with the most that its parent ever had.
                "peak_mb": int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
