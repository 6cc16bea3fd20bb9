"""The offline gate: a candidate against production on the same fresh holdout.

The primary metric must not be worse by more than the margin, shown by a test: the one-sided confidence bound of the
paired difference lies above -margin. A holdout can be too small to show that of four equal candidates in five; such a
result is *inconclusive*. Where a canary follows it goes on, because the canary has the power to tell; where nothing
follows the estimate decides, as it always did, and the check says that it proves nothing.

Everything else is a guardrail: each check that the policy asks for must pass, and one that was not reported has not.
"""

from statistics import NormalDist

from msgspec.structs import replace

from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.rollout.types import (
    Rollout,
    SliceEvidence,
    Validation,
    ValidationCheck,
    ValidationEvidence,
    ValidationPolicy,
)

POWER = 0.8
"""Chance of an equal candidate to pass the test, below which the holdout is too small for the test to decide."""
HIGHER = frozenset({"auc", "accuracy", "r2"})
LOWER = frozenset({"log_loss", "brier", "mae", "rmse"})


def higher_is_better(metric: str) -> bool:
    """Which way one of the known metrics points."""
    return metric in HIGHER


def direction_of(evidence: ValidationEvidence) -> bool:
    """Is higher better? Known metrics need not say so, all others must.

    Raises:
        Invalid: it is not said, or said of a known metric wrongly.
    """
    known = higher_is_better(evidence.metric) if evidence.metric in HIGHER | LOWER else None
    said = evidence.higher_is_better
    if known is None and said is None:
        message = f"say whether a higher {evidence.metric} is better: it is none of {', '.join(sorted(HIGHER | LOWER))}"
        raise Invalid(
            Reason.INVALID_ARGUMENT, Violation(field="evidence.higher_is_better", rule="required", message=message)
        )
    if known is not None and said is not None and known is not said:
        message = f"of {evidence.metric} the {'higher' if known else 'lower'} is better"
        raise Invalid(
            Reason.INVALID_ARGUMENT, Violation(field="evidence.higher_is_better", rule="contradiction", message=message)
        )
    return bool(said if known is None else known)


def gate(evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool, *, canary: bool) -> Validation:
    """The verdict on a candidate with all its checks. `canary`: one follows, which has the power to tell."""
    checks = [
        _rows(evidence, policy),
        _primary(evidence, policy, higher, canary=canary),
        *_slices(evidence, policy, higher),
        _at_most("calibration", evidence.calibration_error, policy.calibration_max, "expected calibration error"),
        _at_most("latency", evidence.latency_p99_ms, policy.latency_ms_max, "p99 latency in ms"),
        _at_most("size", evidence.size_mb, policy.size_mb_max, "size in MB"),
        _loads(evidence),
        _embedding(evidence, policy),
        *_custom(evidence),
    ]
    known = tuple(check for check in checks if check is not None)
    failed = [check for check in known if not check.passed]
    primary = next(check for check in known if check.name == "primary")
    return Validation(
        passed=not failed,
        metric=evidence.metric,
        candidate=evidence.candidate,
        production=evidence.production,
        standard_error=evidence.standard_error,
        sample_size=evidence.sample_size,
        explanation="; ".join(check.explanation for check in failed) or primary.explanation,
        holdout_from=evidence.holdout_from,
        holdout_until=evidence.holdout_until,
        checks=known,
    )


def _z(level: float) -> float:
    return NormalDist().inv_cdf(1 - level)


def _rows(evidence: ValidationEvidence, policy: ValidationPolicy) -> ValidationCheck | None:
    rows_min = max(policy.rows_min, 1 if evidence.production is not None else 0)
    if rows_min == 0:
        return None
    passed = evidence.sample_size >= rows_min
    return ValidationCheck(
        name="rows",
        passed=passed,
        value=float(evidence.sample_size),
        bound=float(rows_min),
        explanation=f"the holdout has {evidence.sample_size} rows" + ("" if passed else f", {rows_min} are asked for"),
    )


def _primary(evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool, *, canary: bool) -> ValidationCheck:
    shown = f"{evidence.metric} {evidence.candidate:.4f}"
    if evidence.production is None:
        return ValidationCheck(
            name="primary", passed=True, value=evidence.candidate, explanation=f"{shown}, nothing to compare with"
        )
    shown += f" against {evidence.production:.4f} on {evidence.sample_size} rows"
    better = _better(evidence.candidate, evidence.production, higher)
    reach = _z(policy.significance) * evidence.standard_error
    surely = better - reach
    if surely > -policy.margin or (evidence.standard_error == 0 and better >= -policy.margin):
        words, passed = f"not worse by more than {policy.margin:g}", True
    elif better + reach < -policy.margin:
        words, passed = f"worse by more than {policy.margin:g}, for sure", False
    elif reach + _z(1 - POWER) * evidence.standard_error < policy.margin:
        # The holdout would have shown it of most equal candidates, and did not.
        words, passed = f"not shown to be within {policy.margin:g}: it may be worse by {-surely:.4f}", False
    elif canary:
        words = f"{evidence.sample_size} rows cannot show a margin of {policy.margin:g}: its canary will"
        passed = True
    else:
        passed = better >= -policy.margin
        words = (
            f"{'within' if passed else 'beyond'} the margin of {policy.margin:g} by the estimate alone: "
            f"{evidence.sample_size} rows prove neither (standard error {evidence.standard_error:.4f})"
        )
    return ValidationCheck(
        name="primary", passed=passed, value=surely, bound=-policy.margin, explanation=f"{shown}: {words}"
    )


def _better(candidate: float, production: float, higher: bool) -> float:
    # Rounded, so that what lies on the margin is not beyond it by the last bit.
    return round(candidate - production if higher else production - candidate, 12)


def _slices(evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool) -> list[ValidationCheck]:
    """A slice fails that is surely worse by more than its margin, the level shared among all that are judged."""
    judged = [one for one in evidence.slices if one.sample_size >= policy.slice_rows_min]
    if not policy.slice_margin or not judged:
        return []
    reach = _z(policy.significance / len(judged))
    return [_slice(one, policy.slice_margin, reach, higher) for one in judged]


def _slice(one: SliceEvidence, margin: float, reach: float, higher: bool) -> ValidationCheck:
    better = _better(one.candidate, one.production, higher)
    at_best = better + reach * one.standard_error
    passed = at_best >= -margin
    words = f"{one.candidate:.4f} against {one.production:.4f} on {one.sample_size} rows"
    return ValidationCheck(
        name=f"slice:{one.slice}",
        passed=passed,
        value=at_best,
        bound=-margin,
        explanation=f"{one.slice}: {words}" + ("" if passed else f", surely worse by more than {margin:g}"),
    )


def _at_most(name: str, value: float | None, most: float, what: str) -> ValidationCheck | None:
    if not most:
        return (
            None
            if value is None
            else ValidationCheck(name=name, passed=True, value=value, explanation=f"{what} {value:.4g}")
        )
    if value is None:
        return ValidationCheck(
            name=name, passed=False, bound=most, explanation=f"{what} was not reported, at most {most:g} is asked for"
        )
    passed = value <= most
    words = f"{what} {value:.4g}, at most {most:g} is asked for"
    return ValidationCheck(name=name, passed=passed, value=value, bound=most, explanation=words)


def _loads(evidence: ValidationEvidence) -> ValidationCheck | None:
    if evidence.loads is None:
        return None
    return ValidationCheck(
        name="load", passed=evidence.loads, explanation="it loads" if evidence.loads else "it does not load"
    )


def _embedding(evidence: ValidationEvidence, policy: ValidationPolicy) -> ValidationCheck | None:
    overlap = evidence.embedding_overlap
    if overlap is None:
        if not policy.embedding_compatible or evidence.production is None:
            return None
        return ValidationCheck(
            name="embedding", passed=False, bound=1.0, explanation="the overlap of its embeddings was not reported"
        )
    compatible = overlap >= EMBEDDING_OVERLAP_MIN
    words = "compatible with" if compatible else "not compatible with"
    return ValidationCheck(
        name="embedding",
        passed=compatible or not policy.embedding_compatible,
        value=overlap,
        bound=EMBEDDING_OVERLAP_MIN,
        explanation=f"its embeddings are {words} those in production (overlap {overlap:.2f} of the noise floor)",
    )


EMBEDDING_OVERLAP_MIN = 0.8
"""Share of the noise floor, as in the staleness policy's default."""


def _custom(evidence: ValidationEvidence) -> list[ValidationCheck]:
    """All that were reported with it. What the policy asks for besides is waited for; see `checks_missing`."""
    return [worded(check) for check in evidence.custom]


def worded(check: ValidationCheck) -> ValidationCheck:
    """A check that says something."""
    if check.explanation:
        return check
    return replace(check, explanation=f"check {check.name} {'passed' if check.passed else 'failed'}")


def checks_asked(policy: ValidationPolicy) -> tuple[str, ...]:
    """Names of the checks that a candidate must pass besides the gate's own.

    >>> checks_asked(ValidationPolicy(checks="fairness, no leak,"))
    ('fairness', 'no leak')
    """
    return tuple(name for part in policy.checks.split(",") if (name := part.strip()))


def checks_missing(policy: ValidationPolicy, rollout: Rollout) -> tuple[str, ...]:
    """Names of checks that nobody has reported yet."""
    asked = checks_asked(policy)
    if not asked:
        return ()
    validation = rollout.validation
    reported = {check.name for check in (*rollout.checks, *(validation.checks if validation is not None else ()))}
    return tuple(name for name in asked if name not in reported)
