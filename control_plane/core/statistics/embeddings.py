"""Did a retrain move an embedding, or only turn it round?

Two trainings of one embedding differ by a rotation that means nothing, so vectors of two versions are never compared
coordinate by coordinate. Compared is what consumers live on, on anchors that stay the same: who is near whom (k-NN
Jaccard, the most sensitive), where a row lies after the best rotation (Procrustes), the whole geometry (linear CKA).
Each means something only beside its noise floor: what two trainings show that differ by their seed alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from control_plane.core.statistics.sample import Float64s, Int64s, InvalidSample

NEIGHBOURS = 10
ANCHORS_MIN = 20
"""With fewer anchors, ten neighbours are half of all, and any two versions look alike."""
ANCHORS_MAX = 20_000
ROWS_AT_ONCE = 1_024
"""Rows whose similarities to all anchors are held at once: 160 MB at the most anchors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """How alike two versions are, each 1 for the same up to rotation."""

    knn_jaccard: float
    procrustes_cosine: float
    cka: float


USUAL_FLOOR = Stability(knn_jaccard=0.70, procrustes_cosine=0.95, cka=0.95)
"""Stands in where nobody trained a second seed: a modest floor, so that an unmeasured one does not cry wolf."""


def stability(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Stability:
    """Compare two versions on the same anchors, row by row the same one.

    k-NN Jaccard: mean over anchors of |A n B| / |A u B|, with A and B the 10 nearest other anchors by cosine.
    Procrustes: mean row cosine after centring, scaling to unit norm and the orthogonal Q that minimises |XQ - Y|.
    Linear CKA: |Y'X|^2 / (|X'X| |Y'Y|), Frobenius norms, columns centred.

    Args:
        before: shape (n, d1), 20 <= n <= 20,000; finite, no row all zero.
        after: shape (n, d2); the narrower one is padded with zeros.
    Raises:
        InvalidSample: shapes do not fit, too few anchors, a value not finite, a row of zeros, a constant version.
    Source: Schoenemann 1966 (Procrustes), Kornblith et al. 2019 (CKA).

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(50, 4))
    >>> turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    >>> found = stability(x, 3 * x @ turn)
    >>> round(found.knn_jaccard, 6), round(found.procrustes_cosine, 6), round(found.cka, 6)
    (1.0, 1.0, 1.0)
    """
    x, y = _checked(before, "before"), _checked(after, "after")
    if len(x) != len(y):
        raise InvalidSample(
            "after", "shape", f"{len(x)} anchors before and {len(y)} after: give the same anchors in the same order"
        )
    return Stability(
        knn_jaccard=_jaccard(nearest(x), nearest(y)),
        procrustes_cosine=_procrustes(_centred(x), _centred(y)),
        cka=_cka(_centred(x), _centred(y)),
    )


def nearest(vectors: Float64s, k: int = NEIGHBOURS) -> Int64s:
    """The k nearest other rows of each row by cosine, in no order; of equals the first. Shape (n, k)."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = np.empty((len(unit), k), np.int64)
    for start in range(0, len(unit), ROWS_AT_ONCE):
        # Rounded, so that ties of equal anchors fall alike in both versions.
        like = np.round(unit[start : start + ROWS_AT_ONCE] @ unit.T, 12)
        rows = np.arange(len(like))
        like[rows, start + rows] = -np.inf
        found[start : start + len(like)] = np.argsort(-like, axis=1, kind="stable")[:, :k]
    return found


def _jaccard(before: Int64s, after: Int64s) -> float:
    k = before.shape[1]
    shared = (before[:, :, None] == after[:, None, :]).sum(axis=(1, 2))
    return float((shared / (2 * k - shared)).mean())


def _procrustes(x: Float64s, y: Float64s) -> float:
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(one, ((0, 0), (0, width - one.shape[1]))) for one in (x, y))
    left, _, right = np.linalg.svd(x.T @ y)
    turned = x @ (left @ right)
    norms = np.linalg.norm(turned, axis=1) * np.linalg.norm(y, axis=1)
    # A row that lies in the middle of both has no direction to compare.
    there = norms > np.finfo(np.float64).eps
    return float(((turned * y).sum(axis=1)[there] / norms[there]).mean()) if there.any() else 1.0


def _cka(x: Float64s, y: Float64s) -> float:
    shared = float(np.linalg.norm(x.T @ y)) ** 2
    return min(shared / float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)), 1.0)


def _centred(vectors: Float64s) -> Float64s:
    moved = vectors - vectors.mean(axis=0)
    return moved / np.linalg.norm(moved)  # type: ignore[no-any-return]


def _checked(given: npt.NDArray[Any], field: str) -> Float64s:
    vectors = np.asarray(given)
    if vectors.ndim != 2 or vectors.dtype.kind not in "iuf":
        raise InvalidSample(field, "shape", f"vectors have shape {vectors.shape}: give one row of numbers per anchor")
    if not ANCHORS_MIN <= len(vectors) <= ANCHORS_MAX or vectors.shape[1] < 1:
        raise InvalidSample(
            field, "anchors", f"there are {len(vectors):,} anchors: give from {ANCHORS_MIN} to {ANCHORS_MAX:,}"
        )
    doubles = vectors.astype(np.float64)
    broken = np.flatnonzero(~np.isfinite(doubles).all(axis=1))
    if broken.size:
        raise InvalidSample(field, "finite", f"row {broken[0]} holds a value that is not a finite number")
    blank = np.flatnonzero(~doubles.any(axis=1))
    if blank.size:
        raise InvalidSample(field, "zero", f"row {blank[0]} is all zeros and has no neighbours: leave the anchor out")
    if np.allclose(doubles, doubles[0], rtol=1e-12, atol=0.0):
        raise InvalidSample(field, "constant", "all anchors have the same vector: there is nothing to compare")
    # The scale means nothing here, and squares of very large numbers would overflow.
    return doubles / float(np.abs(doubles).max())
