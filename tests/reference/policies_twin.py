"""Policies layer by layer, the slow way: for each field ask every scope, from the model's own up to the built-in."""

from collections.abc import Mapping, Sequence

Value = bool | int | float | str | None


def in_force(
    built_in: Mapping[str, Value], layers: Sequence[tuple[str, Mapping[str, Value]]]
) -> dict[str, tuple[Value, str]]:
    """Value and source of every field; layers from the widest to the narrowest."""
    found: dict[str, tuple[Value, str]] = {}
    for path in built_in:
        for scope, said in reversed(layers):
            if path in said:
                found[path] = (said[path], scope)
                break
        else:
            found[path] = (built_in[path], "built-in")
    return found
