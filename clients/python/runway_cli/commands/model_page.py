"""`runway models show`: one model, everything about it that fits a screen."""

from collections import Counter
from datetime import datetime

import click
from runway_client import NotFound, messages
from runway_client.moments import Moment

from runway_cli.as_of import as_of_option, parse_as_of
from runway_cli.commands.fleet_plan import source
from runway_cli.commands.models import loads_word
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
    listed,
    number,
    span_of,
    tier_word,
    version_word,
    when,
)

LOAD_CHECKS_SHOWN_MAX = 3
INPUTS_SHOWN_MAX = 40


@click.command()
@click.argument("model")
@as_of_option
@json_option
@click.pass_obj
def show_model(session: Session, model: str, as_of: str | None) -> None:
    """One model: facts, aliases, policies, standing."""
    runway = session.runway
    model_id = bare_model(model)
    moment = parse_as_of(as_of)
    with model_suggestions(runway, model_id):
        found = runway.registry.get_model(model_id, as_of=moment)
        if session.as_json:
            session.emit(messages.GetModelResponse(model=found, revision=runway.revision))
            return
        standing = runway.staleness.get_staleness(model_id, as_of=moment)
    _show_head(session, found)
    session.page.line()
    session.page.facts(
        [
            ("verdict", _verdict(session, standing)),
            ("aliases", joined(f"{alias} {version_word(v)}" for alias, v in sorted(found.aliases.items()))),
            ("latest version", version_word(found.latest_version)),
            ("consumers", joined(found.consumers)),
            ("used by models", joined(found.consuming_models)),
            ("tags", joined(f"{key}={value}" for key, value in sorted(found.tags.items()))),
            ("registered", _moment(instant_of(found, "registered_at"), session)),
            ("updated", _moment(instant_of(found, "updated_at"), session)),
            (
                "trained on",
                span_of(found, "training_window") + " of history" if found.HasField("training_window") else "-",
            ),
            ("a retrain costs", f"{number(found.retrain_gpu_hours)} GPU hours" if found.retrain_gpu_hours else "-"),
            ("expects", _inputs(found)),
            ("stale when", _staleness_policy(found.effective_policies.staleness)),
            ("retraining", _retraining_policy(found.effective_policies.retraining)),
            ("promotion", _validation_policy(found.effective_policies)),
            ("label", _label(found.effective_policies.label)),
            ("policies", _sources(session, model_id, moment)),
            ("etag", found.etag),
        ]
    )
    _show_links(session, found)
    _show_load_checks(session, found, moment)
    session.page.line()
    session.page.prose(
        f"`runway staleness explain {found.model_id}` says why; `runway impact {found.model_id}` what it reaches; "
        f"`runway policies show {found.model_id}` each policy.",
        style="dim",
    )


def _show_head(session: Session, found: messages.Model) -> None:
    task = enum_word(messages.TaskType, found.task_type).lower()
    state = enum_word(messages.LifecycleState, found.lifecycle).lower()
    told = f", {state}" if state in ("deprecated", "retired") else ""
    session.page.prose(
        f"{found.model_id}: {task} model on tier {tier_word(found.tier)}, team {found.team}, "
        f"{f'owner {found.owner}' if found.owner else 'owned by nobody yet'}{told}.",
        style="bold",
    )
    if found.description:
        session.page.prose(found.description)


def _verdict(session: Session, standing: messages.Staleness) -> str:
    verdict = enum_word(messages.Verdict, standing.verdict)
    since = instant_of(standing, "verdict_since")
    return verdict if since is None else f"{verdict} since {clock(since)} ({when(since, session.now)})"


def _inputs(found: messages.Model) -> str:
    inputs = found.expected_inputs
    if not inputs:
        return "-"
    kinds = [enum_word(messages.ValueType, one.type).lower() for one in inputs[:INPUTS_SHOWN_MAX]]
    names = []
    for one, kind in zip(inputs, kinds, strict=False):
        notes = [kind] * (kind not in ("-", "number")) + ["optional"] * one.optional
        names.append(f"{one.name} ({', '.join(notes)})" if notes else one.name)
    more = f" and {len(inputs) - INPUTS_SHOWN_MAX} more" if len(inputs) > INPUTS_SHOWN_MAX else ""
    return f"{count(len(inputs), 'input')}: {', '.join(names)}{more}"


def _sources(session: Session, model_id: str, moment: Moment) -> str:
    """Where the policies in force come from, in one sentence."""
    values = session.runway.policies.explain_policies(model_id, as_of=moment)
    numbers = Counter(value.source for value in values)
    ranks = {"model": 0, "team": 1, "tier": 2, "fleet": 3}
    ordered = sorted(numbers, key=lambda scope: ranks.get(scope.partition(":")[0], 4))
    return listed([f"{numbers[scope]} {source(scope)}" for scope in ordered]) if values else "-"


def _show_links(session: Session, found: messages.Model) -> None:
    page = session.page
    if found.links:
        page.heading("links")
        page.table(
            [Column(title="KIND"), Column(title="WHERE"), Column(title="WHAT", prose=True, spare=1)],
            [[enum_word(messages.LinkKind, one.kind).lower(), one.url, one.title or "-"] for one in found.links],
        )
    if found.tainted_windows:
        page.heading("data that must not train")
        page.table(
            [Column(title="FROM"), Column(title="UNTIL"), Column(title="WHY", prose=True)],
            [
                [clock(instant_of(one, "from")), clock(instant_of(one, "until")), one.reason]
                for one in found.tainted_windows
            ],
        )


def _show_load_checks(session: Session, found: messages.Model, moment: Moment) -> None:
    """What is known of whether the versions that matter load: production's, and the newest."""
    numbers = {found.aliases.get("production", 0), found.latest_version} - {0}
    rows = []
    for version_number in sorted(numbers, reverse=True):
        try:
            version = session.runway.registry.get_version(found.model_id, version=version_number, as_of=moment)
        except NotFound:
            continue
        for check in version.load_checks[:LOAD_CHECKS_SHOWN_MAX]:
            rows.append(
                [
                    version_word(version.version),
                    "yes" if check.passed else "no",
                    clock(instant_of(check, "checked_at")),
                    check.reporter,
                    check.environment or "-",
                    check.detail or "-",
                ]
            )
        if not version.load_checks and found.effective_policies.rollout.require_load_check:
            rows.append([version_word(version.version), loads_word(version), "-", "-", "-", "nobody has tried yet"])
    if rows:
        session.page.heading("load checks")
        session.page.table(
            [
                Column(title="VERSION", right=True),
                Column(title="LOADS"),
                Column(title="CHECKED"),
                Column(title="BY", spare=1),
                Column(title="WHERE", spare=2),
                Column(title="WHAT WAS SEEN", prose=True),
            ],
            rows,
        )


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


def _validation_policy(policies: messages.Policies) -> str:
    loads = "; only a version that was shown to load" if policies.rollout.require_load_check else ""
    policy = policies.validation
    if policy.skip:
        return f"without validation{loads}"
    if policy.HasField("margin"):
        return f"if not worse than production by more than {number(policy.margin)} on a holdout{loads}"
    return f"after validation on a holdout{loads}"


def _label(label: messages.LabelSpec) -> str:
    parts = [label.label_type] if label.label_type else []
    if label.HasField("window"):
        parts.append(f"counts for {span_of(label, 'window')}")
    if label.metric:
        parts.append(f"judged by {label.metric}")
    if label.absence_means_negative:
        parts.append("none means 0")
    return ", ".join(parts)
