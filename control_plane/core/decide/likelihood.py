"""How likely a model retrains because something upstream of it was promoted: read from what past promotions did.

Each model remembers what the first look after the last promotion upstream of it said. Shares are taken by how a model
uses what was promoted, because an embedding that turned harms whoever stands on it, and a probability that is a little
sharper hardly anybody. Few cases of a kind say little: they are mixed with those of all kinds.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from control_plane.core.graph.facts import DependencyType
from control_plane.core.ids import NodeId, model_node
from control_plane.core.state import ModelRecord, State

PRIOR_CASES = 2.0
"""How many cases of a kind weigh as much as the share of all kinds."""
FURTHER_UP = None
"""The kind of a promotion that is not a direct upstream."""

USES = {
    DependencyType.CONSUMES_OUTPUT: "consume the output of",
    DependencyType.EMBEDS: "stand on the embedding of",
    DependencyType.READS_FEATURE: "read features of",
    DependencyType.TRAINED_ON: "are trained on",
    DependencyType.DERIVED_FROM: "are derived from",
}

Kind = DependencyType | None


@dataclass(slots=True)
class Cases:
    """Looks after promotions, and how many found harm."""

    looked_at: int = 0
    harmed: int = 0


def past_harm(state: State) -> Mapping[Kind, Cases]:
    """What the last promotion upstream of each model did to it, by how the model uses what was promoted."""
    found: dict[Kind, Cases] = {}
    for record in state.models.values():
        cascade = record.cascade
        if cascade is None or cascade.harmed is None:
            continue
        direct = state.graph.between(model_node(cascade.upstream), model_node(record.model_id))
        kinds: set[Kind] = {one.edge_type for one in direct}
        for kind in kinds or {FURTHER_UP}:
            cases = found.setdefault(kind, Cases())
            cases.looked_at += 1
            cases.harmed += cascade.harmed
    return found


def harm_likelihood(
    state: State, record: ModelRecord, members: Collection[NodeId], history: Mapping[Kind, Cases]
) -> tuple[float, str]:
    """How likely a model is harmed if `members` upstream of it are promoted, and what that is read from.

    >>> from control_plane.core.state import State
    >>> _share(Cases(), {}), round(_share(Cases(looked_at=8, harmed=8), {}), 2)
    (0.5, 0.9)
    """
    above = state.graph.upstream_of(model_node(record.model_id))
    kinds: set[Kind] = {one.edge_type for one in above if one.upstream in members}
    # The use that has done most harm is what a model will feel.
    kind = max(kinds or {FURTHER_UP}, key=lambda one: (_share(history.get(one, Cases()), history), str(one)))
    cases = history.get(kind, Cases())
    share = _share(cases, history)
    how = f"that {USES[kind]} what is promoted" if kind is not None else "further downstream"
    words = f"{cases.harmed} of {cases.looked_at} models {how} were harmed the last time"
    own = record.cascade
    if own is not None and own.harmed is not None:
        # Its own history weighs as much as that of all others.
        share = (share + (0.75 if own.harmed else 0.25)) / 2
        words += f", this one was {'harmed' if own.harmed else 'not'}"
    return share, words


def _share(cases: Cases, history: Mapping[Kind, Cases]) -> float:
    harmed = sum(one.harmed for one in history.values())
    looked_at = sum(one.looked_at for one in history.values())
    of_all = (harmed + 1) / (looked_at + 2)
    return (cases.harmed + PRIOR_CASES * of_all) / (cases.looked_at + PRIOR_CASES)
