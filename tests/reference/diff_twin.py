"""What changed between two graphs, by looking for everything everywhere."""

from collections.abc import Sequence
from typing import Any

Changes = tuple[list[Any], list[Any], list[tuple[Any, Any]]]


def changes(before: Sequence[Any], after: Sequence[Any], key: str) -> Changes:
    """Added, removed, and (before, after) of what has the same key and is not equal; each in the order of the keys."""
    added = [new for new in after if not any(getattr(old, key) == getattr(new, key) for old in before)]
    removed = [old for old in before if not any(getattr(old, key) == getattr(new, key) for new in after)]
    changed = [(old, new) for old in before for new in after if getattr(old, key) == getattr(new, key) and old != new]
    return (
        sorted(added, key=lambda one: getattr(one, key)),
        sorted(removed, key=lambda one: getattr(one, key)),
        sorted(changed, key=lambda pair: getattr(pair[0], key)),
    )
