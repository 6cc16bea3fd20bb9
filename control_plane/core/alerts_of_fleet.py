"""Alerts that are about no one model: schedulers, budgets, the whole fleet."""

from datetime import datetime, timedelta

from control_plane.core.alerts.grouping import alert_key
from control_plane.core.alerts.types import Alert, Severity
from control_plane.core.ids import ModelId, TeamId
from control_plane.core.retraining.types import BreakerState, Retrain, RetrainState
from control_plane.core.state import ModelRecord, State

HOLD_AFTER = timedelta(days=1)
"""A hold of the whole fleet that lasts longer was probably forgotten."""


def fleet_alerts(state: State, now: datetime) -> list[Alert]:
    """About schedulers, budgets and the fleet."""
    return [*_breakers(state), *_budgets(state, now), *_fleet_hold(state, now)]


def teams_of(records: list[ModelRecord]) -> tuple[TeamId, ...]:
    """Whose models these are."""
    return tuple(sorted({record.facts.team for record in records}))


def owners_of(records: list[ModelRecord]) -> tuple[str, ...]:
    """Who answers for them."""
    return tuple(sorted({record.facts.owner for record in records if record.facts.owner}))


def _breakers(state: State) -> list[Alert]:
    found = []
    for name, breaker in sorted(state.breakers.items()):
        if breaker.state is BreakerState.CLOSED:
            continue
        waiting = [state.models[retrain.model_id] for retrain in state.living() if _waits_for(state, retrain, name)]
        critical = any(record.facts.tier == 1 for record in waiting)
        until = f"It is tried again at {breaker.open_until:%H:%M:%S}." if breaker.open_until else ""
        bypass = f" {breaker.bypassed_by} lets retrains go there in spite of it." if breaker.bypassed_by else ""
        found.append(
            Alert(
                key=alert_key("breaker_open", f"scheduler:{name}"),
                kind="breaker_open",
                severity=Severity.PAGE if critical else Severity.WARNING,
                since=breaker.since,
                summary=f"the breaker of {name} is {breaker.state.value.lower().replace('_', ' ')}: "
                f"{len(waiting):,} retrain{'s' if len(waiting) != 1 else ''} may wait for it",
                detail=f"{breaker.reason}\n{until}{bypass} None is lost: they go on when it closes, tier 1 first. "
                f"`runway schedulers show {name}` tells more; `runway schedulers reset {name}` closes it by hand.",
                cause=f"scheduler:{name}",
                model_ids=tuple(sorted(record.model_id for record in waiting)),
                # No team: whoever is on call must hear that a scheduler is gone.
                owners=owners_of(waiting),
            )
        )
    return found


def _waits_for(state: State, retrain: Retrain, scheduler: str) -> bool:
    """Does a retrain depend on a scheduler whose breaker is open? One that tries it out, or was given to it and never
    began, waits as it did before: else the alert would be another one with each try."""
    attempt = retrain.running_attempt
    if attempt is not None:
        return attempt.scheduler == scheduler and (attempt.probe or not attempt.run)
    only = state.models[retrain.model_id].retraining_policy.scheduler
    return retrain.state is RetrainState.WAITING and only in ("", scheduler)


def _budgets(state: State, now: datetime) -> list[Alert]:
    budgets = state.limits.gpu_hours_per_week
    if not budgets:
        return []
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    week = midnight - timedelta(days=now.weekday())
    reserved: dict[str, float] = {}
    waiting: dict[str, list[ModelRecord]] = {}
    for retrain in state.living():
        record = state.models[retrain.model_id]
        team = str(record.facts.team)
        attempt = retrain.running_attempt
        if attempt is not None:
            reserved[team] = reserved.get(team, 0.0) + attempt.gpu_hours_reserved
        elif retrain.state is RetrainState.WAITING:
            waiting.setdefault(team, []).append(record)
    found = []
    for team, budget in sorted(budgets.items()):
        spending = state.spending.get(TeamId(team))
        spent = spending.gpu_hours if spending is not None and spending.week == week else 0.0
        left = budget - spent - reserved.get(team, 0.0)
        held = [record for record in waiting.get(team, []) if expected_gpu_hours(record) > left]
        if left > 0 and not held:
            continue
        found.append(
            Alert(
                key=alert_key("budget_exhausted", f"team:{team}"),
                kind="budget_exhausted",
                severity=Severity.WARNING,
                since=week,
                summary=f"{team} has {max(left, 0.0):.1f} of {budget:.1f} GPU hours left this week: "
                f"{len(held):,} retrain{'s' if len(held) != 1 else ''} must wait",
                detail=f"{spent:.1f} are spent, {reserved.get(team, 0.0):.1f} reserved by what runs. The next week "
                f"begins {week + timedelta(days=7):%Y-%m-%d}. `runway limits` shows the budgets and changes them.",
                cause=f"team:{team}",
                model_ids=tuple(sorted(record.model_id for record in held)),
                teams=(TeamId(team),),
                owners=owners_of(held),
            )
        )
    return found


def expected_gpu_hours(record: ModelRecord) -> float:
    """What one attempt is expected to cost."""
    policy = record.retraining_policy
    return record.facts.retrain_gpu_hours or policy.gpus * policy.duration_expected.total_seconds() / 3600


def _fleet_hold(state: State, now: datetime) -> list[Alert]:
    since = state.held_since
    if not state.held or since is None or now - since <= HOLD_AFTER:
        return []
    waiting = sorted(retrain.model_id for retrain in state.living() if retrain.state is RetrainState.WAITING)
    return [
        Alert(
            key=alert_key("fleet_held", "fleet"),
            kind="fleet_held",
            severity=Severity.WARNING,
            since=since + HOLD_AFTER,
            summary=f"retraining has been held for the whole fleet since {since:%Y-%m-%d %H:%M}",
            detail=f"{len(waiting):,} retrains wait. `runway release` lets them go on.",
            cause="fleet",
            model_ids=tuple(ModelId(one) for one in waiting),
        )
    ]
