"""Rules of rollout: what a validation must say, and when its silence counts as a no."""

import math
from datetime import datetime, timedelta

from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.rollout.types import Rollout, RolloutState, Validation, ValidationCheck, ValidationPolicy

TIMEOUT_MAX = timedelta(days=365)
"""A candidate that waits for a year is forgotten, not validated."""


def policy_violations(policy: ValidationPolicy) -> list[Violation]:
    """All broken rules of a validation policy."""
    found = []
    if not (math.isfinite(policy.margin) and policy.margin >= 0):
        found.append(
            Violation(
                field="validation.margin",
                rule="range",
                message="must be a finite number of at least 0",
            )
        )
    if not timedelta(0) < policy.timeout <= TIMEOUT_MAX:
        found.append(
            Violation(
                field="validation.timeout",
                rule="range",
                message=f"must be longer than 0 and at most {TIMEOUT_MAX.days} days",
            )
        )
    return found


def check_validation(validation: Validation) -> None:
    """Raise `Invalid` for numbers no comparison can give; a NaN must never promote anything."""
    found = []
    for name in ("candidate", "production", "standard_error"):
        value = getattr(validation, name)
        if value is not None and not math.isfinite(value):
            found.append(
                Violation(field=f"validation.{name}", rule="finite", message=f"{value} is not a finite number")
            )
    if validation.passed and validation.sample_size == 0 and validation.production is not None:
        found.append(
            Violation(
                field="validation.sample_size",
                rule="evidence",
                message="a comparison on 0 rows cannot pass: report it as failed",
            )
        )
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)


def newest_of_each(checks: tuple[ValidationCheck, ...], check: ValidationCheck) -> tuple[ValidationCheck, ...]:
    """Checks by name, with one more; what was said under the same name before is no longer true."""
    return (*(one for one in checks if one.name != check.name), check)


def silent_too_long(rollout: Rollout, policy: ValidationPolicy, now: datetime) -> bool:
    """Has a candidate waited for its validation longer than the policy allows?"""
    return rollout.state is RolloutState.VALIDATING and now > rollout.started_at + policy.timeout
