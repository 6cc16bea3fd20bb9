"""What comes next for a model, as it is told: each situation has its sentence, with the time it hangs on."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.commands import AbortRollout, ApproveRollout, HoldRetrain, ReportWeight, SetLifecycle
from control_plane.core.errors import RunwayError
from control_plane.core.ids import AttemptId, ModelId
from control_plane.core.outlook import outlook
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import Lifecycle
from control_plane.core.retraining.types import RetrainingPolicy
from tests.core.fleets import HOUR, Fleet

SERVED: Overrides = {"rollout.serving": "demo", "rollout.metrics": "engagement higher 3%", "rollout.bake": "3600s"}
M = ModelId("m")
ACTS = ["request", "lease", "train", "validate", "time", "stale", "well", "hold"]


def said(fleet: Fleet, name: str = "m") -> str:
    """All of it, as one text."""
    return " ".join(outlook(fleet.state, fleet.state.models[ModelId(name)], fleet.now))


def at(fleet: Fleet, span: timedelta) -> str:
    return f"{fleet.now + span:%Y-%m-%d %H:%M}"


def test_the_way_of_a_model_from_nothing_to_production() -> None:
    fleet = Fleet()
    fleet.model("m", tier=1)
    assert "Nothing serves yet" in said(fleet)
    fleet.request("m")
    assert "rt_000001 trains as soon as what it waits for is there; it is given up at" in said(fleet)
    [attempt] = fleet.lease()
    assert f"(by {at(fleet, timedelta(hours=6))} or it is ended)" in said(fleet)
    assert "2 more at most" in said(fleet)
    version = fleet.train(attempt)
    assert "Once version 1 is validated it goes to 1 person for approval" in said(fleet)
    fleet.validate("m", version)
    assert "With one approval version 1 goes to production" in said(fleet)
    assert f"without by {at(fleet, timedelta(hours=72))} it is refused" in said(fleet)


def test_the_way_of_a_candidate_through_its_canary() -> None:
    fleet = Fleet()
    fleet.model("m", overrides=SERVED, tier=1)
    fleet.promote(M)
    fleet.request("m")
    fleet.validate("m", fleet.train(fleet.lease()[0]))
    assert "With one approval version 2 goes through its canary (5%, 20%, 50% of the traffic), then" in said(fleet)
    rollout_id = fleet.state.models[M].rollout_ids[-1]
    fleet.do(ApproveRollout(rollout_id=rollout_id, approver="anna"))
    fleet.do(ReportWeight(rollout_id=rollout_id, weight=fleet.state.rollouts[rollout_id].weight))
    told = said(fleet)
    assert f"At {at(fleet, HOUR)} or later" in told
    assert "it gets 20% of the traffic" in told
    assert "taken back at once" in told
    fleet.do(AbortRollout(rollout_id=rollout_id, by="anna"))
    assert "It is looked at every" in said(fleet)


def test_a_model_in_good_health_has_nothing_ahead_but_looks_and_its_backstop() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True, policy=RetrainingPolicy(every=timedelta(days=30)))
    told = said(fleet)
    assert told.startswith("Nothing: it is UNKNOWN")
    assert "However it fares, it is retrained at" in told
    assert "It is looked at every" in told


def test_a_stale_model_says_when_its_retrain_comes() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.look("m", stale=True)
    cooling = fleet.state.models[M].retrain_ended_at
    assert cooling is not None
    due = f"{cooling + timedelta(hours=24):%Y-%m-%d %H:%M}"
    assert f"a retrain is requested at {due}, when its cooldown ends" in said(fleet)


def test_a_downstream_model_cools_down_and_is_looked_at() -> None:
    fleet = Fleet()
    fleet.model("up", serving=True)
    fleet.model("m", serving=True)
    fleet.edge("up", "m")
    fleet.promote(ModelId("up"))
    assert f"it cools down until {at(fleet, 4 * HOUR)}, and the first look after that" in said(fleet)


@pytest.mark.parametrize(
    ("policy", "words"), [(RetrainingPolicy(automatic=False), "retrained by hand only: retraining.automatic is off")]
)
def test_what_keeps_a_model_from_being_retrained_is_said(policy: RetrainingPolicy, words: str) -> None:
    fleet = Fleet()
    fleet.model("m", serving=True, policy=policy)
    fleet.look("m", stale=True)
    assert words in said(fleet)


def test_a_retired_model_has_no_future() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    fleet.do(SetLifecycle(model_id=M, lifecycle=Lifecycle.RETIRED))
    assert said(fleet) == "Nothing: it is retired, so it is neither looked at nor retrained."


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["request", "lease", "train", "validate", "time", "stale", "well", "hold"]), max_size=12)
)
def test_there_is_always_something_to_say(acts: list[str]) -> None:
    fleet = Fleet()
    fleet.model("m", serving=True, overrides=SERVED)
    attempts: list[AttemptId] = []
    for act in acts:
        try:
            match act:
                case "request":
                    fleet.request("m")
                case "lease":
                    attempts = [*fleet.lease()]
                case "train" if attempts:
                    fleet.train(attempts.pop())
                case "validate":
                    fleet.validate("m", len(fleet.state.models[M].versions))
                case "time":
                    fleet.pass_time(5 * HOUR)
                case "stale" | "well":
                    fleet.look("m", stale=act == "stale")
                case "hold":
                    fleet.do(HoldRetrain(retrain_id=fleet.state.models[M].retrain_ids[-1]))
        except RunwayError:
            continue
        told = outlook(fleet.state, fleet.state.models[M], fleet.now)
        assert told
        assert all(
            (sentence.endswith(".") and sentence[0].isupper()) or sentence.startswith("rt_") for sentence in told
        )
