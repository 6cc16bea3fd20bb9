"""Univariate drift of every column by NannyML, all rows as one chunk. Arguments: reference, current; prints JSON."""

import json
import resource
import sys
import time

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
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
