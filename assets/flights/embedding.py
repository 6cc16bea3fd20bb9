"""The route embedding: routes described by how they fly, squeezed into a few numbers by principal components."""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.decomposition import PCA

from assets.flights.data import column, flights, instant
from assets.flights.fleet import EMBEDDING_SIZE, FIRST_DAY
from assets.flights.reading import note

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

FLIGHTS_MIN = 20
"""A route flown less often is described by the mean of all routes."""
ANCHOR_FLIGHTS_MIN = 100
"""Routes flown so often before the first day are the anchors by which versions are compared."""
DAY_PARTS = 4
NEIGHBOURS = 10


def routes(rows: Rows) -> npt.NDArray[np.str_]:
    """`JFK-LAX` for each flight."""
    table = flights()
    names = np.char.add(
        np.char.add(column(table, "origin", rows).astype(str), "-"), column(table, "dest", rows).astype(str)
    )
    return np.asarray(names)


@dataclass(slots=True)
class RouteEmbedding:
    """Vectors by route; a route never seen gets the mean."""

    vectors: dict[str, Floats]
    mean: Floats
    explained: float
    """Share of the routes' variance that the components keep."""

    def transform(self, rows: Rows) -> Floats:
        """Vectors of flights, shape (n, EMBEDDING_SIZE)."""
        names, inverse = np.unique(routes(rows), return_inverse=True)
        return np.array([self.vectors.get(str(name), self.mean) for name in names])[inverse]


def fit_routes(rows: Rows) -> RouteEmbedding:
    """Fit on the flights of a window that have landed."""
    profile, names = _profiles(rows)
    center, scale = profile.mean(axis=0), profile.std(axis=0)
    scale[scale == 0] = 1.0
    components = PCA(n_components=min(EMBEDDING_SIZE, *profile.shape), svd_solver="full").fit(
        (profile - center) / scale
    )
    vectors = components.transform((profile - center) / scale)
    # Components have no sign of their own; a fixed one keeps retrains comparable.
    vectors *= np.where(components.components_.sum(axis=1) < 0, -1.0, 1.0)
    padded = np.zeros((len(names), EMBEDDING_SIZE))
    padded[:, : vectors.shape[1]] = vectors
    return RouteEmbedding(
        vectors=dict(zip(names, padded, strict=True)),
        mean=padded.mean(axis=0),
        explained=float(components.explained_variance_ratio_.sum()),
    )


def reconstruction_r2(fitted: RouteEmbedding, rows: Rows) -> tuple[float, float, int]:
    """How much of the routes' mean delay and time in the air in these flights the embedding explains, linearly.

    Returns:
        R squared (0 to 1), its standard error (by thirds of the routes), and the number of routes.
    """
    profile, names = _profiles(rows)
    vectors = np.array([fitted.vectors.get(name, fitted.mean) for name in names])
    design = np.column_stack([np.ones(len(names)), vectors])
    parts = [np.arange(len(names)) % 3 == part for part in range(3)]
    scores = [_r2(design[~part], profile[~part], design[part], profile[part]) for part in parts]
    return float(np.mean(scores)), float(np.std(scores) / np.sqrt(len(parts))), len(names)


def reconstruction_difference_error(fitted: RouteEmbedding, other: RouteEmbedding, rows: Rows) -> float:
    """Standard error of the difference of two embeddings' R squared, paired by route."""
    profile, names = _profiles(rows)
    if len(names) < ROUTES_PAIRED_MIN:
        return 0.0
    missed = [_missed(one, profile, names) for one in (fitted, other)]
    return float((missed[0] - missed[1]).std(ddof=1) / np.sqrt(len(names)))


ROUTES_PAIRED_MIN = 9
"""Three in each third, or nothing can be said of how they vary."""


def _missed(fitted: RouteEmbedding, profile: Floats, names: list[str]) -> Floats:
    """What of each route is not explained, so that the mean of all is 1 - R squared (where that is not cut at 0)."""
    vectors = np.array([fitted.vectors.get(name, fitted.mean) for name in names])
    design = np.column_stack([np.ones(len(names)), vectors])
    third = np.arange(len(names)) % 3
    missed = np.zeros(len(names))
    for part in range(3):
        held = third == part
        weights, *_ = np.linalg.lstsq(design[~held], profile[~held], rcond=None)
        squares = (profile[held] - design[held] @ weights) ** 2
        total = ((profile[held] - profile[~held].mean(axis=0)) ** 2).mean(axis=0)
        missed[held] = (squares / np.maximum(total, 1e-9)).mean(axis=1)
    return missed


def _r2(design: Floats, target: Floats, design_new: Floats, target_new: Floats) -> float:
    weights, *_ = np.linalg.lstsq(design, target, rcond=None)
    residual = ((target_new - design_new @ weights) ** 2).sum(axis=0)
    total = ((target_new - target.mean(axis=0)) ** 2).sum(axis=0)
    return float(np.clip(1 - residual / np.maximum(total, 1e-9), 0, 1).mean())


def _profiles(rows: Rows) -> tuple[Floats, list[str]]:
    """One row per route: mean departure delay by part of the day, mean time in the air, spread of delays."""
    table = flights()
    note("dataset:operations")
    delay, air = column(table, "dep_delay", rows), column(table, "air_time", rows)
    part = (column(table, "hour", rows) // (24 / DAY_PARTS)).astype(int)
    known = ~np.isnan(delay) & ~np.isnan(air)
    names, inverse, counts = np.unique(routes(rows)[known], return_inverse=True, return_counts=True)
    delay, air, part = np.clip(delay[known], -30, 180), air[known], part[known]
    overall = delay.mean()

    def mean(values: Floats, where: npt.NDArray[np.bool_]) -> Floats:
        total = np.bincount(inverse[where], values[where], len(names))
        count = np.bincount(inverse[where], minlength=len(names))
        # Shrunk towards the mean of all, as if five average flights were there.
        shrunk: Floats = (total + 5 * values.mean()) / (count + 5)
        return shrunk

    everything = np.ones(len(delay), np.bool_)
    columns = [mean(delay, part == one) for one in range(1, DAY_PARTS)]
    columns += [mean(air, everything), mean((delay - overall) ** 2, everything) ** 0.5, np.log1p(counts)]
    kept = counts >= min(FLIGHTS_MIN, counts.max())
    return np.column_stack(columns)[kept], [str(name) for name in names[kept]]


@cache
def anchors() -> tuple[str, ...]:
    """Routes that every version is asked about, the same ones for ever."""
    table = flights()
    before = np.flatnonzero(column(table, "scheduled") < instant(FIRST_DAY))
    names, counts = np.unique(routes(before), return_counts=True)
    return tuple(str(name) for name in names[counts >= ANCHOR_FLIGHTS_MIN])


def overlap(candidate: RouteEmbedding, serving: RouteEmbedding, again: RouteEmbedding) -> float:
    """How alike two versions are to those who look for near routes, as a share of what chance leaves alike.

    Mean Jaccard of the anchors' nearest neighbours, candidate and production; divided by the same of the candidate and
    `again`, the same training by another throw of the dice. 1 means as alike as two trainings on the same flights.
    """
    new, old, other = (
        _nearest(np.array([one.vectors.get(name, one.mean) for name in anchors()]))
        for one in (candidate, serving, again)
    )

    def jaccard(left: list[set[int]], right: list[set[int]]) -> float:
        return float(np.mean([len(a & b) / len(a | b) for a, b in zip(left, right, strict=True)]))

    return jaccard(new, old) / max(jaccard(new, other), 1e-9)


def _nearest(vectors: Floats) -> list[set[int]]:
    """The nearest other rows of each row by cosine."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    like = unit @ unit.T
    np.fill_diagonal(like, -np.inf)
    return [set(row) for row in np.argsort(-like, axis=1, kind="stable")[:, :NEIGHBOURS].tolist()]


def anchored(fitted: RouteEmbedding, other_seed: RouteEmbedding) -> bytes:
    """The anchors' vectors, and those of the same training with another seed: an Arrow IPC stream."""

    def vectors(one: RouteEmbedding) -> pa.Array:
        found = np.array([one.vectors.get(name, one.mean) for name in anchors()], np.float32)
        return pa.FixedSizeListArray.from_arrays(pa.array(found.reshape(-1)), EMBEDDING_SIZE)

    rows = pa.record_batch(
        {"anchor_id": pa.array(anchors()), "vector": vectors(fitted), "vector_other_seed": vectors(other_seed)}
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_batch(rows)
    return sink.getvalue()


def embedding_columns(vectors: Floats) -> dict[str, Floats]:
    """The embedding as input columns."""
    return {f"route_embedding_{at}": vectors[:, at] for at in range(EMBEDDING_SIZE)}
