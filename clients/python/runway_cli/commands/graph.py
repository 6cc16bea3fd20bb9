"""`runway impact`, `causes`, `paths` and `graph`: what breaks if this changes, and where to look when it broke."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeVar

import click
from runway_client import messages

from runway_cli.as_of import as_of_option, parse_as_of
from runway_cli.impact_text import PathWords, bare, kinds_sentence, some, summary_sentences, trust_sentences
from runway_cli.page import Column, Page
from runway_cli.session import Session, json_option
from runway_cli.suggestions import find_node, node_suggestions
from runway_cli.words import count, enum_choices, enum_value, enum_word, tier_word

Answer = messages.GetImpactResponse | messages.GetUpstreamResponse
Command = TypeVar("Command", bound=Callable[..., Any])


class WithPaths(click.Command):
    """A command whose `--paths` may be followed by `=all`; a node after it is still a node."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, after `--paths=all` has become the flag behind it."""
        plain: list[str] = []
        for word in args:
            if word == "--paths=all" or (word == "all" and plain[-1:] == ["--paths"]):
                plain.append("--all-paths")
            else:
                plain.append("--paths" if word == "--paths=shortest" else word)
        return super().parse_args(ctx, plain)


kind_option = click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(enum_choices(messages.NodeKind)),
    help="Only nodes of this kind; may be given several times.",
)


def filter_options(command: Command) -> Command:
    """What to look at, and what of it to show; `wanted_filter` makes a filter of them."""
    for option in (
        click.option(
            "--paths", is_flag=True, help="Show a shortest path to each node, or with --paths=all every path."
        ),
        click.option("--all-paths", is_flag=True, hidden=True),
        click.option("--paths-max", type=click.IntRange(1, 100_000), help="With --paths=all; default 1,000."),
        click.option("--depth", type=click.IntRange(min=1), help="At most so many hops; default unbounded."),
        kind_option,
        click.option("--tier", "tiers", multiple=True, type=click.IntRange(1, 4), help="Only models of this tier."),
        click.option("--team", "teams", multiple=True, help="Only what belongs to this team."),
        click.option(
            "--type",
            "types",
            multiple=True,
            type=click.Choice(enum_choices(messages.DependencyType)),
            help="Walk along edges of this type only.",
        ),
    ):
        command = option(command)
    return command


def wanted_filter(options: dict[str, Any]) -> messages.ImpactFilter:
    """The filter of `filter_options`; takes them out of `options`."""
    shortest, every = options.pop("paths"), options.pop("all_paths")
    return messages.ImpactFilter(
        depth_max=options.pop("depth") or 0,
        kinds=kinds_of(options.pop("kinds")),
        tiers=[messages.Tier.ValueType(tier) for tier in options.pop("tiers")],
        teams=options.pop("teams"),
        types=[
            messages.DependencyType.ValueType(enum_value(messages.DependencyType, word))
            for word in options.pop("types")
        ],
        paths=messages.PATHS_ALL if every else messages.PATHS_SHORTEST if shortest else messages.PATHS_NONE,
        paths_max=options.pop("paths_max") or 0,
    )


@click.command(cls=WithPaths)
@click.argument("node")
@click.option("--upstream", is_flag=True, help="What the node depends on, instead of what depends on it.")
@filter_options
@as_of_option
@json_option
@click.pass_obj
def show_impact(session: Session, /, node: str, upstream: bool, as_of: str | None, **options: Any) -> None:
    """What is reached if NODE changes, by wave.

    NODE is kind:name (dataset:weather, model:air_time), or the name alone if only one node is called so. A wave can be
    retrained at once, after all waves before it.
    """
    runway = session.runway
    wanted, moment = wanted_filter(options), parse_as_of(as_of)
    node_id = find_node(runway, node)
    ask = runway.graph.get_upstream if upstream else runway.graph.get_impact
    with node_suggestions(runway, node_id):
        answer: Answer = ask(node_id, wanted, as_of=moment)
    if session.as_json:
        session.emit(answer)
        return
    page = session.page
    page.prose(_headline(node_id, answer, wanted, upstream=upstream), style="bold")
    model_waves = 0
    if answer.summary.by_kind.get("model") and not upstream:
        models = messages.ImpactFilter(depth_max=wanted.depth_max, types=wanted.types, kinds=[messages.NODE_KIND_MODEL])
        model_waves = ask(node_id, models, as_of=moment).waves
    for sentence in summary_sentences(answer.summary, model_waves, upstream=upstream):
        page.prose(sentence)
    if answer.summary.by_kind or not answer.completeness.complete:
        show_trust(page, answer.completeness)
    if answer.reached:
        page.line()
        show_waves(page, answer.reached, wanted)
        _next_steps(page, node_id, answer, wanted, upstream=upstream)


def show_trust(page: Page, completeness: messages.Completeness) -> None:
    """How far an answer can be trusted, in sentences."""
    if not completeness.complete:
        page.prose(f"INCOMPLETE: {'; '.join(completeness.reasons) or 'something was left out'}.", style="bold red")
    for sentence in trust_sentences(completeness):
        page.prose(sentence)


def show_waves(page: Page, rows: Sequence[messages.Reached], wanted: messages.ImpactFilter) -> None:
    """The rows by wave, with paths if they were asked for."""
    with_paths = wanted.paths != messages.PATHS_NONE
    columns = [
        Column(title="NODE"),
        Column(title="TIER", right=True),
        Column(title="TEAM", spare=1),
        Column(title="OWNER", spare=2),
        Column(title="HOPS", right=True, spare=3),
    ]
    if with_paths:
        columns += [
            Column(title="PATHS", right=True, spare=4),
            Column(title="SHORTEST" if wanted.paths == messages.PATHS_SHORTEST else "PATH", prose=True),
        ]
    named = (path for one in rows for path in ([one.node_id], one.path, *(each.node_ids for each in one.all_paths)))
    words = PathWords([node_id for path in named for node_id in path])
    groups = []
    for wave, reached in groupby(rows, key=lambda one: one.wave):
        words.begin()
        groups.append((f"wave {wave}", [row for one in reached for row in _rows(one, words, with_paths=with_paths)]))
    page.grouped_table(columns, groups)


def _rows(one: messages.Reached, words: PathWords, *, with_paths: bool) -> Iterator[list[str]]:
    """A row, and one for each further path."""
    row = [f"  {one.node_id}", tier_word(one.tier), one.team or "-", one.owner or "-", str(one.distance)]
    if not with_paths:
        yield row
        return
    paths = [path.node_ids for path in one.all_paths] or ([one.path] if one.path else [])
    ways = f"{one.path_count:,.0f}" if one.path_count < 1e6 else f"{one.path_count:.1e}"
    ways = ways if one.path_count else "-"
    yield [*row, ways, words.folded(paths[0]) if paths else "-"]
    for path in paths[1:]:
        yield ["", "", "", "", "", "", words.folded(path)]


def _headline(node_id: str, answer: Answer, wanted: messages.ImpactFilter, *, upstream: bool) -> str:
    """The answer in one sentence."""
    verb = "depends on" if upstream else "reaches"
    within = f" within {count(wanted.depth_max, 'hop')}" if wanted.depth_max else ""
    if wanted.types:
        within += f" along {some([enum_word(messages.DependencyType, one).lower() for one in wanted.types])}"
    summary = answer.summary
    everything = sum(summary.by_kind.values())
    if not everything:
        return f"{node_id} {verb} nothing{within}."
    chosen = wanted.kinds or wanted.tiers or wanted.teams
    waves = "" if chosen else f" in {count(answer.waves, 'wave')}"
    kinds = kinds_sentence(summary.by_kind, tier_1=len(summary.tier_1_models))
    sentence = f"{node_id} {verb} {count(everything, 'node')}{waves}{within}: {kinds}."
    if chosen:
        sentence += f" {len(answer.reached):,} of them {'is' if len(answer.reached) == 1 else 'are'} asked for"
        sentence += f", in {count(answer.waves, 'wave')}." if answer.reached else "."
    return sentence


def _next_steps(page: Page, node_id: str, answer: Answer, wanted: messages.ImpactFilter, *, upstream: bool) -> None:
    """What people do next, as commands that can be pasted."""
    steps = []
    if wanted.depth_max and not answer.completeness.complete:
        steps.append("to see all of it: without --depth")
    if upstream:
        steps.append(f"why one of them went bad: `runway staleness explain {_first_model(answer) or 'MODEL'}`")
        steps.append("what several bad models share: `runway causes MODEL MODEL ...`")
    else:
        if wanted.paths == messages.PATHS_NONE:
            steps.append("to see how it gets there: --paths")
        first = _first_model(answer)
        if first:
            steps.append(f"retrain in the order of the waves: `runway retrains request {first} --reason ...`")
        steps.append(f"before taking it away: `runway what-if --retire {node_id}`")
    page.line()
    page.line("Next", "bold")
    for step in steps:
        page.line(f"  {step}")


def _first_model(answer: Answer) -> str:
    return next((bare(one.node_id) for one in answer.reached if one.node_id.startswith("model:")), "")


@click.command()
@click.argument("nodes", nargs=-1, required=True)
@kind_option
@as_of_option
@json_option
@click.pass_obj
def show_causes(session: Session, nodes: tuple[str, ...], kinds: tuple[str, ...], as_of: str | None) -> None:
    """What several NODES all stand on: where to look when they went bad together."""
    if len(set(nodes)) < 2:
        raise click.UsageError("name at least two nodes: `runway causes air_time crew_overtime`")
    runway = session.runway
    asked = [find_node(runway, node) for node in nodes]
    with node_suggestions(runway, asked[0]):
        answer = runway.graph.get_common_causes(asked, kinds=kinds_of(kinds), as_of=parse_as_of(as_of))
    if session.as_json:
        session.emit(answer)
        return
    page, causes = session.page, answer.causes
    names = some([bare(one) for one in asked])
    if not causes:
        page.prose(f"{names} have nothing upstream in common.", style="bold")
        return
    nearest = [one.node_id for one in causes if one.nearest]
    roots = [one.node_id for one in causes if one.root]
    page.prose(
        f"{names} all stand on {count(len(causes), 'node')}: "
        f"{kinds_sentence(Counter(one.node_id.partition(':')[0] for one in causes))}.",
        style="bold",
    )
    page.prose(f"Look first at {some(nearest)}, which {'is' if len(nearest) == 1 else 'are'} nearest to them.")
    if roots:
        page.prose(f"It may have begun in {some(roots)}, on which nothing lies upstream.")
    page.line()
    page.table(
        [
            Column(title="CAUSE"),
            Column(title="HOPS", right=True),
            Column(title="NEAREST"),
            Column(title="ROOT"),
            Column(title="TEAM", spare=1),
            Column(title="OWNER", spare=2),
        ],
        [
            [one.node_id, str(one.distance), _yes(one.nearest), _yes(one.root), one.team or "-", one.owner or "-"]
            for one in causes
        ],
    )
    page.line()
    page.line("Next", "bold")
    page.line(f"  what else it reaches: `runway impact {nearest[0]}`")


@click.command()
@click.argument("from_node", metavar="FROM")
@click.argument("to_node", metavar="TO")
@click.option("--paths-max", type=click.IntRange(1, 100_000), help="List so many at most; default 1,000.")
@as_of_option
@json_option
@click.pass_obj
def list_paths(session: Session, from_node: str, to_node: str, paths_max: int | None, as_of: str | None) -> None:
    """How a change of FROM gets to TO downstream: every path, shortest first, and how many there are."""
    runway = session.runway
    source, target = find_node(runway, from_node), find_node(runway, to_node)
    with node_suggestions(runway, source):
        answer = runway.graph.list_paths(source, target, paths_max=paths_max or 0, as_of=parse_as_of(as_of))
    if session.as_json:
        session.emit(answer)
        return
    page = session.page
    total = int(answer.total)
    if not total:
        page.prose(f"No path leads from {source} to {target}.", style="bold")
        page.prose(f"The other way round: `runway paths {target} {source}`.", style="dim")
        return
    hops = len(answer.paths[0].node_ids) - 1
    page.prose(
        f"{count(total, 'path leads', 'paths lead')} from {source} to {target}, the shortest in {count(hops, 'hop')}.",
        style="bold",
    )
    if not answer.complete:
        page.prose(f"INCOMPLETE: {answer.incomplete_reason}.", style="bold red")
    page.line()
    words = PathWords([node_id for path in answer.paths for node_id in path.node_ids])
    page.table(
        [Column(title="HOPS", right=True), Column(title="PATH", prose=True)],
        [[str(len(path.node_ids) - 1), words.folded(path.node_ids)] for path in answer.paths],
    )


@click.command()
@kind_option
@click.option("--dot", is_flag=True, help="As Graphviz input: `runway graph --dot | dot -Tsvg`.")
@as_of_option
@json_option
@click.pass_obj
def show_graph(session: Session, kinds: tuple[str, ...], dot: bool, as_of: str | None) -> None:
    """The whole dependency graph: every edge, upstream first."""
    answer = session.runway.graph.get_graph(kinds=kinds_of(kinds), as_of=parse_as_of(as_of))
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
    by_kind = kinds_sentence(Counter(node.node_id.partition(":")[0] for node in answer.nodes))
    page.prose(f"{nodes} ({by_kind}) and {edges}." if answer.nodes else "The graph is empty.", style="bold")
    if answer.dependencies:
        page.line()
    page.table(
        [Column(title="UPSTREAM"), Column(title="DOWNSTREAM"), Column(title="TYPE", spare=1)],
        [[edge.upstream_id, edge.downstream_id, type_word(edge.type)] for edge in answer.dependencies],
    )


def type_word(edge_type: "messages.DependencyType.ValueType") -> str:
    """`reads_feature` and so on."""
    return enum_word(messages.DependencyType, edge_type).lower()


def kinds_of(words: Iterable[str]) -> list[messages.NodeKind.ValueType]:
    """Kinds by their words."""
    return [messages.NodeKind.ValueType(enum_value(messages.NodeKind, word)) for word in words]


def _yes(flag: bool) -> str:
    return "yes" if flag else "-"
