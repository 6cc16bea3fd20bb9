"""`python -m control_plane`: one control plane, until SIGINT or SIGTERM."""

import gc
import sys

COLLECT_AFTER = (100_000, 20, 50)
"""The state is made of frozen records without cycles, so walking it every 700 allocations, as Python does by default,
finds nothing: it costs 0.15 s of a start with 5,000 models, and pauses in the middle of reads after it."""


def main() -> int:
    """Exit code."""
    gc.set_threshold(*COLLECT_AFTER)
    from control_plane.bootstrap import main as run  # noqa: PLC0415 - its imports are part of what gets faster

    return run()


if __name__ == "__main__":
    sys.exit(main())
