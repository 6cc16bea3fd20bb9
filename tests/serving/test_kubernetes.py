"""HTTPRoutes and InferenceServices: what is changed, what stays, and what happens when somebody else writes too."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from control_plane.adapters.serving.gateway import GatewayServing, RouteNames
from control_plane.adapters.serving.http import HttpClient
from control_plane.adapters.serving.kubernetes import CONFLICTS_MAX, object_name
from control_plane.app.serving import ServingRefused, ServingUnavailable
from control_plane.core.ids import ModelId
from tests.serving.servers import Object
from tests.serving.worlds import ClusterWorld, a_target


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[ClusterWorld]:
    world = ClusterWorld(tmp_path, "gateway")
    with world.api.server:
        yield world


@pytest.fixture
def kserve(tmp_path: Path) -> Iterator[ClusterWorld]:
    world = ClusterWorld(tmp_path, "kserve")
    with world.api.server:
        yield world


def rules(world: ClusterWorld) -> list[Any]:
    found: list[Any] = world.api.objects[world.path]["spec"]["rules"]
    return found


async def test_weights_are_shares_and_everything_else_stays(mesh: ClusterWorld) -> None:
    before = rules(mesh)
    await mesh.serving.set_weights(a_target(1, 2, 0.05))
    health, predict = rules(mesh)
    assert health == before[0]
    assert {**predict, "backendRefs": None} == {**before[1], "backendRefs": None}
    assert {ref["name"]: ref["weight"] for ref in predict["backendRefs"]} == {
        "arrival-delay-v1": 9_000,
        "arrival-delay-v2": 500,
        "arrival-delay-v1-control": 500,
    }
    assert all((ref["port"], ref["filters"]) == (8080, [{"type": "Mark"}]) for ref in predict["backendRefs"])
    await mesh.serving.set_weights(a_target(2, revision=2))
    assert [(ref["name"], ref["weight"]) for ref in rules(mesh)[1]["backendRefs"]] == [("arrival-delay-v2", 10_000)]


async def test_whoever_writes_in_between_is_not_undone(mesh: ClusterWorld) -> None:
    def meddle(found: Object) -> None:
        found["spec"]["hostnames"] = ["models", "more"]
        found["spec"]["rules"][1]["timeouts"] = {"request": "9s"}

    mesh.api.meddle = meddle
    await mesh.serving.set_weights(a_target(1, 2, 0.2))
    spec = mesh.api.objects[mesh.path]["spec"]
    assert spec["hostnames"] == ["models", "more"]
    assert spec["rules"][1]["timeouts"] == {"request": "9s"}
    assert len(spec["rules"][1]["backendRefs"]) == 3


async def test_writers_without_end_are_not_waited_for(mesh: ClusterWorld) -> None:
    def again(found: Object) -> None:
        found["spec"]["hostnames"] = [f"h{mesh.writes()}"]
        mesh.api.meddle = again

    mesh.api.meddle = again
    with pytest.raises(ServingUnavailable, match="changed by others"):
        await mesh.serving.set_weights(a_target(1, 2, 0.2))
    assert mesh.writes() == CONFLICTS_MAX


async def test_a_route_that_serves_something_else_is_not_taken_over(mesh: ClusterWorld) -> None:
    rules(mesh)[1]["backendRefs"].append({"name": "legacy", "port": 80, "weight": 1})
    with pytest.raises(ServingRefused, match="legacy, which no version"):
        await mesh.serving.set_weights(a_target(1, 2, 0.2))
    rules(mesh)[1]["backendRefs"][-1]["weight"] = 0
    await mesh.serving.set_weights(a_target(1, 2, 0.2))


async def test_a_shadow_is_a_mirror_beside_the_filters_that_were_there(mesh: ClusterWorld) -> None:
    theirs = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "audit", "port": 1}}}
    rules(mesh)[1]["filters"] = [theirs]
    await mesh.serving.set_weights(replace(a_target(1, 2, 0.0), shadow=True))
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "arrival-delay-v2", "port": 8080}}}
    assert rules(mesh)[1]["filters"] == [theirs, mirror]
    await mesh.serving.set_weights(a_target(1, 2, 0.05, revision=2))
    assert rules(mesh)[1]["filters"] == [theirs]


async def test_a_control_is_production_where_it_has_no_service_of_its_own(mesh: ClusterWorld) -> None:
    http = HttpClient(mesh.api.server.url, "mesh", token_file=str(_token(mesh)), timeout_s=5)
    serving = GatewayServing(http, "ml", RouteNames(rule="predict", control=""))
    await serving.set_weights(a_target(1, 2, 0.05))
    weights = {ref["name"]: ref["weight"] for ref in rules(mesh)[1]["backendRefs"]}
    assert weights == {"arrival-delay-v1": 9_500, "arrival-delay-v2": 500}
    await serving.close()


def _token(mesh: ClusterWorld) -> Path:
    file = Path(mesh.folder) / "token"
    assert file.read_text().strip() == mesh.api.token
    return file


async def test_a_token_is_read_anew_because_it_is_rotated(mesh: ClusterWorld) -> None:
    await mesh.serving.set_weights(a_target(1, 2, 0.05))
    mesh.api.token = "another"
    with pytest.raises(ServingRefused, match="401") as caught:
        await mesh.serving.set_weights(a_target(1, 2, 0.2, revision=2))
    assert "let-me-in" not in str(caught.value)
    (Path(mesh.folder) / "token").write_text("another")
    await mesh.serving.set_weights(a_target(1, 2, 0.2, revision=3))


async def test_what_the_api_server_finds_invalid_is_refused_in_its_words(mesh: ClusterWorld) -> None:
    del rules(mesh)[1]["backendRefs"][0]["port"]
    with pytest.raises(ServingRefused, match="Must have port"):
        await mesh.serving.set_weights(a_target(1, 2, 0.05))


async def test_a_canary_of_kserve_is_a_new_uri_with_a_percent(kserve: ClusterWorld) -> None:
    def predictor() -> Object:
        found: Object = kserve.api.objects[kserve.path]["spec"]["predictor"]
        return found

    await kserve.serving.set_weights(a_target(1, 2, 0.05))
    assert predictor()["model"] == {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/arrival_delay/2"}
    assert (predictor()["canaryTrafficPercent"], predictor()["minReplicas"]) == (5, 2)
    # Rolled back: the revision before gets everything at once; nothing new has to start.
    await kserve.serving.set_weights(a_target(1, revision=2))
    assert (predictor()["canaryTrafficPercent"], predictor()["model"]["storageUri"][-1]) == (0, "2")
    # Another one is promoted: it keeps its URI and gets everything.
    await kserve.serving.set_weights(a_target(1, 3, 0.2, revision=3))
    await kserve.serving.set_weights(a_target(3, revision=4))
    assert ("canaryTrafficPercent" in predictor(), predictor()["model"]["storageUri"][-1]) == (False, "3")
    # That is rolled back by hand: the old URI, all of it.
    await kserve.serving.set_weights(a_target(1, revision=5))
    assert ("canaryTrafficPercent" in predictor(), predictor()["model"]["storageUri"][-1]) == (False, "1")


async def test_a_version_promoted_by_force_after_a_rollback_serves(kserve: ClusterWorld) -> None:
    await kserve.serving.set_weights(a_target(1, 2, 0.05))
    await kserve.serving.set_weights(a_target(1, revision=2))
    await kserve.serving.set_weights(a_target(3, revision=3))
    predictor = kserve.api.objects[kserve.path]["spec"]["predictor"]
    assert ("canaryTrafficPercent" in predictor, predictor["model"]["storageUri"][-1]) == (False, "3")


async def test_predictors_of_the_old_style_are_understood(kserve: ClusterWorld) -> None:
    spec = kserve.api.objects[kserve.path]["spec"]
    spec["predictor"] = {"sklearn": {"storageUri": "s3://models/arrival_delay/1"}}
    await kserve.serving.set_weights(a_target(1, 2, 0.05))
    assert kserve.api.objects[kserve.path]["spec"]["predictor"] == {
        "sklearn": {"storageUri": "s3://models/arrival_delay/2"},
        "canaryTrafficPercent": 5,
    }


def test_a_name_that_kubernetes_cannot_hold_is_refused() -> None:
    with pytest.raises(ServingRefused, match="longer than"):
        object_name("{model}-v{version}-control", ModelId("m" * 60), 7)
