"""`runway impact` and `runway graph`: what breaks if this changes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

import click
from runway_client import messages

from runway_cli.page import Column
from runway_cli.session import Session, json_option
from runway_cli.suggestions import find_node, node_suggestions
from runway_cli.words import count, enum_choices, enum_value, enum_word, listed, tier_word

KIND_ORDER = ("model", "feature", "consumer", "dataset")
_kind_option = click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(enum_choices(messages.NodeKind)),
    help="Only nodes of this kind; may be given several times.",
)


@click.command()
@click.argument("node")
@click.option("--paths", is_flag=True, help="Show one shortest path to each node.")
@click.option("--depth", type=click.IntRange(min=1), help="At most so many hops; default unbounded.")
@click.option("--upstream", is_flag=True, help="What the node depends on, instead of what depends on it.")
@_kind_option
@json_option
@click.pass_obj
def show_impact(
    session: Session, node: str, paths: bool, depth: int | None, upstream: bool, kinds: tuple[str, ...]
) -> None:
    """What is reached if NODE changes, by wave.

    NODE is kind:name (dataset:weather, model:air_time), or the name alone if only one node is called so. A wave can be
    retrained at once, after all waves before it.
    """
    runway = session.runway
    node_id = find_node(runway, node)
    wanted = _kinds(kinds)
    answer: messages.GetImpactResponse | messages.GetUpstreamResponse
    with node_suggestions(runway, node_id):
        if upstream:
            answer = runway.graph.get_upstream(node_id, depth_max=depth or 0, kinds=wanted, include_paths=paths)
        else:
            answer = runway.graph.get_impact(node_id, depth_max=depth or 0, kinds=wanted, include_paths=paths)
    if session.as_json:
        session.emit(answer)
        return
    page = session.page
    page.prose(impact_sentence(node_id, answer.reached, answer.waves, depth=depth, upstream=upstream), style="bold")
    if not answer.complete:
        page.prose(f"INCOMPLETE: {answer.incomplete_reason or 'something was left out'}", style="bold red")
    page.line()
    waves = groupby(answer.reached, key=lambda reached: reached.wave)
    page.grouped_table(
        _columns(paths), [(f"wave {wave}", [_row(one, paths) for one in reached]) for wave, reached in waves]
    )


@click.command()
@_kind_option
@click.option("--dot", is_flag=True, help="As Graphviz input: `runway graph --dot | dot -Tsvg`.")
@json_option
@click.pass_obj
def show_graph(session: Session, kinds: tuple[str, ...], dot: bool) -> None:
    """The whole dependency graph: every edge, upstream first."""
    answer = session.runway.graph.get_graph(kinds=_kinds(kinds))
    if session.as_json:
        session.emit(answer)
        return
    page = session.page
    if dot:
        page.line("digraph runway {")
        page.line("  rankdir=LR;")
        for node in answer.nodes:
            page.line(f'  "{node.node_id}";')
        for edge in answer.dependencies:
            page.line(f'  "{edge.upstream_id}" -> "{edge.downstream_id}";')
        page.line("}")
        return
    nodes, edges = count(len(answer.nodes), "node"), count(len(answer.dependencies), "dependency", "dependencies")
    page.prose(
        f"{nodes} ({_by_kind(node.node_id for node in answer.nodes)}) and {edges}."
        if answer.nodes
        else "The graph is empty.",
        style="bold",
    )
    if answer.dependencies:
        page.line()
    page.table(
        [Column(title="UPSTREAM"), Column(title="DOWNSTREAM"), Column(title="TYPE", spare=1)],
        [
            [edge.upstream_id, edge.downstream_id, enum_word(messages.DependencyType, edge.type).lower()]
            for edge in answer.dependencies
        ],
    )


def impact_sentence(
    node_id: str, reached: Sequence[messages.Reached], waves: int, *, depth: int | None, upstream: bool
) -> str:
    """The answer in one sentence."""
    verb = "depends on" if upstream else "reaches"
    within = f" within {count(depth, 'hop')}" if depth else ""
    if not reached:
        return f"{node_id} {verb} nothing{within}."
    models = [r for r in reached if r.node_id.startswith("model:")]
    sentence = (
        f"{node_id} {verb} {count(len(reached), 'node')} in {count(waves, 'wave')}{within}: "
        f"{_by_kind((r.node_id for r in reached), tier_1=sum(m.tier == messages.TIER_1 for m in models))}."
    )
    teams = sorted({r.team for r in reached if r.team})
    if teams:
        sentence += f" {'Team' if len(teams) == 1 else 'Teams'}: {', '.join(teams)}."
    return sentence


def _by_kind(node_ids: Iterable[str], tier_1: int = 0) -> str:
    kinds = Counter(node_id.partition(":")[0] for node_id in node_ids)
    words = []
    for kind in KIND_ORDER:
        if kinds[kind]:
            note = f" ({tier_1} on tier 1)" if kind == "model" and tier_1 else ""
            words.append(count(kinds[kind], kind) + note)
    return listed(words)


def _columns(paths: bool) -> list[Column]:
    columns = [
        Column(title="NODE"),
        Column(title="TIER", right=True),
        Column(title="TEAM", spare=1),
        Column(title="OWNER", spare=2),
        Column(title="HOPS", right=True, spare=3),
    ]
    return [*columns, Column(title="PATH", prose=True)] if paths else columns


def _row(reached: messages.Reached, paths: bool) -> list[str]:
    row = [
        f"  {reached.node_id}",
        tier_word(reached.tier),
        reached.team or "-",
        reached.owner or "-",
        str(reached.distance),
    ]
    return [*row, " -> ".join(reached.path)] if paths else row


def _kinds(words: Iterable[str]) -> list[messages.NodeKind.ValueType]:
    return [messages.NodeKind.ValueType(enum_value(messages.NodeKind, word)) for word in words]
