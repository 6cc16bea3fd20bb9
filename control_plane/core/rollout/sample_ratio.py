"""Are the two arms of equal size? Evidence that may be looked at at any time.

A Beta-binomial mixture against a fair coin (Lindon and Malek 2022): the e-value grows without bound if the split is
not even, and exceeds 1/a with a chance of at most a if it is. An uneven split means that requests of one arm get lost,
or go elsewhere by what they are: then no comparison of the arms is to be trusted.
"""

import math

STRENGTH = 1_000.0
"""Of the prior about an even split, in pseudo-requests of each arm: small imbalances of large canaries are what is
looked for."""


def sample_ratio_evidence(candidate: int, control: int) -> float:
    """e-value against equal arms; 1 without requests, at most 1e300.

    >>> sample_ratio_evidence(5_000, 5_010) < 1, sample_ratio_evidence(5_000, 6_000) > 1e6
    (True, True)
    """
    log_evidence = (
        _log_beta(STRENGTH + candidate, STRENGTH + control)
        - _log_beta(STRENGTH, STRENGTH)
        + (candidate + control) * math.log(2)
    )
    return math.exp(min(log_evidence, 690.0))


def _log_beta(first: float, second: float) -> float:
    return math.lgamma(first) + math.lgamma(second) - math.lgamma(first + second)
