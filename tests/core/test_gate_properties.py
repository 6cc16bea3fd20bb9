"""The offline gate against a dumb twin, and what must hold of it whatever is measured."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.core.errors import Invalid
from control_plane.core.rollout.gate import direction_of, gate
from control_plane.core.rollout.types import SliceEvidence, ValidationCheck, ValidationEvidence, ValidationPolicy
from tests.reference import gate_twin

VALUE = st.integers(0, 1_000).map(lambda n: n / 1_000)
ERROR = st.sampled_from([0.0, 0.0005, 0.002, 0.01, 0.05])
ROWS = st.one_of(st.integers(1, 40), st.integers(40, 100_000))
MAYBE = st.none() | st.integers(0, 40).map(float)


@st.composite
def measured(draw: st.DrawFn) -> ValidationEvidence:
    production = draw(st.none() | VALUE)
    # Most differences are about as large as the margins and errors, or nothing would be decided by a test.
    near = (production or 0.5) + draw(st.integers(-40, 40)) / 1_000
    slices = draw(
        st.lists(
            st.builds(
                lambda at, base, by, error, rows: SliceEvidence(
                    slice=f"s{at}", candidate=base + by, production=base, standard_error=error, sample_size=rows
                ),
                st.integers(0, 10_000),
                VALUE,
                st.integers(-100, 100).map(lambda n: n / 1_000),
                ERROR,
                ROWS,
            ),
            max_size=4,
            unique_by=lambda one: one.slice,
        )
    )
    return ValidationEvidence(
        metric="score",
        candidate=draw(VALUE | st.just(near)),
        production=production,
        standard_error=draw(ERROR),
        sample_size=draw(st.integers(0, 3) | ROWS),
        slices=() if production is None else tuple(slices),
        calibration_error=draw(MAYBE),
        latency_p99_ms=draw(MAYBE),
        size_mb=draw(MAYBE),
        loads=draw(st.sampled_from([None, True, False])),
        embedding_overlap=draw(st.none() | st.floats(0, 1.2)),
        custom=tuple(draw(st.lists(st.builds(ValidationCheck, name=st.just("own"), passed=st.booleans()), max_size=1))),
    )


POLICIES = st.builds(
    ValidationPolicy,
    margin=st.sampled_from([0.0, 0.005, 0.02]),
    significance=st.sampled_from([0.01, 0.05, 0.2]),
    slice_margin=st.sampled_from([0.0, 0.01, 0.05]),
    slice_rows_min=st.sampled_from([1, 200]),
    calibration_max=st.sampled_from([0.0, 20.0]),
    latency_ms_max=st.sampled_from([0.0, 20.0]),
    size_mb_max=st.sampled_from([0.0, 20.0]),
    embedding_compatible=st.booleans(),
    rows_min=st.sampled_from([0, 30]),
)


@given(measured(), POLICIES, st.booleans(), st.booleans(), st.integers(0, 1))
def test_what_fails_is_what_the_twin_fails(
    evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool, canary: bool, before: int
) -> None:
    assume(not any(gate_twin.close_calls(evidence, policy, higher)))
    found = gate(evidence, policy, higher, canary=canary, production_before=before)
    expected = set(gate_twin.failed(evidence, policy, higher, canary=canary, production_before=before))
    assert {check.name for check in found.checks if not check.passed} == expected
    assert found.passed is (expected == set())


@given(measured(), POLICIES, st.booleans(), st.booleans())
def test_each_check_says_something_and_what_fails_says_what_to_do(
    evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool, canary: bool
) -> None:
    found = gate(evidence, policy, higher, canary=canary, production_before=1)
    assert all(check.explanation for check in found.checks)
    assert {one.slice for one in evidence.slices} <= {check.name.removeprefix("slice:") for check in found.checks}
    failed = [check for check in found.checks if not check.passed]
    for at, check in enumerate(failed):
        assert check.name in {"own", "primary"} or ": " in check.explanation
        assert (check.explanation if at == 0 or len(failed) <= 2 else check.name) in found.explanation or at > 5


@given(measured(), POLICIES, st.booleans(), st.booleans())
def test_it_is_the_same_gate_for_a_metric_of_which_less_is_better(
    evidence: ValidationEvidence, policy: ValidationPolicy, higher: bool, canary: bool
) -> None:
    mirrored = replace(
        evidence,
        candidate=-evidence.candidate,
        production=None if evidence.production is None else -evidence.production,
        slices=tuple(replace(one, candidate=-one.candidate, production=-one.production) for one in evidence.slices),
    )
    straight = gate(evidence, policy, higher, canary=canary)
    turned = gate(mirrored, policy, not higher, canary=canary)
    assert [(one.name, one.passed) for one in straight.checks] == [(one.name, one.passed) for one in turned.checks]


@given(measured(), POLICIES, st.booleans(), st.floats(0, 0.1))
def test_a_better_candidate_never_fails_where_a_worse_one_passes(
    evidence: ValidationEvidence, policy: ValidationPolicy, canary: bool, more: float
) -> None:
    better = replace(
        evidence,
        candidate=evidence.candidate + more,
        slices=tuple(replace(one, candidate=one.candidate + more) for one in evidence.slices),
    )
    if gate(evidence, policy, True, canary=canary).passed:
        assert gate(better, policy, True, canary=canary).passed


@pytest.mark.parametrize("rows", [6, 12, 60])
def test_one_that_is_worse_by_the_margin_passes_no_more_often_than_the_level_says(rows: int) -> None:
    rng = np.random.default_rng(rows)
    policy = ValidationPolicy(margin=8.0, significance=0.05)
    passed = {-8.0: 0, 0.0: 0}
    for truth in passed:
        # Paired: what matters is how the differences of the rows vary, not the rows. Their mean has an error of 1.
        for differences in rng.normal(truth, math.sqrt(rows), size=(4_000, rows)):
            evidence = ValidationEvidence(
                metric="rmse",
                candidate=100.0 - float(differences.mean()),
                production=100.0,
                standard_error=float(differences.std(ddof=1)) / math.sqrt(rows),
                sample_size=rows,
            )
            passed[truth] += gate(evidence, policy, False, canary=False).passed
    assert passed[-8.0] / 4_000 < 0.06  # the normal distribution would pass 7.4 % of them at 8 rows, 8 % at 6
    assert passed[0.0] / 4_000 > 0.95


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "field", ["candidate", "production", "standard_error", "calibration_error", "latency_p99_ms", "size_mb"]
)
def test_what_is_no_number_is_never_compared(field: str, bad: float) -> None:
    evidence = ValidationEvidence(metric="auc", candidate=0.7, production=0.7, standard_error=0.001, sample_size=9_000)
    with pytest.raises(Invalid, match="finite number") as refused:
        direction_of(replace(evidence, **{field: bad}))
    assert [one.field for one in refused.value.violations] == [f"evidence.{field}"]


def test_all_that_is_wrong_with_evidence_is_said_at_once() -> None:
    spoiled = SliceEvidence(slice="x", candidate=math.nan, production=0.5, standard_error=-1.0, sample_size=-3)
    with pytest.raises(Invalid) as refused:
        direction_of(ValidationEvidence(metric="ndcg@10", candidate=0.7, standard_error=-0.1, slices=(spoiled,)))
    assert {one.field for one in refused.value.violations} == {
        "evidence.slices[0].candidate",
        "evidence.slices[0].standard_error",
        "evidence.slices[0].sample_size",
        "evidence.standard_error",
        "evidence.higher_is_better",
    }
