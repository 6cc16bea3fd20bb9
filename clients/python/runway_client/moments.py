"""Which moment a read speaks of: now, at least as fresh as a revision, or one of the past."""

from datetime import datetime

from runway.v1 import common_pb2

from runway_client.times import to_timestamp

Moment = int | datetime | None
"""A revision, a time, or now."""


def read_options(*, min_revision: int = 0, as_of: Moment = None) -> common_pb2.ReadOptions:
    """How a read is asked for.

    Args:
        min_revision: wait (bounded) until at least this revision is applied.
        as_of: answer as everything stood right after this revision, or at this time.
    Raises:
        ValueError: a time without a zone.

    >>> read_options(as_of=7).as_of_revision
    7
    """
    options = common_pb2.ReadOptions(min_revision=min_revision)
    if isinstance(as_of, datetime):
        options.as_of_time.CopyFrom(to_timestamp(as_of))
    elif as_of is not None:
        options.as_of_revision = as_of
    return options
