"""One thread for each fit and each score.

Scikit-learn's boosting takes a thread per core and waits for them spinning. Beside other processes (Dagster's workers,
the control plane, a second training) that costs three to eight times as long as one thread alone (measured on 2 busy
cores), and it makes sums depend on the number of cores.
"""

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[Any]:
    """While this is open, numeric code called from this thread stays in it."""
    limit: AbstractContextManager[Any] = _controller().limit(limits=1)
    return limit


@cache
def _controller() -> ThreadpoolController:
    """Finding the libraries that have threads takes some milliseconds; they do not change."""
    return ThreadpoolController()
