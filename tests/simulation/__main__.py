"""`python -m tests.simulation --seeds 2000`: histories on demand, on all cores; what fails says how to repeat it."""

import argparse
import sys

from tests.simulation.seeds import STEPS, failing


def main() -> int:
    """Exit code: 0, 1 if a history failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Run histories from seeds.")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=STEPS, help="virtual minutes with faults")
    asked = parser.parse_args()
    found = failing(range(asked.first, asked.first + asked.seeds), asked.steps)
    for one in found:
        print(one)
    print(f"{asked.seeds} histories of {asked.steps} minutes, {len(found)} failed")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
