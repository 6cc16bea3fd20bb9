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


def reference_profile(inputs: Mapping[str, npt.NDArray[Any]], score: npt.NDArray[np.float64]) -> bytes:
    """JSON of the profile. Inputs of shape (n,) each; a column of objects holds categories."""
    return msgspec.json.encode(
        {
            "features": {name: _histogram(values) for name, values in sorted(inputs.items())},
            "prediction": _histogram(score),
        }
    )


def _histogram(values: npt.NDArray[Any]) -> dict[str, Any]:
    if values.dtype == object:
        counts = Counter(str(value) for value in values if value is not None)
        top = sorted(name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:CATEGORIES_MAX])
        known = [counts[name] for name in top]
        missing = sum(value is None for value in values)
        return {
            "kind": "categorical",
            "categories": top,
            "counts": [*known, sum(counts.values()) - sum(known), missing],
        }
    number = values.astype(np.float64)
    known_values = number[~np.isnan(number)]
    edges = _edges(known_values)
    cells = np.bincount(np.searchsorted(edges, known_values, side="left"), minlength=len(edges) + 1)
    return {
        "kind": "numeric",
        "edges": edges.tolist(),
        "counts": [*cells.tolist(), int(np.isnan(number).sum())],
    }


def _edges(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Interior edges: deciles, or halfway between the values when there are few of them."""
    distinct = np.unique(values)
    if len(distinct) <= BINS:
        return (distinct[1:] + distinct[:-1]) / 2
    edges: npt.NDArray[np.float64] = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
    return edges
