"""Find models: filters, full text, views, order, and pages that stay stable while the fleet changes.

Theory of operation. A query is answered from one `State`. The ids of all models stand in order; filters go over the
records, which costs a millisecond or two at 5,000 models. What is worth remembering is remembered:

    what                          | until
    ------------------------------+-------------------------------------------------------------
    ids in order                  | another model joins, or the state is another one
    the text of a model           | its facts change, or any edge of the graph does
    everything that a query finds | the state changes at all

A page token carries a digest of the query and the sort key of the last row shown. The next page begins behind that key,
wherever rows have come or gone since: nothing is shown twice unless it moved, and nothing that stayed is left out.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.app.model_filters import ModelQuery, View, neighbours, tests_of
from control_plane.app.model_order import KEYS, Facts, Order, behind, last_key, parse_order, sort_key, token_of
from control_plane.app.model_words import Needle, needles_of, text_matches, text_of, used_by
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.ids import ModelId
from control_plane.core.registry.types import ModelFacts
from control_plane.core.state import State

ANSWERS_KEPT_MAX = 32
"""Queries whose answers are remembered: those of one moment are few, and each is a list of ids."""

TEXTS_KEPT_MAX = 3
"""Graphs whose texts are remembered: the present, and what people look at in the past."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPage:
    """Models of one page, where the next begins (empty: nowhere), and how many match in all."""

    model_ids: Sequence[ModelId]
    next_token: str
    total: int


@dataclass(slots=True)
class _Answer:
    """Everything a query finds, in order."""

    state: State
    revision: int
    model_ids: list[ModelId]


class ModelFinder:
    """Answers queries, and remembers what answering is made of."""

    def __init__(self) -> None:
        self._ids: tuple[State, int, list[ModelId]] | None = None
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._texts: OrderedDict[int, tuple[DependencyGraph, int, dict[ModelId, tuple[ModelFacts, str]]]] = (
            OrderedDict()
        )

    def page(self, state: State, query: ModelQuery, facts: Facts, *, digest: bytes, size: int, token: str) -> FoundPage:
        """One page of what a query finds.

        Args:
            digest: tells queries apart; the same for every page of one.
            size: rows at most.
            token: `next_token` of the page before, or empty.
        Raises:
            Invalid: an order that is none, a token of another query.
        """
        order = parse_order(query.order_by)
        last = last_key(token, digest, order) if token else None
        found = self._found(state, query, facts, order, digest)
        start = 0
        if last is not None:
            low, high = 0, len(found)
            while low < high:
                middle = (low + high) // 2
                if behind(sort_key(state.models[found[middle]], facts, order), last, order):
                    high = middle
                else:
                    low = middle + 1
            start = low
        shown = found[start : start + size]
        more = start + size < len(found)
        next_token = token_of(digest, sort_key(state.models[shown[-1]], facts, order)) if more else ""
        return FoundPage(model_ids=shown, next_token=next_token, total=len(found))

    def _found(self, state: State, query: ModelQuery, facts: Facts, order: Order, digest: bytes) -> list[ModelId]:
        # Scores, and what has traffic, change without the state.
        kept = query.view is not View.UNUSED and all(key != "score" for key, _ in order)
        known = self._answers.get(digest) if kept else None
        if known is not None and known.state is state and known.revision == state.revision:
            self._answers.move_to_end(digest)
            return known.model_ids
        found = self._matching(state, query, facts)
        down: bool
        for key, down in reversed(order[:-1] if order[-1] == ("model_id", False) else order):
            read = KEYS[key]
            found = sorted(found, key=lambda model_id: read(state.models[model_id], facts), reverse=down)
        if kept:
            self._answers[digest] = _Answer(state, state.revision, found)
            while len(self._answers) > ANSWERS_KEPT_MAX:
                self._answers.popitem(last=False)
        return found

    def _matching(self, state: State, query: ModelQuery, facts: Facts) -> list[ModelId]:
        """Ids of the models that match, ascending."""
        model_ids = self._all(state)
        if query.feature or query.consumer:
            wanted = neighbours(state, query)
            model_ids = [model_id for model_id in model_ids if model_id in wanted]
        tests = tests_of(state, query, facts)
        if tests:
            models = state.models
            for test in tests:
                model_ids = [one for one in model_ids if test(models[one])]
        needles = needles_of(query.text)
        if needles:
            model_ids = self._with_words(state, model_ids, needles)
        return model_ids

    def _all(self, state: State) -> list[ModelId]:
        """All ids, ascending; models are never removed."""
        if self._ids is None or self._ids[0] is not state or self._ids[1] != len(state.models):
            self._ids = (state, len(state.models), sorted(state.models))
        return self._ids[2]

    def _with_words(self, state: State, model_ids: list[ModelId], needles: list[Needle]) -> list[ModelId]:
        """Those whose words match. Texts are made anew where the facts have changed, and all when an edge has."""
        graph, models = state.graph, state.models
        known = self._texts.get(id(graph))
        if known is None or known[0] is not graph or known[1] != graph.topology_version:
            known = self._texts[id(graph)] = (graph, graph.topology_version, {})
            while len(self._texts) > TEXTS_KEPT_MAX:
                self._texts.popitem(last=False)
        texts = known[2]
        found = []
        for model_id in model_ids:
            facts = models[model_id].facts
            text = texts.get(model_id)
            if text is None or text[0] is not facts:
                text = texts[model_id] = (facts, text_of(facts, used_by(graph, model_id)))
            if text_matches(text[1], needles):
                found.append(model_id)
        return found
