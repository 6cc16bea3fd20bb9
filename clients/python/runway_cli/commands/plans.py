"""`runway retrains plan | apply | returns`: before it happens, and was it worth it."""

import click
from runway_client import Why, messages

from runway_cli.page import Column
from runway_cli.session import Session, change_options, json_option
from runway_cli.suggestions import model_suggestions
from runway_cli.words import bare_model, clock, count, instant_of, joined, number, share, tier_word, version_word

for_option = click.option("--for", "models", multiple=True, help="Of this model; may be given several times.")
ignore_option = click.option("--ignore-cooldown", is_flag=True, help="Do not wait for the models' own cooldowns.")
off_peak_option = click.option("--off-peak", is_flag=True, help="Begin in the off-peak hours.")


@click.command()
@for_option
@click.option("--without-cascade", is_flag=True, help="Only what is asked for, not what may follow downstream.")
@ignore_option
@off_peak_option
@json_option
@click.pass_obj
def plan_retrains(
    session: Session, models: tuple[str, ...], without_cascade: bool, ignore_cooldown: bool, off_peak: bool
) -> None:
    """What would happen: waves, slots, times, GPU hours, the worst case. Changes nothing.

    Without --for it shows what is live and what may follow from it.
    """
    runway = session.runway
    model_ids = [bare_model(model) for model in models]
    with model_suggestions(runway, model_ids[0] if len(model_ids) == 1 else ""):
        plan = runway.retraining.plan_retrains(
            model_ids, cascade=not without_cascade, ignore_cooldown=ignore_cooldown, off_peak=off_peak
        )
    if session.as_json:
        session.emit(messages.PlanRetrainsResponse(plan=plan, revision=runway.revision))
        return
    show_plan(session, plan)
    if models:
        told = " ".join(f"--for {model_id}" for model_id in model_ids)
        options = (" --ignore-cooldown" if ignore_cooldown else "") + (" --off-peak" if off_peak else "")
        session.page.line(f"`runway retrains apply {told}{options} --etag {plan.etag}` does it.", "dim")


@click.command()
@for_option
@ignore_option
@off_peak_option
@click.option("--etag", default="", help="Of the plan that you looked at; refused if it would be another one by now.")
@change_options
@json_option
@click.pass_obj
def apply_plan(
    session: Session,
    models: tuple[str, ...],
    ignore_cooldown: bool,
    off_peak: bool,
    etag: str,
    reason: str,
    dry_run: bool,
) -> None:
    """Ask for the retrains of a plan, as one group."""
    if not models:
        raise click.UsageError("name at least one model: --for MODEL")
    runway = session.runway
    model_ids = [bare_model(model) for model in models]
    with model_suggestions(runway, model_ids[0] if len(model_ids) == 1 else ""):
        answer = runway.retraining.apply_retrain_plan(
            model_ids,
            ignore_cooldown=ignore_cooldown,
            off_peak=off_peak,
            etag=etag,
            why=Why(reason=reason, validate_only=dry_run),
        )
    if session.as_json:
        session.emit(answer)
        return
    show_plan(session, answer.plan)
    if dry_run:
        session.page.prose("Nothing was changed.")
    else:
        asked = joined(answer.retrain_ids)
        session.page.prose(f"Requested as {answer.group}: {asked}.")
        session.page.line(f"`runway retrains list --group {answer.group}` follows them.", "dim")


def show_plan(session: Session, plan: messages.RetrainPlan) -> None:
    """The answer first, then wave by wave."""
    page = session.page
    if not plan.retrains:
        page.prose("Nothing is live, and nothing is due by itself.")
        return
    asked = sum(one.requested for one in plan.retrains)
    follow = len(plan.retrains) - asked
    ends = f", done about {clock(instant_of(plan, 'ends_at'))}" if plan.HasField("ends_at") else ""
    page.prose(
        f"{count(asked, 'retrain')} asked for, {follow} may follow downstream, in {count(plan.waves, 'wave')}{ends}.",
        style="bold",
    )
    hours = ""
    if plan.gpu_hours_max:
        hours = f" {plan.gpu_hours_expected:.2g} GPU hours are expected, {plan.gpu_hours_max:.2g} if all are needed."
    page.prose(
        f"Never more than {count(plan.retrains_max, 'retrain')}, never more than {plan.running_max} at once.{hours}"
    )
    for warning in plan.warnings:
        page.prose(f"! {warning}", style="yellow")
    page.line()
    page.table(
        [
            Column(title="WAVE", right=True),
            Column(title="MODEL"),
            Column(title="TIER", right=True, spare=2),
            Column(title="STARTS"),
            Column(title="ENDS"),
            Column(title="SLOT", right=True, spare=4),
            Column(title="GPU H", right=True, spare=3),
            Column(title="LIKELY", right=True),
            Column(title="WHY", prose=True),
        ],
        [
            [
                str(one.wave),
                one.model_id,
                tier_word(one.tier),
                clock(instant_of(one, "starts_at")),
                clock(instant_of(one, "ends_at")),
                str(one.slot or "-"),
                f"{one.gpu_hours:.2g}" if one.gpu_hours else "-",
                share(one.likelihood),
                _why(one),
            ]
            for one in plan.retrains
        ],
    )


def _why(one: messages.ExpectedRetrain) -> str:
    what = f"{one.retrain_id} is live" if one.retrain_id else one.why_likely
    if one.retrain_id and one.likelihood < 1:
        what += f", {one.why_likely}"
    return what + (f"; waits for {joined(one.waits_for)}" if one.waits_for else "")


@click.command()
@click.option("--model", default="", help="Only retrains of this model.")
@click.option("--team", default="", help="Only models of this team.")
@json_option
@click.pass_obj
def list_returns(session: Session, model: str, team: str) -> None:
    """Was it worth it: what each promoted retrain brought in production, and what it cost."""
    runway, page = session.runway, session.page
    model_id = bare_model(model)
    with model_suggestions(runway, model_id):
        answer = runway.retraining.list_returns(model_id=model_id, team=team)
    if session.as_json:
        session.emit(answer)
        return
    if not answer.totals:
        page.line("no model was retrained yet")
        return
    page.table(
        [
            Column(title="MODEL"),
            Column(title="RETRAINS", right=True),
            Column(title="PROMOTED", right=True),
            Column(title="MEASURED", right=True),
            Column(title="UPLIFT", right=True),
            Column(title="GPU HOURS", right=True),
            Column(title="NOTE", prose=True),
        ],
        [
            [
                one.model_id,
                str(one.retrains),
                str(one.promoted),
                str(one.measured),
                f"{one.uplift:+.4g}" if one.measured else "-",
                f"{one.gpu_hours:.1f}" if one.gpu_hours else "-",
                one.for_nothing,
            ]
            for one in answer.totals
        ],
    )
    if answer.returns:
        page.heading("newest")
        page.table(
            [
                Column(title="RETRAIN"),
                Column(title="MODEL"),
                Column(title="VERSION", right=True),
                Column(title="METRIC"),
                Column(title="BEFORE", right=True),
                Column(title="AFTER", right=True),
                Column(title="UPLIFT", right=True),
                Column(title="ERROR", right=True, spare=1),
                Column(title="ROWS", right=True, spare=2),
            ],
            [
                [
                    one.retrain_id or "by hand",
                    one.model_id,
                    version_word(one.version),
                    one.metric,
                    number(one.before),
                    number(one.after),
                    f"{one.uplift:+.4g}",
                    number(one.standard_error, 2),
                    f"{one.sample_size:,}",
                ]
                for one in answer.returns
            ],
        )
