"""The offline gate, by example."""

import pytest
from msgspec.structs import replace

from control_plane.core.errors import Invalid
from control_plane.core.rollout.gate import direction_of, gate
from control_plane.core.rollout.types import SliceEvidence, ValidationCheck, ValidationEvidence, ValidationPolicy

EQUAL = ValidationEvidence(metric="auc", candidate=0.75, production=0.75, standard_error=0.001, sample_size=20_000)
POLICY = ValidationPolicy(margin=0.005)


@pytest.mark.parametrize(
    ("candidate", "error", "with_canary", "alone"),
    [
        (0.750, 0.001, True, True),
        (0.749, 0.001, True, True),
        (0.746, 0.001, False, False),  # within the margin, but not shown to be, by a holdout that could
        (0.730, 0.001, False, False),
        (0.750, 0.020, True, True),  # too small a holdout: the canary tells, or the estimate
        (0.748, 0.0028, True, True),  # an equal one would pass too seldom for the test to decide
        (0.740, 0.020, True, False),
        (0.650, 0.020, False, False),  # worse for sure, however small the holdout
        (0.745, 0.0, True, True),  # today's rule where no standard error is known
        (0.744, 0.0, False, False),
    ],
)
def test_the_primary_metric(candidate: float, error: float, with_canary: bool, alone: bool) -> None:
    evidence = replace(EQUAL, candidate=candidate, standard_error=error)
    assert gate(evidence, POLICY, True, canary=True).passed is with_canary
    assert gate(evidence, POLICY, True, canary=False).passed is alone
    mirrored = replace(evidence, candidate=1.5 - candidate)
    assert gate(mirrored, POLICY, False, canary=True).passed is with_canary


def test_a_first_version_has_only_absolute_checks() -> None:
    first = replace(EQUAL, production=None, sample_size=0, latency_p99_ms=20.0)
    assert gate(first, POLICY, True, canary=False).passed
    assert not gate(first, replace(POLICY, latency_ms_max=10.0), True, canary=False).passed


@pytest.mark.parametrize(
    ("policy", "evidence", "name"),
    [
        ({"calibration_max": 0.05}, {"calibration_error": 0.06}, "calibration"),
        ({"calibration_max": 0.05}, {}, "calibration"),
        ({"latency_ms_max": 10.0}, {"latency_p99_ms": 11.0}, "latency"),
        ({"size_mb_max": 10.0}, {}, "size"),
        ({}, {"loads": False}, "load"),
        ({"embedding_compatible": True}, {"embedding_overlap": 0.5}, "embedding"),
        ({"embedding_compatible": True}, {}, "embedding"),
        ({"rows_min": 30_000}, {}, "rows"),
        ({}, {"custom": (ValidationCheck(name="fairness", passed=False),)}, "fairness"),
    ],
)
def test_each_guardrail_refuses_by_its_name(policy: dict[str, object], evidence: dict[str, object], name: str) -> None:
    found = gate(replace(EQUAL, **evidence), replace(POLICY, **policy), True, canary=True)
    assert [check.name for check in found.checks if not check.passed] == [name]
    assert not found.passed and found.explanation


def test_what_is_to_replace_a_version_must_have_been_compared_with_it() -> None:
    alone = replace(EQUAL, production=None)
    found = gate(alone, POLICY, True, canary=True, production_before=3)
    assert not found.passed
    assert "version 3 is in production and was not measured" in found.explanation
    assert gate(alone, POLICY, True, canary=True, production_before=0).passed


@pytest.mark.parametrize(
    ("policy", "evidence", "told"),
    [
        (
            {},
            {"candidate": 0.730},
            "auc 0.7300 against 0.7500 on 20000 rows: worse by more than 0.005, for sure "
            "(worse by 0.0200, at best by 0.0184): look at what it was trained on",
        ),
        (
            {},
            {"candidate": 0.746},
            "auc 0.7460 against 0.7500 on 20000 rows: not shown to be within 0.005: it may be worse by 0.00564; "
            "measure it on more rows, or allow more by validation.margin",
        ),
        (
            {},
            {"candidate": 0.740, "standard_error": 0.01},
            "auc 0.7400 against 0.7500 on 20000 rows: beyond the margin of 0.005 by the estimate alone: 20000 rows "
            "prove neither (worse by 0.0100, standard error 0.0100; about 494,605 can)",
        ),
        (
            {},
            {"candidate": 0.740, "standard_error": 0.0},
            "auc 0.7400 against 0.7500 on 20000 rows: beyond the margin of 0.005 by the estimate alone: "
            "no standard error of the difference was reported, so nothing is shown",
        ),
        (
            {"latency_ms_max": 10.0},
            {"latency_p99_ms": 14.2},
            "p99 latency in ms 14.2, at most 10 is asked for: make it faster, or raise validation.latency_ms_max",
        ),
        (
            {"size_mb_max": 10.0},
            {},
            "size in MB was not reported, at most 10 is asked for: report evidence.size_mb",
        ),
        (
            {"rows_min": 30_000},
            {},
            "the holdout has 20000 rows, at least 30000 are asked for: hold out more, or lower validation.rows_min",
        ),
        (
            {"slice_margin": 0.02},
            {},
            "no slice was reported, validation.slice_margin asks for some: report evidence.slices",
        ),
        (
            {"slice_margin": 0.02},
            {
                "slices": (
                    SliceEvidence(slice="a", candidate=0.6, production=0.7, standard_error=0.01, sample_size=900),
                )
            },
            "a: 0.6000 against 0.7000 on 900 rows, surely worse by more than 0.02 (worse by 0.1000, at best by 0.0835)"
            ": look at what is special about these rows",
        ),
    ],
)
def test_what_is_wrong_is_told_with_numbers_and_what_to_do(
    policy: dict[str, object], evidence: dict[str, object], told: str
) -> None:
    found = gate(replace(EQUAL, **evidence), replace(POLICY, **policy), True, canary=False)
    assert found.explanation == told


def test_slices_that_are_not_judged_are_shown() -> None:
    small = SliceEvidence(slice="a", candidate=0.1, production=0.7, standard_error=0.01, sample_size=30)
    for policy, why in ((POLICY, "30 rows"), (replace(POLICY, slice_margin=0.02), "too few to judge")):
        found = gate(replace(EQUAL, slices=(small,)), policy, True, canary=False)
        [shown] = [check for check in found.checks if check.name == "slice:a"]
        assert found.passed
        assert shown.passed
        assert why in shown.explanation


def test_slices_share_the_level_and_small_ones_are_not_judged() -> None:
    def one(name: str, candidate: float, rows: int = 1_000) -> SliceEvidence:
        return SliceEvidence(slice=name, candidate=candidate, production=0.75, standard_error=0.01, sample_size=rows)

    policy = replace(POLICY, slice_margin=0.02)
    bad, chance, small = one("bad", 0.68), one("chance", 0.712), one("small", 0.5, rows=100)
    assert not gate(replace(EQUAL, slices=(chance,)), policy, True, canary=True).passed
    many = (chance, small, *(one(f"other{number}", 0.75) for number in range(9)))
    assert gate(replace(EQUAL, slices=many), policy, True, canary=True).passed
    refused = gate(replace(EQUAL, slices=(*many, bad)), policy, True, canary=True)
    assert [check.name for check in refused.checks if not check.passed] == ["slice:bad"]


@pytest.mark.parametrize(("metric", "higher"), [("auc", True), ("r2", True), ("rmse", False), ("log_loss", False)])
def test_known_metrics_know_their_direction(metric: str, higher: bool) -> None:
    assert direction_of(replace(EQUAL, metric=metric)) is higher
    assert direction_of(replace(EQUAL, metric=metric, higher_is_better=higher)) is higher
    with pytest.raises(Invalid, match=metric):
        direction_of(replace(EQUAL, metric=metric, higher_is_better=not higher))


def test_any_other_metric_says_its_direction() -> None:
    with pytest.raises(Invalid, match="ndcg@10"):
        direction_of(replace(EQUAL, metric="ndcg@10"))
    assert direction_of(replace(EQUAL, metric="ndcg@10", higher_is_better=True))
    assert not direction_of(replace(EQUAL, metric="cost", higher_is_better=False))
