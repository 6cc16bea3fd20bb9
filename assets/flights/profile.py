"""The reference profile of a version: bins and counts of its inputs and of its scores, as JSON.

Bins are those of Runway (see proto RegisterVersion): numeric cells are (lower, upper], cut at deciles, `missing` last;
categories are the top K, then other, then missing.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

BINS = 10
CATEGORIES_MAX = 20


class Numeric(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="numeric"):
    """Counts of a number: one per cell between `edges`, then missing."""

    edges: list[float]
    counts: list[int]


class Categorical(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="categorical"):
    """Counts of categories: one per category, then other, then missing."""

    categories: list[str]
    counts: list[int]


Histogram = Numeric | Categorical


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Histograms of inputs by name, and of the scores."""

    features: dict[str, Histogram]
    prediction: Numeric


def reference_profile(inputs: Mapping[str, npt.NDArray[Any]], score: npt.NDArray[np.float64]) -> bytes:
    """JSON of the profile. Inputs of shape (n,) each; a column of objects holds categories."""
    return msgspec.json.encode(
        Profile(
            features={name: _histogram(values) for name, values in sorted(inputs.items())},
            prediction=_numeric(score),
        )
    )


def reference_histograms(profile: bytes) -> dict[str, Histogram]:
    """The histograms of the inputs, by name."""
    return msgspec.json.decode(profile, type=Profile).features


def recount(reference: Histogram, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Counts of other values in the same cells."""
    if isinstance(reference, Numeric):
        return np.array(_cells(np.array(reference.edges), values.astype(np.float64)))
    counts = Counter(str(value) for value in values if value is not None)
    return np.array(_of_categories(reference.categories, counts, len(values)))


def _histogram(values: npt.NDArray[Any]) -> Histogram:
    if values.dtype != object:
        return _numeric(values.astype(np.float64))
    counts = Counter(str(value) for value in values if value is not None)
    top = sorted(name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:CATEGORIES_MAX])
    return Categorical(categories=top, counts=_of_categories(top, counts, len(values)))


def _of_categories(categories: list[str], counts: Counter[str], rows: int) -> list[int]:
    known = [counts[name] for name in categories]
    return [*known, counts.total() - sum(known), rows - counts.total()]


def _numeric(values: npt.NDArray[np.float64]) -> Numeric:
    edges = _edges(values[~np.isnan(values)])
    return Numeric(edges=edges.tolist(), counts=_cells(edges, values))


def _cells(edges: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> list[int]:
    known = values[~np.isnan(values)]
    cells = np.bincount(np.searchsorted(edges, known, side="left"), minlength=len(edges) + 1)
    return [*cells.tolist(), len(values) - len(known)]


def _edges(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Interior edges: deciles, or halfway between the values when there are few of them."""
    distinct = np.unique(values)
    if len(distinct) <= BINS:
        return (distinct[1:] + distinct[:-1]) / 2
    edges: npt.NDArray[np.float64] = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
    return edges
