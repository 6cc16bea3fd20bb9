"""An asset check of candidates whose verdict a test sets; definitions outlive a test, so it is kept here."""

from dataclasses import dataclass, field

import dagster as dg

from assets.candidates import CandidateRef, candidate_of


@dataclass
class Judge:
    """What the check says next, and whom it was asked about."""

    passes: bool = True
    crashes: bool = False
    asked: list[CandidateRef | None] = field(default_factory=list)


JUDGE = Judge()


@dg.asset_check(asset="air_time", name="fairness")
def fairness(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """As the test says."""
    JUDGE.asked.append(candidate_of(context.run.tags))
    if JUDGE.crashes:
        raise ValueError("no protected group in the holdout")
    return dg.AssetCheckResult(passed=JUDGE.passes, description="women are refused as often as men")
