"""What all commands share."""

import msgspec


class CommandBase(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all commands; the tag is the class name."""
