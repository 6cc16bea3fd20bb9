"""Inverse-probability weights, row by row in plain Python: what `core.ground_truth.arrival` does with partials."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A labelled prediction of a young hour, with the share of its class that has arrived."""

    score: float
    value: int
    share: float


def weighted_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """AUC, accuracy, log-loss and Brier with weights 1 / share; quadratic in the number of rows."""
    total = sum(1 / row.share for row in rows)
    loss = brier = right = 0.0
    for row in rows:
        weight = 1 / row.share
        loss -= weight * (math.log(row.score) if row.value else math.log1p(-row.score))
        brier += weight * (row.score - row.value) ** 2
        right += weight * ((row.score >= 0.5) == bool(row.value))
    above = pairs = 0.0
    for one in rows:
        for other in rows:
            if one.value and not other.value:
                weight = 1 / one.share / other.share
                pairs += weight
                above += weight * ((one.score > other.score) + 0.5 * (one.score == other.score))
    found = {"accuracy": right / total, "log_loss": loss / total, "brier": brier / total}
    return found | ({"auc": above / pairs} if pairs else {})
