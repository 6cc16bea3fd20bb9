"""What somebody has to know now: alerts, from the state and the time.

Nothing here is stored, so no alert is lost, none outlives its cause, and a restart raises nothing twice. One pass over
the models looks only at what is not healthy; a fleet at rest of 5,000 models takes some milliseconds.

| kind                 | while                                                                  | how loud            |
|----------------------|------------------------------------------------------------------------|---------------------|
| rollout_rolled_back  | the newest rollout fell; until the next promotion, at most 24 h        | PAGE on tier 1      |
| rollout_held         | somebody, or Runway, holds a rollout                                   | WARNING             |
| rollout_undecided    | the judge stayed inconclusive: somebody must decide                    | WARNING             |
| rollout_approval     | a candidate waits for approval                                         | WARNING             |
| weight_failed        | the serving system does not do as it is told                           | WARNING             |
| candidates_refused   | the newest three candidates were refused, one after the other          | WARNING             |
| retrain_failed       | the newest retrain FAILED                                              | PAGE on tier 1      |
| breaker_open         | a scheduler's breaker is not closed                                    | PAGE if tier 1 waits|
| tier1_blocked        | tier 1 could not retrain for 4 h, whatever the reason                  | PAGE                |
| tier1_stale          | tier 1 is STALE by a verdict                                           | WARNING             |
| data_fault           | the verdict asks the owner of the data                                 | WARNING             |
| coverage             | too few outcomes arrive                                                | WARNING             |
| rule                 | a rule that alerts or pages holds                                      | as the rule says    |
| budget_exhausted     | a team's GPU hours of this week are used up or reserved                | WARNING             |
| fleet_held           | retraining was stopped for the fleet more than a day ago               | WARNING             |
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from control_plane.core.alerts.grouping import Group, Trouble, grouped
from control_plane.core.alerts.rules import LOUDNESS, loudest
from control_plane.core.alerts.types import Alert, Severity
from control_plane.core.alerts_of_fleet import fleet_alerts, owners_of, teams_of
from control_plane.core.alerts_of_releases import release_alerts
from control_plane.core.ids import ModelId, model_node
from control_plane.core.retraining.types import Attempt, AttemptState, BreakerState, FailureClass, Retrain, RetrainState
from control_plane.core.rules.types import RuleAction
from control_plane.core.staleness.verdict import Action, Level
from control_plane.core.state import ModelRecord, State
from control_plane.core.suspects import Suspects

BLOCKED_AFTER = timedelta(hours=4)
"""Tier 1 that could not retrain for so long wakes somebody."""
SENTENCES_MAX = 5
"""Models of one alert that are told with their evidence; it counts the others."""

TODO = {
    "retrain_failed": "Read the log of the last attempt, then ask again: `runway retrains request MODEL`.",
    "data_fault": "Ask the owner of the data: a retrain on broken data mends nothing.",
    "coverage": "Find out where the outcomes stay: `runway coverage MODEL` shows which are missing.",
    "tier1_stale": "`runway staleness MODEL` shows the evidence, `runway retrains list` what is done about it.",
    "tier1_blocked": "`runway retrains show ID` says what it waits for; it runs as soon as that is gone.",
    "rule": "The rule was written for this: `runway rules list` shows it with its reason.",
}


def active_alerts(state: State, now: datetime, suspects: Suspects | None = None) -> list[Alert]:
    """What is wrong at `now`: the loudest first, then the oldest, then by key. Keys are unique.

    Args:
        state: what is known; not changed.
        now: the control plane's time.
        suspects: what models stand on, kept between calls; None looks it up anew.
    """
    suspects = suspects or Suspects()
    suspects.of_graph(state.graph)
    troubles = [trouble for record in state.models.values() for trouble in _troubles(state, record, now, suspects)]

    def serves(model_id: ModelId) -> bool:
        record = state.models.get(model_id)
        return record is not None and not record.retired and record.production is not None

    found = [_alert(state, group) for group in suspects.rolled_up(grouped(troubles), serves)]
    found += release_alerts(state, now)
    found += fleet_alerts(state, now)
    return sorted(found, key=lambda alert: (-LOUDNESS[alert.severity], alert.since, alert.key))


# One model


def _troubles(state: State, record: ModelRecord, now: datetime, suspects: Suspects) -> Iterator[Trouble]:
    """What is wrong with one model, apart from its rollouts. Healthy models cost a few comparisons."""
    if record.retired:
        return
    if record.standing.level in (Level.STALE, Level.AT_RISK, Level.UNKNOWN) and record.standing.evaluation is not None:
        yield from _verdict(record, suspects)
    if record.rule_outcome.matches:
        yield from _rules(record, suspects)
    if record.coverage_alert:
        yield _coverage(record, suspects)
    if record.retrain_ids:
        yield from _failed(state, record, suspects)
    if record.facts.tier == 1:
        yield from _blocked(state, record, now)


def _verdict(record: ModelRecord, suspects: Suspects) -> Iterator[Trouble]:
    standing = record.standing
    evaluation = standing.evaluation
    assert evaluation is not None
    if evaluation.recommended_action is Action.ALERT_DATA_OWNER:
        yield Trouble(
            kind="data_fault",
            model_id=record.model_id,
            severity=Severity.WARNING,
            since=standing.since,
            sentence="; ".join((evaluation.data_quality or evaluation.reasons)[:3]),
            suspects=suspects.of_data(record, evaluation),
        )
    elif standing.level is Level.STALE and record.facts.tier == 1:
        yield Trouble(
            kind="tier1_stale",
            model_id=record.model_id,
            severity=Severity.WARNING,
            since=standing.since,
            sentence=" ".join(evaluation.reasons[:2]),
            suspects=suspects.of_look(record, evaluation),
        )


def _rules(record: ModelRecord, suspects: Suspects) -> Iterator[Trouble]:
    evaluation = record.standing.evaluation
    for match in record.rule_outcome.matches:
        if match.action.about_retraining:
            continue
        yield Trouble(
            kind="rule",
            signature=f"{match.scope}/{match.name}",
            model_id=record.model_id,
            severity=Severity.PAGE if match.action is RuleAction.PAGE else Severity.WARNING,
            since=match.since,
            sentence=match.reason or f"rule {match.name} ({match.scope}) holds",
            suspects=suspects.of_look(record, evaluation) if evaluation is not None else (model_node(record.model_id),),
        )


def _coverage(record: ModelRecord, suspects: Suspects) -> Trouble:
    return Trouble(
        kind="coverage",
        signature=record.coverage_cause,
        model_id=record.model_id,
        severity=Severity.WARNING,
        since=record.coverage_since or record.standing.since,
        sentence=record.coverage_explanation or "too few outcomes arrive",
        suspects=suspects.datasets_of(record.model_id),
    )


def _failed(state: State, record: ModelRecord, suspects: Suspects) -> Iterator[Trouble]:
    """The newest retrain FAILED: as long as nobody asked again."""
    retrain = state.retrains.get(record.retrain_ids[-1])
    if retrain is None or retrain.state is not RetrainState.FAILED:
        return
    last = retrain.attempts[-1] if retrain.attempts else None
    missing = last is not None and last.failure_class is FailureClass.DATA_MISSING
    where = f" (log: {last.log_url})" if last is not None and last.log_url else ""
    yield Trouble(
        kind="retrain_failed",
        signature=FailureClass.DATA_MISSING.value.lower() if missing else "",
        model_id=record.model_id,
        severity=Severity.PAGE if record.facts.tier == 1 else Severity.WARNING,
        since=retrain.ended_at or retrain.requested_at,
        sentence=f"{retrain.retrain_id} failed: {retrain.conclusion or (last.failure if last else '')}{where}",
        suspects=suspects.datasets_of(record.model_id) if missing else (model_node(record.model_id),),
    )


def _blocked(state: State, record: ModelRecord, now: datetime) -> Iterator[Trouble]:
    """Tier 1 that wanted to retrain `BLOCKED_AFTER` ago and still could not, whatever the reason."""
    if record.live_retrain is not None:
        retrain = state.retrains[record.live_retrain]
        attempt = retrain.running_attempt
        since = wanted_since(retrain, started=attempt is None or not unstarted(state, attempt))
        if since is None or now - since < BLOCKED_AFTER:
            return
        cause, why = _blocker(state, record, retrain)
    else:
        standing = record.standing
        evaluation = standing.evaluation
        wants = (
            standing.level is Level.STALE
            and evaluation is not None
            and evaluation.recommended_action is Action.RETRAIN
            and record.retraining_policy.automatic
            and record.live_rollout is None
        )
        since = max(standing.since, record.retrain_ended_at or standing.since)
        if not wants or now - since < BLOCKED_AFTER:
            return
        cause, why = (
            model_node(record.model_id),
            "no retrain of it is asked for: it is in a cooldown, or a rule forbids it",
        )
        if state.held:
            cause, why = "fleet", "retraining is held for the whole fleet"
    yield Trouble(
        kind="tier1_blocked",
        model_id=record.model_id,
        severity=Severity.PAGE,
        since=since + BLOCKED_AFTER,
        sentence=f"tier 1 could not retrain since {since:%Y-%m-%d %H:%M}: {why}",
        suspects=(cause,),
    )


def wanted_since(retrain: Retrain, *, started: bool = True) -> datetime | None:
    """Since when a retrain could have run and did not; None if it runs, is validated, or may not run yet.

    One that ran counts from its first try, and running once more does not clear it: an attempt that fails over and over
    would otherwise take the alert back each time. What its scheduler never began is no try: a scheduler that is tried
    out with it once in a while would otherwise take the alert back too. A wait that was planned (off-peak) does not
    count. `started`: has the attempt that holds the lease now begun?
    """
    ran = [attempt for attempt in retrain.attempts if _began(attempt)]
    running = retrain.state is RetrainState.RUNNING
    if running and not started:
        ran = ran[:-1]
    if retrain.state is not RetrainState.WAITING and not (running and (len(ran) > 1 or not started)):
        return None
    if ran:
        return ran[0].leased_at
    return max(retrain.requested_at, retrain.wanted_at or retrain.not_before)


def _began(attempt: Attempt) -> bool:
    """Did its scheduler do anything with it? One of which nobody ever heard did not begin."""
    if attempt.failure_class is FailureClass.SCHEDULER:
        return False
    return attempt.state is not AttemptState.LEASE_EXPIRED or bool(attempt.run)


def unstarted(state: State, attempt: Attempt) -> bool:
    """Is an attempt leased that nobody knows a run of, while its scheduler is in trouble?"""
    breaker = state.breakers.get(attempt.scheduler)
    shut = breaker is not None and breaker.state is not BreakerState.CLOSED and not breaker.bypassed_by
    return shut and not attempt.run


def _blocker(state: State, record: ModelRecord, retrain: Retrain) -> tuple[str, str]:
    scheduler = record.retraining_policy.scheduler or (retrain.attempts[-1].scheduler if retrain.attempts else "")
    broken = [
        breaker
        for name, breaker in state.breakers.items()
        if breaker.state is not BreakerState.CLOSED and not breaker.bypassed_by and name == (scheduler or name)
    ]
    if state.held:
        return "fleet", "retraining is held for the whole fleet"
    if broken:
        return f"scheduler:{broken[0].scheduler}", f"the breaker of {broken[0].scheduler} is open: {broken[0].reason}"
    node = model_node(record.model_id)
    if retrain.held_by:
        return node, f"{retrain.retrain_id} is held by {retrain.held_by}"
    if retrain.attempts:
        return node, f"{len(retrain.attempts)} attempts came to nothing, the last: {retrain.attempts[-1].failure}"
    return node, f"{retrain.retrain_id} waits (`runway retrains show {retrain.retrain_id}` says what for)"


# Groups in words


def _alert(state: State, group: Group) -> Alert:
    troubles = group.troubles
    records = [state.models[trouble.model_id] for trouble in troubles]
    told = [f"{trouble.model_id}: {trouble.sentence}" for trouble in troubles[:SENTENCES_MAX]]
    more = len(troubles) - SENTENCES_MAX
    if more > 0:
        told.append(f"and {more:,} more.")
    kind = troubles[0].kind
    todo = TODO.get(kind, "").replace("MODEL", troubles[0].model_id)
    return Alert(
        key=group.key,
        kind=kind,
        severity=loudest(trouble.severity for trouble in troubles),
        since=min(trouble.since for trouble in troubles),
        summary=_summary(group),
        detail="\n".join([*told, todo] if todo else told),
        cause=group.cause,
        model_ids=tuple(trouble.model_id for trouble in troubles),
        teams=teams_of(records),
        owners=owners_of(records),
    )


def _summary(group: Group) -> str:
    first = group.troubles[0]
    many = len(group.troubles)
    whom = first.model_id if many == 1 else f"{many:,} models"
    alone = group.cause == model_node(first.model_id)
    behind = "" if alone else f" (behind it: {group.cause})"
    match first.kind:
        case "data_fault":
            what = f"the data of {whom} is at fault"
        case "tier1_stale":
            what = f"{whom} of tier 1 {'is' if many == 1 else 'are'} stale"
        case "rule":
            what = f"rule {first.signature.rpartition('/')[2]} holds for {whom}"
        case "coverage":
            what = f"too few outcomes of {whom} arrive"
        case "retrain_failed":
            what = f"the retrain{'s' if many > 1 else ''} of {whom} failed"
        case "tier1_blocked":
            what = f"{whom} of tier 1 could not retrain for {BLOCKED_AFTER.total_seconds() / 3600:.0f} h"
        case kind:
            what = f"{kind.replace('_', ' ')}: {whom}"
    return what + behind
