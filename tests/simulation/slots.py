"""Limits, told by a twin: who runs at this moment and what each team has spent this week, from the events alone."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from control_plane.core.events import (
    AttemptEnded,
    BreakerChanged,
    Envelope,
    LimitsSet,
    ModelRegistered,
    PoliciesSet,
    RetrainEnded,
    RetrainHeld,
    RetrainLeased,
    RetrainReleased,
    RetrainRequested,
)
from control_plane.core.retraining.types import Breaker, BreakerState, FailureClass, RetrainingLimits

DRAIN = 10
"""Leases a minute after a breaker closed, as documented."""
DRAIN_FOR = timedelta(minutes=10)


class Overrun(AssertionError):
    """A limit was exceeded; the text says which, and at which seq."""


class Slots:
    """Who holds what."""

    def __init__(self) -> None:
        self.limits = RetrainingLimits()
        self.seq = 0
        self.team: dict[str, str] = {}
        self.tier: dict[str, int] = {}
        self.schedulers: dict[str, str] = {}
        """Team -> who runs its models; teams without an entry are anybody's."""
        self.class_of: dict[str, str] = {}
        """Team -> resource class."""
        self.running: dict[str, RetrainLeased] = {}
        self.running_max = 0
        self.spent: dict[tuple[str, datetime], float] = {}
        self.held: set[str] = set()
        self.breakers: dict[str, Breaker] = {}
        self.leased_at: dict[str, list[datetime]] = {}
        self.expires: dict[str, datetime | None] = {}

    def happened(self, envelope: Envelope) -> None:
        """One event, in log order."""
        self.seq = envelope.seq
        event = envelope.event
        match event:
            case ModelRegistered():
                self.team[event.facts.model_id] = event.facts.team
                self.tier[event.facts.model_id] = event.facts.tier
            case LimitsSet():
                self.limits = event.limits
            case PoliciesSet() if event.scope.startswith("team:"):
                team = event.scope.removeprefix("team:")
                self.schedulers[team] = str(event.overrides.get("retraining.scheduler", ""))
                self.class_of[team] = str(event.overrides.get("retraining.resource_class", "default"))
            case RetrainRequested():
                self.expires[event.retrain_id] = event.expires_at
            case RetrainHeld():
                self.held.add(event.retrain_id)
            case RetrainReleased():
                self.held.discard(event.retrain_id)
            case BreakerChanged():
                self.breakers[event.breaker.scheduler] = event.breaker
                self.leased_at.setdefault(event.breaker.scheduler, [])
            case RetrainLeased():
                self._leased(event, envelope.at)
            case AttemptEnded():
                none_lost = event.failure_class is not FailureClass.SCHEDULER or event.retry_at is not None
                self._hold(none_lost, f"{event.retrain_id} was lost with its scheduler")
                del self.running[event.attempt_id]
                if event.gpu_hours:
                    key = (self.team[event.model_id], _week(envelope.at))
                    self.spent[key] = self.spent.get(key, 0.0) + event.gpu_hours
            case RetrainEnded():
                self.held.discard(event.retrain_id)
                self.expires.pop(event.retrain_id, None)
            case _:
                pass

    def _leased(self, event: RetrainLeased, at: datetime) -> None:
        team, limits = self.team[event.model_id], self.limits
        self._hold(event.retrain_id not in self.held, f"{event.retrain_id} was leased while somebody holds it")
        until = self.expires.get(event.retrain_id)
        self._hold(until is None or at <= until, f"{event.retrain_id} was leased after its time")
        self._hold(self.schedulers.get(team, "") in ("", event.scheduler), f"{event.scheduler} may not run {team}'s")
        self._breaker(event, at)
        self.running[event.attempt_id] = event
        self.running_max = max(self.running_max, len(self.running))
        others = self.running.values()
        most = limits.running_max - (0 if self.tier[event.model_id] == 1 else limits.tier1_reserve)
        self._hold(len(self.running) <= most, f"{len(self.running)} run and tier 1 has its reserve")
        of_team = sum(self.team[one.model_id] == team for one in others)
        self._most(limits.by_team, team, of_team, limits.running_per_team_max)
        of_scheduler = sum(one.scheduler == event.scheduler for one in others)
        self._most(limits.by_scheduler, event.scheduler, of_scheduler)
        resource = self.class_of.get(team, "default")
        of_class = sum(self.class_of.get(self.team[one.model_id], "default") == resource for one in others)
        self._most(limits.by_resource_class, resource, of_class)
        budget = limits.gpu_hours_per_week.get(team)
        if budget is not None and event.gpu_hours_reserved > 0:
            reserved = sum(one.gpu_hours_reserved for one in others if self.team[one.model_id] == team)
            used = self.spent.get((team, _week(at)), 0.0) + reserved
            self._hold(used <= budget + 1e-6, f"team {team} reserves {used:.3f} of {budget:.3f} GPU hours")

    def _breaker(self, event: RetrainLeased, at: datetime) -> None:
        breaker = self.breakers.get(event.scheduler)
        if breaker is None or breaker.bypassed_by:
            return
        self._hold(breaker.state is not BreakerState.OPEN, f"{event.scheduler} leases while its breaker is open")
        probing = [one for one in self.running.values() if one.probe and one.scheduler == event.scheduler]
        if breaker.state is BreakerState.HALF_OPEN:
            self._hold(event.probe, f"{event.retrain_id} runs on a scheduler that is tried out, and is no probe")
            self._hold(not probing, f"{event.scheduler} is tried out by two at once")
            return
        if at < breaker.since + DRAIN_FOR:
            recent = self.leased_at[event.scheduler]
            recent.append(at)
            recent[:] = [one for one in recent if one > at - timedelta(minutes=1) and one >= breaker.since]
            self._hold(len(recent) <= DRAIN, f"{len(recent)} leases within a minute after the breaker closed")

    def _most(self, limits: Mapping[str, int], name: str, now: int, otherwise: int | None = None) -> None:
        most = limits.get(name, otherwise)
        self._hold(most is None or now <= most, f"{now} of {name} run, {most} may")

    def at_rest(self) -> None:
        """Nothing runs."""
        self._hold(not self.running, f"still running: {sorted(self.running)}")

    def _hold(self, condition: bool, text: str) -> None:
        if not condition:
            raise Overrun(f"seq {self.seq}: {text}")


def _week(at: datetime) -> datetime:
    """Monday 00:00."""
    return at.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=at.weekday())
