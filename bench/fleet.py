"""A made-up fleet for benchmarks: same seed, same fleet.

Shaped like the real thing: datasets feed features, features feed models, models feed one another and consumers. Most
dependencies are between models and lead from lower to higher numbers, so chains run tens of models deep and a change
of an early node reaches thousands.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Node ids by kind and dependencies as (upstream id, downstream id), all distinct."""

    datasets: tuple[str, ...]
    features: tuple[str, ...]
    models: tuple[str, ...]
    consumers: tuple[str, ...]
    dependencies: tuple[tuple[str, str], ...]

    @property
    def node_ids(self) -> tuple[str, ...]:
        """All nodes."""
        return self.datasets + self.features + self.models + self.consumers


def make_fleet(*, models: int, others: int, dependencies: int, seed: int = 1) -> Fleet:
    """`others` are split into one tenth datasets, eight tenths features, one tenth consumers."""
    rng = np.random.default_rng(seed)
    tenth = others // 10
    kinds = {
        "dataset": tenth,
        "feature": others - 2 * tenth,
        "model": models,
        "consumer": tenth,
    }
    ids = {kind: [f"{kind}:{kind[0]}_{i:06d}" for i in range(count)] for kind, count in kinds.items()}
    # What these leave of the dependencies is between models.
    wanted: dict[tuple[str, str], int] = {
        ("dataset", "feature"): dependencies // 10,
        ("feature", "model"): dependencies // 5,
        ("model", "consumer"): dependencies // 10,
    }
    wanted = {(up, down): min(n, kinds[up] * kinds[down] // 2) for (up, down), n in wanted.items()}
    edges: list[tuple[str, str]] = []
    for (up, down), count in wanted.items():
        pairs = rng.choice(kinds[up] * kinds[down], size=count, replace=False)
        edges += [(ids[up][p // kinds[down]], ids[down][p % kinds[down]]) for p in pairs.tolist()]
    seen: set[tuple[int, int]] = set()
    between = dependencies - len(edges)
    while len(seen) < between:
        for a, b in rng.integers(0, models, (between, 2)).tolist():
            if a != b and len(seen) < between:
                seen.add((min(a, b), max(a, b)))
    edges += [(ids["model"][a], ids["model"][b]) for a, b in sorted(seen)]
    return Fleet(
        datasets=tuple(ids["dataset"]),
        features=tuple(ids["feature"]),
        models=tuple(ids["model"]),
        consumers=tuple(ids["consumer"]),
        dependencies=tuple(edges),
    )


def make_lineage(*, nodes: int, dependencies: int, seed: int = 1) -> Fleet:
    """What lineage looks like at a company that records all of it: mostly features made from features.

    One twentieth datasets, a tenth models, a twentieth consumers, the rest features. Features and models stand in one
    random order; each dependency leads from a node to any later one that is no dataset, all pairs alike.
    """
    rng = np.random.default_rng(seed)
    ends, middle = nodes // 20, nodes - nodes // 10
    is_model = rng.permutation(middle) < nodes // 10
    datasets = [f"dataset:d_{i:06d}" for i in range(ends)]
    between = [f"{'model:m' if is_model[i] else 'feature:f'}_{i:06d}" for i in range(middle)]
    consumers = [f"consumer:c_{i:06d}" for i in range(nodes - middle - ends)]
    ids = datasets + between + consumers
    found = np.zeros(0, np.int64)
    while len(found) < dependencies:
        pairs = np.sort(rng.integers(0, nodes, (dependencies, 2)), axis=1)
        # From anything but a consumer to anything but a dataset.
        pairs = pairs[(pairs[:, 0] < pairs[:, 1]) & (pairs[:, 0] < ends + middle) & (pairs[:, 1] >= ends)]
        found = np.unique(np.concatenate([found, pairs[:, 0] * nodes + pairs[:, 1]]))
    found = np.sort(rng.choice(found, dependencies, replace=False))
    return Fleet(
        datasets=tuple(datasets),
        features=tuple(node_id for node_id in between if node_id.startswith("feature:")),
        models=tuple(node_id for node_id in between if node_id.startswith("model:")),
        consumers=tuple(consumers),
        dependencies=tuple((ids[key // nodes], ids[key % nodes]) for key in found.tolist()),
    )
