"""The reference profile of a version: bins and counts of its inputs and of its scores, as JSON.

Bins are those of Runway (see docs/profile.md): numeric cells are (lower, upper], cut at deciles, `missing` last;
categories are the top K, then other, then missing. Beside them what makes a verdict better: how much each input matters
to the model, the range it was trained on, fine bins, and the outcomes of the holdout by score.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

BINS = 10
FINE_BINS = 256
CATEGORIES_MAX = 20

Floats = npt.NDArray[np.float64]


class Fine(msgspec.Struct, frozen=True, kw_only=True):
    """The same numbers in more bins, so that a reference can be made anew from counts alone."""

    edges: list[float]
    counts: list[int]


class Numeric(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="numeric", omit_defaults=True):
    """Counts of a number: one per cell between `edges`, then missing."""

    edges: list[float]
    counts: list[int]
    importance: float = 1.0
    low: float | None = None
    high: float | None = None
    """The range of the training data."""
    fine: Fine | None = None


class Categorical(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="categorical", omit_defaults=True):
    """Counts of categories: one per category, then other, then missing."""

    categories: list[str]
    counts: list[int]
    importance: float = 1.0


Histogram = Numeric | Categorical


class Scores(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts of the scores, and how many of each bin turned out positive."""

    edges: list[float]
    counts: list[int]
    positives: list[int] | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Histograms of inputs by name, and of the scores."""

    features: dict[str, Histogram]
    prediction: Scores


def reference_profile(
    inputs: Mapping[str, npt.NDArray[Any]],
    score: Floats,
    positive: npt.NDArray[np.bool_] | None = None,
    importance: Mapping[str, float] | None = None,
) -> bytes:
    """JSON of the profile.

    Args:
        inputs: columns of shape (n,); one of objects holds categories.
        score: of flights the model has not seen, shape (m,).
        positive: what became of them, shape (m,); None if nobody knows or it is no yes or no.
        importance: of inputs, 0 or more; those that are not named matter like any other.
    """
    weight = importance or {}
    return msgspec.json.encode(
        Profile(
            features={
                name: msgspec.structs.replace(_histogram(values), importance=weight.get(name, 1.0))
                for name, values in sorted(inputs.items())
            },
            prediction=_scores(score, positive),
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


def _numeric(values: Floats) -> Numeric:
    known = values[~np.isnan(values)]
    edges, fine = _edges(known, BINS), _edges(known, FINE_BINS)
    # The fine edges hold the coarse ones, so that counts over them add up to the others.
    fine = np.union1d(edges, fine)
    return Numeric(
        edges=edges.tolist(),
        counts=_cells(edges, values),
        low=float(known.min()) if known.size else None,
        high=float(known.max()) if known.size else None,
        fine=Fine(edges=fine.tolist(), counts=_cells(fine, values)) if fine.size > edges.size else None,
    )


def _scores(score: Floats, positive: npt.NDArray[np.bool_] | None) -> Scores:
    edges = _edges(score[~np.isnan(score)], BINS)
    return Scores(
        edges=edges.tolist(),
        counts=_cells(edges, score),
        positives=_cells(edges, score[positive])[:-1] if positive is not None else None,
    )


def _cells(edges: Floats, values: Floats) -> list[int]:
    known = values[~np.isnan(values)]
    cells = np.bincount(np.searchsorted(edges, known, side="left"), minlength=len(edges) + 1)
    return [*cells.tolist(), len(values) - len(known)]


def _edges(values: Floats, bins: int) -> Floats:
    """Interior edges: quantiles, or halfway between the values when there are few of them."""
    distinct = np.unique(values)
    if len(distinct) <= bins:
        return (distinct[1:] + distinct[:-1]) / 2
    edges: Floats = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    return edges
