"""The words of a model, and whether a query's words begin any of them."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.ids import ModelId, model_node, node_kind, node_name
from control_plane.core.registry.types import ModelFacts

WORD = re.compile(r"[^\W_]+")


def normal_text(text: str) -> str:
    """Text as it is compared: look-alike forms and cases are one.

    >>> normal_text("ＡＩＲ Straße")
    'air strasse'
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def words_of(text: str) -> set[str]:
    """Words of a text, whole between spaces and in parts.

    >>> sorted(words_of("arrival_delay, late!"))
    ['arrival', 'arrival_delay,', 'delay', 'late', 'late!']
    """
    plain = normal_text(text)
    return {*plain.split(), *WORD.findall(plain)}


def text_of(facts: ModelFacts, used: Iterable[str]) -> str:
    """All words of a model, each after a line break, so that `"\\n" + word` is found where a word begins with it."""
    parts = [facts.model_id, facts.owner, facts.team, facts.description, *used, *facts.consumers]
    parts += [f"{key} {value} {key}={value}" for key, value in facts.tags.items()]
    parts += [link.title for link in facts.links]
    return "\n" + "\n".join(sorted(words_of(" ".join(parts))))


def text_matches(text: str, query_words: Sequence[str]) -> bool:
    """Does each word of a query begin a word of the text? One with signs in it may match in its parts."""
    for word in query_words:
        if "\n" + word not in text:
            parts = WORD.findall(word)
            if not parts or parts == [word] or not all("\n" + part in text for part in parts):
                return False
    return True


def used_by(graph: DependencyGraph, model_id: ModelId) -> list[str]:
    """Names of the features a model reads, and of who consumes it, directly; by edges that count."""
    node = model_node(model_id)
    if not graph.has_node(node):
        return []
    read = [node_name(edge.upstream) for edge in graph.upstream_of(node) if node_kind(edge.upstream) == "feature"]
    used = [
        node_name(edge.downstream)
        for edge in graph.downstream_of(node)
        if node_kind(edge.downstream) in ("consumer", "model")
    ]
    return read + used
