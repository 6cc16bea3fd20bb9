"""A manifest is planned, applied as one and given back: exact, idempotent, all or nothing, all problems at once."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from runway_client import messages
from runway_client.fleet_files import read_texts, render

from control_plane.api.convert.fleet import manifest_of
from control_plane.core.decide import decide
from control_plane.core.decide.fleet import plan_fleet
from control_plane.core.errors import Invalid, Refused
from control_plane.core.state import State
from tests.fleet.fleets import NOW, SMALL, applied, fleets, planned, reading, small, wrong

SLOW = settings(max_examples=30, deadline=None, suppress_health_check=[*HealthCheck])


def _bytes(manifest: messages.Manifest) -> bytes:
    return manifest.SerializeToString(deterministic=True)


@SLOW
@given(fleets())
def test_what_is_exported_makes_the_same_fleet_and_changes_nothing_twice(manifest: messages.Manifest) -> None:
    state = State()
    assert wrong(state, manifest) == []
    applied(state, manifest)
    exported = manifest_of(state)
    assert applied(state, exported, prune=True) == 0
    assert applied(state, manifest) == 0

    files = render(exported)
    read = read_texts(files)
    assert read.problems == []
    other = State()
    applied(other, read.manifest)
    assert _bytes(manifest_of(other)) == _bytes(exported)
    assert render(manifest_of(other)) == files


@SLOW
@given(fleets(), fleets())
def test_with_prune_the_fleet_becomes_the_manifest_whatever_it_was(
    before: messages.Manifest, after: messages.Manifest
) -> None:
    """Models stay; those that the manifest does not have keep what the model itself says, and nothing else."""
    state = State()
    applied(state, before)
    plan = planned(state, after, prune=True)
    if plan.violations:
        return
    applied(state, after, prune=True)
    assert planned(state, after, prune=True).events == ()
    left = {model.model_id for model in before.models} - {model.model_id for model in after.models}
    assert set(plan.models_not_in_manifest) == left
    if not left:
        fresh = State()
        applied(fresh, after)
        assert _bytes(manifest_of(state)) == _bytes(manifest_of(fresh))


def test_a_plan_tells_each_thing_and_each_field() -> None:
    state = State()
    applied(state, small())
    changed = small(
        SMALL.replace("tier: 1\n", "tier: 2\n")
        .replace("owner: team:data, ", "")
        .replace("cadence: 15m", "cadence: 30m")
        .replace("four numbers", "five")
        + "  - {model_id: fresh, team: net, tier: 3, task_type: binary}\n"
    )
    plan = planned(state, changed)
    told = [(change.action.value, change.subject, [tuple(one) for one in change.fields]) for change in plan.changes]
    assert told == [
        ("UPDATE", "policy:tier:1", [("staleness.cadence", "900s", "1800s")]),
        ("UPDATE", "dataset:weather", [("owner", "team:data", "")]),
        ("UPDATE", "model:air_time", [("tier", "1", "2")]),
        ("CREATE", "model:fresh", []),
        ("UPDATE", "model:route -> model:air_time (embeds)", [("note", "four numbers", "five")]),
    ]
    own = planned(state, small(SMALL.replace("cooldown: 2d", "cooldown: 3d")))
    assert [(change.subject, [tuple(one) for one in change.fields]) for change in own.changes] == [
        ("model:air_time", [("policies.retraining.cooldown", "172800s", "259200s")])
    ]
    cadence = [change for change in plan.policy_changes if change.field == "staleness.cadence"]
    assert [(one.model_id, one.before, one.source_before, one.source_after) for one in cadence] == [
        ("air_time", "900s", "tier:1", "built-in")
    ]


def test_what_the_manifest_does_not_name_stays_unless_it_is_pruned() -> None:
    state = State()
    applied(state, small())
    part = small("models: [{model_id: route, team: net, tier: 2, task_type: embedding, owner: team:net}]")
    assert planned(state, part).changes == ()
    assert planned(state, part).models_not_in_manifest == ("air_time",)
    pruned = planned(state, part, prune=True)
    assert [(change.action.value, change.subject) for change in pruned.changes] == [
        ("DELETE", "policy:model:air_time"),
        ("DELETE", "policy:tier:1"),
        ("DELETE", "dataset:weather"),
        ("DELETE", "feature:temp"),
        ("DELETE", "dataset:weather -> feature:temp (derived_from)"),
        ("DELETE", "feature:temp -> model:air_time (reads_feature)"),
        ("DELETE", "model:route -> model:air_time (embeds)"),
    ]
    applied(state, part, prune=True)
    assert set(state.models) == {"air_time", "route"}
    assert [node.node_id for node in state.graph.nodes()] == ["consumer:gate_desk", "model:air_time", "model:route"]


def test_all_that_is_wrong_is_told_at_once_and_names_the_entry() -> None:
    state = State()
    applied(state, small())
    manifest = small()
    manifest.models[0].owner = "nobody at all"
    manifest.models[1].team = "Net!"
    manifest.policies.add(scope="model:unknown")
    manifest.policies.add(scope="tier:1")
    manifest.policies.add(scope="tier:2").policies.staleness.stale_threshold = 0.01
    manifest.nodes.add(node_id="model:route")
    manifest.nodes.add(node_id="feature:temp")
    manifest.dependencies.add(upstream_id="feature:nowhere", downstream_id="model:route")
    manifest.dependencies.add(upstream_id="model:air_time", downstream_id="model:route")
    manifest.dependencies.add(upstream_id="consumer:gate_desk", downstream_id="model:route")
    found = wrong(state, manifest)
    for part in (
        "models[1].team: route: ",
        "models[0].owner: air_time: 'nobody at all' is neither an e-mail nor team:name",
        "policies[1].scope: model:unknown: there is no such model",
        "policies[2]: tier:1 is policies[0] already: keep one of them",
        "nodes[2].node_id: model:route is a model: put it under models",
        "nodes[3]: feature:temp is nodes[1] already: keep one of them",
        "there is no node feature:nowhere; declare it first",
        "that closes the cycle",
        "no type joins consumer to model",
    ):
        assert any(part in one for one in found), (part, found)
    with pytest.raises(Invalid):
        decide(state, reading(manifest).command, NOW)


def test_policies_that_break_a_rule_for_a_model_are_blamed_on_what_says_them() -> None:
    state = State()
    applied(state, small())
    manifest = small(SMALL.replace("cadence: 15m", "stale_threshold: 0.1"))
    [found] = wrong(state, manifest)
    assert found.startswith("policies[0].policies.staleness.at_risk_threshold: air_time: 0.4 must not be above")


def test_a_scope_that_speaks_to_nobody_yet_is_judged_all_the_same() -> None:
    text = "policies: [{scope: tier:2}, {scope: team:new, policies: {staleness: {stale_threshold: 0.001}}}]"
    [found] = wrong(State(), small(text))
    assert found.startswith("policies[1].policies.staleness.at_risk_threshold: team:new: ")


def test_a_model_says_its_policies_in_one_place() -> None:
    manifest = small()
    manifest.policies.add(scope="model:air_time").policies.retraining.automatic = False
    [found] = wrong(State(), manifest)
    assert found.startswith("policies[1].scope: model:air_time: the model's own entry has policies too")


def test_a_dependency_that_a_model_stops_implying_stays_if_the_manifest_says_it() -> None:
    state = State()
    applied(state, small())
    explicit = small(
        SMALL.replace("    consumers: [gate_desk]\n", "")
        + "dependencies: [{upstream_id: model:air_time, downstream_id: consumer:gate_desk}]\n"
    )
    explicit.nodes.add(node_id="consumer:gate_desk")
    applied(state, explicit)
    assert planned(state, explicit, prune=True).events == ()
    assert state.graph.between("model:air_time", "consumer:gate_desk")  # type: ignore[arg-type]


def test_a_plan_that_would_be_another_one_now_is_not_applied() -> None:
    state = State()
    plan = planned(state, small())
    command = reading(small(), plan_etag=plan.etag).command
    applied(state, small("nodes: [{node_id: feature:temp, title: warmth}]"))
    with pytest.raises(Refused, match="plan again"):
        decide(state, command, NOW)
    assert decide(State(), command, NOW).events == plan.events


def test_a_teams_part_applies_without_a_change_where_it_came_from() -> None:
    state = State()
    applied(state, small())
    part = manifest_of(state, "data")
    assert [node.node_id for node in part.nodes] == ["dataset:weather"]
    assert not part.models
    assert planned(state, manifest_of(state, "net")).events == ()
    assert [model.model_id for model in manifest_of(state, "net").models] == ["air_time", "route"]


RULES = """
rules:
  - {name: wake_up, scope: 'tier:1', when: verdict == STALE && confidence >= MEDIUM, action: page, priority: 10}
  - name: night_only
    scope: fleet
    when: |-
      verdict == STALE &&
        !season.expected
    action: retrain_off_peak
    reason: GPUs are cheap then
"""


def test_rules_are_part_of_the_fleet_and_come_back_as_they_were() -> None:
    state = State()
    applied(state, small(SMALL + RULES))
    assert [(rule.name, rule.scope) for rule in state.rules.rules()] == [("wake_up", "tier:1"), ("night_only", "fleet")]
    again = manifest_of(state)
    assert [(rule.scope, rule.name) for rule in again.rules] == [("fleet", "night_only"), ("tier:1", "wake_up")]
    assert planned(state, again).events == ()
    assert planned(state, small()).events == (), "rules that are not named stay"
    again.rules[0].priority = 7
    [change] = planned(state, again).changes
    assert (change.subject, [tuple(field) for field in change.fields]) == (
        "rule:night_only (fleet)",
        [("priority", "0", "7")],
    )
    pruned = planned(state, small(), prune=True)
    assert [(change.action.value, change.subject) for change in pruned.changes] == [
        ("DELETE", "rule:night_only (fleet)"),
        ("DELETE", "rule:wake_up (tier:1)"),
    ]
    applied(state, small(), prune=True)
    assert not state.rules.rules()


def test_a_plan_of_rules_is_the_same_an_hour_later() -> None:
    state = State()
    applied(state, small())
    command = reading(small(SMALL + RULES)).command
    assert plan_fleet(state, command, NOW).etag == plan_fleet(state, command, NOW + timedelta(hours=1)).etag


def test_what_is_wrong_with_rules_is_told_with_line_and_column_of_the_expression() -> None:
    text = """
rules:
  - {name: a, scope: 'model:nope', when: verdict == STALEE, action: page}
  - {name: b, scope: fleet, when: tier, action: alert}
"""
    manifest = small(text)
    manifest.rules.add().CopyFrom(manifest.rules[0])
    manifest.rules[2].when = "true"
    assert sorted(wrong(State(), manifest)) == [
        "rules[0].when: b (fleet): 1:1: this is an int, and a rule says yes or no: compare it with something",
        "rules[1].scope: a (model:nope): there is no such model: "
        "it is neither in the manifest nor in the fleet; remove the rule or add the model",
        "rules[1].when: a (model:nope): 1:12: there is no STALEE: did you mean STALE?",
        "rules[2]: b (fleet) is rules[0] already: keep one of them",
    ]
