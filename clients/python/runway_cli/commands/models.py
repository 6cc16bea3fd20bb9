"""`runway models` and `runway versions`."""

from collections.abc import Iterable
from datetime import UTC, datetime

import click
from runway_client import messages

from runway_cli.page import Column
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import (
    bare_model,
    clock,
    count,
    enum_word,
    instant_of,
    joined,
    number,
    span_of,
    tier_word,
    version_word,
    when,
)


@click.command()
@click.option("--team", default="", help="Only models of this team.")
@click.option("--tier", type=click.IntRange(1, 4), help="Only models of this tier.")
@click.option("--tag", default="", metavar="KEY[=VALUE]", help="Only models with this tag.")
@json_option
@click.pass_obj
def list_models(session: Session, team: str, tier: int | None, tag: str) -> None:
    """The fleet, with what is in production and how fresh it is."""
    runway = session.runway
    models = list(
        runway.registry.list_models(
            teams=[team] if team else [],
            tiers=[messages.Tier.ValueType(tier)] if tier else [],
            tags=[tag] if tag else [],
        )
    )
    if session.as_json:
        session.emit(messages.ListModelsResponse(models=models, revision=runway.revision))
        return
    if not models:
        session.page.line("no model matches" if team or tier or tag else "no models yet")
        return
    verdicts = {s.model_id: enum_word(messages.Verdict, s.verdict) for s in runway.staleness.list_staleness(team=team)}
    session.page.table(
        [
            Column(title="MODEL"),
            Column(title="TIER", right=True),
            Column(title="VERDICT"),
            Column(title="PRODUCTION", right=True),
            Column(title="LATEST", right=True, spare=3),
            Column(title="TEAM", spare=1),
            Column(title="TASK", spare=2),
            Column(title="OWNER", spare=4),
        ],
        [
            [
                model.model_id,
                tier_word(model.tier),
                verdicts.get(model.model_id, "-"),
                version_word(model.aliases.get("production", 0)),
                version_word(model.latest_version),
                model.team,
                enum_word(messages.TaskType, model.task_type).lower(),
                model.owner,
            ]
            for model in models
        ],
    )


@click.command()
@click.argument("model")
@json_option
@click.pass_obj
def show_model(session: Session, model: str) -> None:
    """One model: facts, aliases, policies, standing."""
    runway, page = session.runway, session.page
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        found = runway.registry.get_model(model_id)
        if session.as_json:
            session.emit(messages.GetModelResponse(model=found, revision=runway.revision))
            return
        standing = runway.staleness.get_staleness(model_id)
    task = enum_word(messages.TaskType, found.task_type).lower()
    page.prose(
        f"{found.model_id}: {task} model on tier {tier_word(found.tier)}, team {found.team}, owner {found.owner}.",
        style="bold",
    )
    if found.description:
        page.prose(found.description)
    verdict = enum_word(messages.Verdict, standing.verdict)
    since = instant_of(standing, "verdict_since")
    page.line()
    page.facts(
        [
            ("verdict", verdict if since is None else f"{verdict} since {clock(since)} ({when(since, session.now)})"),
            ("aliases", joined(f"{alias} {version_word(v)}" for alias, v in sorted(found.aliases.items()))),
            ("latest version", version_word(found.latest_version)),
            ("consumers", joined(found.consumers)),
            ("tags", joined(f"{key}={value}" for key, value in sorted(found.tags.items()))),
            ("registered", _moment(instant_of(found, "registered_at"), session)),
            ("updated", _moment(instant_of(found, "updated_at"), session)),
            ("stale when", _staleness_policy(found.effective_policies.staleness)),
            ("retraining", _retraining_policy(found.effective_policies.retraining)),
            ("promotion", _validation_policy(found.effective_policies.validation)),
            ("label", _label(found.effective_policies.label)),
            ("etag", found.etag),
        ]
    )
    page.line()
    page.line(
        f"`runway staleness explain {found.model_id}` says why; `runway impact {found.model_id}` what it reaches.",
        "dim",
    )


@click.command()
@click.argument("model")
@click.option("--alias", default="", help="Only this alias (production, candidate, previous).")
@click.option("--as-of", metavar="TIME", help="Only what was in force then: 2013-03-01 or 2013-03-01T12:00, UTC.")
@json_option
@click.pass_obj
def show_history(session: Session, model: str, alias: str, as_of: str | None) -> None:
    """What an alias pointed at, and when, and who moved it."""
    runway = session.runway
    model_id = bare_model(model)
    instant = parse_instant(as_of, "--as-of")
    with model_suggestions(runway, model_id):
        moves = runway.registry.list_alias_moves(model_id, alias=alias, as_of=instant)
    if session.as_json:
        session.emit(messages.ListAliasMovesResponse(moves=moves, revision=runway.revision))
        return
    if not moves:
        session.page.line(f"no alias of {model_id} had been moved" + (f" by {clock(instant)}" if instant else ""))
        return
    session.page.table(
        [
            Column(title="MOVED"),
            Column(title="AGO", right=True, spare=3),
            Column(title="ALIAS"),
            Column(title="FROM", right=True),
            Column(title="TO", right=True),
            Column(title="BY", spare=1),
            Column(title="REVISION", right=True, spare=2),
            Column(title="WHY", prose=True),
        ],
        [
            [
                clock(instant_of(move, "moved_at")),
                when(instant_of(move, "moved_at"), session.now).removesuffix(" ago"),
                move.alias,
                version_word(move.from_version),
                version_word(move.to_version),
                move.actor,
                str(move.revision),
                move.reason,
            ]
            for move in moves
        ],
    )


@click.command()
@click.argument("model")
@json_option
@click.pass_obj
def list_versions(session: Session, model: str) -> None:
    """All versions of a model, newest first."""
    runway = session.runway
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        versions = list(runway.registry.list_versions(model_id))
        if session.as_json:
            session.emit(messages.ListVersionsResponse(versions=versions, revision=runway.revision))
            return
        aliases = runway.registry.get_model(model_id).aliases
    if not versions:
        session.page.line(f"{model_id} has no version yet: `runway retrains request {model_id}` asks for one")
        return
    session.page.table(
        [
            Column(title="VERSION", right=True),
            Column(title="ALIASES"),
            Column(title="TRAINED UNTIL"),
            Column(title="REGISTERED", spare=1),
            Column(title="METRICS ON HOLDOUT", prose=True),
            Column(title="ATTEMPT", spare=2),
            Column(title="RUN", spare=3),
            Column(title="ARTIFACT SHA256", spare=4),
        ],
        [
            [
                version_word(version.version),
                joined(sorted(alias for alias, v in aliases.items() if v == version.version)),
                clock(instant_of(version, "trained_until")),
                when(instant_of(version, "registered_at"), session.now),
                metrics_words(version.metrics),
                version.attempt_id or "-",
                version.run or "-",
                version.artifact_sha256,
            ]
            for version in versions
        ],
    )


def metrics_words(metrics: Iterable[messages.Metric]) -> str:
    """Metrics with their uncertainty."""
    return joined(
        f"{metric.name} {number(metric.value)}"
        + (f" ± {number(metric.standard_error, 2)}" if metric.standard_error else "")
        for metric in metrics
    )


def parse_instant(text: str | None, option: str) -> datetime | None:
    """An instant from an option; without a zone it is UTC."""
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a time: write 2013-03-01 or 2013-03-01T12:00 (UTC)", param_hint=option
        ) from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _moment(instant: datetime | None, session: Session) -> str:
    return "-" if instant is None else f"{clock(instant)} ({when(instant, session.now)})"


def _staleness_policy(policy: messages.StalenessPolicy) -> str:
    parts = []
    if policy.HasField("stale_threshold"):
        parts.append(f"score at least {number(policy.stale_threshold)}")
    if policy.HasField("age_backstop_days"):
        parts.append(f"older than {number(policy.age_backstop_days)} d")
    if policy.HasField("performance_floor"):
        parts.append(f"metric worse than {number(policy.performance_floor)}")
    text = " or ".join(parts)
    if policy.HasField("cadence"):
        text += f"; evaluated every {span_of(policy, 'cadence')}"
    if policy.HasField("hysteresis_k"):
        text += f"; a verdict needs {policy.hysteresis_k} of the last {policy.hysteresis_n} evaluations"
    return text.removeprefix("; ")


def _retraining_policy(policy: messages.RetrainingPolicy) -> str:
    parts = []
    if policy.HasField("automatic"):
        parts.append("when it becomes STALE" if policy.automatic else "only when somebody asks")
    if policy.HasField("cooldown"):
        parts.append(f"{span_of(policy, 'cooldown')} cooldown")
    if policy.HasField("cascade_cooldown"):
        parts.append(f"{span_of(policy, 'cascade_cooldown')} after an upstream promotion")
    if policy.HasField("attempts_max"):
        parts.append(f"at most {count(policy.attempts_max, 'attempt')}")
    return "; ".join(parts)


def _validation_policy(policy: messages.ValidationPolicy) -> str:
    if policy.skip:
        return "without validation"
    if policy.HasField("margin"):
        return f"if not worse than production by more than {number(policy.margin)} on a holdout"
    return "after validation on a holdout"


def _label(label: messages.LabelSpec) -> str:
    parts = [label.label_type] if label.label_type else []
    if label.HasField("window"):
        parts.append(f"counts for {span_of(label, 'window')}")
    if label.metric:
        parts.append(f"judged by {label.metric}")
    if label.absence_means_negative:
        parts.append("none means 0")
    return ", ".join(parts)
