"""Many histories at once, in processes of their own; what fails says how to repeat it, as short as it can be."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from tests.simulation.world import MINUTE, START, World

STEPS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How one seed went."""

    seed: int
    failure: str
    """What it broke, and how to see it again; empty if it broke nothing."""
    met: Counter[str] = field(default_factory=Counter)
    """Faults that happened, by name."""


def history(seed: int, steps: int) -> History:
    """One history from its seed."""
    world: World | None = None
    try:
        world = World(seed)
        world.run(steps)
    except Exception as error:  # whatever it is, it is this seed's
        # What is broken is seen at once: nothing after that minute is needed to see it again.
        needed = steps if world is None else min(steps, max(1, (world.now - START) // MINUTE))
        again = f"python -m tests.simulation --first {seed} --seeds 1 --steps {needed}"
        return History(seed=seed, failure=f"seed {seed}: {type(error).__name__}: {error}\n  again: {again}")
    return History(seed=seed, failure="", met=world.met + Counter(turns_compared=world.turns.compared))


def histories(seeds: Iterable[int], steps: int = STEPS, workers: int | None = None) -> Iterator[History]:
    """All of them, in order, in processes of their own."""
    # A fresh interpreter each: a fork would share the locks of threads that it does not have.
    with multiprocessing.get_context("spawn").Pool(workers or os.cpu_count()) as pool:
        yield from pool.imap(partial(history, steps=steps), seeds, chunksize=5)
