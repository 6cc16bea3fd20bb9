"""Alerts about candidates on their way to production."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

from control_plane.core.alerts.grouping import alert_key
from control_plane.core.alerts.rules import loudest
from control_plane.core.alerts.types import Alert, Severity
from control_plane.core.ids import model_node
from control_plane.core.rollout.types import JudgeVerdict, Rollout, RolloutState
from control_plane.core.rollout.words import metric_words
from control_plane.core.state import ModelRecord, State

ROLLED_BACK_FOR = timedelta(hours=24)
"""How long a rollback is told, unless a promotion comes first."""
REFUSED_IN_A_ROW = 3
"""So many refused candidates are no chance: training or its data is wrong."""
BEGAN = {
    "rollout_approval": "waits for approval",
    "rollout_undecided": "undecided",
    "rollout_held": "held by",
    "weight_failed": "did not do",
}
"""By what words of its story an alert began; see `rollout.words.told`."""
STORY_MAX = 6
"""Newest moments of a rollout's story in the evidence."""


def release_alerts(state: State, now: datetime) -> list[Alert]:
    """About rollouts under way, and about those of each model that ended badly."""
    found = [alert for rollout in state.rolling() for alert in _live(state, rollout)]
    fallen: dict[str, list[Rollout]] = defaultdict(list)
    for record in state.models.values():
        if not record.rollout_ids or record.retired:
            continue
        rollout = _fallen(state, record, now)
        if rollout is not None:
            fallen[f"group:{rollout.group_id}" if rollout.group_id else model_node(record.model_id)].append(rollout)
        found.extend(_refused(state, record))
    found.extend(_rolled_back(state, cause, rollouts) for cause, rollouts in fallen.items())
    return found


def _live(state: State, rollout: Rollout) -> Iterator[Alert]:
    who = f"{rollout.model_id} version {rollout.version}"
    show = f"`runway rollouts show {rollout.rollout_id}` tells the whole story."
    if rollout.state is RolloutState.AWAITING_APPROVAL:
        missing = max(rollout.plan.approvals - len(rollout.approvals), 1)
        yield _alert(
            state,
            rollout,
            kind="rollout_approval",
            summary=f"{who} waits for {missing} approval{'s' if missing > 1 else ''}{_until(rollout)}",
            detail=f"{evidence(rollout)}\nApprove with `runway rollouts approve {rollout.rollout_id}` (not by "
            f"{rollout.requested_by or 'whoever asked for it'}), or decline it. It is refused if nobody does. {show}",
        )
    if rollout.state is RolloutState.AWAITING_DECISION:
        yield _alert(
            state,
            rollout,
            kind="rollout_undecided",
            summary=f"the judge of {who} is undecided: somebody must decide{_until(rollout)}",
            detail=f"{evidence(rollout)}\n`runway rollouts approve {rollout.rollout_id}` lets it go on, "
            f"`runway rollouts decline {rollout.rollout_id}` rolls it back. {show}",
        )
    if rollout.held_by:
        yield _alert(
            state,
            rollout,
            kind="rollout_held",
            summary=f"the rollout of {who} is held by {rollout.held_by}: {rollout.hold_reason}",
            detail=f"{evidence(rollout)}\n`runway rollouts release {rollout.rollout_id}` lets it go on. {show}",
        )
    elif rollout.judgement is not None and rollout.judgement.verdict is JudgeVerdict.NODATA:
        yield _alert(
            state,
            rollout,
            kind="rollout_held",
            summary=f"the rollout of {who} waits for numbers: {rollout.judgement.reason}",
            detail=f"{evidence(rollout)}\nIt takes no step until its metrics come again. {show}",
        )
    if rollout.weight_failure:
        yield _alert(
            state,
            rollout,
            kind="weight_failed",
            summary=f"{rollout.plan.serving} does not set the traffic of {who}: {rollout.weight_failure}",
            detail=f"It is asked for again and again. {show}",
        )


def _until(rollout: Rollout) -> str:
    return f" until {rollout.approval_until:%Y-%m-%d %H:%M}" if rollout.approval_until is not None else ""


def _alert(state: State, rollout: Rollout, *, kind: str, summary: str, detail: str) -> Alert:
    record = state.models[rollout.model_id]
    # The moment that began it; approvals and looks since do not make it younger.
    moments = [moment.at for moment in rollout.story if BEGAN[kind] in moment.sentence]
    since = moments[-1] if moments else rollout.stepped_at or rollout.started_at
    return Alert(
        key=alert_key(kind, str(rollout.rollout_id)),
        kind=kind,
        severity=Severity.WARNING,
        since=since,
        summary=summary,
        detail=detail,
        cause=model_node(rollout.model_id),
        model_ids=(rollout.model_id,),
        teams=(record.facts.team,),
        owners=(record.facts.owner,) if record.facts.owner else (),
    )


def _fallen(state: State, record: ModelRecord, now: datetime) -> Rollout | None:
    """The newest rollout that was rolled back, if none of the model's was promoted since, and not long ago."""
    for rollout_id in reversed(record.rollout_ids):
        rollout = state.rollouts.get(rollout_id)
        if rollout is None or rollout.live:
            continue
        if rollout.state is RolloutState.PROMOTED:
            return None
        if rollout.state is RolloutState.ROLLED_BACK:
            ended = rollout.ended_at
            return rollout if ended is not None and now - ended < ROLLED_BACK_FOR else None
        if rollout.ended_at is not None and now - rollout.ended_at >= ROLLED_BACK_FOR:
            return None
    return None


def _rolled_back(state: State, cause: str, rollouts: list[Rollout]) -> Alert:
    records = [state.models[rollout.model_id] for rollout in rollouts]
    first = rollouts[0]
    many = len(rollouts) > 1
    whom = f"{len(rollouts)} models that move together" if many else f"{first.model_id} version {first.version}"
    return Alert(
        # One rollout that falls is one cause: the next one that falls is told anew.
        key=alert_key("rollout_rolled_back", cause if many else str(first.rollout_id)),
        kind="rollout_rolled_back",
        severity=loudest(Severity.PAGE if record.facts.tier == 1 else Severity.WARNING for record in records),
        since=min(rollout.ended_at or rollout.started_at for rollout in rollouts),
        summary=f"{whom} {'were' if many else 'was'} rolled back: {first.conclusion}",
        detail="\n".join(evidence(rollout) for rollout in rollouts)
        + f"\nThe version before serves again. `runway rollouts show {first.rollout_id}` tells the whole story.",
        cause=cause,
        model_ids=tuple(sorted(rollout.model_id for rollout in rollouts)),
        teams=tuple(sorted({record.facts.team for record in records})),
        owners=tuple(sorted({record.facts.owner for record in records if record.facts.owner})),
    )


def _refused(state: State, record: ModelRecord) -> Iterator[Alert]:
    in_a_row: list[Rollout] = []
    for rollout_id in reversed(record.rollout_ids):
        rollout = state.rollouts.get(rollout_id)
        if rollout is not None and rollout.live:
            continue
        if rollout is None or rollout.state is not RolloutState.REFUSED:
            break
        in_a_row.append(rollout)
        if len(in_a_row) >= REFUSED_IN_A_ROW:
            break
    if len(in_a_row) < REFUSED_IN_A_ROW:
        return
    why = "\n".join(f"version {rollout.version}: {rollout.conclusion}" for rollout in in_a_row)
    yield Alert(
        key=alert_key("candidates_refused", model_node(record.model_id)),
        kind="candidates_refused",
        severity=Severity.WARNING,
        since=min(rollout.ended_at or rollout.started_at for rollout in in_a_row),
        summary=f"the newest {REFUSED_IN_A_ROW} candidates of {record.model_id} were refused, one after the other",
        detail=f"{why}\nTraining, its data or its gate is wrong: more of the same mends nothing.",
        cause=model_node(record.model_id),
        model_ids=(record.model_id,),
        teams=(record.facts.team,),
        owners=(record.facts.owner,) if record.facts.owner else (),
    )


def evidence(rollout: Rollout) -> str:
    """What is known about a candidate, for whoever has to decide."""
    lines = []
    if rollout.validation is not None:
        validation = rollout.validation
        against = f" against {validation.production:.4g}" if validation.production is not None else ""
        lines.append(
            f"Validation {'passed' if validation.passed else 'failed'}: {validation.metric} {validation.candidate:.4g}"
            f"{against} on {validation.sample_size:,} rows. {validation.explanation}".rstrip()
        )
        lines.extend(
            f"  {check.name}: {'passed' if check.passed else 'FAILED'} {check.explanation}".rstrip()
            for check in validation.checks
        )
    if rollout.judgement is not None:
        judgement = rollout.judgement
        lines.append(f"The judge says {judgement.verdict.value}: {judgement.reason}")
        lines.extend(f"  {metric_words(metric)}" for metric in judgement.metrics)
    lines.extend(f"{moment.at:%Y-%m-%d %H:%M} {moment.sentence}" for moment in rollout.story[-STORY_MAX:])
    return "\n".join(lines)
