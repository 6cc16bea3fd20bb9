"""A plan as people read it: what is added, changed and removed, and what new policies mean for whom."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from runway_client import messages
from runway_client.fleet_files import FleetFiles
from runway_client.fleet_files.scalars import span_of, span_text

from runway_cli.page import Page, printable
from runway_cli.words import count, listed

SHOWN_MAX = 20
"""Of one kind and action; more are counted."""

MODELS_NAMED_MAX = 6

SIGNS = {
    messages.CHANGE_ACTION_CREATE: ("+", "green"),
    messages.CHANGE_ACTION_UPDATE: ("~", "yellow"),
    messages.CHANGE_ACTION_DELETE: ("-", "red"),
}
TITLES: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("policies", lambda subject: subject.startswith("policy:")),
    ("rules", lambda subject: subject.startswith("rule:")),
    (
        "datasets, features, consumers",
        lambda subject: not subject.startswith(("policy:", "rule:", "model:")) and " -> " not in subject,
    ),
    ("models", lambda subject: subject.startswith("model:") and " -> " not in subject),
    ("dependencies", lambda subject: " -> " in subject),
)
VALUE_CHARS_MAX = 60
_SECONDS = re.compile(r"-?\d+(\.\d+)?s")


def show_plan(page: Page, plan: messages.ApplyFleetResponse, found: FleetFiles, *, show_all: bool) -> None:
    """The whole plan."""
    if not plan.changes:
        page.prose(f"No change: the fleet is what the files say ({_said(found)}).")
        _unnamed(page, plan)
        return
    page.line(f"{_said(found)}; this would change:", "bold")
    meant = _by_model(plan.policy_changes)
    for title, belongs in TITLES:
        changes = [change for change in plan.changes if belongs(change.subject)]
        if changes:
            page.heading(title)
            _show_changes(page, changes, meant, show_all=show_all)
    _show_meaning(page, meant)
    page.line()
    page.line(f"{totals(plan.changes)}.")
    _unnamed(page, plan)


def _said(found: FleetFiles) -> str:
    manifest = found.manifest
    parts = [
        count(len(entries), one, many)
        for entries, one, many in (
            (manifest.models, "model", ""),
            (manifest.nodes, "node", ""),
            (manifest.dependencies, "dependency", "dependencies"),
            (manifest.policies, "policy scope", ""),
            (manifest.rules, "rule", ""),
        )
        if len(entries)
    ]
    return f"{listed(parts)} in {count(len(found.files), 'file')}"


def _unnamed(page: Page, plan: messages.ApplyFleetResponse) -> None:
    models = plan.models_not_in_manifest
    if models:
        page.prose(
            f"{count(len(models), 'model')} of the fleet {'is' if len(models) == 1 else 'are'} not in these files and "
            f"stay{'s' if len(models) == 1 else ''}: {_some(models)}. `runway models retire` ends a model."
        )


def totals(changes: Iterable[messages.Change], *, done: bool = False) -> str:
    """How many of each."""
    numbers: dict[int, int] = defaultdict(int)
    for change in changes:
        numbers[change.action] += 1
    words = ("added", "changed", "removed") if done else ("to add", "to change", "to remove")
    actions = (messages.CHANGE_ACTION_CREATE, messages.CHANGE_ACTION_UPDATE, messages.CHANGE_ACTION_DELETE)
    return ", ".join(f"{numbers[action]:,} {word}" for action, word in zip(actions, words, strict=True))


def _show_changes(
    page: Page,
    changes: Sequence[messages.Change],
    meant: dict[str, list[messages.PolicyChange]],
    *,
    show_all: bool,
) -> None:
    shown: dict[int, int] = defaultdict(int)
    for change in changes:
        shown[change.action] += 1
        if show_all or shown[change.action] <= SHOWN_MAX:
            _show_change(page, change, meant)
    for action, (sign, style) in SIGNS.items():
        more = shown[action] - SHOWN_MAX
        if more > 0 and not show_all:
            page.line(f"  {sign} and {more:,} more (--all shows them)", style)


def _show_change(page: Page, change: messages.Change, meant: dict[str, list[messages.PolicyChange]]) -> None:
    sign, style = SIGNS[change.action]
    subject = change.subject.removeprefix("policy:").removeprefix("rule:")
    lines = [_step(one, change.subject) for one in change.fields]
    moved = meant.pop(change.subject.removeprefix("model:"), []) if change.subject.startswith("model:") else []
    own = {one.field.removeprefix("policies.") for one in change.fields}
    told = [f"({_meaning(one)})" for one in moved if one.field not in own]
    start = f"  {sign} {subject}"
    whole = "  ".join([start, *lines, *told])
    if len(lines) <= 1 and len(told) <= 1 and (page.width is None or len(whole) <= page.width):
        page.line(printable_indented(whole), style)
        return
    page.line(printable_indented(start), style)
    for line in [*lines, *told]:
        page.prose(line, indent="      ")


def _step(one: messages.FieldChange, subject: str) -> str:
    unsaid = "inherited" if subject.startswith("policy:") or one.field.startswith("policies.") else "nothing"
    before, after = (value(text) if text else unsaid for text in (one.before, one.after))
    return f"{one.field} {before} -> {after}"


def printable_indented(text: str) -> str:
    """Printable, with its indent and the gaps of two that part fields."""
    indent = len(text) - len(text.lstrip(" "))
    return " " * indent + "  ".join(printable(part) for part in text.strip().split("  "))


def value(text: str) -> str:
    """A value for people: spans in their largest unit, long texts cut, nothing said as such.

    >>> value("900s"), value(""), value("0.6")
    ('15m', 'nothing', '0.6')
    """
    if not text:
        return "nothing"
    if _SECONDS.fullmatch(text):
        return span_text(span_of(text))
    clean = printable(text)
    return clean if len(clean) <= VALUE_CHARS_MAX else f"{clean[: VALUE_CHARS_MAX - 3]}..."


def source(scope: str) -> str:
    """Where a value comes from.

    >>> source("tier:1"), source("model:a"), source("built-in")
    ("from tier 1's default", 'set on the model', 'the built-in default')
    """
    kind, _, name = scope.partition(":")
    words = {
        "built-in": "the built-in default",
        "fleet": "from the fleet's default",
        "tier": f"from tier {name}'s default",
        "team": f"from team {name}'s default",
        "model": "set on the model",
    }
    return words.get(kind, f"from {scope}")


def _meaning(change: messages.PolicyChange) -> str:
    if change.before == change.after:
        return (
            f"{change.field} {value(change.after)}: {source(change.source_after)}, was {source(change.source_before)}"
        )
    return f"{change.field} {value(change.before)} -> {value(change.after)}, {source(change.source_after)}"


def _by_model(changes: Iterable[messages.PolicyChange]) -> dict[str, list[messages.PolicyChange]]:
    found: dict[str, list[messages.PolicyChange]] = defaultdict(list)
    for change in changes:
        found[change.model_id].append(change)
    return found


def _show_meaning(page: Page, meant: dict[str, list[messages.PolicyChange]]) -> None:
    """What changed policies mean for models that did not change themselves, those with the same change together."""
    together: dict[str, list[str]] = defaultdict(list)
    for model_id, changes in meant.items():
        for change in changes:
            if change.before != change.after:
                together[_meaning(change)].append(model_id)
    if not together:
        return
    page.heading("what that means")
    for meaning, models in together.items():
        page.prose(f"{meaning}: {count(len(models), 'model')} ({_some(models)})", indent="  ")


def _some(names: Sequence[str]) -> str:
    more = len(names) - MODELS_NAMED_MAX
    return listed([*names[:MODELS_NAMED_MAX], f"{more:,} more"]) if more > 0 else listed(list(names))
