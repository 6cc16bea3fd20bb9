"""Contenders side by side on one world, and what the numbers say in words."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from control_plane.backtest.contenders import Contender, Kind, oracle, usual
from control_plane.backtest.report import Report, Result
from control_plane.backtest.run import USUAL_LIMITS, Run, run
from control_plane.backtest.scoring import Truth, score
from control_plane.backtest.world import World
from control_plane.core.errors import Invalid
from control_plane.core.retraining.types import RetrainingLimits
from control_plane.core.rules.types import Rule

Progress = Callable[[str, float], None]
"""Hears a contender's name and the share of its run that is done."""


def compare(
    world: World,
    contenders: Sequence[Contender] = (),
    *,
    limits: RetrainingLimits = USUAL_LIMITS,
    rules: Sequence[Rule] = (),
    warnings: Sequence[str] = (),
    progress: Progress | None = None,
    in_two: bool = False,
) -> Report:
    """Run each contender and score it. The oracle always runs, for the regret; it is shown if it was asked for.

    Args:
        contenders: in the order of the table; empty takes the usual ones.
        rules: in force at the start.
        warnings: about the world, for the report.
        in_two: share the looks with a second process, see `second`.
    Raises:
        Invalid: a contender's policies are none.
        ValueError: two contenders have one name.
    """
    asked = list(contenders) or usual()
    names = [one.name for one in asked]
    if len(set(names)) < len(names):
        raise ValueError(f"two contenders have one name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
    truth = Truth(world)
    seer = next((one for one in asked if one.kind is Kind.ORACLE), oracle())
    runs: dict[str, Run] = {}
    for one in asked:
        runs[one.name] = _run(world, one, (limits, rules, in_two), progress)
    best = runs[seer.name] if seer.name in names else _run(world, seer, (limits, rules, in_two), progress)
    best_result = score(best, truth)
    results = tuple(best_result if one is seer else score(runs[one.name], truth, best_result.quality) for one in asked)
    estimated = any(stint.trained.estimated for of in (*runs.values(), best) for stint in of.stints)
    refused = sorted({sentence for of in runs.values() for sentence in of.refused})
    return Report(
        start_time=world.start,
        end_time=world.end,
        models=len(world.models),
        results=results,
        estimated=estimated,
        reading=reading(results, asked, estimated=estimated),
        warnings=(*warnings, *_mixed(world), *(f"refused while it ran: {sentence}" for sentence in refused)),
    )


def _mixed(world: World) -> tuple[str, ...]:
    """A mean over an AUC and over minutes orders contenders, and is no number of anything."""
    metrics = sorted({world.first(model.model_id).metric for model in world.models})
    if len(metrics) < 2:
        return ()
    named = f"{', '.join(metrics[:-1])} and {metrics[-1]}"
    return (f"quality and regret are means over different metrics ({named}): name models of one metric to read them",)


def _run(
    world: World,
    contender: Contender,
    setting: tuple[RetrainingLimits, Sequence[Rule], bool],
    progress: Progress | None,
) -> Run:
    """Policies that cannot be are told with the contender's name: there may be several."""
    limits, rules, in_two = setting
    told = None if progress is None else lambda done: progress(contender.name, done)
    try:
        return run(world, contender, limits, rules, told, in_two=in_two)
    except Invalid as error:
        told_by = (replace(one, message=f"{contender.name}: {one.message}") for one in error.violations)
        raise Invalid(error.reason, *told_by) from None


def reading(results: Sequence[Result], contenders: Sequence[Contender], *, estimated: bool) -> str:
    """What the table says, and what it does not."""
    kinds = {one.name: one.kind for one in contenders}
    real = [one for one in results if kinds[one.name] is not Kind.ORACLE]
    found = []
    if real and all(one.stale_hours == 0 for one in real):
        found.append("No model was ever truly stale in this time, so every retrain was one too many.")
    elif real:
        best = min(real, key=lambda one: (one.stale_hours, one.retrains))
        found.append(
            f"{best.name} left the fewest stale hours ({best.stale_hours:,.0f}) for {_count(best.retrains, 'retrain')}."
        )
    now = next((one for one in real if one.name == "current"), None)
    for one in real:
        if now is not None and one is not now and kinds[one.name] is Kind.POLICIES and one.name != "performance only":
            found.append(_against(one, now))
    seer = next((one for one in results if kinds[one.name] is Kind.ORACLE), None)
    if seer is not None:
        found.append(
            f"An oracle would have needed {_count(seer.retrains, 'retrain')} and left {seer.stale_hours:,.0f} stale "
            "hours."
        )
    if estimated:
        found.append(
            "Versions that history did not have were not trained: their quality, and with it stale hours, quality and "
            "regret, is estimated from how recorded versions aged; retrains and GPU hours are counted."
        )
    return " ".join(found)


def _against(one: Result, now: Result) -> str:
    retrains, stale = one.retrains - now.retrains, one.stale_hours - now.stale_hours
    if not retrains and not round(stale):
        return f"{one.name} would have done as the current policies did."
    return (
        f"Against the current policies {one.name} makes {_more(retrains, 'retrain')} and leaves "
        f"{_more(round(stale), 'stale hour')}."
    )


def _more(number: int, what: str) -> str:
    if not number:
        return f"as many {what}s"
    plural = "" if abs(number) == 1 else "s"
    return f"{abs(number):,} {'more' if number > 0 else 'fewer'} {what}{plural}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
