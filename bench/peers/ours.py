"""Drift of every column by `control_plane.offline.drift`. Arguments: reference, current; prints JSON."""

import json
import sys
import time
from pathlib import Path

from scipy import special  # noqa: F401 - what the others import before they begin, we do here

from control_plane.offline.drift import report


def main() -> None:
    """Read both files, compute PSI, significance and findings, say what it cost."""
    started_s = time.process_time()
    found = report(Path(sys.argv[1]), Path(sys.argv[2]))
    print(
        json.dumps(
            {
                "drifted": found.drifted,
                "work_cpu_s": time.process_time() - started_s,
                # Not ru_maxrss: a child begins with the most that its parent ever had.
                "peak_mb": int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
