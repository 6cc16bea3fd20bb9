"""Overrides of policies out of thin air: of the right types, sane or not."""

from datetime import timedelta

from hypothesis import strategies as st

from control_plane.core.policies import FIELDS, Overrides, PolicyField, Scalar, span_text

SPANS = st.timedeltas(timedelta(days=-4_000), timedelta(days=40_000))


def values(field: PolicyField) -> st.SearchStrategy[Scalar]:
    """Values of a field's type."""
    if field.word is not None:
        return st.sampled_from([word.value for word in field.word])
    match field.kind:
        case "number":
            return st.floats(allow_nan=False, allow_infinity=False)
        case "whole":
            return st.integers(-(2**31), 2**31 - 1)
        case "flag":
            return st.booleans()
        case "span":
            return SPANS.map(span_text)
        case "word":
            return st.text("abcdef_", min_size=1, max_size=8)


def overrides(fields_max: int = 6) -> st.SearchStrategy[Overrides]:
    """Some fields, each with a value of its type."""
    chosen = st.lists(st.sampled_from(list(FIELDS)), max_size=fields_max, unique=True)
    return chosen.flatmap(lambda paths: st.fixed_dictionaries({path: values(FIELDS[path]) for path in paths}))
