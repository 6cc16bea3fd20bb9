"""Says what must hold. A broken invariant is a bug of ours, never the caller's.

`invariant(cond, "text", **facts)` raises `InvariantBroken` with the facts. In tests and in simulation that ends the
run; in production the driver (`app/node.py`) logs and counts it, and discards the state if it may be half changed.
"""


class InvariantBroken(AssertionError):
    """A rule that must always hold does not."""

    def __init__(self, text: str, facts: dict[str, object]) -> None:
        shown = ", ".join(f"{name}={value!r}" for name, value in facts.items())
        super().__init__(f"{text} ({shown})" if shown else text)
        self.text = text
        self.facts = facts


def invariant(holds: bool, text: str, /, **facts: object) -> None:
    """Raise unless `holds`.

    >>> invariant(1 + 1 == 2, "arithmetic works")
    >>> invariant(False, "seqs have no gap", seq=7, after=5)
    Traceback (most recent call last):
        ...
    control_plane.core.invariant.InvariantBroken: seqs have no gap (seq=7, after=5)
    """
    if not holds:
        raise InvariantBroken(text, facts)
