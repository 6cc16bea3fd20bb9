"""RolloutService: validation, promotion, refusal and roll-back."""

from datetime import timedelta

import grpc
import pytest
from runway.v1 import common_pb2, policies_pb2, registry_pb2, retraining_pb2, rollout_pb2, staleness_pb2

from tests.api.worlds import Api, by, refused, span

VALIDATING = rollout_pb2.ROLLOUT_STATE_VALIDATING
PROMOTED = rollout_pb2.ROLLOUT_STATE_PROMOTED
REFUSED = rollout_pb2.ROLLOUT_STATE_REFUSED
ABORTED = rollout_pb2.ROLLOUT_STATE_ABORTED
ROLLED_BACK = rollout_pb2.ROLLOUT_STATE_ROLLED_BACK


async def candidate(api: Api, model_id: str) -> int:
    """Retrain a model up to its candidate."""
    await api.retrain(model_id)
    [lease] = [lease for lease in await api.lease() if lease.model_id == model_id]
    return await api.trained(lease)


def validated(
    model_id: str, version: int, *, passed: bool, **changes: float | str
) -> rollout_pb2.ReportValidationRequest:
    """A comparison."""
    validation = rollout_pb2.Validation(passed=passed, metric="auc", candidate=0.8, production=0.7, sample_size=1000)
    for name, value in changes.items():
        setattr(validation, name, value)
    return rollout_pb2.ReportValidationRequest(mutation=by(), model_id=model_id, version=version, validation=validation)


async def aliases(api: Api, model_id: str) -> dict[str, int]:
    found = await api.registry.GetModel(registry_pb2.GetModelRequest(model_id=model_id))
    return dict(found.model.aliases)


async def test_a_candidate_that_passes_is_promoted_and_its_downstream_cools_down(api: Api) -> None:
    await api.serving("up")
    await api.serving(
        "down",
        policies=policies_pb2.Policies(
            retraining=policies_pb2.RetrainingPolicy(cascade_cooldown=span(timedelta(hours=2)))
        ),
    )
    await api.edge("model:up", "model:down")
    version = await candidate(api, "up")
    report = validated("up", version, passed=True)
    rollout = (await api.rollout.ReportValidation(report)).rollout
    assert (rollout.state, rollout.production_before, rollout.validation.candidate) == (PROMOTED, 1, 0.8)
    assert await aliases(api, "up") == {"production": 2, "previous": 1}
    retrain = await api.find_retrain(rollout.retrain_id)
    assert retrain.state == retraining_pb2.RETRAIN_STATE_PROMOTED
    assert retrain.conclusion == "version 2 promoted: auc 0.8000 against 0.7000"
    # Told again, it is the same report; told otherwise, it is too late.
    assert (await api.rollout.ReportValidation(report)).rollout == rollout
    other = await refused(api.rollout.ReportValidation(validated("up", version, passed=False)))
    assert (other.code, other.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROLLOUT_FINISHED")
    # Its downstream is asked to wait; an operator may say to ignore that.
    down = await api.retrain("down", ignore_cooldown=False)
    assert [text.partition(" (")[0] for text in down.waiting_for] == ["the cooldown after an upstream promotion"]
    assert await api.lease() == []
    await api.pass_time(timedelta(hours=2))
    assert [lease.model_id for lease in await api.lease()] == ["down"]


async def test_a_candidate_that_is_worse_is_refused_and_production_stays(api: Api) -> None:
    await api.serving("delay")
    version = await candidate(api, "delay")
    report = validated("delay", version, passed=False, explanation="worse by 0.02")
    rollout = (await api.rollout.ReportValidation(report)).rollout
    assert (rollout.state, rollout.conclusion) == (REFUSED, "worse by 0.02")
    assert await aliases(api, "delay") == {"production": 1}
    retrain = await api.find_retrain(rollout.retrain_id)
    assert (retrain.state, retrain.conclusion) == (
        retraining_pb2.RETRAIN_STATE_REFUSED,
        "version 2 refused: worse by 0.02",
    )


async def test_a_candidate_nobody_validates_is_refused_in_the_end(api: Api) -> None:
    await api.serving(
        "delay",
        policies=policies_pb2.Policies(validation=policies_pb2.ValidationPolicy(timeout=span(timedelta(hours=1)))),
    )
    version = await candidate(api, "delay")
    await api.pass_time(timedelta(hours=1, seconds=1))
    found = (await api.rollout.GetRollout(rollout_pb2.GetRolloutRequest(rollout_id="ro_000002"))).rollout
    assert (found.state, found.conclusion) == (REFUSED, "no validation was reported within 1 hour")
    late = await refused(api.rollout.ReportValidation(validated("delay", version, passed=True)))
    assert late.reason == "ROLLOUT_FINISHED"
    assert "refused" in late.message


async def test_a_cancelled_retrain_drops_its_candidate(api: Api) -> None:
    await api.serving("delay")
    await candidate(api, "delay")
    cancel = retraining_pb2.CancelRetrainRequest(retrain_id="rt_000001")
    await api.retraining.CancelRetrain(cancel)
    assert await aliases(api, "delay") == {"production": 1}
    found = (await api.rollout.GetRollout(rollout_pb2.GetRolloutRequest(rollout_id="ro_000002"))).rollout
    assert (found.state, found.conclusion) == (ABORTED, "its retrain was cancelled by request")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
async def test_numbers_that_no_comparison_gives_promote_nothing(api: Api, number: float) -> None:
    await api.serving("delay")
    version = await candidate(api, "delay")
    refusal = await refused(
        api.rollout.ReportValidation(validated("delay", version, passed=True, candidate=number, production=number))
    )
    assert set(refusal.violations) == {"validation.candidate", "validation.production"}
    empty = await refused(api.rollout.ReportValidation(validated("delay", version, passed=True, sample_size=0)))
    assert empty.violations == {"validation.sample_size": "EVIDENCE"}
    assert (await aliases(api, "delay"))["production"] == 1


async def test_a_version_that_never_passed_is_promoted_by_force_and_with_a_reason_only(api: Api) -> None:
    await api.model("delay")
    await api.version("delay")

    async def promote(version: int, *, force: bool, reason: str) -> rollout_pb2.Rollout:
        request = rollout_pb2.PromoteVersionRequest(
            mutation=by(reason=reason), model_id="delay", version=version, force=force
        )
        return (await api.rollout.PromoteVersion(request)).rollout

    unforced = await refused(promote(1, force=False, reason="please"))
    assert (unforced.code, unforced.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VALIDATION_REQUIRED")
    assert (await refused(promote(1, force=True, reason=" "))).violations == {"mutation.reason": "REQUIRED"}
    assert (await refused(promote(2, force=True, reason="x"))).reason == "VERSION_NOT_FOUND"
    promoted = await promote(1, force=True, reason="the first one")
    assert (promoted.state, promoted.production_before) == (PROMOTED, 0)
    before = await api.revision()
    await promote(1, force=True, reason="again")
    assert await api.revision() == before


async def test_promoting_by_hand_ends_the_rollout_that_was_under_way(api: Api) -> None:
    await api.serving("delay")
    await api.version("delay")
    await candidate(api, "delay")
    await api.promote("delay", 2)
    assert await aliases(api, "delay") == {"production": 2, "previous": 1}
    retrain = await api.find_retrain("rt_000001")
    assert retrain.conclusion == "version 3 refused: version 2 was promoted by hand meanwhile"
    # The retrain is over: the next one can be asked for.
    assert (await api.retrain("delay")).retrain_id == "rt_000002"


async def test_going_back_and_forth(api: Api) -> None:
    await api.serving("delay")
    back = rollout_pb2.RollBackRequest(mutation=by(reason="bad"), model_id="delay")
    first = await refused(api.rollout.RollBack(back))
    assert (first.code, first.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_PREVIOUS_VERSION")
    await api.version("delay")
    await api.promote("delay", 2)
    rollout = (await api.rollout.RollBack(back)).rollout
    assert (rollout.version, rollout.state, rollout.conclusion) == (2, ROLLED_BACK, "rolled back to version 1")
    assert await aliases(api, "delay") == {"production": 1, "previous": 2}
    await api.rollout.RollBack(back)
    assert await aliases(api, "delay") == {"production": 2, "previous": 1}
    moves = await api.registry.ListAliasMoves(registry_pb2.ListAliasMovesRequest(model_id="delay", alias="production"))
    assert [move.to_version for move in moves.moves] == [2, 1, 2, 1]


async def test_a_dry_roll_back_or_promotion_changes_nothing(api: Api) -> None:
    await api.serving("delay")
    await api.version("delay")
    await api.promote("delay", 2)
    before = await api.revision()
    dry = by(validate_only=True, reason="try")
    await api.rollout.RollBack(rollout_pb2.RollBackRequest(mutation=dry, model_id="delay"))
    await api.rollout.PromoteVersion(
        rollout_pb2.PromoteVersionRequest(mutation=dry, model_id="delay", version=1, force=True)
    )
    assert await api.revision() == before
    assert await aliases(api, "delay") == {"production": 2, "previous": 1}


async def test_unknown_rollouts_and_models(api: Api) -> None:
    get = rollout_pb2.GetRolloutRequest(rollout_id="ro_000001")
    found = await refused(api.rollout.GetRollout(get))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "ROLLOUT_NOT_FOUND")
    assert (await refused(api.rollout.RollBack(rollout_pb2.RollBackRequest(model_id="x")))).reason == "MODEL_NOT_FOUND"
    assert (await refused(api.rollout.ReportValidation(validated("x", 1, passed=True)))).reason == "MODEL_NOT_FOUND"
    bare = rollout_pb2.ReportValidationRequest(model_id="x")
    assert set((await refused(api.rollout.ReportValidation(bare))).violations) == {"version", "report"}
    await api.model("x")
    assert (await refused(api.rollout.ReportValidation(validated("x", 1, passed=True)))).reason == "VERSION_NOT_FOUND"


async def test_rollouts_are_listed_newest_first_in_stable_pages(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.serving(name)
    page = common_pb2.PageRequest(page_size=2)
    first = await api.rollout.ListRollouts(rollout_pb2.ListRolloutsRequest(page=page))
    await api.serving("d")
    page.page_token = first.next_page_token
    second = await api.rollout.ListRollouts(rollout_pb2.ListRolloutsRequest(page=page))
    assert [one.model_id for one in (*first.rollouts, *second.rollouts)] == ["c", "b", "a"]
    of_one = await api.rollout.ListRollouts(rollout_pb2.ListRolloutsRequest(model_id="model:b"))
    assert [one.rollout_id for one in of_one.rollouts] == ["ro_000002"]


async def test_nothing_is_known_about_a_version_that_has_just_been_promoted(api: Api) -> None:
    await api.serving("delay")
    found = await api.staleness.GetStaleness(staleness_pb2.GetStalenessRequest(model_id="delay"))
    assert found.staleness.verdict == staleness_pb2.VERDICT_UNKNOWN


async def test_a_candidate_waits_for_the_checks_of_others(api: Api) -> None:
    checked = policies_pb2.Policies(validation=policies_pb2.ValidationPolicy(checks="fairness"))
    await api.serving("delay")
    await api.policies.SetPolicies(
        policies_pb2.SetPoliciesRequest(mutation=by(), scope="model:delay", policies=checked)
    )
    version = await candidate(api, "delay")
    waiting = (await api.rollout.ReportValidation(validated("delay", version, passed=True))).rollout
    assert (waiting.state, list(waiting.missing_checks)) == (VALIDATING, ["fairness"])
    assert any("runway rollouts check" in words for words in waiting.waiting_for)
    nameless = rollout_pb2.ReportCheckRequest(
        mutation=by(), model_id="delay", version=version, check=rollout_pb2.ValidationCheck(passed=True)
    )
    assert set((await refused(api.rollout.ReportCheck(nameless))).violations) == {"check.name"}
    nameless.check.name = "fairness"
    done = (await api.rollout.ReportCheck(nameless)).rollout
    assert (done.state, list(done.missing_checks), [one.name for one in done.checks]) == (PROMOTED, [], ["fairness"])


async def test_evidence_names_its_metric_and_which_way_is_better(api: Api) -> None:
    await api.serving("ranker")
    version = await candidate(api, "ranker")
    evidence = rollout_pb2.ValidationEvidence(
        metric="ndcg@10", candidate=0.4, production=0.41, standard_error=0.002, sample_size=5_000
    )
    request = rollout_pb2.ReportValidationRequest(mutation=by(), model_id="ranker", version=version, evidence=evidence)
    told = await refused(api.rollout.ReportValidation(request))
    assert set(told.violations) == {"evidence.higher_is_better"}
    request.evidence.higher_is_better = True
    rollout = (await api.rollout.ReportValidation(request)).rollout
    assert rollout.state == REFUSED
    assert "ndcg@10 0.4000 against 0.4100" in rollout.conclusion
