"""A look at one model is the same, bit for bit, alone or with any others: a verdict is replayed alone."""

from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.staleness.evaluation import evaluate, evaluate_fleet
from control_plane.core.staleness.evidence import Evidence, PredictionCounts, ScoreAt, SliceEvidence, flat_feature_table
from control_plane.core.staleness.policy import Fusion, StalenessPolicy
from control_plane.core.statistics.fleet import row_drift
from tests.core.staleness_evidence import NOW, auc, concept

FEATURES = (1, 2, 3, 7, 9, 130, 200, 257)
"""Lengths at which sums of a row are ordered otherwise."""


def drawn(seed: int) -> Evidence:
    """A model with random features, widths, drift and sparse cells."""
    rng = np.random.default_rng(seed)
    rows = int(rng.choice(FEATURES))
    cells = rng.integers(2, 12, rows) if rng.random() < 0.5 else np.full(rows, int(rng.integers(2, 12)))
    total = int(cells.sum())
    reference = rng.poisson(rng.uniform(0, 40, total))
    current = rng.poisson(rng.uniform(0, 40, total) if rng.random() < 0.5 else np.maximum(reference, 1))
    table = flat_feature_table(
        names=tuple(f"f{at}" for at in range(rows)),
        categorical=rng.random(rows) < 0.3,
        cells=cells,
        reference=reference,
        current=current,
        importance=rng.random(rows) if rng.random() < 0.5 else None,
        psi_usual=rng.uniform(0, 0.3, rows) if rng.random() < 0.5 else None,
        outside=rng.integers(0, 30, rows),
    )
    bins = int(rng.integers(2, 20))
    return Evidence(
        model_version=1,
        trained_until=NOW - timedelta(days=float(rng.uniform(0, 31))),
        features=table,
        prediction=PredictionCounts(reference=rng.poisson(60, bins), current=rng.poisson(55, bins)),
        performance=auc(float(rng.normal(0.78, 0.03)), sample_size=int(rng.integers(0, 2_000))),
        coverage=float(rng.uniform(0.5, 1)),
        concept=concept(0.1) if rng.random() < 0.5 else None,
        slices=(SliceEvidence(name="a=1", features=table),) if rng.random() < 0.5 else (),
        history=tuple(ScoreAt(at=NOW - timedelta(days=9 - day), score=day / 30) for day in range(9)),
    )


POLICIES = [
    StalenessPolicy(predictions_min=10, labels_min=100),
    StalenessPolicy(predictions_min=10, fusion=Fusion.NOISY_OR, psi_moderate=0.02),
]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=12))
def test_a_look_is_the_same_alone_and_in_any_company(seeds: list[int]) -> None:
    items = [(POLICIES[seed % 2], drawn(seed)) for seed in seeds]
    alone = [msgspec.json.encode(evaluate(policy, evidence, NOW)) for policy, evidence in items]
    together = [msgspec.json.encode(one) for one in evaluate_fleet(items, NOW)]
    assert together == alone
    turned = [msgspec.json.encode(one) for one in evaluate_fleet(items[::-1], NOW)]
    assert turned == alone[::-1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 14))
def test_a_row_is_tested_alike_alone_and_in_a_matrix(seed: int, rows: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    reference, current = rng.poisson(8, (rows, width)), rng.poisson(6, (rows, width))
    cells = np.full(rows, width)
    together = row_drift(reference, current, cells)
    for row in range(rows):
        at = slice(row, row + 1)
        alone = row_drift(reference[at], current[at], cells[at])
        for name in ("psi", "psi_debiased", "chi_square", "freedom", "p_value"):
            assert getattr(alone, name).tobytes() == getattr(together, name)[at].tobytes(), name


def test_a_look_survives_the_log() -> None:
    found = evaluate(POLICIES[0], replace(drawn(3), slices=()), NOW)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
