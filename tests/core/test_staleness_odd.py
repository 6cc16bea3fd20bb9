"""Odd evidence stops nobody: a look ends whatever arrives, its numbers are finite, more trouble is never better."""

import math
from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.staleness.evaluation import evaluate
from control_plane.core.staleness.evidence import (
    Evidence,
    PerformanceEvidence,
    PerformanceSource,
    ScoreAt,
    SliceEvidence,
    UpstreamEvidence,
    Volume,
    feature_table,
    flat_feature_table,
)
from control_plane.core.staleness.explain import explain
from control_plane.core.staleness.policy import Fusion, StalenessPolicy, Weights
from control_plane.core.staleness.verdict import SEVERITY, Evaluation, Level
from tests.core.staleness_evidence import NOW, SHIFTED, auc, concept, embeddings, features, healthy, numeric

wild = st.one_of(
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1.7e308, -1.7e308, 5e-324]), st.floats(-1e6, 1e6)
)
performances = st.builds(
    PerformanceEvidence,
    metric=st.just("rmse"),
    higher_is_better=st.booleans(),
    baseline=st.one_of(st.none(), wild),
    baseline_error=wild,
    current=wild,
    current_error=wild,
    sample_size=st.sampled_from([0, 1, 199, 200, 10**9]),
    proxy=st.sampled_from(["", "clicks"]),
    proxy_correlation=st.one_of(st.none(), wild),
    source=st.sampled_from(list(PerformanceSource)),
)
tables = st.builds(
    lambda cells: feature_table([numeric(f"f{at}", now, reference=then) for at, (then, now) in enumerate(cells)]),
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 10**6), min_size=4, max_size=4),
            st.lists(st.integers(0, 10**6), min_size=4, max_size=4),
        ),
        max_size=4,
    ),
)
evidences = st.builds(
    Evidence,
    model_version=st.just(1),
    trained_until=st.one_of(st.none(), st.floats(-4e5, 4e5).map(lambda days: NOW - timedelta(days=days))),
    features=st.one_of(st.none(), tables),
    performance=st.one_of(st.none(), performances),
    coverage=st.one_of(st.none(), st.floats(0, 1)),
    guardrails=st.lists(performances, max_size=2).map(tuple),
    fallbacks=st.lists(performances, max_size=2).map(tuple),
    slices=st.lists(
        st.builds(SliceEvidence, name=st.sampled_from(["a=1", "a=2"]), features=tables, performance=performances),
        max_size=2,
    ).map(tuple),
    volume=st.one_of(
        st.none(), st.builds(Volume, current=st.integers(0, 500), before=st.lists(st.integers(0, 9_999)).map(tuple))
    ),
    labels_per_day=wild,
    history=st.lists(
        st.builds(ScoreAt, at=st.floats(0, 90).map(lambda days: NOW - timedelta(days=days)), score=st.floats(0, 1)),
        max_size=9,
    ).map(tuple),
)
policies = st.builds(
    StalenessPolicy,
    fusion=st.sampled_from(list(Fusion)),
    performance_floor=st.one_of(st.none(), st.floats(-10, 10)),
    performance_tolerance=st.sampled_from([1e-9, 0.05, 1e9]),
    age_backstop_days=st.sampled_from([1e-6, 30.0, 1e9]),
    predictions_min=st.sampled_from([0, 500]),
    labels_min=st.sampled_from([0, 200]),
    guardrails=st.just("rmse 0.1"),
    at_risk_threshold=st.sampled_from([1e-9, 0.4, 0.6]),
)


def finite(found: object) -> bool:
    """Is every number in it finite? JSON has no other."""
    match found:
        case float():
            return math.isfinite(found)
        case dict():
            return all(map(finite, found.values()))
        case list() | tuple():
            return all(map(finite, found))
    return True


@settings(max_examples=400, deadline=None)
@given(evidences, policies)
def test_whatever_arrives_a_look_ends_in_finite_numbers(evidence: Evidence, policy: StalenessPolicy) -> None:
    found = evaluate(policy, evidence, NOW)
    assert finite(msgspec.to_builtins(found))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Evaluation) == found
    assert found.reasons
    assert explain(found)[-1].startswith("What to do")
    assert 0 <= found.score_low <= found.score <= found.score_high <= 1


def test_a_feature_of_huge_cardinality_is_looked_at() -> None:
    rng = np.random.default_rng(3)
    cells = 20_002
    counts = rng.integers(0, 5, 2 * cells)
    table = flat_feature_table(
        names=("user", "x"),
        categorical=np.array([True, False]),
        cells=np.array([cells, 2]),
        reference=np.concatenate([counts[:cells], [9_000, 0]]),
        current=np.concatenate([counts[cells:], [900, 0]]),
    )
    found = evaluate(StalenessPolicy(), healthy(table=table), NOW)
    assert found.level is Level.FRESH
    assert found.data_quality == ()


trouble = st.fixed_dictionaries(
    {
        "age": st.floats(0, 40),
        "drifted": st.integers(0, 5),
        "drop": st.floats(0, 0.2),
        "guard": st.floats(0, 0.2),
        "part": st.floats(0, 0.2),
        "concept": st.sampled_from([0.0, 0.05, 0.1]),
        "overlap": st.floats(0, 0.86),
        "lost": st.booleans(),
    }
)


def troubled(case: dict[str, float]) -> Evidence:
    """A model with this much trouble of every kind."""
    guard = replace(auc(0.8 - case["guard"]), metric="accuracy")
    return replace(
        healthy(
            age_days=case["age"], table=features(drifted=int(case["drifted"])), performance=auc(0.8 - case["drop"])
        ),
        guardrails=(guard,),
        slices=(SliceEvidence(name="s=1", performance=auc(0.8 - case["part"])),),
        concept=concept(case["concept"]),
        upstreams=(
            UpstreamEvidence(
                model_id="e", trained_with=1, serves=2, compatibility=embeddings(0.86 - case["overlap"] * 0.3)
            ),
        ),
        volume=Volume(current=10 if case["lost"] else 1_000, before=(1_000,) * 4),
    )


@settings(max_examples=150, deadline=None)
@given(trouble, trouble, st.sampled_from(list(Fusion)))
def test_more_trouble_of_any_kind_is_never_better(one: dict[str, float], two: dict[str, float], fusion: Fusion) -> None:
    weights = Weights(age=0.2, input_drift=0.2, prediction_drift=0.1, performance=0.3, concept_drift=0.2)
    policy = StalenessPolicy(fusion=fusion, weights=weights, guardrails="accuracy 0.05")
    less, more = ({key: pick(one[key], two[key]) for key in one} for pick in (min, max))
    before, after = evaluate(policy, troubled(less), NOW), evaluate(policy, troubled(more), NOW)
    assert before.score <= after.score
    assert SEVERITY[before.level] <= SEVERITY[after.level]


@pytest.mark.parametrize("known", [None, feature_table([])])
def test_a_reference_that_is_missing_or_empty_is_said(known: object) -> None:
    found = evaluate(StalenessPolicy(), replace(healthy(), features=known, prediction=None), NOW)  # type: ignore[arg-type]
    [missing] = [one for one in found.signals if one.name == "input_drift"]
    assert missing.missing
    assert missing.explanation


def test_drift_of_a_shifted_feature_is_the_same_with_a_feature_that_never_arrived() -> None:
    alone = feature_table([numeric("x", SHIFTED), numeric("y")])
    beside = feature_table([numeric("x", SHIFTED), numeric("gone", [0] * 11), numeric("y")])
    one, two = (evaluate(StalenessPolicy(), healthy(table=table), NOW) for table in (alone, beside))
    assert (one.score, one.top_features) == (two.score, two.top_features)
    assert two.data_quality == ("gone does not arrive any more: the set of features changed",)
