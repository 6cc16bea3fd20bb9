"""Checks of candidates: plain asset checks of Dagster, asked about a version before it may go to production.

A model whose policy names checks (`validation.checks: fairness`) has its candidates wait until each was reported. The
sensor `check_candidates` runs the asset check of that name on the model's asset, and reports what it found. What a
check reads is in the tags of its run:

    @dg.asset_check(asset="departure_delay_jfk", name="fairness")
    def fairness(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        candidate = candidate_of(context.run.tags)
        ...

A run without those tags (somebody pressed "Execute") checks whatever the author finds right, say production.
"""

from collections.abc import Mapping

import msgspec

from assets.tags import CHECK_TAG, MODEL_TAG, ROLLOUT_TAG, VERSION_TAG


class CandidateRef(msgspec.Struct, frozen=True, kw_only=True):
    """The version that a run checks."""

    rollout_id: str
    model_id: str
    version: int
    check: str


def candidate_of(tags: Mapping[str, str]) -> CandidateRef | None:
    """The candidate that a run is to check; None if it was not asked for by Runway."""
    if not {ROLLOUT_TAG, MODEL_TAG, VERSION_TAG, CHECK_TAG} <= set(tags):
        return None
    return CandidateRef(
        rollout_id=tags[ROLLOUT_TAG], model_id=tags[MODEL_TAG], version=int(tags[VERSION_TAG]), check=tags[CHECK_TAG]
    )


def tags_of(candidate: CandidateRef) -> dict[str, str]:
    """The tags of the run that checks a candidate."""
    return {
        ROLLOUT_TAG: candidate.rollout_id,
        MODEL_TAG: candidate.model_id,
        VERSION_TAG: str(candidate.version),
        CHECK_TAG: candidate.check,
    }
