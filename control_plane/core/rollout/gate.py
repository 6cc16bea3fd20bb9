"""The offline gate: a candidate against production on the same fresh holdout.

The primary metric must not be worse by more than the margin, shown by a test: the one-sided confidence bound of the
paired difference (Student's t) lies above -margin. A holdout can be too small to show that of four equal candidates in
five; such a result is *inconclusive*. Where a canary follows it goes on, because the canary has the power to tell;
where nothing follows the estimate decides, as it always did, and the check says that it proves nothing. So it is where
no standard error is known.

Everything else is a guardrail: each check that the policy asks for must pass, and one that was not reported has not.
What fails says by how much, and what to do about it.
"""

import math
from collections.abc import Iterator
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
NORMAL_ROWS_MIN = 1_000
"""From here on Student's t and the normal distribution differ by less than a thousandth."""
FAILED_TOLD_MAX = 2
"""Failed checks that a conclusion tells in full."""
FAILED_NAMED_MAX = 5
"""Others that it names; nobody reads on after five."""
HIGHER = frozenset({"auc", "accuracy", "r2"})
LOWER = frozenset({"log_loss", "brier", "mae", "rmse"})
EMBEDDING_OVERLAP_MIN = 0.8
"""Share of the noise floor, as in the staleness policy's default."""


def higher_is_better(metric: str) -> bool:
    """Which way one of the known metrics points."""
    return metric in HIGHER


def direction_of(evidence: ValidationEvidence) -> bool:
    """Is higher better? Known metrics need not say so, all others must.

    Raises:
        Invalid: it is not said, or said of a known metric wrongly; or a number is none that can be measured.
    """
    known = higher_is_better(evidence.metric) if evidence.metric in HIGHER | LOWER else None
    said = evidence.higher_is_better
    found = list(_impossible(evidence))
    if known is None and said is None:
        message = f"say whether a higher {evidence.metric} is better: it is none of {', '.join(sorted(HIGHER | LOWER))}"
        found.append(Violation(field="evidence.higher_is_better", rule="required", message=message))
    if known is not None and said is not None and known is not said:
        message = f"of {evidence.metric} the {'higher' if known else 'lower'} is better"
        found.append(Violation(field="evidence.higher_is_better", rule="contradiction", message=message))
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)
    return bool(said if known is None else known)


def _impossible(evidence: ValidationEvidence) -> Iterator[Violation]:
    """Numbers that no measurement gives; a NaN compares with nothing, so it must never be compared."""
    signed = {"candidate": evidence.candidate, "production": evidence.production}
    unsigned: dict[str, float | None] = {
        name: getattr(evidence, name)
        for name in ("standard_error", "sample_size", "calibration_error", "latency_p99_ms", "size_mb")
    }
    unsigned["embedding_overlap"] = evidence.embedding_overlap
    for at, one in enumerate(evidence.slices):
        signed |= {f"slices[{at}].{name}": getattr(one, name) for name in ("candidate", "production")}
        unsigned |= {f"slices[{at}].{name}": getattr(one, name) for name in ("standard_error", "sample_size")}
    for field, value in (signed | unsigned).items():
        if value is not None and not math.isfinite(value):
            message = f"{value} is not a finite number: report the validation as failed"
            yield Violation(field=f"evidence.{field}", rule="finite", message=message)
        elif value is not None and field in unsigned and value < 0:
            yield Violation(field=f"evidence.{field}", rule="range", message=f"{value:g} is less than 0")


def gate(
    evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool, *, canary: bool, production_before: int = 0
) -> Validation:
    """The verdict on a candidate with all its checks.

    Args:
        higher: which way the metric is better; see `direction_of`, which also sees to it that all numbers are some.
        canary: one follows, which has the power to tell.
        production_before: the version it would replace, with which it must have been compared; 0 if there is none.
    """
    checks = [
        _rows(evidence, policy),
        _primary(evidence, policy, higher, canary=canary, production_before=production_before),
        *_slices(evidence, policy, higher),
        _at_most(evidence.calibration_error, policy.calibration_max, CALIBRATION),
        _at_most(evidence.latency_p99_ms, policy.latency_ms_max, LATENCY),
        _at_most(evidence.size_mb, policy.size_mb_max, SIZE),
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
        explanation=_told_of(failed) or primary.explanation,
        holdout_from=evidence.holdout_from,
        holdout_until=evidence.holdout_until,
        checks=known,
    )


def _told_of(failed: list[ValidationCheck]) -> str:
    """What failed, short enough for an alert: of many the first, and the names of the others. All is in the checks.

    >>> checks = [ValidationCheck(name=name, passed=False, explanation=f"{name} is bad") for name in "abcdefgh"]
    >>> _told_of(checks[:2]), _told_of(checks[:3])
    ('a is bad; b is bad', 'a is bad; also failed: b, c')
    >>> _told_of(checks)
    'a is bad; also failed: b, c, d, e, f and 2 more'
    """
    if len(failed) <= FAILED_TOLD_MAX:
        return "; ".join(check.explanation for check in failed)
    first, *others = failed
    names = ", ".join(check.name for check in others[:FAILED_NAMED_MAX])
    more = f" and {len(others) - FAILED_NAMED_MAX} more" if len(others) > FAILED_NAMED_MAX else ""
    return f"{first.explanation}; also failed: {names}{more}"


def _quantile(level: float, rows: int) -> float:
    """How many standard errors the mean of so many rows is off by chance with probability `level`, one-sided."""
    if rows >= NORMAL_ROWS_MIN:
        return NormalDist().inv_cdf(1 - level)
    from scipy import special  # noqa: PLC0415 - takes 0.4 s to import, and a start should not wait for it

    return float(special.stdtrit(max(rows - 1, 1), 1 - level))


def _shown(value: float) -> str:
    """A number of any size with at least three digits that say something."""
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.01 else f"{value:.3g}"


def _rows(evidence: ValidationEvidence, policy: ValidationPolicy) -> ValidationCheck | None:
    rows_min = max(policy.rows_min, 1 if evidence.production is not None else 0)
    if rows_min == 0:
        return None
    passed = evidence.sample_size >= rows_min
    short = f", at least {rows_min} are asked for: hold out more, or lower validation.rows_min"
    return ValidationCheck(
        name="rows",
        passed=passed,
        value=float(evidence.sample_size),
        bound=float(rows_min),
        explanation=f"the holdout has {evidence.sample_size} rows{'' if passed else short}",
    )


def _primary(
    evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool, *, canary: bool, production_before: int
) -> ValidationCheck:
    shown = f"{evidence.metric} {_shown(evidence.candidate)}"
    if evidence.production is None:
        words = "nothing to compare with"
        if production_before:
            words = (
                f"version {production_before} is in production and was not measured: "
                "measure both on the same rows and report evidence.production"
            )
        return ValidationCheck(
            name="primary",
            passed=not production_before,
            value=evidence.candidate,
            explanation=f"{shown}, {words}",
        )
    shown += f" against {_shown(evidence.production)} on {evidence.sample_size} rows"
    better = _better(evidence.candidate, evidence.production, higher)
    reach = _quantile(policy.significance, evidence.sample_size) * evidence.standard_error
    passed, words = _told(evidence, policy, better, reach, canary=canary)
    return ValidationCheck(
        name="primary", passed=passed, value=better - reach, bound=-policy.margin, explanation=f"{shown}: {words}"
    )


def _told(
    evidence: ValidationEvidence, policy: ValidationPolicy, better: float, reach: float, *, canary: bool
) -> tuple[bool, str]:
    """What a difference and how far it may be off by chance say of the margin.

    1. Surely within it: passed. Surely beyond it: failed.
    2. Neither, of a holdout that would have shown it of most equal candidates: failed.
    3. Neither, of one that would not: its canary tells, or without one the estimate.
    """
    margin, rows = policy.margin, evidence.sample_size
    if evidence.standard_error == 0:
        passed = better >= -margin
        if better == 0:
            return passed, "no difference at all"
        told = f"{'within' if passed else 'beyond'} the margin of {margin:g} by the estimate alone"
        return passed, f"{told}: no standard error of the difference was reported, so nothing is shown"
    if better - reach > -margin:
        return (
            True,
            f"not worse by more than {margin:g} ({_by(better)}, {_at_worst(better - reach)})",
        )
    if better + reach < -margin:
        return False, (
            f"worse by more than {margin:g}, for sure ({_by(better)}, at best by {_shown(-better - reach)}): "
            "look at what it was trained on"
        )
    powerful = reach + _quantile(1 - POWER, rows) * evidence.standard_error
    if powerful < margin:
        return False, (
            f"not shown to be within {margin:g}: it may be worse by {_shown(reach - better)}; "
            "measure it on more rows, or allow more by validation.margin"
        )
    needed = f"about {math.ceil(rows * (powerful / margin) ** 2):,}" if margin else "no number of them"
    if canary:
        return True, f"{rows} rows cannot show a margin of {margin:g} ({needed} can): its canary will"
    passed = better >= -margin
    return passed, (
        f"{'within' if passed else 'beyond'} the margin of {margin:g} by the estimate alone: {rows} rows prove neither "
        f"({_by(better)}, standard error {_shown(evidence.standard_error)}; {needed} can)"
    )


def _by(better: float) -> str:
    return f"{'better' if better > 0 else 'worse'} by {_shown(abs(better))}" if better else "alike"


def _at_worst(low: float) -> str:
    """What the low end of the difference says.

    >>> _at_worst(0.02), _at_worst(-0.001)
    ('surely by 0.0200 or more', 'surely no worse than by 0.001')
    """
    return f"surely by {_shown(low)} or more" if low > 0 else f"surely no worse than by {_shown(-low)}"


def _better(candidate: float, production: float, higher: bool) -> float:
    # Rounded, so that what lies on the margin is not beyond it by the last bit.
    return round(candidate - production if higher else production - candidate, 12)


def _slices(evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool) -> list[ValidationCheck]:
    """A slice fails that is surely worse by more than its margin, the level shared among all that are judged."""
    if policy.slice_margin and not evidence.slices and evidence.production is not None:
        words = "no slice was reported, validation.slice_margin asks for some: report evidence.slices"
        return [ValidationCheck(name="slices", passed=False, bound=-policy.slice_margin, explanation=words)]
    judged = [one for one in evidence.slices if policy.slice_margin and one.sample_size >= policy.slice_rows_min]
    level = policy.significance / max(len(judged), 1)
    return [_slice(one, policy, level, higher, judged=one in judged) for one in evidence.slices]


def _slice(
    one: SliceEvidence, policy: ValidationPolicy, level: float, higher: bool, *, judged: bool
) -> ValidationCheck:
    shown = f"{one.slice}: {_shown(one.candidate)} against {_shown(one.production)} on {one.sample_size} rows"
    name = f"slice:{one.slice}"
    if not judged:
        why = (
            f", too few to judge (validation.slice_rows_min is {policy.slice_rows_min})"
            if policy.slice_margin
            else ", for information: validation.slice_margin asks nothing of slices"
        )
        return ValidationCheck(name=name, passed=True, explanation=shown + why)
    better = _better(one.candidate, one.production, higher)
    at_best = better + _quantile(level, one.sample_size) * one.standard_error
    passed = at_best >= -policy.slice_margin
    worse = f", surely worse by more than {policy.slice_margin:g} ({_by(better)}, at best by {_shown(-at_best)})"
    return ValidationCheck(
        name=name,
        passed=passed,
        value=at_best,
        bound=-policy.slice_margin,
        explanation=shown if passed else f"{shown}{worse}: look at what is special about these rows",
    )


CALIBRATION = ("calibration", "expected calibration error", "calibration_error", "calibration_max", "calibrate it")
LATENCY = ("latency", "p99 latency in ms", "latency_p99_ms", "latency_ms_max", "make it faster")
SIZE = ("size", "size in MB", "size_mb", "size_mb_max", "make it smaller")
"""The budgets: name of the check, what is measured, its field of the evidence, its policy, what to do."""


def _at_most(value: float | None, most: float, of: tuple[str, str, str, str, str]) -> ValidationCheck | None:
    name, what, field, policy, remedy = of
    if value is None:
        if not most:
            return None
        words = f"{what} was not reported, at most {most:g} is asked for: report evidence.{field}"
        return ValidationCheck(name=name, passed=False, bound=most, explanation=words)
    if not most:
        return ValidationCheck(name=name, passed=True, value=value, explanation=f"{what} {value:.4g}")
    passed = value <= most
    words = f"{what} {value:.4g}, at most {most:g} is asked for"
    if not passed:
        words += f": {remedy}, or raise validation.{policy}"
    return ValidationCheck(name=name, passed=passed, value=value, bound=most, explanation=words)


def _loads(evidence: ValidationEvidence) -> ValidationCheck | None:
    if evidence.loads is None:
        return None
    words = "it loads" if evidence.loads else "it does not load from where it was stored: store it again"
    return ValidationCheck(name="load", passed=evidence.loads, explanation=words)


def _embedding(evidence: ValidationEvidence, policy: ValidationPolicy) -> ValidationCheck | None:
    overlap = evidence.embedding_overlap
    if overlap is None:
        if not policy.embedding_compatible or evidence.production is None:
            return None
        words = "the overlap of its embeddings was not reported: report evidence.embedding_overlap"
        return ValidationCheck(name="embedding", passed=False, bound=EMBEDDING_OVERLAP_MIN, explanation=words)
    compatible = overlap >= EMBEDDING_OVERLAP_MIN
    passed = compatible or not policy.embedding_compatible
    words = (
        f"its embeddings are {'compatible' if compatible else 'not compatible'} with those in production "
        f"(overlap {overlap:.2f} of the noise floor, {EMBEDDING_OVERLAP_MIN:g} is asked for)"
    )
    if not passed:
        words += ": align it with production, or move its consumers with it (`runway rollouts group`)"
    return ValidationCheck(
        name="embedding", passed=passed, value=overlap, bound=EMBEDDING_OVERLAP_MIN, explanation=words
    )


def _custom(evidence: ValidationEvidence) -> list[ValidationCheck]:
    """All that were reported with it. What the policy asks for besides is waited for; see `checks_missing`."""
    return [worded(check) for check in evidence.custom]


def worded(check: ValidationCheck) -> ValidationCheck:
    """A check that says something."""
    if check.explanation:
        return check
    return replace(check, explanation=f"check {check.name} {'passed' if check.passed else 'failed'}")


def failed_words(check: ValidationCheck) -> str:
    """A failed check as the reason of a refusal.

    >>> failed_words(ValidationCheck(name="fairness", passed=False, explanation="twice as often"))
    'check fairness failed: twice as often'
    """
    plain = f"check {check.name} failed"
    return plain if check.explanation in ("", plain) else f"{plain}: {check.explanation}"


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
