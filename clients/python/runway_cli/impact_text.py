"""An impact answer in words: what breaks, whose it is, what it costs, how sure that is; and paths that can be read."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from runway_client import messages

from runway_cli.words import clock, count, instant_of, listed, number, span_of

KIND_ORDER = ("model", "feature", "consumer", "dataset")
NAMES_MAX = 6
"""Names in one sentence; more than that nobody reads."""

PATH_NAMES_MAX = 6
"""Names of a path that are written out; of a longer one the first two and the last three."""

ARROW = " -> "


def some(names: Sequence[str], names_max: int = NAMES_MAX) -> str:
    """Names as an enumeration, the first few of many.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    names = list(names)
    return (
        listed(names)
        if len(names) <= names_max
        else f"{', '.join(names[:names_max])} and {len(names) - names_max:,} more"
    )


def bare(node_id: str) -> str:
    """A node's name without its kind."""
    return node_id.partition(":")[2] or node_id


def kinds_sentence(by_kind: Mapping[str, int], tier_1: int = 0) -> str:
    """`2 models (1 on tier 1) and 1 feature`, in the order in which people ask."""
    words = []
    for kind in KIND_ORDER:
        if by_kind.get(kind):
            note = f" ({tier_1:,} on tier 1)" if kind == "model" and tier_1 else ""
            words.append(count(by_kind[kind], kind) + note)
    return listed(words)


def summary_sentences(summary: messages.ImpactSummary, model_waves: int, *, upstream: bool) -> list[str]:
    """Whose it is, who notices, and what putting it right costs; one sentence each, empty ones left out."""
    sentences = []
    if summary.tier_1_models:
        sentences.append(f"On tier 1: {some([bare(one) for one in summary.tier_1_models])}.")
    if summary.consumers and not upstream:
        verb = "consumes" if len(summary.consumers) == 1 else "consume"
        sentences.append(f"Applications: {some([bare(one) for one in summary.consumers])} {verb} what it reaches.")
    if summary.owners or summary.teams:
        sentences.append(owners_sentence(summary))
    models = summary.by_kind.get("model", 0)
    if models and not upstream:
        sentences.append(cost_sentence(summary, models, model_waves))
    return sentences


def owners_sentence(summary: messages.ImpactSummary) -> str:
    """Whom to ask; an owner that is only its team is not said twice."""
    teams = f"{'team' if len(summary.teams) == 1 else 'teams'} {some(list(summary.teams))}"
    people = [owner for owner in summary.owners if owner.removeprefix("team:") not in summary.teams]
    if people and summary.teams:
        return f"Owned by {some(people)} ({teams})."
    return f"Owned by {some(people) if people else teams}."


def cost_sentence(summary: messages.ImpactSummary, models: int, model_waves: int) -> str:
    """What retraining all of it costs."""
    them = "it" if models == 1 else f"all {models:,} of them"
    sentence = f"Retraining the {'model' if models == 1 else f'{models:,} models'} takes {count(model_waves, 'wave')}"
    unknown = summary.retrain_cost_unknown
    if unknown == models:
        return f"{sentence}; what it costs is not known for {them}."
    sentence += f" and costs {number(summary.retrain_gpu_hours)} GPU hours"
    return (
        f"{sentence}; what {unknown:,} of them {'costs' if unknown == 1 else 'cost'} is not known."
        if unknown
        else f"{sentence}."
    )


def trust_sentences(completeness: messages.Completeness) -> list[str]:
    """How far the answer can be trusted."""
    sentences = []
    if completeness.complete:
        oldest: datetime | None = instant_of(completeness, "oldest_lineage_at")
        if oldest is None:
            sentences.append("The answer is complete; every edge of it is declared.")
        else:
            age = span_of(completeness, "oldest_lineage_age")
            sentences.append(
                f"The answer is complete; of its discovered edges the oldest was last seen {age} ago ({clock(oldest)})."
            )
    if completeness.suspect_edges:
        many = completeness.suspect_edges != 1
        sentences.append(
            f"{count(completeness.suspect_edges, 'edge')} of it {'are' if many else 'is'} suspect: "
            f"{'their sources have' if many else 'its source has'} not shown {'them' if many else 'it'} lately."
        )
    return sentences


class PathWords:
    """Paths of one answer as names and arrows; a kind is written where two nodes of the answer share a name."""

    def __init__(self, node_ids: Sequence[str]) -> None:
        names: dict[str, set[str]] = {}
        for node_id in node_ids:
            names.setdefault(bare(node_id), set()).add(node_id)
        self._names = {node_id: name if len(same) == 1 else node_id for name, same in names.items() for node_id in same}
        self._above: tuple[str, ...] = ()

    def whole(self, path: Sequence[str]) -> str:
        """A path in full, its middle counted if it is long."""
        return ARROW.join(self._shortened(path))

    def folded(self, path: Sequence[str]) -> str:
        """A path whose beginning is left blank where the one above began alike."""
        names = tuple(self._shortened(path))
        shared = 0
        while shared < min(len(names), len(self._above)) - 1 and names[shared] == self._above[shared]:
            shared += 1
        self._above = names
        if not shared:
            return ARROW.join(names)
        return " " * len(ARROW.join(names[:shared])) + ARROW + ARROW.join(names[shared:])

    def begin(self) -> None:
        """A new group: nothing is above."""
        self._above = ()

    def _shortened(self, path: Sequence[str]) -> list[str]:
        names = [self._names.get(node_id, node_id) for node_id in path]
        if len(names) <= PATH_NAMES_MAX:
            return names
        return [*names[:2], f"({len(names) - 5} more)", *names[-3:]]
