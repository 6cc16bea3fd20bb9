"""What kind of failure ended a training, read from the exceptions themselves: Runway decides by it how it goes on.

The first line of an exception often hides its cause (`RuntimeError: training failed`, from a MemoryError), so the whole
chain is looked at. What says nothing here is left to the text, which the control plane reads.
"""

from collections.abc import Iterator
from typing import Literal

FailureClass = Literal["", "OUT_OF_MEMORY", "DATA_MISSING"]
"""As the contract names them; empty: by the text."""


class DataMissingError(Exception):
    """A trainer raises it when what it is to learn from is not there yet: it is tried again after a while."""


CLASSES: tuple[tuple[type[BaseException], FailureClass], ...] = (
    (MemoryError, "OUT_OF_MEMORY"),  # NumPy's and Arrow's are kinds of it
    (DataMissingError, "DATA_MISSING"),
)


def failure_class(error: BaseException) -> FailureClass:
    """The class of the outermost exception that has one.

    >>> try:
    ...     try:
    ...         raise MemoryError
    ...     except MemoryError as cause:
    ...         raise RuntimeError("training failed") from cause
    ... except RuntimeError as error:
    ...     failure_class(error)
    'OUT_OF_MEMORY'
    """
    for one in chain(error):
        for kind, name in CLASSES:
            if isinstance(one, kind):
                return name
    return ""


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it came from, outermost first; each once."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
