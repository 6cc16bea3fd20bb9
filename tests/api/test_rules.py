"""RulesService: rules set with what they change, tried before they are set, listed, removed, and watched."""

from datetime import timedelta
from typing import Any

import grpc
import pytest
from runway.v1 import common_pb2, operations_pb2, policies_pb2, retraining_pb2, rules_pb2, staleness_pb2

from control_plane.app.replica import Submission
from control_plane.core.commands import RecordEvaluation
from control_plane.core.ids import ModelId
from control_plane.core.rules.context import described
from control_plane.core.staleness.verdict import Evaluation
from tests.api.worlds import Api, Host, by, refused
from tests.core.fleets import an_evaluation

STALE = "verdict == STALE && confidence >= MEDIUM && tier <= 2 && !season.expected"


def a_rule(
    name: str = "r", when: str = STALE, action: int = rules_pb2.RULE_ACTION_PAGE, **fields: object
) -> rules_pb2.Rule:
    return rules_pb2.Rule(name=name, when=when, action=action, **{"scope": "fleet", **fields})  # type: ignore[arg-type]


async def set_rule(api: Api, rule: rules_pb2.Rule, etag: str = "", **mutation: Any) -> rules_pb2.SetRuleResponse:
    return await api.rules.SetRule(rules_pb2.SetRuleRequest(mutation=by(**mutation), rule=rule, etag=etag))


async def look(api: Api, model_id: str, *, stale: bool, times: int = 3) -> Evaluation:
    """Looks at a model's production version, as the evaluator takes and keeps them."""
    record = api.plane.node.state.models[ModelId(model_id)]
    assert record.production is not None
    evaluation = an_evaluation(record.production.number, api.clock.now(), stale=stale)
    for _ in range(times):
        command = RecordEvaluation(model_id=ModelId(model_id), evaluation=evaluation)
        await api.plane.node.submit(Submission(command=command, actor="evaluator", reason="looked"))
    return evaluation


async def standing(api: Api, model_id: str) -> rules_pb2.RuleOutcome:
    reply = await api.staleness.GetStaleness(staleness_pb2.GetStalenessRequest(model_id=model_id))
    return reply.staleness.rules


def told(effects: object) -> list[tuple[str, str, str]]:
    return [(one.model_id, one.now, one.then) for one in effects]  # type: ignore[attr-defined]


# Set


async def test_a_rule_is_set_and_the_answer_says_what_changes_for_whom(api: Api) -> None:
    for name, stale in (("a", True), ("b", False)):
        await api.serving(name)
        await look(api, name, stale=stale)
    rule = a_rule("quiet", "verdict == STALE", rules_pb2.RULE_ACTION_REQUIRE_APPROVAL, reason="ask us")
    dry = await set_rule(api, rule, validate_only=True)
    assert told(dry.effects) == [("a", "a retrain now", "no retrain until somebody asks for it")]
    assert (dry.rule.version, dry.rule.etag, dry.rule.set_by) == (1, "v1", "tester")
    done = await set_rule(api, rule)
    assert told(done.effects) == told(dry.effects)
    assert done.rule.revision == done.revision - 1, "the outcome of a model follows in the same decision"
    found = await standing(api, "a")
    assert [(match.name, match.reason) for match in found.matches] == [("quiet", "ask us")]
    assert found.retraining == rules_pb2.RULE_ACTION_REQUIRE_APPROVAL
    assert found.explanation == (
        "retraining waits for somebody to ask (`runway retrains request a`): quiet (fleet): ask us"
    )
    assert not (await standing(api, "b")).matches
    again = await set_rule(api, rule)
    assert (again.rule, list(again.effects)) == (done.rule, [])


async def test_a_repeated_request_gets_its_first_answer_even_if_other_looks_were_taken(host: Host) -> None:
    async with host.life() as api:
        await api.serving("a")
        await look(api, "a", stale=True)
        first = await set_rule(api, a_rule(), request_id="s1")
        await look(api, "a", stale=False)
        again = await set_rule(api, a_rule(), request_id="s1")
        assert (again.rule, again.revision) == (first.rule, first.revision)
    async with host.life() as api:
        assert (await set_rule(api, a_rule(), request_id="s1")).rule == first.rule
        listed = await api.rules.ListRules(rules_pb2.ListRulesRequest())
        assert list(listed.rules) == [first.rule]


async def test_all_that_is_wrong_is_told_at_once(api: Api) -> None:
    broken = a_rule("Bad Name", "verdict == STALEE && tierr < 2", priority=2_000, scope="everyone")
    refusal = await refused(set_rule(api, broken))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"rule.name", "rule.scope", "rule.priority", "rule.when"}
    assert [one for one in refusal.described if one.startswith("rule.when")] == [
        "rule.when: 1:12: there is no STALEE: did you mean STALE?",
        "rule.when: 1:22: there is no tierr: did you mean tier?",
    ]
    typed = await refused(set_rule(api, a_rule(when="tier")))
    assert typed.described == ("rule.when: 1:1: this is an int, and a rule says yes or no: compare it with something",)
    assert (await refused(set_rule(api, a_rule(scope="model:nope")))).reason == "MODEL_NOT_FOUND"
    assert "rule.when" in (await refused(set_rule(api, a_rule(when="x" * 2_001)))).violations


async def test_two_who_change_a_rule_at_once_are_told_apart_by_the_etag(api: Api) -> None:
    first = await set_rule(api, a_rule(), etag="v0")
    await set_rule(api, a_rule(priority=1), etag=first.rule.etag)
    lost = await refused(set_rule(api, a_rule(priority=2), etag=first.rule.etag))
    assert (lost.code, lost.reason, lost.metadata["etag"]) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH", "v2")


# List and remove


async def test_rules_are_listed_highest_first_for_the_fleet_or_a_model_now_or_then(api: Api) -> None:
    await api.model("a")
    await set_rule(api, a_rule("low"))
    await set_rule(api, a_rule("high", priority=9, scope="tier:1"))
    before = await api.revision()
    await set_rule(api, a_rule("mine", scope="model:a"))
    listed = await api.rules.ListRules(rules_pb2.ListRulesRequest())
    assert [rule.name for rule in listed.rules] == ["high", "mine", "low"]
    tier = (await api.rules.ListRules(rules_pb2.ListRulesRequest(model_id="a"))).rules
    assert [rule.name for rule in tier] == ["mine", "low"]
    read = common_pb2.ReadOptions(as_of_revision=before)
    then = await api.rules.ListRules(rules_pb2.ListRulesRequest(read=read))
    assert [rule.name for rule in then.rules] == ["high", "low"]
    gone = await refused(api.rules.ListRules(rules_pb2.ListRulesRequest(model_id="nope")))
    assert gone.reason == "MODEL_NOT_FOUND"


async def test_a_removed_rule_holds_for_nobody_at_once(api: Api) -> None:
    await api.serving("a")
    await set_rule(api, a_rule("page"))
    await look(api, "a", stale=True)
    assert [match.name for match in (await standing(api, "a")).matches] == ["page"]
    remove = rules_pb2.RemoveRuleRequest(mutation=by(), scope="fleet", name="page")
    await api.rules.RemoveRule(remove)
    assert not (await standing(api, "a")).matches
    lost = await refused(api.rules.RemoveRule(remove))
    assert (lost.code, lost.reason) == (grpc.StatusCode.NOT_FOUND, "RULE_NOT_FOUND")


# Try first


async def test_a_rule_is_tried_on_the_fleet_and_changes_nothing(api: Api) -> None:
    for name, stale in (("a", True), ("b", True), ("c", False)):
        await api.serving(name)
        await look(api, name, stale=stale)
    await api.model("d")
    before = await api.revision()
    check = rules_pb2.CheckRuleRequest(rule=a_rule(when="verdict == STALE", action=rules_pb2.RULE_ACTION_IGNORE))
    found = await api.rules.CheckRule(check)
    assert list(found.model_ids) == ["a", "b"]
    assert found.sentence == "This rule would act on 2 models now: a, b; 1 more has not been looked at yet."
    assert told(found.effects) == [(name, "a retrain now", "no retrain") for name in ("a", "b")]
    assert await api.revision() == before
    check.rule.scope = "model:c"
    found = await api.rules.CheckRule(check)
    assert (list(found.model_ids), found.sentence) == ([], "This rule would act on no model now.")


async def test_a_rule_is_tried_on_the_newest_looks_not_on_the_one_that_made_the_verdict(api: Api) -> None:
    await api.serving("a")
    evaluation = await look(api, "a", stale=True)
    api.plane.evaluator.latest[ModelId("a")] = an_evaluation(
        evaluation.version, api.clock.now(), stale=True, score=0.65
    )
    found = await api.rules.CheckRule(rules_pb2.CheckRuleRequest(rule=a_rule(when="score < 0.7")))
    assert list(found.model_ids) == ["a"]


async def test_a_check_tells_where_a_rule_is_wrong_and_whom_it_cannot_be_asked_about(api: Api) -> None:
    await api.serving("a")
    await look(api, "a", stale=True)
    wrong = await api.rules.CheckRule(rules_pb2.CheckRuleRequest(rule=a_rule(when="tier == 1 &&\n  owner = 'x'")))
    assert [(fault.line, fault.column, fault.message) for fault in wrong.faults] == [
        (2, 9, "`=` is not expected here: write == to compare")
    ]
    assert wrong.sentence == ""
    fault = await api.rules.CheckRule(rules_pb2.CheckRuleRequest(rule=a_rule(when="psi.temp > 0.3")))
    assert [(one.line, one.message) for one in fault.faults] == [
        (0, "a: there is no 'temp' in the map: ask first, `'temp' in ... && ...`")
    ]
    assert fault.sentence == "This rule would act on no model now; it could not be evaluated for 1: a."


async def test_the_context_is_the_table(api: Api) -> None:
    reply = await api.rules.DescribeRuleContext(rules_pb2.DescribeRuleContextRequest())
    assert [(one.name, one.type, one.example) for one in reply.fields] == [
        (one.name, one.type, one.example) for one in described()
    ]


# What follows


async def test_a_page_is_seen_by_whoever_watches_and_only_once(api: Api) -> None:
    await api.serving("a")
    await set_rule(api, a_rule("wake_up", reason="tier 2 must not rot"))
    await look(api, "a", stale=True, times=5)
    events = await api.operations.ListEvents(operations_pb2.ListEventsRequest(kinds=["RulesMatched"]))
    assert [event.sentence for event in events.events] == [
        "page: a is STALE (score 0.80 of 0.60): rule wake_up (fleet): tier 2 must not rot"
    ]


async def test_a_rule_that_waits_for_approval_keeps_the_plan_from_asking(api: Api) -> None:
    policies = policies_pb2.Policies(retraining=policies_pb2.RetrainingPolicy(automatic=True))
    await api.serving("a", policies=policies)
    await set_rule(api, a_rule("ask", "true", rules_pb2.RULE_ACTION_REQUIRE_APPROVAL))
    await look(api, "a", stale=True)
    await api.pass_time(timedelta(hours=1))
    listed = await api.retraining.ListRetrains(retraining_pb2.ListRetrainsRequest())
    assert not listed.retrains
    await api.retrain("a")
    await set_rule(api, a_rule("ask", "true", rules_pb2.RULE_ACTION_RETRAIN))
    await api.pass_time(timedelta(hours=1))
    [retrain] = (await api.retraining.ListRetrains(retraining_pb2.ListRetrainsRequest())).retrains
    assert list(retrain.causes) == [retraining_pb2.RETRAIN_CAUSE_OPERATOR]


async def test_a_retrain_by_a_rule_says_so(api: Api) -> None:
    await api.serving("a")
    await set_rule(api, a_rule("early", "score < 0.5", rules_pb2.RULE_ACTION_RETRAIN))
    await look(api, "a", stale=False)
    await api.pass_time(timedelta(days=2))
    [retrain] = (await api.retraining.ListRetrains(retraining_pb2.ListRetrainsRequest())).retrains
    assert list(retrain.causes) == [retraining_pb2.RETRAIN_CAUSE_RULE]


@pytest.mark.parametrize("action", [number for number in rules_pb2.RuleAction.values() if number])
async def test_every_action_goes_over_the_wire_and_back(api: Api, action: int) -> None:
    assert (await set_rule(api, a_rule(action=action))).rule.action == action
