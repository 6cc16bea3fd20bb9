"""`runway edges`, `runway disagreements`, `runway lineage`: where edges come from, and who has the last word."""

from collections.abc import Iterable
from datetime import datetime

import click
from runway_client import Refused, Why, messages, to_duration

from runway_cli.as_of import as_of_option, parse_as_of
from runway_cli.commands.models import parse_instant
from runway_cli.edge_text import column_of_last, edge_sentences, origins_of
from runway_cli.page import Column
from runway_cli.session import Session, change_options, json_option
from runway_cli.spans import parse_span
from runway_cli.suggestions import find_node, node_suggestions, not_found
from runway_cli.words import count, enum_choices, enum_value, enum_word, joined, span_of

TYPES = enum_choices(messages.DependencyType)
_type_option = click.option(
    "--type", "kind", type=click.Choice(TYPES), help="Which edge, if there are several between the two."
)
POLICY_FIELDS = ("suspect_after_runs", "suspect_after", "retire_after_runs", "retire_after", "confidence_min")


@click.command()
@click.argument("node", required=False)
@click.option("--state", "states", multiple=True, type=click.Choice(enum_choices(messages.EdgeState)))
@click.option("--origin", "origins", multiple=True, type=click.Choice(enum_choices(messages.EdgeOrigin)))
@click.option("--source", default="", help="Only edges that this source has shown (openlineage, metaflow, dagster).")
@as_of_option
@json_option
@click.pass_obj
def list_edges(
    session: Session,
    node: str | None,
    states: tuple[str, ...],
    origins: tuple[str, ...],
    source: str,
    as_of: str | None,
) -> None:
    """Edges with their state and evidence; of NODE, or all.

    Options may be given several times. What is not part of the graph is listed too, and says why.
    """
    runway = session.runway
    node_id = find_node(runway, node) if node else ""
    with node_suggestions(runway, node_id):
        edges = list(
            runway.lineage.list_edges(
                node_id,
                states=[messages.EdgeState.ValueType(enum_value(messages.EdgeState, word)) for word in states],
                origins=[messages.EdgeOrigin.ValueType(enum_value(messages.EdgeOrigin, word)) for word in origins],
                source=source,
                as_of=parse_as_of(as_of),
            )
        )
    if not edges and node_id:
        _check_node(session, node_id)
    if session.as_json:
        session.emit(messages.ListEdgesResponse(edges=edges, total_size=len(edges), revision=runway.revision))
        return
    page = session.page
    if not edges:
        page.prose(f"No edges{f' of {node_id}' if node_id else ''} like that.")
        return
    now = session.now
    page.table(
        [
            Column(title="UPSTREAM"),
            Column(title="DOWNSTREAM"),
            Column(title="TYPE", spare=3),
            Column(title="STATE"),
            Column(title="ORIGIN"),
            Column(title="SOURCES", spare=1),
            Column(title="LAST SEEN", spare=2),
        ],
        [
            [
                edge.dependency.upstream_id,
                edge.dependency.downstream_id,
                enum_word(messages.DependencyType, edge.dependency.type).lower(),
                enum_word(messages.EdgeState, edge.state).lower(),
                origins_of(edge),
                joined(sorted({sighting.source for sighting in edge.sightings})),
                column_of_last(edge, now),
            ]
            for edge in edges
        ],
    )


@click.command()
@click.argument("upstream")
@click.argument("downstream")
@as_of_option
@json_option
@click.pass_obj
def show_edge(session: Session, upstream: str, downstream: str, as_of: str | None) -> None:
    """All that is known of the edge from UPSTREAM to DOWNSTREAM: who says so, since when, and who does not."""
    edges = _edges_between(session, upstream, downstream, as_of)
    if session.as_json:
        session.emit(messages.ListEdgesResponse(edges=edges, total_size=len(edges), revision=session.runway.revision))
        return
    for place, edge in enumerate(edges):
        if place:
            session.page.line()
        _show(session, edge)


@click.command()
@click.argument("upstream")
@click.argument("downstream")
@click.option("--present/--absent", "present", default=None, help="The edge is there; or it is not.")
@click.option("--until", metavar="TIME", help="When the override ends: 2013-03-01, 2013-03-01T12:00 (UTC), or 14d.")
@click.option("--replace", is_flag=True, help="Replace the override that somebody else has set.")
@_type_option
@change_options
@json_option
@click.pass_obj
def override_edge(
    session: Session,
    upstream: str,
    downstream: str,
    present: bool | None,
    until: str | None,
    replace: bool,
    kind: str | None,
    reason: str,
    dry_run: bool,
) -> None:
    """Have the last word on an edge, whatever sources and declarations say; it is kept in the audit log."""
    if present is None:
        raise click.UsageError("say --present or --absent")
    if not reason:
        raise click.UsageError("an override needs --reason: others will ask")
    dependency, known = _dependency(session, upstream, downstream, kind)
    try:
        edge = session.runway.lineage.set_override(
            dependency,
            present=present,
            expires_at=_until(session, until),
            replace_revision=known.override.revision if replace and known and known.HasField("override") else 0,
            why=Why(reason=reason, validate_only=dry_run),
        )
    except Refused as error:
        if error.reason != "OVERRIDE_EXISTS":
            raise
        raise click.ClickException(f"{error.message}; here that is --replace") from error
    if session.as_json:
        session.emit(messages.SetOverrideResponse(edge=edge, revision=session.runway.revision))
    elif dry_run:
        session.page.prose(f"{_name(dependency)} could be overridden; nothing was changed.")
    else:
        _show(session, edge)


@click.command()
@click.argument("upstream")
@click.argument("downstream")
@_type_option
@change_options
@json_option
@click.pass_obj
def clear_override(
    session: Session, upstream: str, downstream: str, kind: str | None, reason: str, dry_run: bool
) -> None:
    """Let sources and declarations decide again."""
    dependency, _ = _dependency(session, upstream, downstream, kind)
    edge = session.runway.lineage.clear_override(dependency, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.ClearOverrideResponse(edge=edge, revision=session.runway.revision))
    elif dry_run:
        session.page.prose(f"The override of {_name(dependency)} could be cleared; nothing was changed.")
    else:
        _show(session, edge)


@click.command()
@click.argument("node", required=False)
@click.option("--team", default="", help="Only what this team has to decide.")
@click.option("--overridden", is_flag=True, help="Also those that an override has decided.")
@as_of_option
@json_option
@click.pass_obj
def list_disagreements(session: Session, node: str | None, team: str, overridden: bool, as_of: str | None) -> None:
    """Where declarations and discovery contradict each other, with what each side says; about NODE, or all."""
    runway = session.runway
    node_id = find_node(runway, node) if node else ""
    with node_suggestions(runway, node_id):
        found = list(
            runway.lineage.list_disagreements(
                team=team, node_id=node_id, include_overridden=overridden, as_of=parse_as_of(as_of)
            )
        )
    if session.as_json:
        session.emit(
            messages.ListDisagreementsResponse(disagreements=found, total_size=len(found), revision=runway.revision)
        )
        return
    page = session.page
    if not found:
        page.prose("Declarations and discovery agree.")
        return
    page.prose(f"{count(len(found), 'disagreement')}.", style="bold")
    for one in found:
        word = enum_word(messages.DisagreementKind, one.kind).lower().replace("_", " ")
        about = _name(one.edge.dependency) if one.edge.dependency.upstream_id else one.node_id
        whose = joined(name for name in (one.owner, one.team) if name)
        page.line()
        page.prose(f"{about}: {word}{f' ({whose})' if whose != '-' else ''}", style="bold")
        page.prose(one.explanation, indent="  ")


@click.command()
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change one: suspect_after_runs=3, retire_after=45d; 0 switches a bound off. May be given several times.",
)
@change_options
@as_of_option
@json_option
@click.pass_obj
def lineage_policy(session: Session, changes: tuple[str, ...], reason: str, dry_run: bool, as_of: str | None) -> None:
    """When an edge that its source no longer shows becomes suspect, and when it is retired."""
    policy = session.runway.lineage.get_lineage_policy(as_of=parse_as_of(as_of))
    if changes:
        if as_of:
            raise click.UsageError("the past cannot be set: leave --as-of out")
        for change in changes:
            _set(policy, change)
        policy = session.runway.lineage.set_lineage_policy(policy, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.GetLineagePolicyResponse(policy=policy, revision=session.runway.revision))
        return
    page = session.page
    if changes and dry_run:
        page.prose("This could be set; nothing was changed.")
    page.prose(f"An edge is suspect when its source has not shown it for {_bounds(policy, 'suspect')}.")
    page.prose(f"It leaves the graph when its source has not shown it for {_bounds(policy, 'retire')}.")
    page.prose(f"Sightings less sure than {policy.confidence_min:g} make no edge.")
    page.prose("Declared and overridden edges stay whatever sources show.")


def _bounds(policy: messages.LineagePolicy, what: str) -> str:
    runs, after = getattr(policy, f"{what}_after_runs"), span_of(policy, f"{what}_after")
    words = [count(runs, "run")] if runs else []
    words += [after] if after not in {"-", "0 s"} else []
    return " or ".join(words) or "ever: both bounds are switched off"


def _set(policy: messages.LineagePolicy, change: str) -> None:
    field, equals, value = change.partition("=")
    field = field.strip().replace("-", "_")
    if not equals or field not in POLICY_FIELDS:
        raise click.UsageError(f"{change!r} is no change: write FIELD=VALUE, with one of {', '.join(POLICY_FIELDS)}")
    try:
        if field in {"suspect_after", "retire_after"}:
            getattr(policy, field).CopyFrom(to_duration(parse_span(value)))
        else:
            setattr(policy, field, float(value) if field == "confidence_min" else int(value))
    except (ValueError, TypeError) as error:
        raise click.UsageError(f"{change!r}: {error}") from error


def _until(session: Session, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return session.now + parse_span(text)
    except ValueError:
        return parse_instant(text, "--until")


def _edges_between(session: Session, upstream: str, downstream: str, as_of: str | None = None) -> list[messages.Edge]:
    runway = session.runway
    ends = find_node(runway, upstream), find_node(runway, downstream)
    found = _exactly(ends, runway.lineage.list_edges(ends[0], other_node_id=ends[1], as_of=parse_as_of(as_of)))
    if found:
        return found
    for node_id in ends:
        _check_node(session, node_id)
    raise click.ClickException(
        f"nothing is known of an edge {ends[0]} -> {ends[1]}: `runway edges list {ends[1]}` has those that there are"
    )


def _exactly(ends: tuple[str, str], edges: Iterable[messages.Edge]) -> list[messages.Edge]:
    return [edge for edge in edges if (edge.dependency.upstream_id, edge.dependency.downstream_id) == ends]


def _dependency(
    session: Session, upstream: str, downstream: str, kind: str | None
) -> tuple[messages.Dependency, messages.Edge | None]:
    """The edge that is meant, and what is known of it; without a type it is the only one, or the usual one."""
    runway = session.runway
    ends = find_node(runway, upstream), find_node(runway, downstream)
    known = _exactly(ends, runway.lineage.list_edges(ends[0], other_node_id=ends[1]))
    for node_id in () if known else ends:
        _check_node(session, node_id)
    wanted = enum_value(messages.DependencyType, kind) if kind else None
    same = [edge for edge in known if wanted is None or edge.dependency.type == wanted]
    if len(same) > 1:
        types = joined(enum_word(messages.DependencyType, edge.dependency.type).lower() for edge in same)
        raise click.UsageError(f"there are several edges {ends[0]} -> {ends[1]}: say --type, one of {types}")
    if same:
        return same[0].dependency, same[0]
    dependency = messages.Dependency(upstream_id=ends[0], downstream_id=ends[1])
    if wanted is not None:
        dependency.type = messages.DependencyType.ValueType(wanted)
    return dependency, None


def _check_node(session: Session, node_id: str) -> None:
    """Complain about a node that does not exist, with those that it may have meant."""
    known = {node.node_id for node in session.runway.graph.get_graph().nodes}
    if node_id not in known:
        raise not_found("node", node_id, known, "runway graph")


def _show(session: Session, edge: messages.Edge) -> None:
    page = session.page
    state = enum_word(messages.EdgeState, edge.state).lower()
    kind = enum_word(messages.DependencyType, edge.dependency.type).lower()
    page.prose(f"{_name(edge.dependency)} ({kind}) is {state}.", style="bold")
    for sentence in edge_sentences(edge, session.now):
        page.prose(sentence, indent="  ")


def _name(dependency: messages.Dependency) -> str:
    return f"{dependency.upstream_id} -> {dependency.downstream_id}"
