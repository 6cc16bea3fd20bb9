"""`python -m tests.simulation --seeds 2000`: histories on demand, on all cores; what fails says how to repeat it."""

import argparse
import sys
from collections import Counter

from tests.simulation.seeds import STEPS, histories

TOLD_EVERY = 100


def main() -> int:
    """Exit code: 0, 1 if a history failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Run histories from seeds.")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=STEPS, help="virtual minutes with faults")
    asked = parser.parse_args()
    met: Counter[str] = Counter()
    failed = 0
    for done, one in enumerate(histories(range(asked.first, asked.first + asked.seeds), asked.steps), start=1):
        met.update(one.met)
        if one.failure:
            failed += 1
            print(one.failure, flush=True)
        if done % TOLD_EVERY == 0:
            print(f"{done} of {asked.seeds} histories, {failed} failed", flush=True)
    print(f"{asked.seeds} histories of {asked.steps} minutes, {failed} failed")
    print("met: " + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(met.items())))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
