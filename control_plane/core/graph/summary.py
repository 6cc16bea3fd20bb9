"""What an answer comes to: who and what is hit, and what putting it right would cost."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from control_plane.core.graph.columns import KIND_CODES
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import NodeKind
from control_plane.core.graph.layout import Bools, Ints, Numbering
from control_plane.core.ids import NodeId

TIER_MAX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Counts and names over some nodes; names and ids are sorted."""

    by_kind: Mapping[NodeKind, int]
    models_by_tier: Mapping[int, int]
    tier_1_models: tuple[NodeId, ...]
    owners: tuple[str, ...]
    teams: tuple[str, ...]
    consumers: tuple[NodeId, ...]
    retrain_gpu_hours: float
    retrain_cost_unknown: int
    """Models of unknown cost."""


def summarise(graph: DependencyGraph, numbering: Numbering, members: Bools, *, spared: Bools | None = None) -> Summary:
    """Sum up the members; the spared among them need no retrain. Shapes (N,), one per position."""
    positions: Ints = numbering.by_rank[members[numbering.by_rank]]  # in the order of their ids
    index, columns = numbering.index[positions], graph.columns
    kinds = columns.kind[index]
    models = kinds == KIND_CODES[NodeKind.MODEL]
    by_kind = np.bincount(kinds, minlength=len(KIND_CODES)).tolist()
    tiers = columns.tier[index]
    by_tier = np.bincount(tiers[models], minlength=TIER_MAX + 1).tolist()
    trained = models if spared is None else models & ~spared[positions]
    hours = columns.gpu_hours[index[trained]]
    node_ids = numbering.node_ids
    return Summary(
        by_kind={kind: by_kind[KIND_CODES[kind]] for kind in NodeKind if by_kind[KIND_CODES[kind]]},
        models_by_tier={tier: by_tier[tier] for tier in range(1, TIER_MAX + 1) if by_tier[tier]},
        tier_1_models=tuple(node_ids[positions[models & (tiers == 1)]].tolist()),
        owners=columns.owners.sorted_of(columns.owner[index]),
        teams=columns.teams.sorted_of(columns.team[index]),
        consumers=tuple(node_ids[positions[kinds == KIND_CODES[NodeKind.CONSUMER]]].tolist()),
        retrain_gpu_hours=float(hours.sum()),
        retrain_cost_unknown=int(np.count_nonzero(hours == 0.0)),
    )
