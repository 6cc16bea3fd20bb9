"""Policies as layers: what they come to, what may be said, who is told, and what is kept."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.commands import RegisterModel, SetPolicies, UpdateModel
from control_plane.core.decide.policies import changes, facts_changes
from control_plane.core.errors import Invalid, NotFound, Reason, Violation
from control_plane.core.ids import ModelId, TeamId
from control_plane.core.policies import (
    BUILT_IN,
    FIELDS,
    Overrides,
    applied,
    built_in,
    normal,
    overrides_of,
    overrides_violations,
    policies_violations,
    resolve,
    scalars,
    span_of,
    span_text,
)
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.retraining.types import RetrainingPolicy
from control_plane.core.snapshots import decode_snapshot, encode_snapshot
from control_plane.core.staleness.policy import default_policy
from control_plane.core.state import State, in_force
from tests.core.fleets import Fleet, reason_of
from tests.core.overrides import overrides
from tests.reference import policies_twin

SCOPES = ("fleet", "tier:2", "team:flights", "model:m")


def violations(fleet: Fleet, scope: str, said: Overrides) -> list[Violation]:
    with pytest.raises(Invalid) as caught:
        fleet.do(SetPolicies(scope=scope, overrides=said))
    return list(caught.value.violations)


# What layers come to


@given(st.lists(overrides(), min_size=4, max_size=4), st.sampled_from(TaskType), st.integers(1, 4))
def test_resolve_equals_asking_every_layer_for_every_field(said: list[Overrides], task: TaskType, tier: int) -> None:
    layers = list(zip(SCOPES, map(normal, said), strict=True))
    base = built_in(tier, task)
    policies, sources = resolve(base, layers)
    twin = policies_twin.in_force(scalars(base), layers)
    found = scalars(policies)
    for path, (value, source) in twin.items():
        assert sources[path] == source
        assert type(found[path]) is type(value)
        assert found[path] == value, path


@given(overrides(fields_max=len(FIELDS)))
def test_what_is_said_can_be_read_back_from_what_is_in_force(said: Overrides) -> None:
    policies = applied(built_in(1, TaskType.BINARY), normal(said))
    everything = scalars(policies)
    assert {path: everything[path] for path in said} == normal(said)
    again = {path: scalar for path, scalar in everything.items() if scalar is not None}
    assert applied(built_in(4, TaskType.BINARY), again) == applied(policies, {"label.metric": again["label.metric"]})


@given(st.timedeltas())
def test_a_span_is_text_and_back_to_the_microsecond(span: timedelta) -> None:
    assert span_of(span_text(span)) == span


@pytest.mark.parametrize(
    "text", ["", "900", "s", "1m", "1.s", ".5s", "1.0000001s", "1e3s", "--1s", "9" * 16 + "s", " 1s"]
)
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        span_of(text)
    assert overrides_violations({"staleness.cadence": text})


@pytest.mark.parametrize("tier", [1, 2, 3, 4])
def test_where_nobody_says_anything_the_tier_still_sets_the_pace(tier: int) -> None:
    fleet = Fleet()
    record = fleet.state.models[fleet.model("m", tier=tier)]
    assert record.staleness_policy == default_policy(tier)
    assert record.retraining_policy == RetrainingPolicy()


def test_the_nearer_scope_wins_field_by_field() -> None:
    fleet = Fleet()
    fleet.model("m", overrides={"staleness.window_days": 4.0})
    for number, scope in enumerate(("fleet", "tier:2", "team:flights")):
        said: Overrides = {
            "staleness.window_days": 1.0 + number,
            f"staleness.{('labels_min', 'predictions_min', 'psi_significant')[number]}": 7,
        }
        fleet.do(SetPolicies(scope=scope, overrides=said))
    record = fleet.state.models[ModelId("m")]
    assert record.staleness_policy.window_days == 4
    assert (record.staleness_policy.labels_min, record.staleness_policy.predictions_min) == (7, 7)
    other = fleet.state.models[fleet.model("o", tier=3, team="other")]
    assert other.staleness_policy.window_days == 1
    assert other.staleness_policy.predictions_min == 500


# What may be said


@pytest.mark.parametrize(
    "said",
    [
        {"staleness.nonsense": 1},
        {"label.task": "binary"},
        {"staleness.window_days": "3"},
        {"staleness.window_days": True},
        {"retraining.automatic": 1},
        {"retraining.attempts_max": 2.5},
        {"retraining.cooldown": 3600},
        {"staleness.fusion": "BOTH"},
    ],
)
def test_what_no_field_could_be_is_refused(said: Overrides) -> None:
    [violation] = violations(Fleet(), "fleet", said)
    assert violation.field == f"policies.{next(iter(said))}"


def test_every_broken_rule_is_told_with_the_model_and_the_scopes_that_collide() -> None:
    fleet = Fleet()
    fleet.model("plain")
    fleet.model("strict", overrides={"staleness.stale_threshold": 0.3, "staleness.at_risk_threshold": 0.2})
    said: Overrides = {
        "staleness.at_risk_threshold": 0.7,
        "retraining.lease_ttl": "86400s",
        "staleness.window_days": 0.0,
    }
    found = {violation.field: violation.message for violation in violations(fleet, "tier:2", said)}
    assert set(found) == {
        "policies.staleness.window_days",
        "policies.staleness.at_risk_threshold",
        "policies.retraining.attempt_timeout",
    }
    # The strict model has a word of its own on the threshold: only the plain one breaks.
    assert found["policies.staleness.at_risk_threshold"].startswith("plain: ")
    assert (
        "staleness.at_risk_threshold is from tier:2, staleness.stale_threshold is from built-in"
        in (found["policies.staleness.at_risk_threshold"])
    )
    assert found["policies.staleness.window_days"].startswith("plain, strict: ")
    assert fleet.state.policies.scopes() == ["model:strict"]


def test_a_scope_without_models_is_judged_as_if_it_had_one() -> None:
    [violation] = violations(Fleet(), "team:nobody", {"staleness.at_risk_threshold": 0.9})
    assert violation.field == "policies.staleness.at_risk_threshold"
    fleet = Fleet()
    fleet.do(SetPolicies(scope="fleet", overrides={"staleness.stale_threshold": 0.95}))
    fleet.do(SetPolicies(scope="team:nobody", overrides={"staleness.at_risk_threshold": 0.9}))


def test_a_model_that_would_join_into_a_collision_is_refused() -> None:
    fleet = Fleet()
    fleet.do(SetPolicies(scope="fleet", overrides={"staleness.stale_threshold": 0.95}))
    fleet.do(SetPolicies(scope="team:late", overrides={"staleness.at_risk_threshold": 0.9}))
    fleet.do(SetPolicies(scope="tier:3", overrides={"staleness.stale_threshold": 0.5}))
    fleet.model("fits", tier=2, team="late")
    with pytest.raises(Invalid) as caught:
        fleet.model("breaks", tier=3, team="late")
    assert "from team:late" in caught.value.message
    assert "from tier:3" in caught.value.message
    with pytest.raises(Invalid):
        facts = fleet.state.models[ModelId("fits")].facts
        fleet.do(
            UpdateModel(
                model_id=ModelId("fits"),
                facts=ModelFacts(**{f: getattr(facts, f) for f in facts.__struct_fields__} | {"tier": 3}),
            )
        )


@pytest.mark.parametrize(
    "scope", ["", "fleet:1", "tier:0", "tier:5", "team:", "team:Bad", "model:", "tier:1\n", "everyone"]
)
def test_a_scope_is_one_of_four_kinds(scope: str) -> None:
    assert [violation.field for violation in violations(Fleet(), scope, {})] == ["scope"]


def test_a_model_that_is_not_there_says_nothing() -> None:
    with pytest.raises(NotFound):
        Fleet().do(SetPolicies(scope="model:nope", overrides={}))


# What is kept


def test_versions_are_kept_with_who_when_and_why_and_a_no_op_makes_none() -> None:
    fleet = Fleet()
    one: Overrides = {"staleness.window_days": 3.0}
    assert fleet.new_events(SetPolicies(scope="fleet", overrides=one)) == ["PoliciesSet"]
    assert fleet.new_events(SetPolicies(scope="fleet", overrides={"staleness.window_days": 3})) == []
    fleet.now += timedelta(hours=1)
    assert fleet.new_events(SetPolicies(scope="fleet", overrides={})) == ["PoliciesSet"]
    assert fleet.new_events(SetPolicies(scope="fleet", overrides={})) == []
    kept = fleet.state.policies.versions("fleet")
    assert [(v.version, v.overrides, v.set_by, v.reason) for v in kept] == [
        (1, one, "tester", "because"),
        (2, {}, "tester", "because"),
    ]
    assert kept[1].set_at - kept[0].set_at == timedelta(hours=1)
    assert fleet.state.policies.scopes() == []


def test_an_old_etag_is_refused() -> None:
    fleet = Fleet()
    fleet.do(SetPolicies(scope="fleet", overrides={"staleness.window_days": 3.0}, etag="v0"))
    late = SetPolicies(scope="fleet", overrides={"staleness.window_days": 4.0}, etag="v0")
    assert reason_of(lambda: fleet.do(late)) is Reason.ETAG_MISMATCH
    fleet.do(SetPolicies(scope="fleet", overrides={"staleness.window_days": 4.0}, etag="v1"))


def test_a_models_own_words_are_the_scope_of_the_model() -> None:
    fleet = Fleet()
    model_id = fleet.model("m", overrides={"staleness.window_days": 3.0})
    scope = "model:m"
    assert fleet.state.policies.overrides(scope) == {"staleness.window_days": 3.0}
    before = fleet.state.models[model_id].etag
    fleet.do(SetPolicies(scope=scope, overrides={"staleness.window_days": 5.0}))
    record = fleet.state.models[model_id]
    assert record.own_policies == {"staleness.window_days": 5.0}
    assert record.etag != before
    assert fleet.new_events(UpdateModel(model_id=model_id, policies={})) == ["PoliciesSet"]
    assert record.staleness_policy == default_policy(2)


# Who is told


def test_a_change_names_model_field_values_and_sources() -> None:
    fleet = Fleet()
    fleet.model("a", tier=1)
    fleet.model("b", tier=1, overrides={"staleness.window_days": 5.0})
    fleet.model("c", tier=2)
    said: Overrides = {"staleness.window_days": 5.0}
    told = list(changes(fleet.state, "tier:1", {}, said))
    assert [(t.model_id, t.field, t.before, t.after, t.source_before, t.source_after) for t in told] == [
        ("a", "staleness.window_days", 7.0, 5.0, BUILT_IN, "tier:1")
    ]


def test_a_model_that_changes_hands_inherits_from_others() -> None:
    fleet = Fleet()
    fleet.do(SetPolicies(scope="team:slow", overrides={"retraining.cooldown": "172800s"}))
    model_id = fleet.model("m", team="fast", tier=1)
    before = fleet.state.models[model_id].facts
    after = ModelFacts(model_id=model_id, owner=before.owner, team=TeamId("slow"), tier=2, task_type=before.task_type)
    told = {change.field: change for change in facts_changes(fleet.state, before, after, {}, {})}
    assert set(told) == {"retraining.cooldown", "rollout.approvals", "staleness.cadence"}
    assert told["retraining.cooldown"].source_after == "team:slow"
    fleet.do(UpdateModel(model_id=model_id, facts=after))
    assert fleet.state.models[model_id].retraining_policy.cooldown == timedelta(days=2)


# The fold

SCOPED = st.tuples(
    st.sampled_from(["fleet", "tier:1", "tier:2", "team:a", "team:b", "model:m0", "model:m1"]), overrides(3)
)


@settings(max_examples=60)
@given(st.lists(SCOPED, max_size=12))
def test_what_a_record_has_in_force_is_what_its_scopes_say(told: list[tuple[str, Overrides]]) -> None:
    fleet = Fleet()
    for number in range(4):
        name, team = f"m{number}", "ab"[number % 2]
        fleet.do(
            RegisterModel(
                facts=ModelFacts(
                    model_id=ModelId(name), team=TeamId(team), tier=1 + number // 2, task_type=TaskType.REGRESSION
                )
            )
        )
    for scope, said in told:
        try:
            fleet.do(SetPolicies(scope=scope, overrides=said))
        except Invalid:
            continue
    again: State = decode_snapshot(encode_snapshot(fleet.state))
    for model_id, record in fleet.state.models.items():
        facts = record.facts
        layers = fleet.state.policies.layers(facts.tier, facts.team, model_id)
        assert record.policies == resolve(built_in(facts.tier, facts.task_type), layers)[0]
        assert policies_violations(record.policies) == []
        assert again.models[model_id].policies == record.policies
        assert in_force(again, facts) == record.policies
    assert encode_snapshot(again) == encode_snapshot(fleet.state)


def test_models_that_say_the_same_share_what_is_in_force() -> None:
    fleet = Fleet()
    for number in range(20):
        fleet.model(f"m{number}", overrides={"staleness.window_days": 3.0})
    fleet.do(SetPolicies(scope="fleet", overrides={"retraining.automatic": False}))
    assert len({id(record.policies) for record in fleet.state.models.values()}) == 1
    assert not fleet.state.models[ModelId("m7")].retraining_policy.automatic


def test_a_full_policy_as_overrides_sets_every_field_of_its_group() -> None:
    policy = RetrainingPolicy(automatic=False, cooldown=timedelta(microseconds=1_500_001))
    said = overrides_of("retraining", policy)
    assert said["retraining.cooldown"] == "1.500001s"
    assert applied(built_in(1, TaskType.BINARY), said).retraining == policy
