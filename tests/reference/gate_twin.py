"""The rules of the offline gate once more, from their definitions: chances are computed, not quantiles compared."""

from collections.abc import Iterator

from scipy import stats

from control_plane.core.rollout.types import ValidationEvidence, ValidationPolicy


def chance_below(count: float, rows: int) -> float:
    """How often a mean of so many rows lies less than `count` standard errors above the truth."""
    return float(stats.t.cdf(count, df=max(rows - 1, 1)))


def worse_by(candidate: float, production: float, higher: bool) -> float:
    """How much worse the candidate is; negative if it is better."""
    return production - candidate if higher else candidate - production


def primary_passes(evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool, canary: bool) -> bool:
    """Non-inferior by its p-value; see the numbered rules."""
    assert evidence.production is not None
    worse = worse_by(evidence.candidate, evidence.production, higher)
    error, rows = evidence.standard_error, evidence.sample_size
    if error == 0:
        return worse <= policy.margin
    # 1. Chance to look this good or better, of one that is worse by the margin; and this bad or worse.
    looks_good = chance_below((worse - policy.margin) / error, rows)
    looks_bad = 1 - looks_good
    if looks_good < policy.significance:
        return True
    if looks_bad < policy.significance:
        return False
    # 2. Chance of an equal candidate to be passed by rule 1.
    edge = stats.t.ppf(1 - policy.significance, df=max(rows - 1, 1))
    power = chance_below(policy.margin / error - edge, rows)
    if power > 0.8:
        return False
    # 3. The canary, or the estimate.
    return canary or worse <= policy.margin


def failed_slices(evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool) -> Iterator[str]:
    """Names of the checks of slices that must fail."""
    if policy.slice_margin == 0:
        return
    if evidence.production is not None and len(evidence.slices) == 0:
        yield "slices"
    judged = [one for one in evidence.slices if one.sample_size >= policy.slice_rows_min]
    for one in judged:
        beyond = worse_by(one.candidate, one.production, higher) - policy.slice_margin
        if one.standard_error == 0:
            if beyond > 0:
                yield f"slice:{one.slice}"
        elif 1 - chance_below(beyond / one.standard_error, one.sample_size) < policy.significance / len(judged):
            yield f"slice:{one.slice}"


def failed(
    evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool, *, canary: bool, production_before: int
) -> Iterator[str]:
    """Names of the checks that must fail, in no order."""
    first = evidence.production is None
    if evidence.sample_size < policy.rows_min or (not first and evidence.sample_size == 0):
        yield "rows"
    if production_before > 0 if first else not primary_passes(evidence, policy, higher, canary):
        yield "primary"
    yield from failed_slices(evidence, policy, higher)
    for name, value, most in (
        ("calibration", evidence.calibration_error, policy.calibration_max),
        ("latency", evidence.latency_p99_ms, policy.latency_ms_max),
        ("size", evidence.size_mb, policy.size_mb_max),
    ):
        if most > 0 and (value is None or value > most):
            yield name
    if evidence.loads is False:
        yield "load"
    if policy.embedding_compatible:
        overlap = evidence.embedding_overlap
        if (overlap is None and not first) or (overlap is not None and overlap < 0.8):
            yield "embedding"
    for check in evidence.custom:
        if not check.passed:
            yield check.name


def close_calls(evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool) -> Iterator[bool]:
    """Is a number so near a boundary that Student's t and the normal distribution may disagree, or the last bit may?"""
    if evidence.production is not None:
        worse = worse_by(evidence.candidate, evidence.production, higher)
        error, freedom = evidence.standard_error, max(evidence.sample_size - 1, 1)
        edge = stats.t.ppf(1 - policy.significance, df=freedom)
        near = 0.01 * error + 1e-9
        yield abs(worse - policy.margin) < near
        yield abs(abs(worse - policy.margin) - edge * error) < near
        yield abs(policy.margin - (edge + stats.t.ppf(0.8, df=freedom)) * error) < near
    judged = [one for one in evidence.slices if one.sample_size >= policy.slice_rows_min]
    for one in judged:
        beyond = worse_by(one.candidate, one.production, higher) - policy.slice_margin
        edge = stats.t.ppf(1 - policy.significance / len(judged), df=max(one.sample_size - 1, 1))
        yield abs(beyond - edge * one.standard_error) < 0.01 * edge * one.standard_error + 1e-9
