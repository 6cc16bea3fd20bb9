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


Needle = tuple[str, tuple[str, ...]]
"""A word of a query as it is looked for: whole, or else all its parts; no parts if it is one itself."""


def needles_of(query: str) -> list[Needle]:
    """The words of a query. One with signs in it may match in its parts.

    >>> needles_of("JFK/late")
    [('\\njfk/late', ('\\njfk', '\\nlate'))]
    """
    found = []
    for word in normal_text(query).split():
        parts = WORD.findall(word)
        found.append(("\n" + word, tuple("\n" + part for part in parts) if parts != [word] else ()))
    return found


def text_matches(text: str, needles: Sequence[Needle]) -> bool:
    """Does each word of a query begin a word of the text?"""
    for whole, parts in needles:
        if whole not in text and not (parts and all(part in text for part in parts)):
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
