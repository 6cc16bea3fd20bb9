"""A rollout on one page: where it stands, what it waits for, what was measured, and its story."""

from collections.abc import Sequence

from runway_client import messages

from runway_cli.page import Column
from runway_cli.session import Session
from runway_cli.words import clock, enum_word, instant_of, number, share, span_of, version_word, when

BETTER = {messages.METRIC_DIRECTION_HIGHER: "higher", messages.METRIC_DIRECTION_LOWER: "lower"}


def show(session: Session, found: messages.Rollout) -> None:
    """Everything about one rollout, the answer first."""
    page = session.page
    page.prose(rollout_sentence(found), style="bold")
    for word in found.waiting_for:
        page.prose(f"It waits for {word}.", indent="  ")
    page.line()
    page.facts([fact for fact in _facts(session, found) if fact[1]])
    if found.steps:
        canary = found.state == messages.ROLLOUT_STATE_CANARY
        page.heading("Steps")
        page.table(
            [
                Column(title="STEP"),
                Column(title="TRAFFIC", right=True),
                Column(title="BAKES"),
                Column(title="EACH ARM"),
            ],
            [
                [
                    f"{'>' if at == found.step and canary else ' '} {at + 1}",
                    share(step.weight),
                    span_of(step, "bake"),
                    f"{step.observations_min:,} observations",
                ]
                for at, step in enumerate(found.steps)
            ],
        )
    if found.HasField("judgement"):
        _judgement(session, found.judgement)
    _checks(session, [*found.validation.checks, *found.checks])
    if found.story:
        page.heading("Story")
        for moment in found.story:
            page.prose(f"{clock(instant_of(moment, 'at'))}  {moment.sentence}", indent="  ")


def _facts(session: Session, found: messages.Rollout) -> list[tuple[str, str]]:
    traffic = ""
    if found.serving and found.weight:
        applied = share(found.weight_applied) if found.HasField("weight_applied") else "nothing yet"
        traffic = f"{share(found.weight)} asked of {found.serving}, {applied} confirmed"
    approvals = ", ".join(f"{one.approver}{f' ({one.reason})' if one.reason else ''}" for one in found.approvals) or (
        "nobody yet" if found.approvals_required else ""
    )
    held = f"{found.held_by}{f': {found.hold_reason}' if found.hold_reason else ''}" if found.held_by else ""
    facts = [
        ("state", enum_word(messages.RolloutState, found.state)),
        ("started", when(instant_of(found, "started_at"), session.now)),
        ("ended", when(instant_of(found, "ended_at"), session.now)),
        ("conclusion", found.conclusion),
        ("traffic", traffic),
        ("serving failed", found.weight_failure),
        ("held by", held),
        ("approved by", f"{approvals} ({found.approvals_required} needed)" if found.approvals_required else approvals),
        ("asked for by", found.requested_by),
        ("retrain", found.retrain_id),
        ("moves with", found.group_id),
    ]
    if found.HasField("validation"):
        seen = found.validation
        production = number(seen.production) if seen.HasField("production") else "nothing was there"
        facts += [
            ("validation", "passed" if seen.passed else "not passed"),
            (seen.metric, f"candidate {number(seen.candidate)}, production {production}"),
            ("standard error", f"{number(seen.standard_error, 2)} of the difference"),
            ("holdout", _holdout(seen)),
            ("in words", "" if seen.explanation == found.conclusion else seen.explanation),
        ]
    return facts


def _holdout(seen: messages.Validation) -> str:
    rows = f"{seen.sample_size:,} rows"
    if not seen.HasField("holdout_from"):
        return rows
    return f"{rows}, {clock(instant_of(seen, 'holdout_from'))} to {clock(instant_of(seen, 'holdout_until'))}"


def _judgement(session: Session, seen: messages.Judgement) -> None:
    page = session.page
    page.heading(f"Judge: {enum_word(messages.JudgeVerdict, seen.verdict)}")
    page.prose(f"{seen.reason} ({when(instant_of(seen, 'at'), session.now)})", indent="  ")
    if not seen.metrics:
        return
    page.table(
        [
            Column(title="METRIC"),
            Column(title="VERDICT"),
            Column(title="CONTROL", right=True),
            Column(title="CANDIDATE", right=True),
            Column(title="BETTER BY", right=True),
            Column(title="SURELY BETWEEN"),
            Column(title="TOLERATED", right=True),
            Column(title="SEEN", right=True, spare=1),
        ],
        [
            [
                f"{metric.name} ({BETTER.get(metric.direction, '?')} is better)",
                enum_word(messages.JudgeVerdict, metric.verdict),
                number(metric.control_mean),
                number(metric.candidate_mean),
                f"{metric.difference:+.1%}",
                f"{metric.low:+.1%} and {metric.high:+.1%}",
                f"{-metric.tolerance:.1%}",
                f"{min(metric.candidate_count, metric.control_count):,}",
            ]
            for metric in seen.metrics
        ],
    )


def _checks(session: Session, checks: Sequence[messages.ValidationCheck]) -> None:
    if not checks:
        return
    session.page.heading("Offline checks")
    session.page.table(
        [Column(title="CHECK"), Column(title="RESULT"), Column(title="WHY", prose=True)],
        [[check.name, "passed" if check.passed else "FAILED", check.explanation] for check in checks],
    )


def rollout_sentence(rollout: messages.Rollout) -> str:
    """Where a rollout stands, in one sentence."""
    what = f"{rollout.rollout_id}: {version_word(rollout.version)} of {rollout.model_id}"
    before = version_word(rollout.production_before) if rollout.production_before else "nothing"
    match rollout.state:
        case messages.ROLLOUT_STATE_PROMOTED:
            return f"{what} is in production, in place of {before}."
        case messages.ROLLOUT_STATE_REFUSED:
            return f"{what} was refused; {before} stays in production."
        case messages.ROLLOUT_STATE_ROLLED_BACK:
            return f"{what} was rolled back; {before} is in production again."
        case messages.ROLLOUT_STATE_ABORTED:
            return f"{what} was aborted; {before} stays in production."
        case messages.ROLLOUT_STATE_VALIDATING if rollout.HasField("validation"):
            return f"{what} has passed its validation; {before} is in production."
        case messages.ROLLOUT_STATE_VALIDATING:
            return f"{what} is being validated; {before} is in production."
        case messages.ROLLOUT_STATE_AWAITING_APPROVAL:
            return f"{what} waits for approval; {before} is in production."
        case messages.ROLLOUT_STATE_AWAITING_DECISION:
            return f"{what} needs a decision: the judge stayed undecided at {share(rollout.weight)} of the traffic."
        case messages.ROLLOUT_STATE_SHADOW:
            return f"{what} sees a copy of the traffic; {before} answers."
        case messages.ROLLOUT_STATE_CANARY:
            return f"{what} is in its canary: {share(rollout.weight)} of the traffic, the rest has {before}."
        case _:
            return f"{what}."
