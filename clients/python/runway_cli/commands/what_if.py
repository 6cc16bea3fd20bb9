"""`runway what-if`, `graph diff` and `nodes`: changes of the graph, before and after they are made."""

from collections.abc import Sequence
from typing import Any

import click
from runway_client import Why, messages

from runway_cli.as_of import as_of_option, parse_as_of
from runway_cli.commands.graph import WithPaths, filter_options, show_trust, show_waves, type_word, wanted_filter
from runway_cli.impact_text import bare, cost_sentence, kinds_sentence, owners_sentence, some
from runway_cli.page import Column
from runway_cli.session import Session, change_options, json_option
from runway_cli.suggestions import find_node, node_exists, node_suggestions
from runway_cli.words import count


@click.command(cls=WithPaths)
@click.option("--retire", multiple=True, metavar="NODE", help="Take this node away with all its edges.")
@click.option("--add", multiple=True, metavar="UP DOWN", nargs=2, help="Add an edge from UP to DOWN.")
@click.option("--remove", multiple=True, metavar="UP DOWN", nargs=2, help="Take the edges from UP to DOWN away.")
@filter_options
@as_of_option
@json_option
@click.pass_obj
def show_what_if(
    session: Session,
    /,
    retire: Sequence[str],
    add: Sequence[tuple[str, str]],
    remove: Sequence[tuple[str, str]],
    as_of: str | None,
    **options: Any,
) -> None:
    """What a change would reach that is not made yet; nothing is changed.

    --retire, --add and --remove may be given several times, and together.
    """
    if not (retire or add or remove):
        raise click.UsageError("say what would change: --retire NODE, --add UP DOWN or --remove UP DOWN")
    runway = session.runway
    wanted = wanted_filter(options)
    retired = [find_node(runway, node) for node in retire]
    with node_suggestions(runway, retired[0] if retired else ""):
        answer = runway.graph.preview_change(
            retire_node_ids=retired,
            add=[_edge(find_node(runway, up), find_node(runway, down)) for up, down in add],
            remove=[edge for up, down in remove for edge in _edges(session, up, down)],
            wanted=wanted,
            as_of=parse_as_of(as_of),
        )
    if session.as_json:
        session.emit(answer)
        return
    page = session.page
    page.prose(_headline(answer, retired), style="bold")
    if answer.refusals:
        page.prose("It would be refused:", style="bold red")
        for refusal in answer.refusals:
            page.prose(f"- {refusal}.")
    if answer.directly_hit:
        page.prose(f"Directly hit: {some(answer.directly_hit)}.")
    if answer.orphaned:
        page.prose(f"Nothing upstream would be left for {some(answer.orphaned)}.")
    trained = [one for one in answer.affected if _model(one) and one.node_id not in retired]
    models = answer.summary.by_kind.get("model", 0) - sum(node_id.startswith("model:") for node_id in retired)
    if answer.summary.tier_1_models:
        page.prose(f"On tier 1: {some([bare(one) for one in answer.summary.tier_1_models])}.")
    if answer.summary.owners or answer.summary.teams:
        page.prose(owners_sentence(answer.summary))
    if models > 0:
        page.prose(cost_sentence(answer.summary, models, len({one.wave for one in trained})))
    if answer.affected or not answer.completeness.complete:
        show_trust(page, answer.completeness)
    if answer.affected:
        page.line()
        show_waves(page, answer.affected, wanted)


def _model(one: messages.Reached) -> bool:
    return one.node_id.startswith("model:")


def _headline(answer: messages.PreviewChangeResponse, retired: Sequence[str]) -> str:
    changed = sum(answer.summary.by_kind.values())
    if not changed:
        return "Nothing would change."
    kinds = kinds_sentence(answer.summary.by_kind, tier_1=len(answer.summary.tier_1_models))
    gone = f", {some(retired)} included" if retired else ""
    return f"{count(changed, 'node')} would change{gone}: {kinds}."


def _edge(
    up: str,
    down: str,
    edge_type: "messages.DependencyType.ValueType" = messages.DEPENDENCY_TYPE_UNSPECIFIED,
) -> messages.Dependency:
    return messages.Dependency(upstream_id=up, downstream_id=down, type=edge_type)


def _edges(session: Session, up: str, down: str) -> list[messages.Dependency]:
    """Every edge between two nodes; one of the usual type if there is none, so that the answer says so."""
    graph = session.runway.graph
    source, target = find_node(session.runway, up), find_node(session.runway, down)
    kinds = {messages.NodeKind.Value(f"NODE_KIND_{end.partition(':')[0].upper()}") for end in (source, target)}
    found = [
        e
        for e in graph.get_graph(kinds=sorted(kinds)).dependencies
        if (e.upstream_id, e.downstream_id) == (source, target)
    ]
    return found or [_edge(source, target)]


@click.command()
@click.option("--from", "before", required=True, metavar="MOMENT", help="A revision (41) or a time (2013-03-03).")
@click.option("--to", "after", metavar="MOMENT", help="The later moment; default now.")
@json_option
@click.pass_obj
def show_diff(session: Session, before: str, after: str | None) -> None:
    """What changed in the graph between two moments."""
    answer = session.runway.graph.diff_graph(parse_as_of(before), parse_as_of(after) if after else None)
    if session.as_json:
        session.emit(answer)
        return
    page = session.page
    rows = [["+", node.node_id, "", node.owner or "-"] for node in answer.nodes_added]
    rows += [["-", node.node_id, "", node.owner or "-"] for node in answer.nodes_removed]
    rows += [["~", node.after.node_id, "", _node_change(node)] for node in answer.nodes_changed]
    rows += [["+", *_ends(edge), type_word(edge.type)] for edge in answer.dependencies_added]
    rows += [["-", *_ends(edge), type_word(edge.type)] for edge in answer.dependencies_removed]
    rows += [["~", *_ends(edge.after), _edge_change(edge)] for edge in answer.dependencies_changed]
    between = f"between revisions {answer.from_revision} and {answer.to_revision}"
    if not rows:
        page.prose(f"The graph did not change {between}.", style="bold")
        return
    nodes = len(answer.nodes_added) + len(answer.nodes_removed) + len(answer.nodes_changed)
    page.prose(
        f"{count(nodes, 'node')} and {count(len(rows) - nodes, 'dependency', 'dependencies')} changed {between}.",
        style="bold",
    )
    page.line()
    page.table(
        [Column(title=" "), Column(title="NODE"), Column(title="DOWNSTREAM"), Column(title="WHAT", prose=True)], rows
    )


def _ends(edge: messages.Dependency) -> tuple[str, str]:
    return edge.upstream_id, edge.downstream_id


def _node_change(change: messages.NodeChange) -> str:
    """Which facts differ, before and after."""
    names = ("title", "description", "owner", "team", "declared", "external_ids")
    return _differences(change.before, change.after, names)


def _edge_change(change: messages.DependencyChange) -> str:
    return _differences(change.before, change.after, ("pinned", "note"))


def _differences(before: Any, after: Any, names: Sequence[str]) -> str:
    def told(value: Any) -> str:
        return ", ".join(value) if not isinstance(value, str | bool) else str(value) or "nothing"

    return "; ".join(
        f"{name}: {told(getattr(before, name))} -> {told(getattr(after, name))}"
        for name in names
        if getattr(before, name) != getattr(after, name)
    )


@click.command()
@click.argument("nodes", nargs=-1, required=True)
@change_options
@json_option
@click.pass_obj
def remove_nodes(session: Session, nodes: tuple[str, ...], reason: str, dry_run: bool) -> None:
    """Remove datasets, features or consumers that have no dependencies left; all or none."""
    runway = session.runway
    node_ids = [find_node(runway, node) for node in nodes]
    with node_suggestions(runway, node_ids[0]):
        changed = runway.graph.remove_nodes(node_ids, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(messages.RemoveNodesResponse(changed=changed, revision=runway.revision))
        return
    done = "would be removed; nothing was changed" if dry_run else "removed"
    session.page.prose(f"{count(changed, 'node')} {done}.")


@click.command()
@click.argument("node")
@click.argument("new_id")
@change_options
@json_option
@click.pass_obj
def rename_node(session: Session, node: str, new_id: str, reason: str, dry_run: bool) -> None:
    """Give NODE another id; its edges and evidence move along. If NEW_ID is a node, the two become one."""
    runway = session.runway
    node_id = find_node(runway, node)
    if ":" not in new_id:
        new_id = f"{node_id.partition(':')[0]}:{new_id}"
    merges = new_id != node_id and not session.as_json and node_exists(runway, new_id)
    with node_suggestions(runway, node_id):
        answer = runway.graph.rename_node(node_id, new_id, why=Why(reason=reason, validate_only=dry_run))
    if session.as_json:
        session.emit(answer)
        return
    edges = count(answer.dependencies, "edge")
    one = "one with " if merges else ""
    done = (
        f"would become {one}{new_id} with {edges}; nothing was changed" if dry_run else f"is {new_id} now, with {edges}"
    )
    if merges and not dry_run:
        done = f"and {new_id} are one now: {new_id}; {edges} moved"
    session.page.prose(f"{node_id} {done}.")
