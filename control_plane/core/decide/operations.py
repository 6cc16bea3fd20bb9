"""Operations: limits, holds, and the driven clock."""

from datetime import UTC, datetime

from control_plane.core.commands import AdvanceClock, HoldRetraining, ReleaseRetraining, SetLimits
from control_plane.core.decide.decision import Decision
from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.events import ClockAdvanced, LimitsSet, RetrainingHeld, RetrainingReleased
from control_plane.core.retraining.limits import limits_violations
from control_plane.core.state import State

CLOCK_MAX = datetime(3000, 1, 1, tzinfo=UTC)
"""A clock that was driven further could never be brought back, and adding a cooldown to it would leave the calendar."""


def operate(state: State, command: SetLimits | HoldRetraining | ReleaseRetraining | AdvanceClock) -> Decision:
    """Each is idempotent: what is so already becomes no event."""
    match command:
        case SetLimits():
            limits_violations(command.limits)
            return Decision(events=(LimitsSet(limits=command.limits),) if command.limits != state.limits else ())
        case HoldRetraining():
            return Decision(events=() if state.held else (RetrainingHeld(),))
        case ReleaseRetraining():
            return Decision(events=(RetrainingReleased(),) if state.held else ())
        case AdvanceClock():
            if command.to > CLOCK_MAX:
                past = Violation(field="now", rule="range", message=f"must not be after {CLOCK_MAX:%Y-%m-%d}")
                raise Invalid(Reason.INVALID_ARGUMENT, past)
            if state.clock is not None and command.to < state.clock:
                raise Refused(
                    Reason.CLOCK_MOVED_BACK,
                    f"the clock stands at {state.clock.isoformat()} and only moves forward",
                    now=state.clock.isoformat(),
                )
            return Decision(events=(ClockAdvanced(to=command.to),) if command.to != state.clock else ())
