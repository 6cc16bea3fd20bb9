"""RegistryService: versions, aliases, load checks."""

from datetime import timedelta

import grpc
import pytest
from runway.v1 import common_pb2, policies_pb2, registry_pb2, rollout_pb2

from tests.api.worlds import SHA, START, Api, a_version, by, instant, refused, span

# Versions


async def test_versions_are_numbered_and_found_by_number_and_alias(api: Api) -> None:
    await api.model("up")
    await api.version("up")
    await api.model("delay")
    metric = registry_pb2.Metric(name="auc", value=0.8, standard_error=0.01, sample_size=1000)
    assert await api.version("delay", metrics=[metric], upstream_versions={"up": 1}, run="r", code_revision="c") == 1
    assert await api.version("delay") == 2
    await api.promote("delay", 1)
    by_number = await api.registry.GetVersion(registry_pb2.GetVersionRequest(model_id="delay", version=1))
    by_alias = await api.registry.GetVersion(registry_pb2.GetVersionRequest(model_id="delay", alias="production"))
    assert by_number.version == by_alias.version
    assert by_number.version.metrics == [metric]
    assert by_number.version.upstream_versions == {"up": 1}
    page = common_pb2.PageRequest(page_size=1)
    first = await api.registry.ListVersions(registry_pb2.ListVersionsRequest(model_id="delay", page=page))
    await api.version("delay")
    page.page_token = first.next_page_token
    second = await api.registry.ListVersions(registry_pb2.ListVersionsRequest(model_id="delay", page=page))
    assert [v.version for v in (*first.versions, *second.versions)] == [2, 1]


async def test_a_version_must_say_what_it_is(api: Api) -> None:
    await api.model("delay")
    broken = registry_pb2.ModelVersion(
        model_id="delay",
        artifact_sha256="ABC",
        metrics=[registry_pb2.Metric(name="auc", value=float("nan"), standard_error=-1)],
    )
    refusal = await refused(api.registry.RegisterVersion(registry_pb2.RegisterVersionRequest(version=broken)))
    assert set(refusal.violations) == {
        "version.artifact_uri",
        "version.artifact_sha256",
        "version.trained_until",
        "version.metrics[0].value",
        "version.metrics[0].standard_error",
    }
    twice = [registry_pb2.Metric(name="auc", value=0.5)] * 2
    refusal = await refused(api.version("delay", trained_from=instant(START + timedelta(days=1)), metrics=twice))
    assert set(refusal.violations) == {"version.trained_from", "version.metrics"}
    assert (await refused(api.version("nope"))).reason == "MODEL_NOT_FOUND"
    refusal = await refused(api.version("delay", upstream_versions={"nope": 1, "delay": 3}, metrics=twice))
    assert refusal.violations == {
        "version.metrics": "UNIQUE",
        "version.upstream_versions[delay]": "EXISTS",
        "version.upstream_versions[nope]": "EXISTS",
    }
    unreadable = registry_pb2.ModelVersion(model_id="delay", upstream_versions={"No": 1, "No Such": 2}, metrics=twice)
    refusal = await refused(api.registry.RegisterVersion(registry_pb2.RegisterVersionRequest(version=unreadable)))
    assert {"version.artifact_uri", "version.upstream_versions", "version.metrics"} <= set(refusal.violations)


async def test_a_profile_is_kept_by_its_content_and_a_broken_one_is_refused(api: Api) -> None:
    await api.model("delay")
    profile = b'{"features": {}, "prediction": {"edges": [0.5], "counts": [500, 500]}}'
    assert await api.version("delay", reference_profile=profile) == 1
    found = await api.registry.GetVersion(registry_pb2.GetVersionRequest(model_id="delay", version=1))
    assert len(found.version.profile_sha256) == len(SHA)
    for broken in (b"not json", b"[]", b'{"features": {"x": {"kind": "numeric", "edges": [2, 1], "counts": [1]}}}'):
        refusal = await refused(api.version("delay", reference_profile=broken))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.violations


# Aliases


async def move(api: Api, alias: str, version: int, expected: int | None = None) -> registry_pb2.AliasMove:
    request = registry_pb2.MoveAliasRequest(
        mutation=by(reason=f"to {version}"), model_id="delay", alias=alias, version=version, expected_version=expected
    )
    return (await api.registry.MoveAlias(request)).move


async def test_a_team_moves_its_own_aliases_and_the_history_is_kept(api: Api) -> None:
    await api.model("delay")
    for _ in range(3):
        await api.version("delay")
    for version in (1, 2, 3):
        api.clock.at = START + timedelta(days=version)
        moved = await move(api, "shadow", version, expected=version - 1)
        assert (moved.from_version, moved.to_version, moved.actor) == (version - 1, version, "tester")
    ask = registry_pb2.ListAliasMovesRequest(model_id="delay")
    history = (await api.registry.ListAliasMoves(ask)).moves
    assert [found.to_version for found in history] == [3, 2, 1]
    assert history[0].reason == "to 3"

    async def as_of(at: float) -> list[int]:
        ask = registry_pb2.ListAliasMovesRequest(
            model_id="delay", alias="shadow", as_of=instant(START + timedelta(days=at))
        )
        return [found.to_version for found in (await api.registry.ListAliasMoves(ask)).moves]

    assert [await as_of(at) for at in (0.5, 1, 1.5, 2.5, 100)] == [[], [1], [1], [2], [3]]
    api.clock.at = START + timedelta(days=10)
    within = registry_pb2.ListAliasMovesRequest(model_id="delay", within=span(timedelta(days=8, hours=1)))
    assert [found.to_version for found in (await api.registry.ListAliasMoves(within)).moves] == [3, 2]


async def test_an_alias_that_is_elsewhere_is_aborted(api: Api) -> None:
    await api.model("delay")
    await api.version("delay")
    await move(api, "shadow", 1)
    refusal = await refused(move(api, "shadow", 1, expected=2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert refusal.metadata == {"alias": "shadow", "current": "1"}
    assert (await refused(move(api, "shadow", 2))).reason == "VERSION_NOT_FOUND"
    assert (await refused(move(api, "UPPER", 1))).violations == {"alias": "STRING.PATTERN"}


@pytest.mark.parametrize("alias", ["production", "candidate", "previous"])
async def test_managed_aliases_move_by_rollout_only(api: Api, alias: str) -> None:
    await api.model("delay")
    await api.version("delay")
    refusal = await refused(move(api, alias, 1))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VALIDATION_REQUIRED")


async def test_an_alias_is_removed_and_the_fleet_tells_where_aliases_point(api: Api) -> None:
    for name in ("delay", "other"):
        await api.serving(name)
    await move(api, "shadow", 1)
    reply = await api.registry.ListAliases(registry_pb2.ListAliasesRequest())
    assert [(one.model_id, one.alias, one.to_version) for one in reply.moves] == [
        ("delay", "production", 1),
        ("delay", "shadow", 1),
        ("other", "production", 1),
    ]
    removed = await api.registry.RemoveAlias(
        registry_pb2.RemoveAliasRequest(mutation=by(reason="no more"), model_id="delay", alias="shadow")
    )
    assert (removed.move.from_version, removed.move.to_version, removed.move.reason) == (1, 0, "no more")
    shadows = await api.registry.ListAliases(registry_pb2.ListAliasesRequest(alias="shadow"))
    assert list(shadows.moves) == []
    nobody = await api.registry.ListAliases(registry_pb2.ListAliasesRequest(alias="production", team="nobody"))
    assert list(nobody.moves) == []
    again = api.registry.RemoveAlias(registry_pb2.RemoveAliasRequest(model_id="delay", alias="shadow"))
    assert (await refused(again)).reason == "ALIAS_NOT_FOUND"


# What trainers say


async def test_every_fact_of_a_version_is_kept_and_compared_with_what_goes_in(api: Api) -> None:
    await api.model("delay", expected_inputs=[registry_pb2.Field(name="temp", type=registry_pb2.VALUE_TYPE_NUMBER)])
    said = a_version(
        "delay",
        framework="torch 2.5",
        code_revision="abc",
        training_data=[registry_pb2.TrainingData(node_id="dataset:flights", uri="s3://x", digest="d", rows=10)],
        signature=registry_pb2.Signature(
            inputs=[registry_pb2.Field(name="temp", type=registry_pb2.VALUE_TYPE_NUMBER)],
            outputs=[registry_pb2.Field(name="late", type=registry_pb2.VALUE_TYPE_BOOLEAN)],
        ),
        metrics=[
            registry_pb2.Metric(name="auc", value=0.8),
            registry_pb2.Metric(name="auc", value=0.7, slice="origin=JFK", sample_size=5),
        ],
    )
    reply = await api.registry.RegisterVersion(registry_pb2.RegisterVersionRequest(version=said))
    for field, value in said.ListFields():
        assert getattr(reply.version, field.name) == value
    said.signature.inputs[0].name = "wind"
    said.signature.inputs[0].type = registry_pb2.VALUE_TYPE_TEXT
    refusal = await refused(api.registry.RegisterVersion(registry_pb2.RegisterVersionRequest(version=said)))
    assert refusal.violations == {"version.signature.inputs": "EXPECTED_INPUT"}
    assert "lacks temp" in refusal.message


async def test_a_load_check_is_reported_and_asked_for(api: Api) -> None:
    required = policies_pb2.Policies(rollout=policies_pb2.RolloutPolicy(require_load_check=True))
    await api.model("delay", policies=required)
    await api.version("delay")
    refusal = await refused(move(api, "shadow", 1))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LOAD_CHECK_REQUIRED")
    for passed, detail in ((False, "no module named torch"), (True, "took 0.3 s")):
        reply = await api.registry.ReportLoadCheck(
            registry_pb2.ReportLoadCheckRequest(
                mutation=by(), model_id="delay", version=1, passed=passed, environment="py311", detail=detail
            )
        )
    assert [(check.passed, check.detail, check.reporter) for check in reply.version.load_checks] == [
        (True, "took 0.3 s", "tester"),
        (False, "no module named torch", "tester"),
    ]
    await move(api, "shadow", 1)
    unknown = registry_pb2.ReportLoadCheckRequest(model_id="delay", version=2, passed=True)
    assert (await refused(api.registry.ReportLoadCheck(unknown))).reason == "VERSION_NOT_FOUND"


async def test_what_a_version_went_through_is_shown_with_it(api: Api) -> None:
    await api.model("delay")
    await api.retrain("delay")
    [lease] = await api.lease()
    version = await api.trained(lease)
    found = rollout_pb2.Validation(passed=True, metric="auc", candidate=0.8, sample_size=100)
    await api.rollout.ReportValidation(
        rollout_pb2.ReportValidationRequest(model_id="delay", version=version, validation=found)
    )
    shown = await api.registry.GetVersion(registry_pb2.GetVersionRequest(model_id="delay", alias="production"))
    assert [(one.metric, one.candidate) for one in shown.version.validations] == [("auc", 0.8)]
