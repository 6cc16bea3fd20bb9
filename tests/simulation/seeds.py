"""Many histories at once, in processes of their own; what fails says how to repeat it."""

import multiprocessing
import os
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
