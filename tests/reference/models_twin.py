"""Finding models the slow way: every filter over every model as a dict, then a full sort."""

import unicodedata
from typing import Any

VERDICTS = ["STALE", "AT_RISK", "UNKNOWN", "FRESH"]
LIFECYCLES = ["REGISTERED", "ACTIVE", "DEPRECATED", "RETIRED"]


def plain(text: str) -> str:
    """Compared without case and look-alike forms."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def words(text: str) -> list[str]:
    """Between spaces, and between anything that is neither a letter nor a digit."""
    text = plain(text)
    return text.split() + "".join(c if c.isalnum() else " " for c in text).split()


def begins_a_word(word: str, model: dict[str, Any]) -> bool:
    """Does a word of the query begin a word of the model? One with signs in it may do so in its parts."""
    texts = [model[name] for name in ("model_id", "owner", "team", "description")]
    texts += model["features"] + model["consumers"] + model["links"]
    texts += [f"{key} {value} {key}={value}" for key, value in model["tags"].items()]
    known = [one for text in texts for one in words(text)]

    def begins(part: str) -> bool:
        return any(one.startswith(part) for one in known)

    parts = words(word)[1:]
    return begins(plain(word)) or (bool(parts) and all(begins(part) for part in parts))


def matches(model: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """All filters, one after another."""
    for name in ("team", "tier", "owner", "lifecycle", "verdict", "task_type"):
        if wanted.get(name) and model[name] not in wanted[name]:
            return False
    for tag in wanted.get("tags", []):
        key, equals, value = tag.partition("=")
        if key not in model["tags"] or (equals and model["tags"][key] != value):
            return False
    if wanted.get("feature") and wanted["feature"].removeprefix("feature:") not in model["features"]:
        return False
    if wanted.get("consumer"):
        kind, _, name = wanted["consumer"].rpartition(":")
        if name not in model["consuming_models" if kind == "model" else "applications"]:
            return False
    return all(begins_a_word(word, model) for word in plain(wanted.get("query", "")).split())


def found(models: list[dict[str, Any]], wanted: dict[str, Any], order: list[tuple[str, bool]]) -> list[str]:
    """Ids of all that match, in order; the id breaks ties."""
    kept = sorted((model for model in models if matches(model, wanted)), key=lambda model: str(model["model_id"]))
    for key, down in reversed(order):
        kept.sort(key=lambda model: rank(model, key), reverse=down)
    return [model["model_id"] for model in kept]


def rank(model: dict[str, Any], key: str) -> Any:
    """Verdicts from the worst to the best, lifecycles as they follow one another."""
    if key == "verdict":
        return VERDICTS.index(model[key])
    if key == "lifecycle":
        return LIFECYCLES.index(model[key])
    return model[key]
