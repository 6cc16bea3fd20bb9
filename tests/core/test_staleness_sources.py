"""What a performance stands on: outcomes, weaker sources, guardrails, slices, concept drift; and how sure each is."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from control_plane.core.staleness.evaluation import evaluate
from control_plane.core.staleness.evidence import (
    ConceptCounts,
    Evidence,
    MetricRole,
    PerformanceEvidence,
    PerformanceSource,
    ScoreAt,
    SliceEvidence,
    UpstreamEvidence,
    feature_table,
)
from control_plane.core.staleness.explain import explain
from control_plane.core.staleness.guardrails import guardrail_violations, tolerances
from control_plane.core.staleness.policy import StalenessPolicy, Weights, policy_violations
from control_plane.core.staleness.verdict import Action, Confidence, Evaluation, Level, Signal
from control_plane.core.statistics.sample import InvalidSample
from tests.core.staleness_evidence import NOW, SHIFTED, auc, concept, embeddings, features, healthy, numeric

POLICY = StalenessPolicy()
PROXY = replace(auc(0.77), source=PerformanceSource.PROXY, proxy="click_rate")
DOWNSTREAM = replace(auc(0.76), source=PerformanceSource.DOWNSTREAM, detail="read off 3 labelled consumers")
ESTIMATE = replace(auc(0.75), source=PerformanceSource.ESTIMATE)


def look(evidence: Evidence, policy: StalenessPolicy = POLICY) -> Evaluation:
    """One look."""
    return evaluate(policy, evidence, NOW)


def signal(found: Evaluation, name: str = "performance") -> Signal:
    """A signal by name."""
    return next(one for one in found.signals if one.name == name)


def few(*fallbacks: PerformanceEvidence) -> Evidence:
    """A model with 37 outcomes and what may stand in for them."""
    return replace(healthy(performance=auc(0.4, sample_size=37)), fallbacks=fallbacks)


@pytest.mark.parametrize(
    ("fallbacks", "source", "confidence"),
    [
        ((PROXY, DOWNSTREAM, ESTIMATE), PerformanceSource.PROXY, Confidence.MEDIUM),
        ((replace(PROXY, proxy_correlation=0.8), ESTIMATE), PerformanceSource.PROXY, Confidence.MEDIUM),
        ((replace(PROXY, proxy_correlation=0.1), ESTIMATE), PerformanceSource.PROXY, Confidence.LOW),
        ((replace(PROXY, proxy_correlation=float("nan")),), PerformanceSource.PROXY, Confidence.LOW),
        ((DOWNSTREAM, ESTIMATE), PerformanceSource.DOWNSTREAM, Confidence.MEDIUM),
        ((ESTIMATE,), PerformanceSource.ESTIMATE, Confidence.LOW),
        ((replace(PROXY, sample_size=10), ESTIMATE), PerformanceSource.ESTIMATE, Confidence.LOW),
        ((replace(PROXY, baseline=None), ESTIMATE), PerformanceSource.ESTIMATE, Confidence.LOW),
        ((replace(PROXY, current=float("nan")), DOWNSTREAM), PerformanceSource.DOWNSTREAM, Confidence.MEDIUM),
    ],
)
def test_the_first_usable_source_stands_in_for_few_outcomes(
    fallbacks: tuple[PerformanceEvidence, ...], source: PerformanceSource, confidence: Confidence
) -> None:
    found = look(few(*fallbacks))
    assert (signal(found).source, found.confidence, signal(found).missing) == (source, confidence, False)
    assert "37 of the 200 outcomes" in signal(found).explanation
    assert found.metrics[0].source is source


def test_enough_outcomes_leave_no_room_for_a_guess() -> None:
    found = look(replace(healthy(), fallbacks=(PROXY, ESTIMATE)))
    assert (signal(found).source, found.confidence, found.score) == (
        PerformanceSource.LABELS,
        Confidence.HIGH,
        look(healthy()).score,
    )


def test_weaker_sources_say_what_they_are() -> None:
    estimated = look(few(ESTIMATE))
    assert "estimated from the scores alone, blind to concept drift" in signal(estimated).explanation
    assert "send outcomes or add a proxy metric" in estimated.confidence_reason
    assert "read off 3 labelled consumers" in signal(look(few(DOWNSTREAM))).explanation
    followed = look(few(replace(PROXY, proxy_correlation=0.62)))
    assert "proxy click_rate, which follows it with r = 0.62" in signal(followed).explanation


def test_a_policy_may_refuse_estimates_but_never_a_proxy() -> None:
    policy = StalenessPolicy(estimate=False)
    assert signal(look(few(DOWNSTREAM, ESTIMATE), policy)).missing
    assert signal(look(few(DOWNSTREAM, ESTIMATE, PROXY), policy)).source is PerformanceSource.PROXY


@pytest.mark.parametrize("weak", [PROXY, DOWNSTREAM, ESTIMATE])
def test_only_outcomes_are_below_a_floor(weak: PerformanceEvidence) -> None:
    policy = StalenessPolicy(performance_floor=0.79)
    assert look(few(weak), policy).hard_triggers == ()
    assert look(healthy(performance=weak), policy).hard_triggers == ()
    assert look(healthy(performance=auc(0.78)), policy).level is Level.STALE


def brier(current: float, **changes: object) -> PerformanceEvidence:
    """Brier score against a baseline of 0.15."""
    own = replace(auc(), metric="brier", higher_is_better=False, baseline=0.15, current=current, current_error=0.002)
    return replace(own, **changes)  # type: ignore[arg-type]


def test_a_guardrail_vetoes_fresh_and_says_why() -> None:
    policy = StalenessPolicy(guardrails="brier 0.02, accuracy 0.05")
    fine = look(replace(healthy(), guardrails=(brier(0.16),)), policy)
    assert fine.level is Level.FRESH
    found = look(replace(healthy(), guardrails=(brier(0.18),)), policy)
    assert (found.level, found.recommended_action) == (Level.AT_RISK, Action.WAIT)
    assert found.reasons[0].startswith("guardrail brier went from 0.15 to 0.18")
    assert [(one.name, one.role, one.tolerance) for one in found.metrics] == [
        ("auc", MetricRole.PRIMARY, 0.05),
        ("brier", MetricRole.GUARDRAIL, 0.02),
    ]
    assert found.metrics[1].drop_low < found.metrics[1].drop < found.metrics[1].drop_high
    assert any("guardrail brier" in line for line in explain(found))


@pytest.mark.parametrize(
    "guard", [brier(0.18, sample_size=10), brier(0.18, baseline=None), brier(0.18, current_error=0.01), brier(np.nan)]
)
def test_an_unsure_guardrail_is_none(guard: PerformanceEvidence) -> None:
    policy = StalenessPolicy(guardrails="brier 0.02")
    assert look(replace(healthy(), guardrails=(guard,)), policy).level is Level.FRESH
    assert look(replace(healthy(), guardrails=(brier(0.5),)), POLICY).level is Level.FRESH


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("brier", "is not a guardrail"),
        ("brier 0.02,, accuracy 0.05", "'' is not a guardrail"),
        ("brier 0.02 0.03", "is not a guardrail"),
        ("brier -0.02", "the tolerance of brier is '-0.02': give a positive number"),
        ("brier nan", "give a positive number"),
        ("brier inf", "give a positive number"),
        ("brier x", "give a positive number"),
        ("brier 0.02, brier 0.03", "brier is named twice"),
        ("breir 0.02", "there is no metric breir: it is one of auc, brier"),
        ("auc 0.02", "auc is the primary metric"),
        ("a" * 2_000, "1,000"),
    ],
)
def test_guardrails_that_are_none_are_refused(text: str, words: str) -> None:
    found = guardrail_violations(text, "staleness.guardrails", metrics=["auc", "brier"], primary="auc")
    assert words in " ".join(one.message for one in found)
    assert {one.field for one in found} == {"staleness.guardrails"}


def test_guardrails_are_read_with_any_spaces() -> None:
    assert tolerances(" brier  0.02 ,accuracy 5e-2") == {"brier": 0.02, "accuracy": 0.05}
    assert tolerances("  ") == {}
    policy = StalenessPolicy(guardrails="brier 0.02, x")
    assert [one.field for one in policy_violations(policy)] == ["staleness.guardrails"]


def parts(*drops: float, error: float = 0.01) -> tuple[SliceEvidence, ...]:
    """Slices whose AUC dropped by so much."""
    return tuple(
        SliceEvidence(name=f"country={at}", performance=auc(0.80 - drop, error=error)) for at, drop in enumerate(drops)
    )


def test_a_slice_that_surely_dropped_is_a_veto() -> None:
    found = look(replace(healthy(), slices=parts(0.0, 0.0, 0.15)))
    assert found.level is Level.AT_RISK
    assert found.reasons[0].startswith("in slice country=2 auc went from 0.8 to 0.65")
    assert [one.slice for one in found.metrics] == ["", "country=0", "country=1", "country=2"]


def test_many_slices_need_more_evidence_each() -> None:
    drop, error = 0.05 + 2 * 0.01, 0.01  # two standard errors beyond the tolerance
    assert look(replace(healthy(), slices=parts(drop, error=error))).level is Level.AT_RISK
    many = parts(drop, *([0.0] * 20), error=error)
    assert look(replace(healthy(), slices=many)).level is Level.FRESH


def test_a_slice_may_drift_although_the_whole_does_not() -> None:
    drifted = feature_table([numeric("x", SHIFTED), *(numeric(f"f{at}") for at in range(9))])
    slices = (SliceEvidence(name="device=tv", features=drifted), SliceEvidence(name="device=web", features=features()))
    found = look(replace(healthy(), slices=slices))
    assert "in slice device=tv x drifted, although the whole did not" in found.reasons
    assert [(one.slice, one.drifted_share) for one in found.slices] == [("device=tv", 0.1), ("device=web", 0.0)]
    assert found.score == look(healthy()).score
    both = look(replace(healthy(table=features(drifted=1)), slices=slices))
    assert not any("although the whole" in reason for reason in both.reasons)


def test_slices_share_the_false_discovery_rate() -> None:
    slight = feature_table([numeric("x", [230, 170] * 5 + [0]), numeric("y")])
    policy = StalenessPolicy(psi_moderate=1e-4, false_discovery_rate=0.05)
    one = look(replace(healthy(), slices=(SliceEvidence(name="s=0", features=slight),)), policy).slices[0]
    chance = one.top_features[0].p_value
    strict = StalenessPolicy(psi_moderate=1e-4, false_discovery_rate=min(chance * 10, 1.0))
    alone = look(replace(healthy(), slices=(SliceEvidence(name="s=0", features=slight),)), strict).slices[0]
    assert alone.drifted_share > 0
    many = tuple(SliceEvidence(name=f"s={at}", features=slight) for at in range(30))
    assert look(replace(healthy(), slices=many), strict).slices[0].drifted_share == 0


def test_a_small_slice_says_nothing() -> None:
    small = feature_table([numeric("x", [0] * 9 + [90, 0])])
    assert look(replace(healthy(), slices=(SliceEvidence(name="s=0", features=small),))).slices == ()


def test_concept_drift_is_shown_where_outcomes_are_known_and_weighs_nothing_by_default() -> None:
    found = look(replace(healthy(), concept=concept(0.08)))
    assert signal(found, "concept_drift").value > 0.5
    assert found.score == look(healthy()).score
    assert len(look(healthy()).signals) == 4
    heavy = StalenessPolicy(
        weights=Weights(age=0.1, input_drift=0.1, prediction_drift=0.1, performance=0.1, concept_drift=0.6)
    )
    weighed = look(replace(healthy(), concept=concept(0.15)), heavy)
    assert (weighed.level, signal(weighed, "concept_drift").value) == (Level.STALE, 1.0)
    missing = look(healthy(), heavy)
    assert (signal(missing, "concept_drift").missing, missing.confidence) == (True, Confidence.MEDIUM)
    assert missing.score_high == pytest.approx(missing.score_low + 0.6)


def test_concept_drift_of_few_outcomes_or_by_chance_is_none() -> None:
    assert len(look(replace(healthy(), concept=concept(0.15, rows=5))).signals) == 4
    assert signal(look(replace(healthy(), concept=concept(0.0))), "concept_drift").value == 0
    column = np.array([5, 5])
    with pytest.raises(InvalidSample):
        ConceptCounts(
            reference_total=column, reference_positive=column + 1, current_total=column, current_positive=column
        )


def consumer(*upstreams: UpstreamEvidence) -> Evidence:
    """A healthy model whose upstreams serve other versions."""
    return replace(healthy(), upstreams=upstreams)


def test_incompatible_embeddings_make_a_consumer_stale_at_once() -> None:
    moved = UpstreamEvidence(model_id="route_embedding", trained_with=2, serves=3, compatibility=embeddings(0.31))
    found = look(consumer(moved))
    assert (found.level, found.recommended_action) == (Level.STALE, Action.RETRAIN)
    assert found.hard_triggers == (
        "its upstream route_embedding serves version 3, whose embeddings are not compatible with version 2 it was "
        "trained with: neighbours overlap 0.31, noise floor 0.86",
    )
    assert found.upstreams[0].compatible is False


def test_compatible_embeddings_make_nobody_stale_and_say_so() -> None:
    same = UpstreamEvidence(model_id="route_embedding", trained_with=2, serves=3, compatibility=embeddings(0.84))
    found = look(consumer(same))
    assert (found.level, found.confidence) == (Level.FRESH, Confidence.HIGH)
    assert any("are compatible with version 2" in reason for reason in found.reasons)
    assert any(line.startswith("Upstreams: ") for line in explain(found))


@pytest.mark.parametrize(("overlap", "compatible"), [(0.689, True), (0.687, False)])
def test_the_policy_says_which_share_of_the_floor_is_compatible(overlap: float, compatible: bool) -> None:
    edge = UpstreamEvidence(model_id="e", trained_with=1, serves=2, compatibility=embeddings(overlap))
    assert look(consumer(edge)).upstreams[0].compatible is compatible
    lax = StalenessPolicy(embedding_floor_share=0.1)
    assert look(consumer(edge), lax).upstreams[0].compatible is True


@pytest.mark.parametrize("known", [None, embeddings(float("nan"))])
def test_unknown_embeddings_cost_confidence_only(known: object) -> None:
    other = UpstreamEvidence(model_id="e", trained_with=1, serves=2, compatibility=known)  # type: ignore[arg-type]
    found = look(consumer(other))
    assert (found.level, found.confidence, found.upstreams) == (Level.FRESH, Confidence.MEDIUM, ())
    assert "nobody gave embeddings" in found.confidence_reason


def rising(step: float, looks: int = 10, base: float = 0.1) -> tuple[ScoreAt, ...]:
    """Daily scores that rise by `step`, the last of them now."""
    return tuple(ScoreAt(at=NOW - timedelta(days=looks - 1 - day), score=base + step * day) for day in range(looks))


def test_a_rising_score_has_a_date() -> None:
    found = look(replace(healthy(), history=rising(0.04)))
    days = (0.60 - 0.46) / 0.04
    assert found.crosses_at is not None
    assert (found.crosses_at - NOW).total_seconds() == pytest.approx(days * 86_400)
    assert found.forecast == "At this pace it is stale around Jun 4."


def test_a_flat_score_ends_with_the_backstop() -> None:
    found = look(replace(healthy(age_days=20), history=rising(0.0)))
    assert found.crosses_at == NOW + timedelta(days=10)
    assert found.forecast == "By its age alone it is stale on Jun 11."


def test_what_is_stale_or_never_will_be_has_no_date() -> None:
    assert look(replace(healthy(age_days=31), history=rising(0.04))).crosses_at is None
    patient = StalenessPolicy(age_backstop_days=1e6)
    found = look(replace(healthy(), history=rising(-0.01, base=0.3)), patient)
    assert (found.crosses_at, found.forecast) == (None, "")
    assert look(replace(healthy(), trained_until=None)).crosses_at is None
