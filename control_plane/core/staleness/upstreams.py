"""Did the embeddings that a model consumes stay what it was trained with?

A retrain of an embedding turns its space: coordinates mean something else although all is well. What a consumer
lives on is who is near whom, so the overlap of the nearest neighbours of fixed anchors is compared with the overlap
that two trainings have which differ by their seed only (the noise floor). An upstream that stays within the policy's
share of the floor does not make its consumers stale; one that does not makes them stale at once.
"""

import math
from collections.abc import Sequence

from control_plane.core.staleness.evidence import UpstreamEvidence
from control_plane.core.staleness.policy import StalenessPolicy
from control_plane.core.staleness.verdict import UpstreamCompatibility


def compatibilities(
    policy: StalenessPolicy, upstreams: Sequence[UpstreamEvidence]
) -> tuple[tuple[UpstreamCompatibility, ...], tuple[str, ...]]:
    """What is known of each upstream that serves another version, by model id; and sentences on those of which nothing
    is."""
    found: list[UpstreamCompatibility] = []
    unknown: list[str] = []
    for upstream in sorted(upstreams, key=lambda one: one.model_id):
        judged = _judged(policy, upstream)
        if judged is not None:
            found.append(judged)
            continue
        unknown.append(
            f"its upstream {upstream.model_id} serves version {upstream.serves} instead of {upstream.trained_with} "
            "it was trained with, and nobody gave embeddings to compare them by"
        )
    return tuple(found), tuple(unknown)


def _judged(policy: StalenessPolicy, upstream: UpstreamEvidence) -> UpstreamCompatibility | None:
    known = upstream.compatibility
    if known is None:
        return None
    numbers = (known.knn_jaccard, known.knn_jaccard_floor, known.procrustes_cosine, known.cka)
    if not all(map(math.isfinite, numbers)):
        return None
    compatible = known.knn_jaccard >= policy.embedding_floor_share * known.knn_jaccard_floor
    floor = f"noise floor {known.knn_jaccard_floor:.2f}{'' if known.floor_measured else ' as usual, not measured'}"
    overlap = f"neighbours overlap {known.knn_jaccard:.2f}, {floor}"
    serves = f"its upstream {upstream.model_id} serves version {upstream.serves}, whose embeddings"
    trained = f"version {upstream.trained_with} it was trained with"
    return UpstreamCompatibility(
        model_id=upstream.model_id,
        trained_with=upstream.trained_with,
        serves=upstream.serves,
        compatible=compatible,
        knn_jaccard=known.knn_jaccard,
        knn_jaccard_floor=known.knn_jaccard_floor,
        procrustes_cosine=known.procrustes_cosine,
        cka=known.cka,
        anchors=known.anchors,
        explanation=(
            f"{serves} are compatible with {trained}: {overlap}"
            if compatible
            else f"{serves} are not compatible with {trained}: {overlap}"
        ),
    )
