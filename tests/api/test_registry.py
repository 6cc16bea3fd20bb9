"""RegistryService: models, versions, aliases, their history, and every way to be refused."""

from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from runway.v1 import common_pb2, policies_pb2, registry_pb2

from tests.api.worlds import START, Api, Host, a_model, a_version, by, instant, refused, span


async def test_a_model_is_registered_with_the_policies_in_force(api: Api) -> None:
    model = await api.model("delay", tags={"airport": "jfk"}, consumers=["ops_desk"], description="late or not")
    assert model.effective_policies.staleness.stale_threshold > 0
    assert model.effective_policies.retraining.attempts_max == 3
    assert model.effective_policies.label.label_type == "default"
    assert not model.HasField("policies")
    assert model.etag
    found = await api.registry.GetModel(registry_pb2.GetModelRequest(model_id="delay"))
    assert found.model == model
    assert found.revision == await api.revision()


async def test_a_model_id_may_be_pasted_as_a_node_id(api: Api) -> None:
    await api.model("delay")
    found = await api.registry.GetModel(registry_pb2.GetModelRequest(model_id="model:delay"))
    assert found.model.model_id == "delay"


async def test_a_second_registration_is_refused_and_names_the_owner(api: Api) -> None:
    await api.model("delay")
    refusal = await refused(api.model("delay", owner="team:other"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "MODEL_ALREADY_EXISTS")
    assert "team:flights" in refusal.message
    assert refusal.metadata == {"model_id": "delay"}


async def test_all_violations_of_the_contract_are_told_at_once(api: Api) -> None:
    broken = registry_pb2.Model(model_id="Delay!", owner="x" * 201, team="Team", consumers=["UPPER"])
    refusal = await refused(api.registry.RegisterModel(registry_pb2.RegisterModelRequest(model=broken)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert set(refusal.violations) == {
        "model.model_id",
        "model.owner",
        "model.team",
        "model.tier",
        "model.task_type",
        "model.consumers[0]",
    }


async def test_all_violations_of_the_rules_are_told_at_once(api: Api) -> None:
    refusal = await refused(
        api.model(
            "delay",
            owner="nobody",
            consumers=["a", "a"],
            policies=policies_pb2.Policies(
                staleness=policies_pb2.StalenessPolicy(
                    stale_threshold=0.3, at_risk_threshold=0.5, cadence=span(timedelta(0))
                ),
                retraining=policies_pb2.RetrainingPolicy(lease_ttl=span(timedelta(0))),
                validation=policies_pb2.ValidationPolicy(timeout=span(timedelta(0))),
                label=policies_pb2.LabelSpec(window=span(timedelta(0))),
            ),
        )
    )
    assert refusal.reason == "INVALID_ARGUMENT"
    assert set(refusal.violations) == {
        "model.owner",
        "model.consumers",
        "model.policies.staleness.at_risk_threshold",
        "model.policies.staleness.cadence",
        "model.policies.retraining.lease_ttl",
        "model.policies.validation.timeout",
        "model.policies.label.window",
    }


@pytest.mark.parametrize("name", ["cooldown", "cascade_cooldown", "lease_ttl", "attempt_timeout", "retry_backoff"])
async def test_a_span_of_ten_thousand_years_is_refused_and_nothing_breaks(api: Api, name: str) -> None:
    policy = policies_pb2.RetrainingPolicy()
    getattr(policy, name).seconds = 10_000 * 365 * 86_400
    refusal = await refused(api.model("delay", policies=policies_pb2.Policies(retraining=policy)))
    assert f"model.policies.retraining.{name}" in refusal.violations


async def test_many_violations_still_arrive(api: Api) -> None:
    tags = {f"k{number}": "x" for number in range(70)}
    consumers = [f"NOT A SLUG {number} " + "x" * 80 for number in range(200)]
    refusal = await refused(api.model("delay", tags=tags, consumers=consumers))
    assert refusal.reason == "INVALID_ARGUMENT"
    assert len(refusal.violations) >= 12
    assert int(refusal.metadata["violations"]) == 201


async def test_unknown_models_and_versions_are_not_found(api: Api) -> None:
    unknown = await refused(api.registry.GetModel(registry_pb2.GetModelRequest(model_id="nope")))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert unknown.metadata == {"model_id": "nope"}
    await api.model("delay")
    request = registry_pb2.GetVersionRequest(model_id="delay", version=1)
    assert (await refused(api.registry.GetVersion(request))).reason == "VERSION_NOT_FOUND"
    request = registry_pb2.GetVersionRequest(model_id="delay", alias="production")
    no_alias = await refused(api.registry.GetVersion(request))
    assert (no_alias.code, no_alias.reason) == (grpc.StatusCode.NOT_FOUND, "ALIAS_NOT_FOUND")
    bad = await refused(api.registry.GetModel(registry_pb2.GetModelRequest(model_id="Not A Slug")))
    assert (bad.code, bad.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ID")
    assert bad.violations == {"model_id": "SLUG"}


# Updates


def staleness(**fields: Any) -> policies_pb2.Policies:
    """A model's own word on when it is stale."""
    return policies_pb2.Policies(staleness=policies_pb2.StalenessPolicy(**fields))


async def update(api: Api, model: registry_pb2.Model, *paths: str, **mutation: str) -> registry_pb2.Model:
    request = registry_pb2.UpdateModelRequest(
        mutation=by(**mutation),  # type: ignore[arg-type]
        model=model,
        update_mask=FieldMask(paths=paths),
    )
    return (await api.registry.UpdateModel(request)).model


async def test_an_update_changes_the_masked_fields_only(api: Api) -> None:
    before = await api.model("delay", description="old", tags={"a": "1", "b": "2"})
    wanted = a_model("delay", description="new", owner="someone@example.org", tags={"c": "3"})
    after = await update(api, wanted, "description", "tags")
    assert (after.description, dict(after.tags), after.owner) == ("new", {"c": "3"}, before.owner)
    assert after.etag != before.etag


async def test_a_masked_field_that_is_not_set_is_cleared(api: Api) -> None:
    await api.model("delay", description="old", tags={"a": "1"}, consumers=["desk"])
    after = await update(api, registry_pb2.Model(model_id="delay"), "description", "tags", "consumers")
    assert (after.description, dict(after.tags), list(after.consumers)) == ("", {}, [])


async def test_an_update_reaches_into_a_policy(api: Api) -> None:
    before = await api.model("delay", policies=staleness(window_days=3))
    changes = registry_pb2.Model(model_id="delay", policies=staleness(stale_threshold=0.9, window_days=30))
    after = await update(api, changes, "policies.staleness.stale_threshold")
    assert after.policies == staleness(stale_threshold=0.9, window_days=3)
    assert after.effective_policies.staleness.stale_threshold == 0.9
    assert after.effective_policies.retraining == before.effective_policies.retraining
    cleared = await update(api, registry_pb2.Model(model_id="delay"), "policies.staleness.stale_threshold")
    assert cleared.policies == before.policies
    assert cleared.effective_policies == before.effective_policies


async def test_an_empty_mask_means_every_field_that_is_set_however_deep(api: Api) -> None:
    before = await api.model("delay", description="old", policies=staleness(window_days=3, hysteresis_n=5))
    changes = registry_pb2.Model(model_id="delay", description="new", policies=staleness(stale_threshold=0.9))
    after = await update(api, changes)
    assert after.description == "new"
    assert after.policies == staleness(stale_threshold=0.9, window_days=3, hysteresis_n=5)
    assert after.owner == before.owner


@pytest.mark.parametrize(
    "path",
    [
        "nonsense",
        "policies.nonsense",
        "policies.staleness.nonsense",
        "effective_policies",
        "lifecycle",
        "etag",
        "model_id",
        "aliases",
    ],
)
async def test_a_mask_names_what_can_be_changed(api: Api, path: str) -> None:
    await api.model("delay")
    refusal = await refused(update(api, a_model("delay"), path))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert set(refusal.violations) == {"update_mask"}


async def test_an_update_that_breaks_the_model_is_refused_whole(api: Api) -> None:
    before = await api.model("delay")
    changes = registry_pb2.Model(model_id="delay", team="UPPER", policies=staleness(stale_threshold=7))
    assert (await refused(update(api, changes))).violations
    assert (await api.registry.GetModel(registry_pb2.GetModelRequest(model_id="delay"))).model == before


async def test_an_old_etag_is_aborted_and_tells_the_new_one(api: Api) -> None:
    first = await api.model("delay")
    second = await update(api, registry_pb2.Model(model_id="delay", description="a", etag=first.etag), "description")
    refusal = await refused(
        update(api, registry_pb2.Model(model_id="delay", description="b", etag=first.etag), "description")
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert refusal.metadata["etag"] == second.etag


async def test_a_repeated_update_gets_its_first_answer(api: Api) -> None:
    await api.model("delay")
    wanted = registry_pb2.Model(model_id="delay", description="new")
    request = registry_pb2.UpdateModelRequest(
        mutation=by(request_id="u1"), model=wanted, update_mask=FieldMask(paths=["description"])
    )
    first = await api.registry.UpdateModel(request)
    assert await api.registry.UpdateModel(request) == first
    other = registry_pb2.UpdateModelRequest()
    other.CopyFrom(request)
    other.model.description = "another"
    assert (await refused(api.registry.UpdateModel(other))).reason == "REQUEST_ID_REUSED"
    moved = registry_pb2.UpdateModelRequest(
        mutation=by(request_id="u2"),
        model=registry_pb2.Model(
            model_id="delay",
            tier=common_pb2.TIER_1,
            policies=policies_pb2.Policies(rollout=policies_pb2.RolloutPolicy(require_load_check=True)),
        ),
        update_mask=FieldMask(paths=["tier", "policies"]),
    )
    first = await api.registry.UpdateModel(moved)
    assert first.policy_changes
    assert await api.registry.UpdateModel(moved) == first


async def test_an_update_that_changes_nothing_leaves_the_log_alone(api: Api) -> None:
    await api.model("delay", description="same")
    before = await api.revision()
    await update(api, registry_pb2.Model(model_id="delay", description="same"), "description")
    assert await api.revision() == before


# request_id, validate_only, min_revision


async def test_the_same_request_id_gets_the_same_answer_even_after_a_restart(host: Host) -> None:
    request = registry_pb2.RegisterModelRequest(mutation=by(request_id="r1"), model=a_model("delay"))
    version = registry_pb2.RegisterVersionRequest(mutation=by(request_id="r2"), version=a_version("delay"))
    async with host.life() as api:
        first = await api.registry.RegisterModel(request)
        assert await api.registry.RegisterModel(request) == first
        numbered = await api.registry.RegisterVersion(version)
        assert await api.registry.RegisterVersion(version) == numbered
        revision = await api.revision()
    async with host.life() as api:
        # The model has a version by now, and shows it; the rest is the first answer.
        again = await api.registry.RegisterModel(request)
        assert (again.revision, again.model.latest_version) == (first.revision, 1)
        assert await api.registry.RegisterVersion(version) == numbered
        assert await api.revision() == revision
        other = registry_pb2.RegisterModelRequest(mutation=by(request_id="r1"), model=a_model("other"))
        refusal = await refused(api.registry.RegisterModel(other))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
        assert refusal.metadata == {"request_id": "r1", "revision": str(first.revision)}


async def test_validate_only_changes_nothing_and_refuses_what_it_would_refuse(api: Api) -> None:
    await api.model("delay")
    before = await api.revision()
    dry = by(validate_only=True, request_id="dry")
    await api.registry.RegisterModel(registry_pb2.RegisterModelRequest(mutation=dry, model=a_model("other")))
    await api.registry.RegisterVersion(registry_pb2.RegisterVersionRequest(mutation=dry, version=a_version("delay")))
    shown = await api.registry.UpdateModel(
        registry_pb2.UpdateModelRequest(mutation=dry, model=a_model("delay", description="new"))
    )
    assert shown.model.description == "new"
    again = registry_pb2.RegisterModelRequest(mutation=dry, model=a_model("delay"))
    assert (await refused(api.registry.RegisterModel(again))).reason == "MODEL_ALREADY_EXISTS"
    assert await api.revision() == before
    assert not (await api.registry.GetModel(registry_pb2.GetModelRequest(model_id="delay"))).model.description
    # The id was not used up.
    real = registry_pb2.RegisterModelRequest(mutation=by(request_id="dry"), model=a_model("third"))
    assert (await api.registry.RegisterModel(real)).model.model_id == "third"


async def test_a_read_waits_for_the_revision_it_asks_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.model("delay")
    ahead = common_pb2.ReadOptions(min_revision=await api.revision() + 1)
    waiting = api.registry.GetModel(registry_pb2.GetModelRequest(model_id="other", read=ahead))
    await api.model("other")
    assert (await waiting).revision >= ahead.min_revision
    monkeypatch.setattr("control_plane.api.plane.READ_WAIT_S", 0.02)
    far = common_pb2.ReadOptions(min_revision=10_000)
    refusal = await refused(api.registry.ListModels(registry_pb2.ListModelsRequest(read=far)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "REVISION_NOT_REACHED")
    assert refusal.metadata == {"revision": str(await api.revision())}


@pytest.mark.parametrize(
    ("mutation", "field"),
    [
        (common_pb2.Mutation(request_id="x" * 129), "mutation.request_id"),
        (common_pb2.Mutation(actor="x" * 201), "mutation.actor"),
        (common_pb2.Mutation(reason="x" * 2001), "mutation.reason"),
        (common_pb2.Mutation(actor="a\x1fb"), "actor"),
    ],
)
async def test_who_asks_and_why_fit_the_log(api: Api, mutation: common_pb2.Mutation, field: str) -> None:
    request = registry_pb2.RegisterModelRequest(mutation=mutation, model=a_model("delay"))
    refusal = await refused(api.registry.RegisterModel(request))
    assert (refusal.reason, set(refusal.violations)) == ("INVALID_ARGUMENT", {field})


# Lists


async def test_models_are_listed_in_pages_that_stay_stable_while_models_are_added(api: Api) -> None:
    for name in ("b", "d", "f"):
        await api.model(name)
    page = common_pb2.PageRequest(page_size=2)
    first = await api.registry.ListModels(registry_pb2.ListModelsRequest(page=page))
    assert [model.model_id for model in first.models] == ["b", "d"]
    for name in ("a", "c", "e"):
        await api.model(name)
    page.page_token = first.next_page_token
    second = await api.registry.ListModels(registry_pb2.ListModelsRequest(page=page))
    assert [model.model_id for model in second.models] == ["e", "f"]
    assert not second.next_page_token


async def test_models_are_filtered(api: Api) -> None:
    await api.model("a", tags={"site": "jfk"})
    await api.model("b", team="other", tags={"site": "lga"})
    await api.model("c", tier=common_pb2.TIER_1)

    async def listed(**filters: object) -> list[str]:
        reply = await api.registry.ListModels(registry_pb2.ListModelsRequest(**filters))  # type: ignore[arg-type]
        return [model.model_id for model in reply.models]

    assert await listed(teams=["other"]) == ["b"]
    assert await listed(tiers=[common_pb2.TIER_1]) == ["c"]
    assert await listed(tags=["site"]) == ["a", "b"]
    assert await listed(tags=["site=jfk"]) == ["a"]
    assert await listed(teams=["nobody"]) == []


@pytest.mark.parametrize(
    ("page", "field"),
    [
        (common_pb2.PageRequest(page_size=1001), "page.page_size"),
        (common_pb2.PageRequest(page_size=-1), "page.page_size"),
        (common_pb2.PageRequest(page_token="junk"), "page.page_token"),
    ],
)
async def test_a_page_that_cannot_be(api: Api, page: common_pb2.PageRequest, field: str) -> None:
    refusal = await refused(api.registry.ListModels(registry_pb2.ListModelsRequest(page=page)))
    assert (refusal.reason, set(refusal.violations)) == ("INVALID_ARGUMENT", {field})


# What owners and trainers say


async def test_every_fact_of_a_model_is_kept(host: Host) -> None:
    tainted = registry_pb2.TaintedWindow(until=instant(START), reason="a broken sensor")
    getattr(tainted, "from").CopyFrom(instant(START - timedelta(days=1)))
    said = a_model(
        "delay",
        owner="",
        links=[registry_pb2.Link(kind=registry_pb2.LINK_KIND_RUNBOOK, title="At night", url="https://x/y")],
        training_window=span(timedelta(days=90)),
        tainted_windows=[tainted],
        expected_inputs=[
            registry_pb2.Field(name="temp", type=registry_pb2.VALUE_TYPE_NUMBER),
            registry_pb2.Field(name="note", optional=True),
        ],
        retrain_gpu_hours=1.5,
    )
    async with host.life() as api:
        await api.registry.RegisterModel(registry_pb2.RegisterModelRequest(model=said))
        first = (await api.registry.GetModel(registry_pb2.GetModelRequest(model_id="delay"))).model
        assert first.lifecycle == registry_pb2.LIFECYCLE_STATE_REGISTERED
    async with host.life() as api:
        assert (await api.registry.GetModel(registry_pb2.GetModelRequest(model_id="delay"))).model == first
    for field, value in said.ListFields():
        assert getattr(first, field.name) == value


# Lifecycle


async def test_a_model_that_is_used_is_retired_by_force_and_with_a_reason_only(api: Api) -> None:
    await api.serving("delay", consumers=["desk"])
    await api.model("down")
    await api.edge("model:delay", "model:down")
    request = registry_pb2.SetLifecycleRequest(model_id="delay", lifecycle=registry_pb2.LIFECYCLE_STATE_RETIRED)
    refusal = await refused(api.registry.SetLifecycle(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_HAS_CONSUMERS")
    assert refusal.metadata["consumers"] == "consumer:desk,model:down"
    request.force = True
    assert (await refused(api.registry.SetLifecycle(request))).violations == {"mutation.reason": "REQUIRED"}
    request.mutation.reason = "replaced by another"
    retired = (await api.registry.SetLifecycle(request)).model
    assert retired.lifecycle == registry_pb2.LIFECYCLE_STATE_RETIRED
    assert (await refused(api.retrain("delay"))).reason == "MODEL_RETIRED"
    own = registry_pb2.MoveAliasRequest(model_id="delay", alias="shadow", version=1)
    assert (await refused(api.registry.MoveAlias(own))).reason == "MODEL_RETIRED"
    request.lifecycle = registry_pb2.LIFECYCLE_STATE_ACTIVE
    assert (await api.registry.SetLifecycle(request)).model.lifecycle == registry_pb2.LIFECYCLE_STATE_ACTIVE
    await api.retrain("delay")
    request.lifecycle = registry_pb2.LIFECYCLE_STATE_REGISTERED
    assert (await refused(api.registry.SetLifecycle(request))).violations == {"lifecycle": "ENUM.IN"}
