"""Limits on what runs at once and on what a team may spend, counted exactly.

`Usage` is what the running attempts hold; each lease that is given is added before the next is looked at.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.retraining.types import Retrain, RetrainingLimits

GPU_HOURS_ROUNDING = 1e-9
"""Sums of hours are not exact; a budget is not missed by this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one retrain would hold while it runs."""

    tier: int
    team: str
    resource_class: str
    gpu_hours: float


@dataclass(slots=True)
class Usage:
    """What is held now. `spent`: GPU hours of ended attempts of this week, by team."""

    limits: RetrainingLimits
    spent: Mapping[str, float] = field(default_factory=dict)
    running: int = 0
    by_team: dict[str, int] = field(default_factory=dict)
    by_class: dict[str, int] = field(default_factory=dict)
    by_scheduler: dict[str, int] = field(default_factory=dict)
    reserved: dict[str, float] = field(default_factory=dict)

    def take(self, claim: Claim, scheduler: str) -> None:
        """One more runs."""
        self.running += 1
        self.by_team[claim.team] = self.by_team.get(claim.team, 0) + 1
        self.by_class[claim.resource_class] = self.by_class.get(claim.resource_class, 0) + 1
        self.by_scheduler[scheduler] = self.by_scheduler.get(scheduler, 0) + 1
        self.reserved[claim.team] = self.reserved.get(claim.team, 0.0) + claim.gpu_hours

    def full(self, tier: int) -> bool:
        """Has the fleet no slot for this tier? A part is kept free for tier 1."""
        return self.running >= slots_of(self.limits, tier)

    def scheduler_full(self, scheduler: str) -> bool:
        """Has the scheduler no slot?"""
        most = self.limits.by_scheduler.get(scheduler)
        return most is not None and self.by_scheduler.get(scheduler, 0) >= most

    def in_the_way(self, claim: Claim) -> str:
        """Which limit below the fleet's keeps one from running, in words; empty if none does."""
        team_max = self.limits.by_team.get(claim.team, self.limits.running_per_team_max)
        of_team = self.by_team.get(claim.team, 0)
        if of_team >= team_max:
            return f"a free slot of its team: {of_team} of {team_max} run"
        class_max = self.limits.by_resource_class.get(claim.resource_class)
        of_class = self.by_class.get(claim.resource_class, 0)
        if class_max is not None and of_class >= class_max:
            return f"a free slot of resource class {claim.resource_class}: {of_class} of {class_max} run"
        budget = self.limits.gpu_hours_per_week.get(claim.team)
        if budget is not None and claim.gpu_hours > 0:
            used = self.spent.get(claim.team, 0.0) + self.reserved.get(claim.team, 0.0)
            if used + claim.gpu_hours > budget + GPU_HOURS_ROUNDING:
                return (
                    f"{budget_words(claim.team)}: {used:.4g} of {budget:.4g} are spent or reserved this week, "
                    f"it needs {claim.gpu_hours:.4g}"
                )
        return ""


def budget_words(team: str) -> str:
    """What waits for a team's budget waits for."""
    return f"GPU hours of team {team}"


def slots_of(limits: RetrainingLimits, tier: int) -> int:
    """How many slots of the fleet a tier may fill."""
    return limits.running_max if tier == 1 else max(limits.running_max - limits.tier1_reserve, 0)


def usage_of(
    running: Iterable[Retrain],
    limits: RetrainingLimits,
    spent: Mapping[str, float],
    claim_of: Callable[[Retrain], Claim],
) -> Usage:
    """What the running retrains hold: what each reserved when it was leased."""
    usage = Usage(limits=limits, spent=spent)
    for retrain in running:
        attempt = retrain.running_attempt
        if attempt is not None:
            claim = claim_of(retrain)
            held = Claim(
                tier=claim.tier,
                team=claim.team,
                resource_class=claim.resource_class,
                gpu_hours=attempt.gpu_hours_reserved,
            )
            usage.take(held, attempt.scheduler)
    return usage


def limits_violations(limits: RetrainingLimits) -> None:
    """Raise `Invalid` for limits that could never run anything, all of them at once."""
    found = [
        _violation(name, "must be at least 1; to stop retraining use a hold")
        for name in ("running_max", "running_per_team_max")
        if getattr(limits, name) < 1
    ]
    if limits.tier1_reserve < 0:
        found.append(_violation("tier1_reserve", "must be at least 0"))
    elif limits.tier1_reserve >= limits.running_max >= 1:
        found.append(
            _violation(
                "tier1_reserve",
                f"must be below running_max ({limits.running_max}), or no other tier could ever run",
            )
        )
    for name in ("by_team", "by_resource_class", "by_scheduler"):
        found += [
            _violation(f"{name}.{key}", "must be at least 0; 0 lets nothing of it run")
            for key, most in sorted(getattr(limits, name).items())
            if most < 0
        ]
    found += [
        _violation(f"gpu_hours_per_week.{team}", "must be a finite number of at least 0")
        for team, hours in sorted(limits.gpu_hours_per_week.items())
        if not 0 <= hours < float("inf")
    ]
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)


def _violation(name: str, message: str) -> Violation:
    return Violation(field=f"limits.{name}", rule="range", message=message)
