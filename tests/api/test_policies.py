"""PolicyService: what scopes say, what changes for whom, where each value comes from."""

from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from runway.v1 import common_pb2, policies_pb2, registry_pb2

from control_plane.api.convert.policies import effective_message, overrides_from, policies_message
from control_plane.core.policies import FIELDS, Overrides, applied, built_in, normal, scalars
from control_plane.core.registry.types import TaskType
from tests.api.worlds import Api, Host, by, refused, span
from tests.core.overrides import overrides


def staleness(**fields: Any) -> policies_pb2.Policies:
    return policies_pb2.Policies(staleness=policies_pb2.StalenessPolicy(**fields))


async def say(
    api: Api, scope: str, policies: policies_pb2.Policies | None = None, etag: str = "", **mutation: Any
) -> policies_pb2.SetPoliciesResponse:
    request = policies_pb2.SetPoliciesRequest(mutation=by(**mutation), scope=scope, policies=policies, etag=etag)
    return await api.policies.SetPolicies(request)


async def explained(api: Api, model_id: str) -> dict[str, policies_pb2.PolicyValue]:
    reply = await api.policies.ExplainPolicies(policies_pb2.ExplainPoliciesRequest(model_id=model_id))
    return {value.field: value for value in reply.values}


# The wire


@given(overrides(fields_max=len(FIELDS)))
def test_every_field_goes_over_the_wire_and_back(said: Overrides) -> None:
    # Weights are said together.
    if any(path.startswith("staleness.weights.") for path in said):
        said = {**{path: 0.0 for path in FIELDS if path.startswith("staleness.weights.")}, **said}
    message = policies_message(normal(said))
    again = policies_pb2.Policies.FromString(message.SerializeToString())
    assert overrides_from(again) == normal(said)
    assert list(overrides_from(again)) == list(normal(said))


def test_every_field_of_the_contract_is_a_field_here_and_none_is_forgotten() -> None:
    paths: set[str] = set()
    for group in policies_pb2.Policies.DESCRIPTOR.fields:
        for field in group.message_type.fields:
            inner = field.message_type
            if inner is not None and inner.full_name != "google.protobuf.Duration":
                paths.update(f"{group.name}.{field.name}.{one.name}" for one in inner.fields)
            else:
                paths.add(f"{group.name}.{field.name}")
    assert paths == set(FIELDS)


def test_policies_in_force_have_every_field_that_has_a_value() -> None:
    for task in TaskType:
        policies = applied(built_in(3, task), {"staleness.performance_floor": 0.5})
        assert set(overrides_from(effective_message(policies))) == set(FIELDS)
        missing = {path for path, scalar in scalars(built_in(3, task)).items() if scalar is None}
        assert missing == {"staleness.performance_floor"}


# Set


async def test_a_scope_says_something_and_the_reply_tells_what_changes_for_whom(api: Api) -> None:
    await api.model("a", tier=common_pb2.TIER_1)
    await api.model("b", tier=common_pb2.TIER_1, team="other", policies=staleness(window_days=3))
    await api.model("c", tier=common_pb2.TIER_2)
    reply = await say(api, "tier:1", staleness(window_days=5), reason="a longer look")
    assert [(c.model_id, c.field, c.before, c.after, c.source_before, c.source_after) for c in reply.changes] == [
        ("a", "staleness.window_days", "7", "5", "built-in", "tier:1")
    ]
    layer = reply.layer
    assert (layer.scope, layer.version, layer.set_by, layer.reason) == ("tier:1", 1, "tester", "a longer look")
    assert layer.revision == reply.revision == await api.revision()
    assert layer.policies == staleness(window_days=5)
    removed = await say(api, "tier:1")
    assert [(c.model_id, c.before, c.after) for c in removed.changes] == [("a", "5", "7")]
    assert removed.layer.version == 2


async def test_validate_only_tells_the_same_and_changes_nothing(api: Api) -> None:
    await api.model("a")
    before = await api.revision()
    policies = policies_pb2.Policies(retraining=policies_pb2.RetrainingPolicy(cooldown=span(timedelta(minutes=90))))
    dry = await say(api, "fleet", policies, validate_only=True)
    assert await api.revision() == before
    real = await say(api, "fleet", policies)
    assert dry.changes == real.changes
    assert [(c.field, c.before, c.after) for c in real.changes] == [("retraining.cooldown", "86400s", "5400s")]
    assert (dry.layer.version, dry.layer.policies) == (1, policies)
    again = await say(api, "fleet", policies)
    assert (again.layer, list(again.changes), await api.revision()) == (real.layer, [], real.revision)


async def test_a_repeated_request_gets_its_first_answer_even_after_a_restart(host: Host) -> None:
    async with host.life() as api:
        await api.model("a")
        first = await say(api, "fleet", staleness(window_days=5), request_id="p1")
        assert await say(api, "fleet", staleness(window_days=5), request_id="p1") == first
        await say(api, "fleet", staleness(window_days=6))
        kept = await api.policies.ListPolicyVersions(policies_pb2.ListPolicyVersionsRequest(scope="fleet"))
    async with host.life() as api:
        assert await say(api, "fleet", staleness(window_days=5), request_id="p1") == first
        again = await api.policies.ListPolicyVersions(policies_pb2.ListPolicyVersionsRequest(scope="fleet"))
        assert again == kept
        assert [layer.version for layer in kept.layers] == [2, 1]


async def test_all_that_is_wrong_is_told_at_once(api: Api) -> None:
    await api.model("a", policies=staleness(at_risk_threshold=0.55))
    broken = policies_pb2.Policies(
        staleness=policies_pb2.StalenessPolicy(stale_threshold=0.5, hysteresis_k=5),
        retraining=policies_pb2.RetrainingPolicy(lease_ttl=span(timedelta(days=1))),
        label=policies_pb2.LabelSpec(window=span(timedelta(days=100))),
    )
    refusal = await refused(say(api, "team:flights", broken))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert set(refusal.violations) == {
        "policies.staleness.at_risk_threshold",
        "policies.staleness.hysteresis_k",
        "policies.retraining.attempt_timeout",
        "policies.label.window",
    }
    [told] = [text for text in refusal.described if "at_risk" in text.partition(":")[0]]
    assert "a: 0.55 must not be above stale_threshold, which is 0.5" in told
    assert "from model:a" in told
    assert "from team:flights" in told


async def test_rules_of_the_contract_and_of_the_core_are_told_in_one_answer(api: Api) -> None:
    broken = policies_pb2.Policies(
        staleness=policies_pb2.StalenessPolicy(psi_moderate=-1, stale_threshold=0.2, at_risk_threshold=0.3),
        validation=policies_pb2.ValidationPolicy(timeout=span(timedelta(days=1000))),
    )
    refusal = await refused(say(api, "fleet", broken))
    assert set(refusal.violations) == {
        "policies.staleness.psi_moderate",
        "policies.staleness.at_risk_threshold",
        "policies.validation.timeout",
    }
    model = registry_pb2.Model(model_id="UP", team="flights", owner="x", policies=broken, retrain_gpu_hours=-1)
    refusal = await refused(api.registry.RegisterModel(registry_pb2.RegisterModelRequest(model=model)))
    assert set(refusal.violations) == {
        "model.model_id",
        "model.tier",
        "model.task_type",
        "model.owner",
        "model.retrain_gpu_hours",
        "model.policies.staleness.psi_moderate",
        "model.policies.staleness.at_risk_threshold",
        "model.policies.validation.timeout",
    }


@pytest.mark.parametrize("scope", ["everyone", "tier:7", "team:UPPER", ""])
async def test_a_scope_that_is_none(api: Api, scope: str) -> None:
    assert set((await refused(say(api, scope))).violations) == {"scope"}
    get = policies_pb2.GetPoliciesRequest(scope=scope)
    assert set((await refused(api.policies.GetPolicies(get))).violations) == {"scope"}


async def test_two_who_change_a_scope_at_once_are_told_apart_by_the_etag(api: Api) -> None:
    found = await api.policies.GetPolicies(policies_pb2.GetPoliciesRequest(scope="fleet"))
    assert (found.layer.version, found.layer.etag) == (0, "v0")
    won = await say(api, "fleet", staleness(window_days=5), etag=found.layer.etag)
    lost = await refused(say(api, "fleet", staleness(window_days=6), etag=found.layer.etag))
    assert (lost.code, lost.reason, lost.metadata["etag"]) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH", won.layer.etag)


# Read


async def test_earlier_versions_are_read_and_scopes_listed(api: Api) -> None:
    await api.model("m", policies=staleness(window_days=2))
    for days in (3, 4):
        await say(api, "team:flights", staleness(window_days=days))
    await say(api, "fleet", staleness(window_days=9))
    await say(api, "tier:4", staleness(window_days=8))
    await say(api, "tier:4")
    listed = await api.policies.ListPolicies(policies_pb2.ListPoliciesRequest())
    assert [(layer.scope, layer.version) for layer in listed.layers] == [
        ("fleet", 1),
        ("team:flights", 2),
        ("model:m", 1),
    ]
    request = policies_pb2.GetPoliciesRequest(scope="team:flights", version=1)
    assert (await api.policies.GetPolicies(request)).layer.policies == staleness(window_days=3)
    request.version = 3
    lost = await refused(api.policies.GetPolicies(request))
    assert (lost.code, lost.reason) == (grpc.StatusCode.NOT_FOUND, "POLICY_NOT_FOUND")
    unknown = policies_pb2.GetPoliciesRequest(scope="model:nope")
    assert (await refused(api.policies.GetPolicies(unknown))).reason == "MODEL_NOT_FOUND"


async def test_every_value_is_explained(api: Api) -> None:
    await say(api, "fleet", staleness(labels_min=10))
    await say(api, "tier:2", staleness(stale_threshold=0.7))
    await say(api, "team:flights", policies_pb2.Policies(rollout=policies_pb2.RolloutPolicy(require_load_check=True)))
    await api.model("m", policies=staleness(window_days=2.5))
    values = await explained(api, "m")
    assert set(values) == set(FIELDS)
    told = {field: (value.value, value.source, value.explanation) for field, value in values.items()}
    assert told["staleness.labels_min"] == ("10", "fleet", "from the fleet's default")
    assert told["staleness.stale_threshold"] == ("0.7", "tier:2", "from tier 2's default")
    assert told["rollout.require_load_check"] == ("true", "team:flights", "from team flights's default")
    assert told["staleness.window_days"] == ("2.5", "model:m", "set on the model itself")
    assert told["staleness.cadence"] == ("3600s", "built-in", "the built-in default of tier 2")
    assert told["retraining.cooldown"] == ("86400s", "built-in", "the built-in default")
    assert told["label.metric"] == ("auc", "built-in", "the built-in default")
    assert told["staleness.performance_floor"][0] == "none"


# Models


async def test_a_model_that_changes_hands_shows_what_it_inherits(api: Api) -> None:
    await say(api, "team:slow", staleness(window_days=30))
    before = await api.model("m")
    request = registry_pb2.UpdateModelRequest(
        mutation=by(validate_only=True),
        model=registry_pb2.Model(model_id="m", team="slow", tier=common_pb2.TIER_1),
        update_mask=FieldMask(paths=["team", "tier"]),
    )
    dry = await api.registry.UpdateModel(request)
    request.mutation.validate_only = False
    real = await api.registry.UpdateModel(request)
    assert dry.policy_changes == real.policy_changes
    assert [(c.field, c.after, c.source_after) for c in real.policy_changes] == [
        ("rollout.approvals", "1", "built-in"),
        ("staleness.cadence", "900s", "built-in"),
        ("staleness.window_days", "30", "team:slow"),
    ]
    assert dry.model.effective_policies == real.model.effective_policies
    assert real.model.effective_policies.staleness.window_days == 30
    assert not real.model.HasField("policies")
    assert real.model.etag != before.etag


async def test_what_a_model_says_itself_is_its_scope(api: Api) -> None:
    model = await api.model("m", policies=staleness(window_days=2))
    found = (await api.policies.GetPolicies(policies_pb2.GetPoliciesRequest(scope="model:m"))).layer
    assert (found.policies, found.version) == (model.policies, 1)
    await say(api, "model:m", staleness(window_days=4))
    shown = (await api.registry.GetModel(registry_pb2.GetModelRequest(model_id="m"))).model
    assert shown.policies == staleness(window_days=4)
    cleared = await api.registry.UpdateModel(
        registry_pb2.UpdateModelRequest(
            model=registry_pb2.Model(model_id="m"), update_mask=FieldMask(paths=["policies"])
        )
    )
    assert not cleared.model.policies.ListFields()
    versions = await api.policies.ListPolicyVersions(policies_pb2.ListPolicyVersionsRequest(scope="model:m"))
    assert [layer.version for layer in versions.layers] == [3, 2, 1]
