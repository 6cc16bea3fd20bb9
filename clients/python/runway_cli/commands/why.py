"""`runway why MODEL`: its story in plain words, for whoever was woken by it.

The answer first: what serves, and whether it is good. Then what is under way and what that waits for, what happened
lately, what comes next, and what one can do. Everything is read from the control plane; nothing is concluded here that
it has not concluded.
"""

from collections.abc import Iterator
from itertools import islice

import click
from runway_client import from_timestamp, messages

from runway_cli.commands.rollout_page import rollout_sentence
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, clock, count, enum_word, instant_of, joined, tier_word, version_word, when

RECENT = 5
"""Retrains and rollouts that are told; `retrains list` and `rollouts list` have the rest."""
EVENTS = 12
LIVE_RETRAINS = (messages.RETRAIN_STATE_WAITING, messages.RETRAIN_STATE_RUNNING, messages.RETRAIN_STATE_VALIDATING)
LIVE_ROLLOUTS = (
    messages.ROLLOUT_STATE_VALIDATING,
    messages.ROLLOUT_STATE_AWAITING_APPROVAL,
    messages.ROLLOUT_STATE_SHADOW,
    messages.ROLLOUT_STATE_CANARY,
    messages.ROLLOUT_STATE_AWAITING_DECISION,
)


@click.command()
@click.argument("model")
@json_option
@click.pass_obj
def why(session: Session, model: str) -> None:
    """A model's story: what serves, how good it is, what is under way, what happened, what you can do."""
    runway, page = session.runway, session.page
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        found = runway.registry.get_model(model_id)
        standing = runway.staleness.get_staleness(model_id)
    retrains = list(islice(runway.retraining.list_retrains(model_id=model_id), RECENT))
    rollouts = list(islice(runway.rollouts.list_rollouts(model_id=model_id), RECENT))
    if session.as_json:
        session.emit_named({"model": found, "staleness": standing, "retrains": retrains, "rollouts": rollouts})
        return
    page.prose(_headline(session, found, standing), style="bold")
    for reason in standing.evaluation.reasons[:3]:
        page.prose(f"- {reason}", indent="  ")
    told = [*_under_way(session, retrains, rollouts)]
    if told:
        page.heading("under way")
    for line in told:
        page.prose(line, indent="  ")
    page.heading("what happens next")
    for line in standing.next:
        page.prose(line, indent="  ")
    lately = [*_lately(session, retrains, rollouts)]
    if lately:
        page.heading("lately")
        for line in lately:
            page.prose(line, indent="  ")
    page.heading("what you can do")
    for line in _commands(found, retrains, rollouts):
        page.line(f"  {line}")


def _headline(session: Session, model: messages.Model, standing: messages.Staleness) -> str:
    production = model.aliases.get("production", 0)
    if not production:
        return f"{model.model_id} (tier {tier_word(model.tier)}, team {model.team}) has nothing in production."
    verdict = enum_word(messages.Verdict, standing.verdict)
    since = when(instant_of(standing, "verdict_since"), session.now)
    score = ""
    if standing.HasField("evaluation"):
        score = f", score {standing.evaluation.score:.2f} of {standing.evaluation.threshold:.2f}"
    return (
        f"{model.model_id} (tier {tier_word(model.tier)}, team {model.team}) serves {version_word(production)}; "
        f"it is {verdict} since {since}{score}."
    )


def _under_way(session: Session, retrains: list[messages.Retrain], rollouts: list[messages.Rollout]) -> Iterator[str]:
    for retrain in retrains:
        if retrain.state not in LIVE_RETRAINS:
            continue
        causes = joined(enum_word(messages.RetrainCause, cause).lower() for cause in retrain.causes)
        asked = when(instant_of(retrain, "requested_at"), session.now)
        state = enum_word(messages.RetrainState, retrain.state).lower()
        yield f"{retrain.retrain_id} is {state}, asked for {asked} ({causes})."
        for word in retrain.waiting_for:
            yield f"  It waits for {word}."
        if retrain.HasField("expected") and retrain.expected.HasField("starts_at"):
            expected = retrain.expected
            if retrain.state == messages.RETRAIN_STATE_WAITING:
                starts = clock(instant_of(expected, "starts_at"))
                yield f"  It is expected to run about {starts}, in wave {expected.wave}."
            if expected.downstream:
                below = count(expected.downstream, "model")
                yield f"  {below} downstream would wait for its promotion and be looked at."
    for rollout in rollouts:
        if rollout.state in LIVE_ROLLOUTS:
            yield rollout_sentence(rollout)
            for word in rollout.waiting_for:
                yield f"  It waits for {word}."
            if rollout.HasField("judgement"):
                yield f"  The judge says {enum_word(messages.JudgeVerdict, rollout.judgement.verdict)}: " + (
                    rollout.judgement.reason
                )


def _lately(session: Session, retrains: list[messages.Retrain], rollouts: list[messages.Rollout]) -> Iterator[str]:
    moments = [
        (from_timestamp(retrain.ended_at), f"{retrain.retrain_id} {_ended(retrain)}")
        for retrain in retrains
        if retrain.HasField("ended_at")
    ]
    moments += [
        (from_timestamp(moment.at), f"{rollout.rollout_id} ({version_word(rollout.version)}): {moment.sentence}")
        for rollout in rollouts
        for moment in rollout.story
    ]
    for at, sentence in sorted(moments, key=lambda one: one[0], reverse=True)[:EVENTS]:
        yield f"{clock(at)}  {sentence}"


def _ended(retrain: messages.Retrain) -> str:
    return f"ended {enum_word(messages.RetrainState, retrain.state).lower()}: {retrain.conclusion}"


def _commands(
    model: messages.Model, retrains: list[messages.Retrain], rollouts: list[messages.Rollout]
) -> Iterator[str]:
    for rollout in rollouts:
        if rollout.state in (messages.ROLLOUT_STATE_AWAITING_APPROVAL, messages.ROLLOUT_STATE_AWAITING_DECISION):
            yield f"runway rollouts approve {rollout.rollout_id}    (or decline)"
        elif rollout.held_by:
            yield f"runway rollouts release {rollout.rollout_id}"
        elif rollout.state == messages.ROLLOUT_STATE_CANARY:
            yield f"runway rollouts abort {rollout.rollout_id}    sends all traffic back to production"
        if rollout.state in LIVE_ROLLOUTS:
            yield f"runway rollouts show {rollout.rollout_id}    has its numbers and its story"
    live = [retrain for retrain in retrains if retrain.state in LIVE_RETRAINS]
    for retrain in live:
        yield f"runway retrains show {retrain.retrain_id}"
        if retrain.held_by:
            yield f"runway retrains release {retrain.retrain_id}"
    yield f"runway staleness explain {model.model_id}    says why, and how sure"
    if not live:
        yield f"runway retrains plan --for {model.model_id}    shows what a retrain would come to"
    if model.aliases.get("previous"):
        yield f"runway rollouts roll-back {model.model_id}    puts the version before back at once"
