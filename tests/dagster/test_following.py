"""Dagster follows Runway: assets come, change and go because of events, and nobody is asked in between."""

from collections.abc import Iterator

import dagster as dg
import pytest
from runway_client import InvalidRequest, Refused

from assets.fleet import Dependency, Fleet, Model, make_fleet
from assets.following import TOPICS, Following, Topic
from assets.plane import Change
from assets.sensors.reload import AGAIN_S, reload_sensor
from control_plane.core.events import EVENT_KINDS
from tests.dagster.fake_plane import FakePlane, Session, model, small_fleet
from tests.dagster.worlds import World

UNDRAWN = frozenset(
    {
        *("VersionRegistered", "LoadChecked", "CoverageAlertRaised", "CoverageAlertCleared", "CascadeCooldownStarted"),
        *("RetrainRequested", "RetrainJoined", "RetrainLeased", "LeaseRenewed", "AttemptEnded", "RetrainEnded"),
        *("RetrainHeld", "RetrainReleased", "CascadeSettled", "BreakerChanged", "UpliftMeasured"),
        *("RolloutStarted", "ValidationReported", "RolloutEnded", "ApprovalAsked", "RolloutApproved", "RolloutStepped"),
        *("CheckReported", "WeightReported", "CanaryJudged", "RolloutHeld", "RolloutReleased", "RolloutsGrouped"),
        *("FreezeSet", "FreezeRemoved", "DestinationSet", "DestinationRemoved", "AlertSilenced"),
        *("LineageReported", "LineagePolicySet", "UnfinishedRunsDropped"),
        *("RuleSet", "RuleRemoved"),
        "FactsErased",
        *("LimitsSet", "RetrainingHeld", "RetrainingReleased", "ClockAdvanced"),
    }
)
"""Kinds of events that change nothing that is drawn; a new kind must be put here or into `TOPICS`."""


def test_every_kind_of_event_is_drawn_or_known_not_to_be() -> None:
    assert set(TOPICS) | UNDRAWN == EVENT_KINDS
    assert not set(TOPICS) & UNDRAWN


class Viewer:
    """Ticks the reload sensor as Dagster does; a reload loads the code location again."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cursor: str | None = None
        self.reloads = 0
        self.begin()

    def begin(self) -> None:
        """As a fresh code server does."""
        assert self.world.following is not None
        self.sensor = reload_sensor(
            self.world.plane.shown,
            self.world.plane.session,
            self.world.following,
            self.reload,
            lambda: self.world.now_s,
        )

    def reload(self, context: dg.SensorEvaluationContext) -> str:
        """What Dagster does in a fresh process, at once."""
        self.reloads += 1
        return "reloading"

    def tick(self, times: int = 1) -> None:
        """So many ticks, two seconds apart."""
        for _ in range(times):
            self.world.settle()
            before = self.reloads
            result = self.sensor(dg.build_sensor_context(self.world.instance, cursor=self.cursor))
            assert isinstance(result, dg.SensorResult)
            self.cursor = result.cursor or self.cursor
            self.world.now_s += 2
            if self.reloads > before:
                self.world.load()
                self.begin()

    def drawn(self) -> set[str]:
        """Keys of all assets."""
        keys = self.world.defs.resolve_asset_graph().get_all_asset_keys()
        return {key.to_user_string() for key in keys}

    def spec(self, model_id: str) -> dg.AssetSpec:
        """A model as it is drawn."""
        key = dg.AssetKey([model_id])
        return self.world.defs.resolve_assets_def(key).specs_by_key[key]


@pytest.fixture
def viewer(world: World) -> Viewer:
    found = Viewer(world)
    found.tick()
    return found


def change(plane: FakePlane, *models: Model, edges: tuple[Dependency, ...] = ()) -> None:
    """Register or update models, declare dependencies."""
    kept = {each.model_id: each for each in plane.shown.models} | {each.model_id: each for each in models}
    plane.shown = make_fleet(kept.values(), plane.shown.nodes, [*plane.shown.dependencies, *edges])


def test_a_registered_model_becomes_an_asset_without_polling(viewer: Viewer) -> None:
    plane = viewer.world.plane
    before = plane.calls.copy()
    viewer.tick(20)
    assert plane.calls == before
    change(
        plane,
        model("newcomer", team="network"),
        edges=(Dependency(upstream="model:air_time", downstream="model:newcomer"),),
    )
    viewer.tick(20)
    assert viewer.reloads == 1
    assert "newcomer" in viewer.drawn()
    assert [dep.asset_key for dep in viewer.spec("newcomer").deps] == [dg.AssetKey(["air_time"])]
    # One look for the sensor of the old location, one to load the new one, and a watch of its own.
    assert plane.calls - before == {"fleet": 2, "changes": 1}


def test_changed_facts_are_drawn(viewer: Viewer) -> None:
    change(viewer.world.plane, model("air_time", 1, owner="", team="network", description="New.", tags={"a": "b"}))
    viewer.tick(3)
    spec = viewer.spec("air_time")
    assert (spec.description, list(spec.owners), spec.tags["a"]) == ("New.", ["team:network"], "b")
    assert spec.metadata["owner"] == "nobody yet"


def test_a_retired_model_is_gone_and_a_deprecated_one_is_marked(viewer: Viewer) -> None:
    plane = viewer.world.plane
    shown = plane.shown
    kept = [each for each in shown.models if each.model_id != "arrival_delay"]
    edges = [edge for edge in shown.dependencies if "model:arrival_delay" not in (edge.upstream, edge.downstream)]
    plane.shown = make_fleet(kept, shown.nodes, edges)
    change(plane, model("departure_delay", deprecated=True))
    viewer.tick(3)
    assert "arrival_delay" not in viewer.drawn()
    assert viewer.spec("departure_delay").tags["runway/lifecycle"] == "deprecated"


def test_events_that_change_nothing_drawn_reload_nothing(viewer: Viewer) -> None:
    plane = viewer.world.plane
    before = plane.calls.copy()
    for kind in sorted(UNDRAWN):
        plane.happened(kind, "air_time")
    viewer.tick(3)
    assert plane.calls == before
    plane.happened("ModelUpdated", "air_time")
    viewer.tick(3)
    assert plane.calls - before == {"fleet": 1}
    assert viewer.reloads == 0


def test_a_burst_of_registrations_reloads_once(viewer: Viewer) -> None:
    for number in range(10):
        change(viewer.world.plane, model(f"m_{number}"))
        viewer.tick(number % 2)
    viewer.tick(2)
    assert viewer.reloads == 1
    viewer.tick(int(AGAIN_S))
    assert {f"m_{number}" for number in range(10)} <= viewer.drawn()


def test_a_lost_connection_heals(viewer: Viewer) -> None:
    plane = viewer.world.plane
    plane.away = True
    viewer.tick(2)
    plane.shown = make_fleet([*plane.shown.models, model("newcomer")], plane.shown.nodes, plane.shown.dependencies)
    viewer.tick(2)
    assert viewer.reloads == 0
    plane.away = False
    viewer.tick(3)
    assert viewer.reloads == 1
    assert "newcomer" in viewer.drawn()


class Forgetful(Session):
    """Keeps no events: whoever was away for long is told so; and it does not know all kinds."""

    refusals: Iterator[Exception]

    def changes(self, after_revision: int, kinds: object) -> Iterator[Change]:
        """Refuse so often, then go on."""
        for refusal in self.refusals:
            raise refusal
        return super().changes(after_revision, ())


def test_who_missed_too_much_takes_everything_for_changed(viewer: Viewer) -> None:
    plane = FakePlane(small_fleet())
    for _ in range(5):
        plane.happened("ClockAdvanced")
    Forgetful.refusals = iter([InvalidRequest("INVALID_ARGUMENT", "kinds[0]"), Refused("WATCH_TOO_OLD", "too old")])
    following = Following(lambda: Forgetful(plane), since=1)
    try:
        assert following.wait_for(plane.revision, 10)
        assert {topic: following.changed(topic, 1) for topic in Topic} == dict.fromkeys(Topic, plane.revision)
        assert following.changed(Topic.FLEET, plane.revision) is None
        # A cursor of another log, which had more in it.
        assert following.changed(Topic.FLEET, 1_000) == plane.revision
    finally:
        following.close()


def test_a_process_that_only_draws_follows_nobody() -> None:
    plane = FakePlane(Fleet())
    Following(plane.session, since=0)
    assert not plane.calls
