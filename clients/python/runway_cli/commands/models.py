"""`runway models` (one model's page is in `model_page`) and `runway versions`."""

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click
from runway_client import messages

from runway_cli.as_of import as_of_option, parse_as_of
from runway_cli.page import Column
from runway_cli.session import Session, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import (
    EnumNames,
    bare_model,
    clock,
    enum_choices,
    enum_value,
    enum_word,
    instant_of,
    joined,
    number,
    tier_word,
    version_word,
    when,
)


def _words(names: EnumNames) -> click.Choice[str]:
    return click.Choice([word.replace("_", "-") for word in enum_choices(names)], case_sensitive=False)


def _values(names: EnumNames, words: Iterable[str]) -> list[Any]:
    return [enum_value(names, word.replace("-", "_")) for word in words]


@click.command()
@click.option("--query", default="", metavar="WORDS", help="Words; each begins a word of its facts.")
@click.option("--team", "teams", multiple=True, help="Only models of this team.")
@click.option("--tier", "tiers", multiple=True, type=click.IntRange(1, 4), help="Only models of this tier.")
@click.option("--owner", "owners", multiple=True, help="Only models of this owner.")
@click.option("--tag", "tags", multiple=True, metavar="KEY[=VALUE]", help="Only models with this tag.")
@click.option("--feature", default="", help="Only models that read this feature directly.")
@click.option("--consumer", default="", help="Only models that this application or model uses directly.")
@click.option("--state", "states", multiple=True, type=_words(messages.LifecycleState), help="Only this place in life.")
@click.option("--verdict", "verdicts", multiple=True, type=_words(messages.Verdict), help="Only this verdict.")
@click.option("--task", "tasks", multiple=True, type=_words(messages.TaskType), help="Only this kind of prediction.")
@click.option("--view", type=_words(messages.ModelView), help="A ready-made question.")
@click.option("--sort", default="", metavar="KEYS", help="`tier,score desc`; default by id.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@as_of_option
@json_option
@click.pass_obj
def list_models(session: Session, /, as_of: str | None, limit: int | None, view: str | None, **wanted: Any) -> None:
    """The fleet, with what is in production and how fresh it is.

    Filters are combined; of one that is given several times any value fits (of tags all must).
    """
    runway = session.runway
    filters = {
        "query": wanted["query"],
        "teams": wanted["teams"],
        "tiers": wanted["tiers"],
        "owners": wanted["owners"],
        "tags": wanted["tags"],
        "feature": wanted["feature"],
        "consumer": wanted["consumer"],
        "lifecycles": _values(messages.LifecycleState, wanted["states"]),
        "verdicts": _values(messages.Verdict, wanted["verdicts"]),
        "task_types": _values(messages.TaskType, wanted["tasks"]),
        "view": _values(messages.ModelView, [view])[0] if view else messages.MODEL_VIEW_UNSPECIFIED,
    }
    moment = parse_as_of(as_of)
    found = runway.registry.list_models(**filters, order_by=wanted["sort"], as_of=moment)
    models = list(itertools.islice(found, limit))
    if session.as_json:
        session.emit(messages.ListModelsResponse(models=models, revision=runway.revision, total_size=len(models)))
        return
    if not models:
        asked = any(filters.values())
        session.page.line("no model matches" if asked else "no models yet" if moment is None else "no models then")
        return
    verdicts = {
        one.model_id: enum_word(messages.Verdict, one.verdict) for one in runway.staleness.list_staleness(as_of=moment)
    }
    _show_models(session, models, verdicts)


def _show_models(session: Session, models: list[messages.Model], verdicts: dict[str, str]) -> None:
    columns = [
        Column(title="MODEL"),
        Column(title="TIER", right=True),
        Column(title="VERDICT"),
        Column(title="PRODUCTION", right=True),
        Column(title="LATEST", right=True, spare=3),
        Column(title="TEAM", spare=1),
        Column(title="TASK", spare=2),
        Column(title="OWNER", spare=4),
    ]
    rows = [
        [
            model.model_id,
            tier_word(model.tier),
            verdicts.get(model.model_id, "-"),
            version_word(model.aliases.get("production", 0)),
            version_word(model.latest_version),
            model.team,
            enum_word(messages.TaskType, model.task_type).lower(),
            model.owner or "-",
        ]
        for model in models
    ]
    states = [enum_word(messages.LifecycleState, model.lifecycle).lower() for model in models]
    if {"deprecated", "retired"} & set(states):
        columns.append(Column(title="STATE"))
        rows = [[*row, state] for row, state in zip(rows, states, strict=True)]
    session.page.table(columns, rows)


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
@as_of_option
@json_option
@click.pass_obj
def list_versions(session: Session, model: str, as_of: str | None) -> None:
    """All versions of a model, newest first."""
    runway = session.runway
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        moment = parse_as_of(as_of)
        versions = list(runway.registry.list_versions(model_id, as_of=moment))
        if session.as_json:
            session.emit(messages.ListVersionsResponse(versions=versions, revision=runway.revision))
            return
        aliases = runway.registry.get_model(model_id, as_of=moment).aliases
    if not versions:
        session.page.line(f"{model_id} has no version yet: `runway retrains request {model_id}` asks for one")
        return
    columns = [
        Column(title="VERSION", right=True),
        Column(title="ALIASES"),
        Column(title="TRAINED UNTIL"),
        Column(title="REGISTERED", spare=1),
        Column(title="METRICS ON HOLDOUT", prose=True),
        Column(title="ATTEMPT", spare=2),
        Column(title="RUN", spare=3),
        Column(title="ARTIFACT SHA256", spare=4),
    ]
    rows = [
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
    ]
    if any(version.load_checks for version in versions):
        columns.insert(2, Column(title="LOADS"))
        for row, version in zip(rows, versions, strict=True):
            row.insert(2, loads_word(version))
    session.page.table(columns, rows)


def loads_word(version: messages.ModelVersion) -> str:
    """Whether the version loads, by its newest check."""
    if not version.load_checks:
        return "-"
    return "yes" if version.load_checks[0].passed else "no"


def metrics_words(metrics: Iterable[messages.Metric]) -> str:
    """Metrics with their uncertainty."""
    return joined(
        f"{metric.name}{f' of {metric.slice}' if metric.slice else ''} {number(metric.value)}"
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
