"""The downstream as sensor: an unlabelled model's decay, inferred from labelled models that consume it.

A model whose outcomes nobody sees still shows in those that read its output: if they get worse together, and the models
that do not read it stay well, it is the likeliest cause. Evidence of this kind is weak (consumers may fail for reasons
of their own), so what a consumer's drop says of one upstream is shared among all upstreams that could explain it.
"""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

Z_95 = 1.6448536269514722
HEALTHY_HALF = 1.0
"""A healthy consumer speaks against an upstream as much as a troubled one speaks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerDrop:
    """One labelled model: how much worse it got, and what it reads."""

    consumer: str
    drop: float
    """Positive is worse; in units of its own tolerance, so that an AUC and a RMSE can be compared."""
    standard_error: float
    upstream: Set[str]
    """All models it reads, directly or through others."""
    own_cause: bool = False
    """It has a cause of its own: broken data, or drift of inputs that are no model's output."""
    sample_size: int = 0
    """Outcomes behind the drop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What the consumers of one upstream say about it."""

    upstream: str
    drop: float
    """Inferred, in tolerances; 0 or more."""
    standard_error: float
    p_value: float
    """Of the one-sided test that it did not get worse."""
    blame: float
    """Share of its troubled consumers' trouble that it explains better than other upstreams, 0 to 1."""
    troubled: tuple[str, ...]
    """Consumers that surely got worse, without a cause of their own; by name."""
    healthy: tuple[str, ...]
    sample_size: int
    """Outcomes of all its labelled consumers."""


def attribute(consumers: Sequence[ConsumerDrop], candidates: Set[str]) -> dict[str, Attribution]:
    """What labelled consumers say about each candidate that has any.

    1. A consumer is troubled if the lower 95 % bound of its drop is above 0 and it has no cause of its own.
    2. The support of an upstream is troubled / (troubled + healthy) among its consumers.
    3. A troubled consumer's drop is shared among its upstreams, candidates or not, in proportion to their support: one
       that all troubled models share and no healthy one reads takes it all.
    4. blame is the mean of these shares over its troubled consumers; the inferred drop is blame x the inverse-variance
       mean of their drops, diluted by the healthy ones: x support.

    Args:
        consumers: each once.
        candidates: upstream models to judge, those without outcomes of their own.

    >>> bad = [ConsumerDrop(consumer=c, drop=2.0, standard_error=0.2, upstream={"u", c + "_own"}) for c in "ab"]
    >>> good = ConsumerDrop(consumer="c", drop=0.0, standard_error=0.2, upstream={"v"})
    >>> found = attribute([*bad, good], {"u", "v"})
    >>> found["u"].troubled, found["v"].drop
    (('a', 'b'), 0.0)
    """
    usable = sorted(
        (one for one in consumers if math.isfinite(one.drop) and math.isfinite(one.standard_error)),
        key=lambda one: one.consumer,
    )
    troubled = {one.consumer: one for one in usable if _troubled(one)}
    healthy = {one.consumer: one for one in usable if not one.own_cause and one.consumer not in troubled}
    everything = sorted({upstream for one in usable for upstream in one.upstream})
    support = {upstream: _support(upstream, troubled, healthy) for upstream in everything}
    weight = {
        upstream: support[upstream] * sum(upstream in one.upstream for one in troubled.values())
        for upstream in everything
    }
    found = {}
    for upstream in everything:
        if upstream in candidates:
            found[upstream] = _attribution(upstream, troubled, healthy, support, weight)
    return found


def _troubled(one: ConsumerDrop) -> bool:
    return not one.own_cause and one.drop - Z_95 * one.standard_error > 0


def _support(upstream: str, troubled: dict[str, ConsumerDrop], healthy: dict[str, ConsumerDrop]) -> float:
    bad = sum(upstream in one.upstream for one in troubled.values())
    good = HEALTHY_HALF * sum(upstream in one.upstream for one in healthy.values())
    return bad / (bad + good) if bad else 0.0


def _attribution(
    upstream: str,
    troubled: dict[str, ConsumerDrop],
    healthy: dict[str, ConsumerDrop],
    support: dict[str, float],
    weight: dict[str, float],
) -> Attribution:
    bad = [one for one in troubled.values() if upstream in one.upstream]
    read_by = [one for one in healthy.values() if upstream in one.upstream]
    good = tuple(one.consumer for one in read_by)
    size = sum(one.sample_size for one in (*bad, *read_by))
    if not bad:
        return Attribution(
            upstream=upstream,
            drop=0.0,
            standard_error=0.0,
            p_value=1.0,
            blame=0.0,
            troubled=(),
            healthy=good,
            sample_size=size,
        )
    # Squared, so that what explains more of the trouble takes more than its part.
    shares = [weight[upstream] ** 2 / sum(weight[other] ** 2 for other in sorted(one.upstream)) for one in bad]
    blame = sum(shares) / len(shares)
    # An error of 0 (not known) counts like the smallest known one, and a tenth of a tolerance at least.
    errors = [max(one.standard_error, 0.1) for one in bad]
    precision = [1 / error**2 for error in errors]
    mean = sum(one.drop * p for one, p in zip(bad, precision, strict=True)) / sum(precision)
    scale = blame * support[upstream]
    drop, error = mean * scale, scale / math.sqrt(sum(precision))
    # Whether it is this upstream at all is the larger doubt: as if each share were one throw of a coin.
    doubt = mean * math.sqrt(max(scale * (1 - scale), 0.0) / len(bad))
    error = math.hypot(error, doubt)
    p_value = 0.5 * math.erfc(drop / error / math.sqrt(2)) if error > 0 else 0.5
    return Attribution(
        upstream=upstream,
        drop=drop,
        standard_error=error,
        p_value=p_value,
        blame=blame,
        troubled=tuple(one.consumer for one in bad),
        healthy=good,
        sample_size=size,
    )
