"""Whose turn it is, told by a twin: of two that stand before the same limits the one that matters more goes first.

Two retrains of one team, class and scheduler meet the same limits, so nothing but priority lies between them: tier (a
day of waiting counts as one), then staleness, then age. Those that
anything else could keep waiting (a cooldown, a hold, something upstream, the reserve of tier 1) are not compared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from control_plane.core.events import (
    AttemptEnded,
    CascadeCooldownStarted,
    CascadeSettled,
    Envelope,
    ModelRegistered,
    RetrainEnded,
    RetrainHeld,
    RetrainJoined,
    RetrainLeased,
    RetrainReleased,
    RetrainRequested,
    VerdictChanged,
)


class Overtaken(AssertionError):
    """Somebody went before their turn; the text says who, and at which seq."""


@dataclass(slots=True)
class Waiting:
    """A retrain in the queue."""

    retrain_id: str
    asked_at: datetime
    not_before: datetime
    expires_at: datetime | None
    hurried: bool
    score: float
    held: bool = False
    running: bool = False


class Turns:
    """Who waits, since when, and for nothing but a free slot."""

    def __init__(self, upstream: Callable[[str], frozenset[str]]) -> None:
        self._upstream = upstream
        self.tier: dict[str, int] = {}
        self.team: dict[str, str] = {}
        self.queue: dict[str, Waiting] = {}
        """By model: each has one live retrain."""
        self.unsettled: set[str] = set()
        self.compared = 0
        """How often two were; a history without says nothing."""

    def happened(self, envelope: Envelope) -> None:
        """One event, in log order."""
        event = envelope.event
        match event:
            case ModelRegistered():
                self.tier[event.facts.model_id] = event.facts.tier
                self.team[event.facts.model_id] = event.facts.team
            case RetrainRequested():
                self.queue[event.model_id] = Waiting(
                    event.retrain_id,
                    envelope.at,
                    event.not_before,
                    event.expires_at,
                    event.ignore_cooldown,
                    event.score,
                )
            case VerdictChanged() if event.model_id in self.queue:
                self.queue[event.model_id].score = event.evaluation.score
            case RetrainJoined():
                one = self.queue[event.model_id]
                one.not_before, one.hurried = event.not_before, one.hurried or event.ignore_cooldown
            case RetrainHeld() | RetrainReleased():
                self.queue[event.model_id].held = isinstance(event, RetrainHeld)
            case CascadeCooldownStarted():
                self.unsettled |= {str(model_id) for model_id in event.until}
            case CascadeSettled():
                self.unsettled.discard(event.model_id)
            case RetrainLeased():
                self._leased(event, envelope)
            case AttemptEnded() if event.model_id in self.queue:
                one = self.queue[event.model_id]
                one.running = event.retry_at is None  # one that trained has no turn any more
                one.not_before = event.retry_at or one.not_before
            case RetrainEnded():
                self.queue.pop(event.model_id, None)
            case _:
                pass

    def _leased(self, event: RetrainLeased, envelope: Envelope) -> None:
        taken = self.queue[event.model_id]
        taken.running = True
        mine = self._turn(event.model_id, envelope.at)
        for model_id, other in self.queue.items():
            if self.team[model_id] != self.team[event.model_id] or not self._ready(model_id, other, envelope.at):
                continue
            if self.tier[event.model_id] == 1 < self.tier[model_id]:
                continue  # tier 1 has a reserve that the other may not use
            self.compared += 1
            theirs = self._turn(model_id, envelope.at)
            if theirs < mine:
                raise Overtaken(
                    f"seq {envelope.seq}: {event.model_id} (tier {self.tier[event.model_id]}) went before {model_id} "
                    f"(tier {self.tier[model_id]}), which has waited since {other.not_before:%m-%d %H:%M}"
                )

    def _turn(self, model_id: str, now: datetime) -> tuple[int, float, datetime]:
        """Smaller goes first: by tier less the days of waiting, then the staler, then the older."""
        one = self.queue[model_id]
        waited = max(0, (now - max(one.asked_at, one.not_before)).days)
        return self.tier[model_id] - waited, -one.score, one.asked_at

    def _ready(self, model_id: str, one: Waiting, now: datetime) -> bool:
        """Does nothing but a slot stand between it and its start?"""
        if one.running or one.held or one.not_before > now or (one.expires_at is not None and one.expires_at < now):
            return False
        if model_id in self.unsettled and not one.hurried:
            return False
        return not any(other in self.queue for other in self._upstream(model_id))
