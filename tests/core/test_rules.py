"""Rules in a fleet: set and removed, asked at a look, which holds, and what the plan makes of it."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.commands import RecordEvaluation, RemoveRule, SetPolicies, SetRule
from control_plane.core.decide.rule_words import acts_on, consequence, explanation
from control_plane.core.decide.rules import effects
from control_plane.core.errors import Invalid, Reason, RunwayError
from control_plane.core.events import Envelope, RetrainRequested, RuleRemoved, RuleSet, RulesMatched
from control_plane.core.ids import ModelId, RetrainId, TeamId
from control_plane.core.plan import wanted_retrain
from control_plane.core.policies import built_in
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.retraining.types import RetrainCause, RetrainingPolicy, RetrainState
from control_plane.core.rules.book import RuleBook
from control_plane.core.rules.outcome import outcome_of, rule_rank, with_result, without
from control_plane.core.rules.types import NO_OUTCOME, RULES_MAX, Rule, RuleAction, RuleMatch, RuleOutcome, RuleVersion
from control_plane.core.sentences import sentence
from control_plane.core.snapshots import decode_snapshot, encode_snapshot
from control_plane.core.staleness.verdict import Action, FeatureDrift, Level
from control_plane.core.state import ModelRecord, Standing
from control_plane.core.subjects import subject_of
from tests.core.fleets import HOUR, START, Fleet, an_evaluation
from tests.reference import rules_twin

STALE = "verdict == STALE"


def a_rule(name: str = "r", when: str = STALE, action: RuleAction = RuleAction.RETRAIN, **fields: Any) -> Rule:
    return Rule(**{"name": name, "scope": "fleet", "when": when, "action": action, **fields})


def outcome(fleet: Fleet, model_id: str = "m") -> RuleOutcome:
    return fleet.state.models[ModelId(model_id)].rule_outcome


def record(fleet: Fleet, model_id: str = "m") -> ModelRecord:
    return fleet.state.models[ModelId(model_id)]


def holding(fleet: Fleet, model_id: str = "m") -> list[str]:
    return [match.name for match in outcome(fleet, model_id).matches]


def violations(fleet: Fleet, rule: Rule) -> dict[str, list[str]]:
    with pytest.raises(Invalid) as caught:
        fleet.do(SetRule(rule=rule))
    found: dict[str, list[str]] = {}
    for one in caught.value.violations:
        found.setdefault(one.field, []).append(one.message)
    return found


def refused(fleet: Fleet, command: SetRule | RemoveRule) -> Reason:
    with pytest.raises(RunwayError) as caught:
        fleet.do(command)
    return caught.value.reason


def serving(*, automatic: bool = True, cooldown: timedelta = timedelta(0), **policy: Any) -> Fleet:
    fleet = Fleet()
    fleet.model("m", policy=RetrainingPolicy(automatic=automatic, cooldown=cooldown, **policy), serving=True)
    return fleet


def causes(fleet: Fleet, model_id: str = "m") -> tuple[RetrainCause, ...]:
    """Why the model's live retrain was asked for; empty without one."""
    live = record(fleet, model_id).live_retrain
    return fleet.state.retrains[live].causes if live is not None else ()


# Set and removed


def test_a_rule_is_set_replaced_and_removed_in_versions() -> None:
    fleet = Fleet()
    assert fleet.new_events(SetRule(rule=a_rule())) == ["RuleSet"]
    assert fleet.new_events(SetRule(rule=a_rule())) == []
    assert fleet.do(SetRule(rule=a_rule(priority=3))).version == 2
    assert fleet.new_events(RemoveRule(scope="fleet", name="r")) == ["RuleRemoved"]
    assert refused(fleet, RemoveRule(scope="fleet", name="r")) is Reason.RULE_NOT_FOUND
    assert fleet.do(SetRule(rule=a_rule())).version == 4
    book = fleet.state.rules
    assert [(one.version, one.rule is None) for one in book.versions("fleet", "r")] == [
        (1, False),
        (2, False),
        (3, True),
        (4, False),
    ]
    newest = book.newest("fleet", "r")
    assert newest is not None
    assert (newest.set_by, newest.why, newest.set_at) == ("tester", "because", START)


def test_all_that_is_wrong_with_a_rule_is_told_at_once_with_places() -> None:
    found = violations(
        Fleet(), a_rule("Bad Name", "verdict == STALEE && tierr < 2", scope="everyone", priority=-1, reason="x" * 501)
    )
    assert set(found) == {"rule.name", "rule.scope", "rule.priority", "rule.reason", "rule.when"}
    assert found["rule.when"] == [
        "1:12: there is no STALEE: did you mean STALE?",
        "1:22: there is no tierr: did you mean tier?",
    ]


def test_a_rule_of_a_model_needs_the_model_and_an_etag_the_newest_version() -> None:
    fleet = Fleet()
    assert refused(fleet, SetRule(rule=a_rule(scope="model:nope"))) is Reason.MODEL_NOT_FOUND
    assert refused(fleet, SetRule(rule=a_rule(), etag="v3")) is Reason.ETAG_MISMATCH
    fleet.do(SetRule(rule=a_rule(), etag="v0"))
    assert refused(fleet, SetRule(rule=a_rule(priority=1), etag="v0")) is Reason.ETAG_MISMATCH
    fleet.do(SetRule(rule=a_rule(priority=1), etag="v1"))


def test_there_are_at_most_so_many_rules() -> None:
    fleet = Fleet()
    for number in range(RULES_MAX):
        fleet.do(SetRule(rule=a_rule(f"r{number}")))
    assert refused(fleet, SetRule(rule=a_rule("more"))) is Reason.LIMIT_EXCEEDED
    fleet.do(SetRule(rule=a_rule("r0", priority=1)))


# Asked at a look


def test_a_look_writes_an_event_only_when_the_outcome_changes() -> None:
    fleet = serving(automatic=False)
    fleet.do(SetRule(rule=a_rule("page", action=RuleAction.PAGE, reason="wake up")))

    def seen(stale: bool) -> list[str]:
        return fleet.new_events(
            RecordEvaluation(model_id=ModelId("m"), evaluation=an_evaluation(1, fleet.now, stale=stale))
        )

    assert seen(True) == ["StreakChanged"]
    assert seen(True) == ["VerdictChanged", "RulesMatched"]
    assert [seen(True), seen(True)] == [[], []]
    assert holding(fleet) == ["page"]
    assert seen(False) == ["StreakChanged"]
    assert seen(False) == ["VerdictChanged", "RulesMatched"]
    assert outcome(fleet) == NO_OUTCOME


def test_every_scope_of_a_model_speaks_and_no_other() -> None:
    fleet = serving(automatic=False)
    fleet.model("other", tier=1, team="crew", serving=True)
    for name, scope in (("f", "fleet"), ("t", "tier:2"), ("g", "team:flights"), ("m", "model:m"), ("x", "tier:1")):
        fleet.do(SetRule(rule=a_rule(name, "true", RuleAction.ALERT, scope=scope)))
    fleet.do(SetRule(rule=a_rule("off", "true", RuleAction.ALERT, disabled=True)))
    fleet.look("m", stale=False)
    fleet.look("other", stale=False)
    assert holding(fleet) == ["m", "g", "t", "f"]
    assert holding(fleet, "other") == ["x", "f"]


def test_a_rule_that_cannot_be_asked_is_a_fault_and_the_others_go_on() -> None:
    fleet = serving(automatic=False)
    fleet.do(SetRule(rule=a_rule("hot", "psi.temp > 0.3", RuleAction.PAGE)))
    fleet.do(SetRule(rule=a_rule("cold", "tier == 2", RuleAction.ALERT)))
    fleet.look("m", stale=False)
    assert holding(fleet) == ["cold"]
    [fault] = outcome(fleet).faults
    assert (fault.name, fault.message) == ("hot", "there is no 'temp' in the map: ask first, `'temp' in ... && ...`")
    drifted = FeatureDrift(name="temp", psi=0.5, psi_debiased=0.4, p_value=0.0, drifted=True)
    look = msgspec.structs.replace(an_evaluation(1, fleet.now, stale=False), top_features=(drifted,))
    fleet.do(RecordEvaluation(model_id=ModelId("m"), evaluation=look))
    assert (holding(fleet), outcome(fleet).faults) == (["cold", "hot"], ())


def test_a_rule_that_no_longer_compiles_is_a_fault_and_stops_nothing() -> None:
    fleet = serving(automatic=False)
    fleet.state.rules.put(
        RuleVersion(
            scope="fleet",
            name="old",
            version=1,
            rule=a_rule("old", "gone_name == 1"),
            set_at=START,
            set_by="a",
            why="",
            revision=1,
        )
    )
    fleet.look("m", stale=True)
    assert outcome(fleet).faults[0].message.startswith("it is no rule any more: 1:1: there is no gone_name")
    assert record(fleet).standing.level is Level.STALE


def test_since_is_when_a_rule_began_to_hold_and_starts_anew_with_another_action() -> None:
    fleet = serving(automatic=False)
    fleet.do(SetRule(rule=a_rule("a", "true", RuleAction.ALERT)))
    fleet.look("m", stale=False)
    fleet.now += HOUR
    fleet.do(SetRule(rule=a_rule("b", "true", RuleAction.ALERT)))
    fleet.do(SetRule(rule=a_rule("a", "true", RuleAction.ALERT, reason="said better")))
    fleet.look("m", stale=False)
    since = {match.name: match.since for match in outcome(fleet).matches}
    assert since["a"] == START
    assert since["b"] == START + HOUR
    fleet.do(SetRule(rule=a_rule("a", "true", RuleAction.PAGE)))
    assert {match.name: match.since for match in outcome(fleet).matches}["a"] == START + HOUR


def test_another_version_in_production_is_asked_about_anew() -> None:
    fleet = serving()
    fleet.do(SetRule(rule=a_rule("always", "true", RuleAction.ALERT)))
    fleet.look("m", stale=False)
    assert holding(fleet) == ["always"]
    fleet.promote(ModelId("m"))
    assert outcome(fleet) == NO_OUTCOME
    fleet.do(RecordEvaluation(model_id=ModelId("m"), evaluation=an_evaluation(1, fleet.now, stale=True)))
    assert outcome(fleet) == NO_OUTCOME, "a look at the version before is discarded"


# When a rule changes


def test_setting_a_rule_is_decided_on_the_newest_looks_at_once() -> None:
    fleet = serving(automatic=False)
    fleet.look("m", stale=False)
    newest = an_evaluation(1, fleet.now, stale=True, score=0.7)
    rule = a_rule("high", "score > 0.65", RuleAction.PAGE)
    kinds = fleet.new_events(SetRule(rule=rule, looks={ModelId("m"): newest}))
    assert kinds == ["RuleSet", "RulesMatched"]
    assert holding(fleet) == ["high"]
    assert fleet.new_events(SetRule(rule=replace_rule(rule, when="score > 2"), looks={ModelId("m"): newest})) == kinds
    assert holding(fleet) == []
    overtaken = msgspec.structs.replace(newest, version=7)
    assert fleet.new_events(SetRule(rule=rule, looks={ModelId("m"): overtaken})) == ["RuleSet"]


def replace_rule(rule: Rule, **fields: Any) -> Rule:
    return msgspec.structs.replace(rule, **fields)


def test_a_removed_or_disabled_rule_holds_for_nobody_at_once() -> None:
    fleet = serving(automatic=False)
    fleet.do(SetRule(rule=a_rule("a", "true", RuleAction.IGNORE)))
    fleet.do(SetRule(rule=a_rule("b", "true", RuleAction.PAGE)))
    fleet.look("m", stale=True)
    assert fleet.new_events(SetRule(rule=a_rule("b", "true", RuleAction.PAGE, disabled=True))) == [
        "RuleSet",
        "RulesMatched",
    ]
    assert holding(fleet) == ["a"]
    assert fleet.new_events(RemoveRule(scope="fleet", name="a")) == ["RuleRemoved", "RulesMatched"]
    assert outcome(fleet) == NO_OUTCOME


def test_a_dry_run_tells_on_whom_a_rule_acts_and_what_changes() -> None:
    fleet = serving()
    for name, stale in (("a", True), ("b", True), ("c", False)):
        fleet.model(name, policy=RetrainingPolicy(cooldown=timedelta(0)), serving=True)
        fleet.look(name, stale=stale)
    fleet.model("new")
    rule = a_rule("hush", STALE, RuleAction.IGNORE)
    found = effects(fleet.state, rule, {}, fleet.now)
    assert [(one.record.model_id, one.found) for one in found] == [("a", True), ("b", True), ("c", False)]
    assert acts_on(found, 2) == "This rule would act on 2 models now: a, b; 2 more have not been looked at yet."
    told = [
        (consequence(o.record, o.record.rule_outcome, fleet.now), consequence(o.record, o.after, fleet.now))
        for o in found
    ]
    assert told == [("a retrain now", "no retrain")] * 2 + [("no retrain", "no retrain")]
    assert outcome(fleet, "a") == NO_OUTCOME


# Which holds


ACTIONS = st.sampled_from(RuleAction)
SCOPES = st.sampled_from(["fleet", "tier:2", "team:flights", "model:m"])
RULES = st.lists(
    st.builds(
        a_rule,
        name=st.sampled_from(["a", "b", "c", "d"]),
        action=ACTIONS,
        scope=SCOPES,
        priority=st.integers(0, 2),
    ),
    unique_by=lambda rule: rule.key,
    max_size=12,
)


@given(RULES, st.data())
def test_the_rule_that_holds_is_the_one_that_nobody_beats_in_whatever_order_they_come(
    rules: list[Rule], data: st.DataObject
) -> None:
    answers: st.SearchStrategy[bool | str] = st.sampled_from([True, False, "fault"])
    held = {rule.key: data.draw(answers) for rule in rules}
    results = [(rule, held[rule.key]) for rule in data.draw(st.permutations(rules))]
    found = outcome_of(results, NO_OUTCOME, START)
    twin = rules_twin.winner([rule for rule in rules if held[rule.key] is True])
    wins = found.retraining
    assert ((wins.name, wins.scope) if wins else None) == ((twin.name, twin.scope) if twin else None)
    assert found == outcome_of([(rule, held[rule.key]) for rule in rules], NO_OUTCOME, START)
    shown = [(match.scope, match.name) for match in found.matches]
    assert len(shown) == sum(value is True for value in held.values())
    assert len(found.faults) == sum(value == "fault" for value in held.values())


@given(RULES)
def test_the_order_of_rules_is_total_and_the_one_of_the_twin(rules: list[Rule]) -> None:
    order = sorted(rules, key=rule_rank)
    assert len({rule_rank(rule) for rule in rules}) == len(rules)
    for first, second in pairwise(order):
        assert rules_twin.beats(first, second) or (
            first.priority == second.priority and first.name == second.name and first.scope != second.scope
        )


@given(RULES, RULES)
def test_one_rule_asked_anew_comes_to_the_same_as_all_of_them(rules: list[Rule], changed: list[Rule]) -> None:
    before = outcome_of([(rule, True) for rule in rules], NO_OUTCOME, START)
    for rule in changed:
        rest = [(one, True) for one in rules if one.key != rule.key]
        asked = with_result(before, rule, True, START)
        assert asked == outcome_of([*rest, (rule, True)], before, START)
        assert without(asked, *rule.key) == outcome_of(rest, before, START)


@given(RULES, st.data())
def test_a_book_holds_the_same_whatever_the_order_it_was_told_in(rules: list[Rule], data: st.DataObject) -> None:
    def book(order: list[Rule]) -> RuleBook:
        return RuleBook(
            RuleVersion(scope=r.scope, name=r.name, version=1, rule=r, set_at=START, set_by="", why="", revision=n)
            for n, r in enumerate(order)
        )

    told = book(data.draw(st.permutations(rules)))
    assert told.rules() == book(rules).rules() == sorted(rules, key=rule_rank)
    assert told.of(2, "flights", "m") == book(rules).of(2, "flights", "m")
    assert len(told) == len(rules)


# What the plan makes of it


def stale_with(action: RuleAction | None, fleet: Fleet) -> None:
    if action is not None:
        fleet.do(SetRule(rule=a_rule("r", "true", action)))
    fleet.look("m", stale=True)


@pytest.mark.parametrize(
    ("action", "cause"),
    [
        (None, (RetrainCause.STALE,)),
        (RuleAction.RETRAIN, (RetrainCause.RULE,)),
        (RuleAction.REQUIRE_APPROVAL, ()),
        (RuleAction.IGNORE, ()),
        (RuleAction.ALERT, (RetrainCause.STALE,)),
        (RuleAction.PAGE, (RetrainCause.STALE,)),
    ],
)
def test_a_rule_has_the_last_word_on_retraining(action: RuleAction | None, cause: tuple[RetrainCause, ...]) -> None:
    fleet = serving()
    stale_with(action, fleet)
    fleet.pass_time(HOUR)
    assert causes(fleet) == cause


def test_retrain_asks_whatever_the_verdict_but_keeps_to_cooldown_and_off_switch() -> None:
    fleet = serving(cooldown=timedelta(hours=5))
    fleet.do(SetRule(rule=a_rule("early", "score < 0.5")))
    fleet.look("m", stale=False)
    assert fleet.pass_time(HOUR) == []
    assert fleet.pass_time(HOUR * 5) == ["RetrainRequested"]
    off = serving(automatic=False)
    stale_with(RuleAction.RETRAIN, off)
    assert off.pass_time(HOUR) == []
    assert explanation(record(off), outcome(off)).startswith("no retrain, since retraining.automatic is off")


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [(22, 6, {22, 23, 0, 1, 2, 3, 4, 5}), (1, 3, {1, 2}), (7, 7, set(range(24)))],
)
def test_off_peak_asks_only_in_those_hours(start: int, end: int, hours: set[int]) -> None:
    for hour in range(24):
        fleet = serving(off_peak_start_hour=start, off_peak_end_hour=end)
        stale_with(RuleAction.RETRAIN_OFF_PEAK, fleet)
        fleet.now = START.replace(hour=hour, minute=59) + timedelta(days=1)
        assert bool(fleet.pass_time(timedelta(0))) is (hour in hours), hour


def test_off_peak_does_not_retrain_what_a_retrain_cannot_mend_and_retrain_does() -> None:
    for action, asked in ((RuleAction.RETRAIN_OFF_PEAK, False), (RuleAction.RETRAIN, True), (None, False)):
        fleet = serving(off_peak_start_hour=0, off_peak_end_hour=0)
        if action is not None:
            fleet.do(SetRule(rule=a_rule("r", "true", action)))
        for _ in range(3):
            look = an_evaluation(1, fleet.now, stale=True)
            look = msgspec.structs.replace(
                look, recommended_action=Action.ALERT_DATA_OWNER, data_quality=("null burst",)
            )
            fleet.do(RecordEvaluation(model_id=ModelId("m"), evaluation=look))
        assert bool(fleet.pass_time(HOUR)) is asked, action


def test_approval_is_a_request_by_somebody() -> None:
    fleet = serving()
    stale_with(RuleAction.REQUIRE_APPROVAL, fleet)
    assert fleet.pass_time(HOUR) == []
    assert "runway retrains request m" in explanation(record(fleet), outcome(fleet))
    fleet.request("m")
    assert causes(fleet) == (RetrainCause.OPERATOR,)


def test_a_retrain_that_a_rule_asked_for_ends_when_no_rule_asks_any_more() -> None:
    fleet = serving()
    stale_with(RuleAction.RETRAIN, fleet)
    fleet.pass_time(HOUR)
    live = record(fleet).live_retrain
    assert live is not None
    fleet.do(RemoveRule(scope="fleet", name="r"))
    assert fleet.pass_time(HOUR)[:1] == ["RetrainEnded"]
    assert fleet.state.retrains[live].conclusion == "no longer needed: no rule asks for it any more"
    assert fleet.state.retrains[live].state is RetrainState.CANCELLED


@given(
    action=st.sampled_from([None, *RuleAction]),
    stale=st.booleans(),
    recommended=st.sampled_from(Action),
    automatic=st.booleans(),
    cooling=st.booleans(),
    live=st.booleans(),
    hour=st.integers(0, 23),
)
def test_the_words_promise_a_retrain_now_exactly_when_the_plan_asks_for_one(
    action: RuleAction | None,
    stale: bool,
    recommended: Action,
    automatic: bool,
    cooling: bool,
    live: bool,
    hour: int,
) -> None:
    now = START + timedelta(days=2, hours=hour)
    match = RuleMatch(name="r", scope="fleet", action=action, since=START) if action is not None else None
    look = msgspec.structs.replace(an_evaluation(1, now, stale=stale), recommended_action=recommended)
    policy = RetrainingPolicy(automatic=automatic, cooldown=timedelta(hours=3))
    model = ModelRecord(
        facts=ModelFacts(model_id=ModelId("m"), team=TeamId("t"), tier=1, task_type=TaskType.BINARY),
        policies=msgspec.structs.replace(built_in(1, TaskType.BINARY), retraining=policy),
        registered_at=START,
        updated_at=START,
        updated_revision=1,
        standing=Standing(level=Level.STALE if stale else Level.FRESH, since=START, version=1, evaluation=look),
        live_retrain=RetrainId("rt_000001") if live else None,
        retrain_ended_at=now - timedelta(hours=1) if cooling else None,
        rule_outcome=RuleOutcome(matches=(match,) if match is not None else ()),
    )
    words = consequence(model, model.rule_outcome, now)
    assert (words.partition(",")[0] == "a retrain now") is (wanted_retrain(model, now) is not None), words


# Told and kept


def told(fleet: Fleet, kind: type) -> str:
    event = next(event for event in reversed(fleet.events) if isinstance(event, kind))
    return sentence(Envelope(seq=1, epoch=1, at=fleet.now, actor="tester", reason="", event=event))


def test_a_page_is_told_first_and_with_its_reason() -> None:
    fleet = serving(automatic=False)
    fleet.do(SetRule(rule=a_rule("night_only", STALE, RuleAction.RETRAIN_OFF_PEAK, priority=9)))
    fleet.do(SetRule(rule=a_rule("wake_up", STALE, RuleAction.PAGE, reason="tier 2 must not rot")))
    fleet.look("m", stale=True)
    assert told(fleet, RulesMatched) == (
        "page: m is STALE (score 0.80 of 0.60): rule wake_up (fleet): tier 2 must not rot; "
        "retrain off-peak: m is STALE (score 0.80 of 0.60): rule night_only (fleet)"
    )
    fleet.do(RemoveRule(scope="fleet", name="wake_up"))
    assert told(fleet, RuleRemoved) == "rule wake_up (fleet) was removed by tester"
    assert told(fleet, RulesMatched).startswith("page is over: m is STALE")


def test_who_watches_a_team_or_a_model_sees_its_rules_and_what_they_lead_to() -> None:
    fleet = serving(automatic=False)
    fleet.do(SetRule(rule=a_rule("own", "true", RuleAction.PAGE, scope="model:m")))
    fleet.do(SetRule(rule=a_rule("ours", "true", RuleAction.PAGE, scope="team:flights")))
    fleet.look("m", stale=True)
    about = {}
    for event in fleet.events:
        if isinstance(event, RuleSet | RulesMatched):
            envelope = Envelope(seq=9, epoch=1, at=fleet.now, actor="a", reason="", event=event)
            subject = subject_of(fleet.state, envelope)
            about[getattr(event, "scope", "matched")] = (set(subject.models), set(subject.teams))
    assert about == {
        "model:m": ({"m"}, {"flights"}),
        "team:flights": (set(), {"flights"}),
        "matched": ({"m"}, {"flights"}),
    }


def test_a_snapshot_keeps_rules_and_outcomes() -> None:
    fleet = serving(automatic=False)
    fleet.do(SetRule(rule=a_rule("a", "true", RuleAction.PAGE)))
    fleet.do(SetRule(rule=a_rule("b")))
    fleet.do(RemoveRule(scope="fleet", name="b"))
    fleet.look("m", stale=True)
    again = decode_snapshot(encode_snapshot(fleet.state))
    assert again.rules.all_versions() == fleet.state.rules.all_versions()
    assert again.rules.rules() == fleet.state.rules.rules()
    assert again.models[ModelId("m")].rule_outcome == outcome(fleet)


# The context of a real look


def test_the_context_reads_the_model_the_look_and_the_fleet() -> None:
    fleet = serving(automatic=False)
    fleet.model("down", tier=1, serving=True)
    fleet.edge("m", "down")
    for text in (
        "model == 'm' && team == 'flights' && tier == 2 && task == BINARY && lifecycle == ACTIVE && version == 1",
        "level == STALE && verdict == STALE && confidence == HIGH && score > threshold && action == RETRAIN",
        "consumers.count == 1 && consumers.tier1 == 1",
        "!retrain.live && retrain.hours_since < 1 && retrain.failed_in_a_row == 0",
        "!performance.known && performance == 0 && performance.source == '' && size(metric_drop) == 0",
        "forecast.days == 0 && !season.known && !embeddings.incompatible && !coverage.alert && data_quality == 0",
        "now == timestamp('2013-03-01T00:00:00Z') && hour_utc == 0 && weekday == 5",
    ):
        fleet.do(SetRule(rule=a_rule("context", text, RuleAction.ALERT)))
        fleet.look("m", stale=True)
        assert holding(fleet) == ["context"], text


def test_policies_and_rules_live_beside_each_other() -> None:
    fleet = serving()
    fleet.do(SetPolicies(scope="fleet", overrides={"retraining.off_peak_start_hour": 3}))
    fleet.do(SetRule(rule=a_rule("r", "true", RuleAction.RETRAIN_OFF_PEAK)))
    fleet.look("m", stale=True)
    assert "06:00 UTC" in explanation(record(fleet), outcome(fleet))


def test_a_retrain_that_a_rule_asked_for_names_it() -> None:
    fleet = serving()
    fleet.do(SetRule(rule=a_rule("after_a_drop", STALE)))
    fleet.look("m", stale=True)
    fleet.pass_time(HOUR)
    retrain = fleet.state.retrains[fleet.state.models[ModelId("m")].retrain_ids[-1]]
    assert RetrainCause.RULE in retrain.causes
    asked = next(one for one in fleet.events if isinstance(one, RetrainRequested) and one.rule)
    assert "rule after_a_drop asks for it" in sentence(
        Envelope(seq=1, epoch=1, at=fleet.now, actor="runway", reason="", event=asked)
    )


@pytest.mark.parametrize("action", [RuleAction.IGNORE, RuleAction.REQUIRE_APPROVAL])
def test_a_rule_that_takes_over_ends_what_waits_by_itself_and_leaves_what_a_person_asked_for(
    action: RuleAction,
) -> None:
    fleet = serving()
    fleet.look("m", stale=True)
    fleet.pass_time(HOUR)
    (waits,) = (one for one in fleet.state.living() if one.model_id == "m")
    fleet.do(SetRule(rule=a_rule("hush", STALE, action)))
    one_more = an_evaluation(1, fleet.now, stale=True)
    fleet.do(RecordEvaluation(model_id=ModelId("m"), evaluation=one_more))
    fleet.pass_time(HOUR)
    ended = fleet.state.retrains[waits.retrain_id]
    assert ended.state is RetrainState.CANCELLED
    assert "rule hush says" in ended.conclusion
    fleet.request("m")
    fleet.pass_time(HOUR)
    assert [one.state for one in fleet.state.living()] == [RetrainState.WAITING]
