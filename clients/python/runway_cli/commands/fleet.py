"""`runway apply`, `runway export`, `runway schema`: the fleet as files."""

import importlib.resources
import sys
from pathlib import Path

import click
from runway_client import Runway, RunwayRpcError, Why, messages
from runway_client.fleet_files import FleetFiles, StrayFiles, read_fleet, write_fleet
from runway_client.fleet_files.writing import SCHEMA_FILE

from runway_cli.as_of import as_of_option, parse_as_of
from runway_cli.commands.fleet_plan import show_plan, totals
from runway_cli.session import Session, json_option
from runway_cli.words import count, listed

EXIT_WRONG = 2
EXIT_CHANGES = 5
"""Of `apply --plan`: the files say something else than the fleet."""


@click.command(name="apply")
@click.argument("directory", metavar="DIR")
@click.option("--plan", "plan_only", is_flag=True, help="Only show what would change; exit 0 nothing, 5 something.")
@click.option("--prune", is_flag=True, help="Remove what is declared but not in DIR; models never.")
@click.option("--yes", is_flag=True, help="Do not ask. Nobody is asked either when input is no terminal.")
@click.option("--all", "show_all", is_flag=True, help="Show every change, however many there are.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the audit log.")
@json_option
@click.pass_obj
def apply_files(
    session: Session, directory: str, plan_only: bool, prune: bool, yes: bool, show_all: bool, reason: str
) -> None:
    """Make the fleet what the YAML files in DIR say.

    All files are read and judged as one. What would change is shown, then asked about, then done in one transaction:
    all or nothing. The same files again change nothing.
    """
    runway, page = session.runway, session.page
    found = read_fleet(directory)
    if found.problems:
        _complain([*map(str, found.problems), *_also_wrong(runway, found)], directory)
    plan = runway.fleet.plan(found.manifest, prune=prune)
    if plan.problems:
        _complain([_placed(found, problem) for problem in plan.problems], directory)
    if session.as_json and (plan_only or not plan.changes):
        session.emit(plan)
    elif not session.as_json:
        show_plan(page, plan, found, show_all=show_all)
    if not plan.changes:
        return
    if plan_only:
        sys.exit(EXIT_CHANGES)
    if not yes and sys.stdin.isatty() and not session.as_json:
        page.line()
        click.confirm("Apply this?", abort=True, err=True)
    try:
        done = runway.fleet.apply(found.manifest, prune=prune, plan_etag=plan.plan_etag, why=Why(reason=reason))
    except RunwayRpcError as error:
        if error.reason == "ETAG_MISMATCH":
            raise click.ClickException(
                "the fleet was changed since this plan was made, and it would be another one now; nothing was applied: "
                "run the same command again"
            ) from None
        raise
    if session.as_json:
        session.emit(done)
        return
    page.line()
    page.line(f"Applied at revision {done.revision}: {totals(done.changes, done=True)}.", "bold")


def _placed(found: FleetFiles, problem: messages.ManifestProblem) -> str:
    """A problem that the control plane found, with its place in the files."""
    place = found.place_of(problem.field)
    field = problem.field.removeprefix("manifest.").partition(".")[2]
    return f"{place or problem.field}: {field + ': ' if field and place else ''}{problem.message}"


def _also_wrong(runway: Runway, found: FleetFiles) -> list[str]:
    """What is wrong with the edges of files that have other faults: nodes that do not exist, cycles.

    Only what no fault of theirs can have brought about. It is not asked when a file, an entry or an id could not be
    read, since what is missing may stand there; nor said when nobody answers, since files can be checked without.
    """
    for problem in found.problems:
        if problem.field.endswith("_id") or ("." not in problem.field and problem.rule != "unique"):
            return []
    try:
        plan = runway.fleet.plan(found.manifest)
    except RunwayRpcError:
        return []
    return [
        _placed(found, problem)
        for problem in plan.problems
        if problem.field.startswith("dependencies[") and problem.rule in ("exists", "acyclic")
    ]


def _complain(problems: list[str], directory: str) -> None:
    for problem in problems:
        click.echo(problem, err=True)
    things = count(len(problems), "thing is", "things are")
    click.echo(f"runway: {things} wrong in {directory}; nothing was changed", err=True)
    sys.exit(EXIT_WRONG)


@click.command(name="export")
@click.argument("directory", metavar="DIR")
@click.option("--team", default="", help="Only this team's models and nodes, with what they depend on.")
@click.option("--clean", is_flag=True, help="Remove YAML files in DIR that are not of this fleet.")
@click.option("--schema", metavar="URL", help=f"Where editors find the JSON Schema; default DIR/{SCHEMA_FILE}.")
@as_of_option
@json_option
@click.pass_obj
def export_files(
    session: Session, directory: str, team: str, clean: bool, schema: str | None, as_of: str | None
) -> None:
    """Write everything that people declared as YAML files into DIR.

    One file for each model, with what it depends on; the same fleet gives the same bytes.
    """
    from runway_client.moments import read_options  # noqa: PLC0415 (as light as its neighbours, but only needed here)

    manifest = session.runway.fleet.export(team=team, read=read_options(as_of=parse_as_of(as_of)))
    if not (manifest.models or manifest.nodes or manifest.policies or manifest.rules or manifest.dependencies):
        what = f"team {team} has no models and nodes: see `runway models list`" if team else "nothing is declared yet"
        raise click.ClickException(what)
    try:
        files = write_fleet(manifest, directory, schema=schema or SCHEMA_FILE, clean=clean)
        if schema is None:
            (Path(directory) / SCHEMA_FILE).write_text(_schema(), encoding="utf-8")
    except StrayFiles as error:
        raise click.ClickException(
            f"{directory} has {count(len(error.files), 'YAML file')} that are not of this fleet and would still be "
            f"applied: {listed(error.files[:5])}{' and more' if len(error.files) > 5 else ''}; --clean removes them"
        ) from None
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename or directory}: {error.strerror}") from None
    if session.as_json:
        session.emit(messages.ExportFleetResponse(manifest=manifest, revision=session.runway.revision))
        return
    parts = [
        count(len(manifest.models), "model"),
        count(len(manifest.nodes), "dataset, feature or consumer", "datasets, features and consumers"),
        count(len(manifest.dependencies), "dependency", "dependencies"),
        count(len(manifest.policies), "policy scope"),
        *([count(len(manifest.rules), "rule")] if manifest.rules else []),
    ]
    session.page.prose(f"{listed(parts)} in {count(len(files), 'file')} below {directory}.")


@click.command(name="schema")
@json_option
@click.pass_obj
def print_schema(session: Session) -> None:
    """The JSON Schema of the files, for editors and checkers."""
    click.echo(_schema(), nl=False)


def _schema() -> str:
    return importlib.resources.files("runway_client.fleet_files").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
