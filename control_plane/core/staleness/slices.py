"""Drift inside parts of the data, as country or device: what moves in one of ten parts drowns in the whole."""

from collections.abc import Sequence

from control_plane.core.staleness.evidence import Evidence
from control_plane.core.staleness.input_drift import input_drifts
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.verdict import SliceDrift


def slice_drifts(items: Sequence[tuple[StalenessPolicy, Evidence]]) -> list[tuple[SliceDrift, ...]]:
    """Input drift of every slice of every model, in the order of its slices.

    Many slices are many chances to be fooled: the false discovery rate of each is the policy's divided by the number
    of the model's slices. A slice with fewer predictions than the policy's minimum is left out.
    """
    tables, policies, levels, places = [], [], [], []
    for at, (policy, evidence) in enumerate(items):
        parts = [part for part in evidence.slices if part.features is not None]
        for part in parts:
            assert part.features is not None
            tables.append(part.features)
            policies.append(policy)
            levels.append(policy.false_discovery_rate / len(parts))
            places.append((at, part.name))
    found: list[list[SliceDrift]] = [[] for _ in items]
    drifts = input_drifts(tables, policies, levels)
    for (at, name), policy, drift in zip(places, policies, drifts, strict=True):
        if drift is None or drift.sample_size < policy.predictions_min:
            continue
        found[at].append(
            SliceDrift(
                slice=name,
                sample_size=drift.sample_size,
                value=drift.value,
                drifted_share=drift.share,
                top_features=drift.top,
            )
        )
    return [tuple(one) for one in found]
