"""What is drawn: keys, groups, owners, tags, freshness, and what happens when the control plane is away at load."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy
from runway_client import Unreachable

from assets.fleet import Dependency, Fleet, Node, last_good_path, make_fleet, read_last_good
from assets.ground_truth import GROUND_TRUTH
from assets.location import build_definitions, build_worker_definitions, definitions_of, load_fleet, load_for_worker
from assets.model_assets import model_spec
from assets.plane import ControlPlane
from assets.tags import LIFECYCLE_TAG, TIER_TAG
from assets.trainer import NoTrainerError, trainer_of
from tests.dagster.fake_plane import FakePlane, model, small_fleet
from tests.dagster.worlds import FakeTrainer, World

AIR_TIME = dg.AssetKey(["air_time"])


def test_every_node_is_drawn_with_its_upstream(world: World) -> None:
    graph = world.defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        *("air_time", "departure_delay", "arrival_delay"),
        *("dataset/weather", "feature/temp", "consumer/gate_desk"),
        *GROUND_TRUTH,
    }
    assert graph.get(AIR_TIME).parent_keys == {dg.AssetKey(["feature", "temp"])}
    assert graph.get(dg.AssetKey(["arrival_delay"])).parent_keys == {AIR_TIME, dg.AssetKey(["departure_delay"])}
    assert {key.to_user_string() for key in graph.executable_asset_keys} == {
        *("air_time", "departure_delay", "arrival_delay"),
        *GROUND_TRUTH,
    }
    groups = {key.to_user_string(): graph.get(key).group_name for key in graph.get_all_asset_keys()}
    assert groups["dataset/weather"] == "data_sources"
    assert groups["feature/temp"] == "features"
    assert groups["consumer/gate_desk"] == "consumers"
    assert groups["arrival_delay"] == "network"


def test_a_model_shows_its_facts() -> None:
    spec = model_spec(small_fleet().models[0], ("feature:temp",))
    assert spec.key == AIR_TIME
    assert list(spec.owners) == ["ada@example.com", "team:ops"]
    assert spec.tags[TIER_TAG] == "1"
    assert spec.skippable
    assert spec.kinds == {"model", "regression"}
    assert isinstance(spec.freshness_policy, TimeWindowFreshnessPolicy)
    assert spec.freshness_policy.fail_window.to_timedelta().days == 30


def test_what_dagster_would_refuse_becomes_metadata() -> None:
    odd = model(
        "odd", owner="nobody in particular", tags={"who asked": "the board, 2013", "dagster/priority": "9", "x": "é"}
    )
    spec = model_spec(odd, ())
    assert list(spec.owners) == ["team:ops"]
    assert not any(tag in spec.tags for tag in odd.tags)
    assert spec.metadata["tag who asked"] == "the board, 2013"
    assert spec.metadata["owner"] == "nobody in particular"
    build_definitions(make_fleet([odd], [], []), lambda: FakePlane(Fleet())).resolve_asset_graph()


def test_a_model_without_an_owner_and_a_deprecated_one_are_drawn() -> None:
    orphan = model_spec(model("orphan", owner=""), ())
    assert (list(orphan.owners), orphan.metadata["owner"]) == (["team:ops"], "nobody yet")
    assert LIFECYCLE_TAG not in orphan.tags
    assert model_spec(model("old", deprecated=True), ()).tags[LIFECYCLE_TAG] == "deprecated"


def test_a_model_that_nobody_registered_is_drawn_but_not_run() -> None:
    found = make_fleet(
        [model("air_time")],
        [Node(kind="model", slug="seen_in_airflow")],
        [Dependency(upstream="model:seen_in_airflow", downstream="model:air_time")],
    )
    graph = build_definitions(found, lambda: FakePlane(found)).resolve_asset_graph()
    seen = dg.AssetKey(["seen_in_airflow"])
    assert graph.executable_asset_keys == {AIR_TIME, *(dg.AssetKey([name]) for name in GROUND_TRUTH)}
    assert graph.get(AIR_TIME).parent_keys == {seen}
    assert graph.get(seen).group_name == "discovered_models"


def test_an_empty_fleet_loads() -> None:
    defs = build_definitions(Fleet(), lambda: FakePlane(Fleet()))
    assert len(list(defs.get_repository_def().sensor_defs)) == 8


def test_the_last_good_copy_is_shown_while_the_control_plane_is_away() -> None:
    plane = FakePlane(small_fleet())
    before = load_fleet(lambda: plane)
    plane.away = True
    assert load_fleet(lambda: plane) == before
    assert before.models


@pytest.mark.parametrize("text", ["", '{"models": [', '{"layout": 99}', "[]"])
def test_a_damaged_copy_counts_as_none(text: str, home: Path) -> None:
    home.mkdir()
    last_good_path().write_text(text, encoding="utf-8")
    plane = FakePlane(small_fleet())
    plane.away = True
    assert load_fleet(lambda: plane) == Fleet()


def test_a_worker_loads_only_its_models_and_asks_nobody() -> None:
    load_fleet(lambda: FakePlane(small_fleet()))

    def nobody() -> ControlPlane:
        raise Unreachable("UNREACHABLE", "asked somebody")

    fleet = load_for_worker(("arrival_delay",), nobody)
    assert [each.model_id for each in fleet.models] == ["arrival_delay"]
    graph = build_worker_definitions(fleet, nobody).resolve_asset_graph()
    assert graph.executable_asset_keys == {dg.AssetKey(["arrival_delay"])}
    assert graph.get(dg.AssetKey(["arrival_delay"])).parent_keys == {AIR_TIME, dg.AssetKey(["departure_delay"])}


def test_the_environment_says_whose_definitions_these_are() -> None:
    load_fleet(lambda: FakePlane(small_fleet()))
    worker = definitions_of({"RUNWAY_ONLY_MODELS": '["air_time"]'})
    assert worker.resolve_asset_graph().executable_asset_keys == {AIR_TIME}
    assert list(worker.sensors or ()) == []


def test_a_worker_of_a_model_newer_than_the_copy_asks() -> None:
    assert [each.model_id for each in load_for_worker(("air_time",), lambda: FakePlane(small_fleet())).models] == [
        "air_time"
    ]
    kept = read_last_good(last_good_path())
    assert kept is not None
    assert len(kept.models) == 3


def test_the_fingerprint_follows_what_is_drawn_and_nothing_else() -> None:
    plane = FakePlane(small_fleet())
    first = plane.fleet()
    plane.revision += 10
    assert plane.fleet() != first
    assert plane.fleet().fingerprint() == first.fingerprint()
    plane.shown = make_fleet([*first.models, model("newcomer")], first.nodes, first.dependencies)
    assert plane.fleet().fingerprint() != first.fingerprint()


def test_a_trainer_is_chosen_by_name_never_by_module() -> None:
    trainer = FakeTrainer()
    assert trainer_of(model("x", tags={"trainer": "toy"}), {"toy": lambda: trainer}) is trainer
    with pytest.raises(NoTrainerError, match=r"os\.system"):
        trainer_of(model("x", tags={"trainer": "os.system"}), {"toy": lambda: trainer})
