"""What `decide` returns."""

from dataclasses import dataclass, field

from control_plane.core.commands import Result
from control_plane.core.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Events in order (none: the command changes nothing) and the result to answer with."""

    events: tuple[Event, ...] = ()
    result: Result = field(default_factory=Result)
