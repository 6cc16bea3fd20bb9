"""Entry point of `runway`: the list of commands, exit codes, and errors that say what to do.

Only click is imported here; a command's module, gRPC and the contract come when the command runs, so that `--help` and
a mistyped command answer at once.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn, cast

import click

from runway_cli.session import Session

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_NO_ANSWER = 4

EXIT_CODES = """\b
Exit codes: 0 done, 1 refused or not found, 2 wrong usage or invalid input,
3 cannot reach the control plane, 4 no answer in time.

\b
Environment: RUNWAY_ADDRESS (default 127.0.0.1:7433), RUNWAY_ACTOR (who you are
in the audit log; default your login), NO_COLOR."""


class Lazy(NamedTuple):
    """Where a command is, and what the list of commands says about it."""

    where: str
    help: str


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, and suggests one when it is mistyped."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy | click.Command] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is the order people need them in."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it now."""
        entry = self.lazy.get(cmd_name)
        if isinstance(entry, Lazy):
            module, _, name = entry.where.partition(":")
            return cast("click.Command", getattr(importlib.import_module(f"runway_cli.commands.{module}"), name))
        return entry

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, without importing anything."""
        rows = [
            (name, entry.help if isinstance(entry, Lazy) else entry.get_short_help_str(limit=90))
            for name, entry in self.lazy.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion."""
        name = args[0]
        if name not in self.lazy and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.lazy, n=3, cutoff=0.5)
            near = near or [known for known in self.lazy if known.startswith(name[:3])]
            remedy = f"did you mean {' or '.join(near)}?" if near else f"see `{ctx.command_path} --help`"
            ctx.fail(f"there is no command {name!r}: {remedy}")
        return super().resolve_command(ctx, args)


class DefaultGroup(LazyGroup):
    """A group that is also a command: whatever is no command of it goes to `show`."""

    default = "show"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, with `show` put in where no command is named."""
        if not args or (args[0] not in self.lazy and args[0] not in ("-h", "--help")):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


class ListGroup(DefaultGroup):
    """The same with `list`."""

    default = "list"


def _group(about: str, **commands: Lazy) -> LazyGroup:
    lazy = {name.replace("_", "-"): entry for name, entry in commands.items()}
    return LazyGroup(help=about, lazy=lazy, no_args_is_help=True)


MODELS = _group(
    "What exists, who owns it, what runs in production.",
    list=Lazy("models:list_models", "The fleet, with what is in production and how fresh it is."),
    show=Lazy("model_page:show_model", "One model: facts, aliases, policies, standing."),
    history=Lazy("models:show_history", "What an alias pointed at, and when, and who moved it."),
    activate=Lazy("lifecycle:activate", "Bring a deprecated or retired model back."),
    deprecate=Lazy("lifecycle:deprecate", "Still serves; new consumers should look elsewhere."),
    retire=Lazy("lifecycle:retire", "End a model: not evaluated, not retrained, no alias moves."),
    load_check=Lazy("lifecycle:report_load_check", "Say whether a version could be loaded."),
)
ALIASES = _group(
    "What runs as what: `production`, and aliases of your own.",
    list=Lazy("aliases:list_aliases", "Where aliases point, for the whole fleet, now or then."),
    move=Lazy("aliases:move_alias", "Point an alias of your own at a version."),
    remove=Lazy("aliases:remove_alias", "Remove an alias of your own; its history is kept."),
)
POLICIES = _group(
    "When a model counts as stale, and what follows: by fleet, tier, team and model.",
    list=Lazy("policies:list_policies", "Every scope that says anything."),
    show=Lazy("policies:show_policies", "What a scope says; or of a model each value with its source."),
    set=Lazy("policies:set_policies", "Say something else in a scope; --plan shows what changes for whom."),
    history=Lazy("policies:show_history", "Every version of a scope, who set it and why."),
)
RULES = _group(
    "What follows from a look at a model, said in CEL: retrain, wait, ask, alert, page.",
    list=Lazy("rules:list_rules", "Rules in force, the highest first; --model shows what holds for one."),
    check=Lazy("rules:check_rule", "Type-check a rule, and see what it would do to the fleet now."),
    set=Lazy("rules:set_rule", "Add a rule or replace one; --dry-run shows what would change for whom."),
    remove=Lazy("rules:remove_rule", "Remove a rule."),
    context=Lazy("rules:show_context", "The names a rule may use, with types and examples."),
)
VERSIONS = _group(
    "Trained versions of a model.",
    list=Lazy("models:list_versions", "All versions of a model, newest first."),
)
STALENESS = _group(
    "Is a model still good, how sure are we, and why.",
    show=Lazy("staleness:show_staleness", "The fleet, worst first; or one model's signals."),
    explain=Lazy("staleness:explain_staleness", "Why, how sure and what to do, in sentences with a chart."),
    history=Lazy("looks:show_looks", "Every look at a model, or with --changes only what changed its verdict."),
    replay=Lazy("looks:replay_look", "Make a look again from its evidence, and compare bit for bit."),
    evaluate=Lazy("looks:evaluate_model", "Look at a model now instead of waiting for its cadence."),
)
RETRAINS = _group(
    "Retrains: asked for, waiting, running, done.",
    list=Lazy("retrains:list_retrains", "Retrains, newest first."),
    show=Lazy("retrains:show_retrain", "One retrain with its attempts."),
    request=Lazy("retrains:request_retrain", "Ask for a retrain of a model."),
    plan=Lazy("plans:plan_retrains", "What would happen: waves, slots, times, GPU hours, the worst case."),
    apply=Lazy("plans:apply_plan", "Ask for the retrains of a plan, as one group."),
    hold=Lazy("retrains:hold_retrain", "Let a waiting retrain wait until it is released."),
    release=Lazy("retrains:release_retrain", "Let a held retrain go on."),
    cancel=Lazy("retrains:cancel_retrain", "End a retrain that has not ended."),
    returns=Lazy("plans:list_returns", "Was it worth it: what retrains brought, and what they cost."),
)
LIMITS = ListGroup(
    help="How much may run at once, and what a team may spend.",
    lazy={
        "list": Lazy("limits:show_limits", "Every limit, and what runs against it now."),
        "set": Lazy("limits:set_limits", "Change limits; what is not named stays."),
    },
)
ROLLOUTS = _group(
    "From a candidate to production, and back.",
    list=Lazy("rollouts:list_rollouts", "Rollouts, newest first."),
    show=Lazy("rollouts:show_rollout", "One rollout: where it stands, what it waits for, its numbers and its story."),
    check=Lazy("rollouts:report_check", "Say that a candidate passed, or failed, a check of your own."),
    approve=Lazy("rollouts:approve_rollout", "Say yes to a rollout that waits for approval or for a decision."),
    decline=Lazy("rollouts:decline_rollout", "Say no: the rollout ends, production stays."),
    hold=Lazy("rollouts:hold_rollout", "Take no further step until it is released."),
    release=Lazy("rollouts:release_rollout", "Let a held rollout go on."),
    advance=Lazy("rollouts:advance_rollout", "Take the next step now, whatever the judge says; needs --reason."),
    abort=Lazy("rollouts:abort_rollout", "End a rollout; all traffic goes back to production."),
    group=Lazy("rollouts:group_rollouts", "Let live rollouts move as one: one canary, and back as a whole."),
    freeze=Lazy("rollouts:freeze", "Let nothing go forward for a while; alone it lists the freezes."),
    unfreeze=Lazy("rollouts:unfreeze", "Remove a freeze before its time."),
    promote=Lazy("rollouts:promote_version", "Send a validated version on its way to production."),
    roll_back=Lazy("rollouts:roll_back", "Put the version before back into production."),
)

GRAPH = DefaultGroup(
    help="The whole dependency graph, and how it changed.",
    lazy={
        "show": Lazy("graph:show_graph", "Every edge, upstream first; `runway graph` alone does this."),
        "diff": Lazy("what_if:show_diff", "What changed in the graph between two moments."),
    },
)
NODES = _group(
    "Datasets, features and consumers; models have commands of their own.",
    rename=Lazy("what_if:rename_node", "Give a node another id; its edges and evidence move along."),
    remove=Lazy("what_if:remove_nodes", "Remove nodes that have no dependencies left."),
)

EDGES = _group(
    "What is known of each edge, and who has the last word on it.",
    list=Lazy("lineage:list_edges", "Edges with their state, origin and sources."),
    show=Lazy("lineage:show_edge", "All evidence for and against one edge, in sentences."),
    override=Lazy("lineage:override_edge", "Say that an edge is there, or is not, whatever sources say."),
    clear_override=Lazy("lineage:clear_override", "Let sources and declarations decide again."),
)
LINEAGE = _group(
    "How long an edge stands that its source no longer shows.",
    policy=Lazy("lineage:lineage_policy", "When edges become suspect, and when they are retired."),
)
DISCOVER = _group(
    "Read lineage from a source that cannot tell it by itself.",
    metaflow=Lazy("discover:discover_metaflow", "Metaflow's finished runs."),
    dagster=Lazy("discover:discover_dagster", "A Dagster deployment's assets and materializations."),
)

FACTS = _group(
    "Where predictions and outcomes come from, and what of them could not be used.",
    status=Lazy("facts:show_status", "Sources, what is sampled, what waits, and what is degraded."),
    orphans=Lazy("facts:list_orphans", "Outcomes of a model whose prediction was never seen."),
    dead_letters=Lazy("facts:list_dead_letters", "Batches out of Kafka or a folder that could not be used, and why."),
    replay=Lazy("facts:replay_dead_letters", "Take dead letters in again, once the cause is mended."),
    discard=Lazy("facts:discard_dead_letters", "Throw dead letters away."),
)

ALERTS = ListGroup(
    help="What is wrong now, one alert for each cause.",
    lazy={
        "list": Lazy("alerts:list_alerts", "What is wrong now, the worst first."),
        "silence": Lazy("alerts:silence_alert", "Tell nobody about an alert for some time."),
    },
)
DESTINATIONS = _group(
    "Where alerts and lifecycle events are told: webhooks, Alertmanager, PagerDuty, Slack.",
    list=Lazy("alerts:list_destinations", "Where they go, and how that goes."),
    set=Lazy("alerts:set_destination", "Send alerts or events there."),
    remove=Lazy("alerts:remove_destination", "Send nothing there any more."),
    **{"try": Lazy("alerts:try_destination", "Send a test message now, and say what came back.")},
)
SCHEDULERS = ListGroup(
    help="Who runs retrains, and the circuit breaker of each.",
    lazy={
        "list": Lazy("schedulers:list_schedulers", "Who runs retrains, whether it gets any, and why not."),
        "trip": Lazy("schedulers:trip", "Open its breaker by hand: it gets no retrains until it is reset."),
        "reset": Lazy("schedulers:reset", "Close its breaker, and end a bypass."),
        "bypass": Lazy("schedulers:bypass", "Give it retrains in spite of its breaker, until it is reset."),
    },
)
COMMANDS: dict[str, Lazy | click.Command] = {
    "status": Lazy("operations:show_status", "Is the control plane well, and what is it doing."),
    "apply": Lazy("fleet:apply_files", "Make the fleet what the YAML files in a directory say."),
    "export": Lazy("fleet:export_files", "Write everything that is declared as YAML files."),
    "schema": Lazy("fleet:print_schema", "The JSON Schema of those files, for editors."),
    "erase": Lazy("erasures:erase_facts", "Erase predictions from every layer, for good, with a receipt."),
    "erasures": Lazy("erasures:list_erasures", "Receipts of what was erased."),
    "limits": LIMITS,
    "why": Lazy("why:why", "A model's story: what serves, what is under way and why, what you can do."),
    "models": MODELS,
    "policies": POLICIES,
    "rules": RULES,
    "aliases": ALIASES,
    "versions": VERSIONS,
    "staleness": STALENESS,
    "backtest": Lazy("backtest:run_backtest", "Try other policies on recorded history, side by side."),
    "drift": Lazy("drift:drift", "Compare two files, Parquet or CSV; needs no control plane."),
    "impact": Lazy("graph:show_impact", "What is reached if this node changes, by wave."),
    "what-if": Lazy("what_if:show_what_if", "What a change would reach that is not made yet."),
    "causes": Lazy("graph:show_causes", "What several nodes all stand on: where to look when they went bad."),
    "paths": Lazy("graph:list_paths", "How a change of one node gets to another: every path."),
    "graph": GRAPH,
    "nodes": NODES,
    "edges": EDGES,
    "disagreements": Lazy("lineage:list_disagreements", "Where declarations and discovery contradict each other."),
    "lineage": LINEAGE,
    "discover": DISCOVER,
    "retrains": RETRAINS,
    "rollouts": ROLLOUTS,
    "schedulers": SCHEDULERS,
    "alerts": ALERTS,
    "destinations": DESTINATIONS,
    "coverage": Lazy("coverage:show_coverage", "How much of the truth about a model has arrived."),
    "performance": Lazy("performance:show_performance", "How good a model is on the truth that has arrived."),
    "join": Lazy("joins:join_facts", "Join predictions with outcomes now instead of within the hour."),
    "facts": FACTS,
    "watch": Lazy("watching:watch_events", "What happens, as it happens; Ctrl-C ends it."),
    "events": Lazy("watching:list_events", "What happened: the audit log."),
    "hold": Lazy("operations:hold_retraining", "Lease no new retrains until released."),
    "release": Lazy("operations:release_retraining", "Lease retrains again."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--address", metavar="HOST:PORT", help="The control plane; default RUNWAY_ADDRESS or 127.0.0.1:7433.")
@click.option("--actor", metavar="NAME", help="Who you are in the audit log; default RUNWAY_ACTOR or your login.")
@click.option("--json", "as_json", is_flag=True, help="Answers as JSON; every command takes it too.")
@click.pass_context
def cli(ctx: click.Context, address: str | None, actor: str | None, as_json: bool) -> None:
    """Keeps a fleet of machine-learning models fresh: ask what is stale, why, and what a change would reach."""
    ctx.obj = Session(address=address, actor=actor, as_json=as_json)
    ctx.call_on_close(ctx.obj.close)


def main() -> NoReturn:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    try:
        # Without its standalone mode click gives the exit code of `ctx.exit` back, and None otherwise.
        code = cli.main(args=arguments, prog_name="runway", standalone_mode=False)
        sys.stdout.flush()
        if isinstance(code, int):
            return code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    except click.UsageError as error:
        _complain(error.format_message())
        if error.ctx is not None:
            click.echo(f"usage: {error.ctx.get_usage().removeprefix('Usage: ')}", err=True)
        return EXIT_USAGE
    except click.ClickException as error:
        _complain(error.format_message())
        return EXIT_REFUSED
    except click.exceptions.Exit as done:
        return done.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader (`head`) has what it wanted; nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_REFUSED
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        _complain(str(error))
        violations = getattr(error, "violations", ())
        if len(violations) > 1:  # the sentence has said a single one
            for violation in violations:
                click.echo(f"  {violation.field}: {violation.message}", err=True)
        return code
    return EXIT_OK


def _complain(sentence: str) -> None:
    click.echo(f"runway: {sentence}", err=True)


def _exit_code(error: Exception) -> int | None:
    """The exit code of a failed call; None if it is no failed call but a fault of ours."""
    if "runway_client.errors" not in sys.modules:
        return None
    errors = sys.modules["runway_client.errors"]
    if not isinstance(error, errors.RunwayRpcError):
        return None
    if isinstance(error, errors.Unreachable):
        return EXIT_UNREACHABLE
    if isinstance(error, errors.NoAnswer):
        return EXIT_NO_ANSWER
    return EXIT_USAGE if isinstance(error, errors.InvalidRequest) else EXIT_REFUSED


if __name__ == "__main__":
    main()
