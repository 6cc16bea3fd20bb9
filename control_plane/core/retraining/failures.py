"""Why an attempt failed, and what follows: whether, when and how it is tried again.

class        | tried again                  | counts as an attempt
-------------+------------------------------+---------------------------------
UNKNOWN      | after the backoff, doubling  | yes
OUT_OF_MEMORY| the same, with more memory   | yes
DATA_MISSING | after `data_backoff`         | yes
TIMEOUT      | after the backoff, doubling  | yes
BUG          | never                        | yes
PREEMPTED    | at once                      | no, up to `preemptions_max`
SCHEDULER    | at once; its breaker decides | no
"""

import re
from datetime import datetime, timedelta

from control_plane.core.retraining.types import (
    UNCOUNTED,
    Attempt,
    AttemptState,
    FailureClass,
    Retrain,
    RetrainingPolicy,
)

BACKOFF_DOUBLINGS_MAX = 10
"""2^10 times the first backoff: with 5 minutes, three and a half days; beyond that a person must look anyway."""
MEMORY_SCALE_MAX = 8

_SIGNS = (
    (FailureClass.PREEMPTED, r"preempt|spot (instance|interruption)|evicted|node (was )?(drained|shut ?down)"),
    (
        FailureClass.OUT_OF_MEMORY,
        r"out of memory|oom[ -]?kill|\boom\b|memoryerror|cannot allocate memory|exit (code|status) 137|\bsigkill\b"
        r"|signal 9\b|java heap space|unable to allocate",
    ),
    (
        FailureClass.DATA_MISSING,
        r"filenotfound|no such file|(table|partition|path|object|key|bucket|dataset)\b.{0,60}"
        r"(does not exist|not found|missing|is empty)|nosuchkey|no (data|rows)\b|missing (data|partition|input)"
        r"|0 rows",
    ),
    (FailureClass.TIMEOUT, r"timed? ?out|deadline exceeded|no sign of life|still running after"),
    (
        FailureClass.BUG,
        r"\b(typeerror|attributeerror|nameerror|importerror|modulenotfounderror|keyerror|indexerror|syntaxerror"
        r"|indentationerror|zerodivisionerror|assertionerror|notimplementederror|nullpointerexception)\b",
    ),
)
"""In this order: a message that names several is what comes first here."""
_PATTERNS = tuple((failure_class, re.compile(pattern, re.IGNORECASE)) for failure_class, pattern in _SIGNS)


def classify(failure: str) -> FailureClass:
    """What a failure's text says of its cause.

    >>> classify("CUDA out of memory. Tried to allocate 2 GiB").value, classify("KeyError: 'distance'").value
    ('OUT_OF_MEMORY', 'BUG')
    """
    for failure_class, pattern in _PATTERNS:
        if pattern.search(failure):
            return failure_class
    return FailureClass.UNKNOWN


def counted(retrain: Retrain) -> int:
    """Attempts that count, the running one among them."""
    return sum(1 for attempt in retrain.attempts if attempt.failure_class not in UNCOUNTED)


def retry_at(policy: RetrainingPolicy, retrain: Retrain, failure_class: FailureClass, now: datetime) -> datetime | None:
    """When to try again after the running attempt failed at `now`; None when it was the last."""
    if failure_class is FailureClass.BUG:
        return None
    if failure_class is FailureClass.SCHEDULER:
        return now
    if failure_class is FailureClass.PREEMPTED:
        before = sum(1 for attempt in retrain.attempts if attempt.failure_class is FailureClass.PREEMPTED)
        return now if before < policy.preemptions_max else None
    tries = counted(retrain)
    if tries >= policy.attempts_max:
        return None
    doublings = min(tries - 1, BACKOFF_DOUBLINGS_MAX)
    wait = policy.retry_backoff * (1 << doublings)
    return now + (max(wait, policy.data_backoff) if failure_class is FailureClass.DATA_MISSING else wait)


def memory_scale(retrain: Retrain) -> int:
    """How many times the usual memory the next attempt shall have: doubled by each that ran out of it."""
    short = sum(1 for attempt in retrain.attempts if attempt.failure_class is FailureClass.OUT_OF_MEMORY)
    return min(1 << min(short, 10), MEMORY_SCALE_MAX)


def gpu_hours_spent(attempt: Attempt, reported: float | None, gpus: float, expected: timedelta, now: datetime) -> float:
    """What an attempt that ends now has spent: as reported, else its GPUs times the time that it ran, else what was
    reserved for it, by how long it ran of what was expected."""
    if reported is not None:
        return reported
    ran = max(now - attempt.leased_at, timedelta(0))
    if gpus:
        return gpus * ran / timedelta(hours=1)
    if not attempt.gpu_hours_reserved or expected <= timedelta(0):
        return 0.0
    return attempt.gpu_hours_reserved * (ran / expected)


def gave_up(retrain: Retrain, failure: str, failure_class: FailureClass, log_url: str) -> str:
    """Why a retrain failed for good, with where to look."""
    tries = counted(retrain)
    times = f"{tries} attempt{'s' if tries != 1 else ''}"
    why = {
        FailureClass.BUG: "trying again would not help",
        FailureClass.PREEMPTED: "it was preempted too often",
        FailureClass.OUT_OF_MEMORY: f"out of memory even with {memory_scale(retrain)} times as much",
    }.get(failure_class, "")
    ended = [attempt for attempt in retrain.attempts if attempt.state is not AttemptState.RUNNING]
    look = log_url or next((attempt.log_url for attempt in reversed(ended) if attempt.log_url), "")
    return f"failed after {times}{f' ({why})' if why else ''}: {failure}" + (f" (log: {look})" if look else "")
