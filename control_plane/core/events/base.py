"""What all events share."""

import msgspec


class EventBase(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all events; the tag is the class name."""
