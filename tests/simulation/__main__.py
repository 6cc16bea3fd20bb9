"""`python -m tests.simulation --seeds 2000`: histories on demand, on all cores; what fails says how to repeat it."""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterable
from functools import partial

from tests.simulation.world import World

STEPS = 400


def failure_of(seed: int, steps: int) -> str:
    """What a history broke, and how to see it again; empty if it broke nothing."""
    try:
        World(seed).run(steps)
    except Exception as error:  # whatever it is, it is this seed's
        again = f"python -m tests.simulation --first {seed} --seeds 1 --steps {steps}"
        return f"seed {seed}: {type(error).__name__}: {error}\n  again: {again}"
    return ""


def failing(seeds: Iterable[int], steps: int = STEPS, workers: int | None = None) -> list[str]:
    """All failures of these seeds, in processes of their own."""
    # A fresh interpreter each: a fork would share the locks of threads that it does not have.
    with multiprocessing.get_context("spawn").Pool(workers or os.cpu_count()) as pool:
        return [found for found in pool.imap(partial(failure_of, steps=steps), seeds, chunksize=5) if found]


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
