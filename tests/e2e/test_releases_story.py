"""What a viewer of `make up` sees of retraining and rollout: planned, released, refused, hurt, approved, ridden out.

One run of the real programs; the demo's people hurt what is to be hurt (stack/people.py), the test approves by CLI
before they do. Read back through `runway`, as a person would, and from Dagster.
"""

import json
import re
import urllib.request
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from assets.flights.fleet import with_upstream
from tests.e2e.stacks import READY_S_MAX, STORY_S_MAX, Stack, await_that

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LATER = "9999"
"""After every time that is written as text."""
RUNS = "{ runsOrError { ... on Runs { results { status tags { key value } } } } }"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path / "home", days=60, seconds_per_day=4)
    try:
        yield made
    finally:
        made.clean_up()


def listed(stack: Stack, what: str) -> list[dict[str, Any]]:
    """All retrains or rollouts, oldest first."""
    found: list[dict[str, Any]] = json.loads(stack.runway(what, "list", "--limit", "500", "--json"))[what]
    return found[::-1]


def runs_in_dagster(stack: Stack) -> list[dict[str, str]]:
    """The tags of each run that Dagster knows, with its status."""
    address = stack.environment["RUNWAY_WEB_ADDRESS"]
    asked = urllib.request.Request(
        f"http://{address}/graphql", json.dumps({"query": RUNS}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        runs = json.load(answer)["data"]["runsOrError"]["results"]
    return [{"status": run["status"], **{tag["key"]: tag["value"] for tag in run["tags"]}} for run in runs]


def test_a_viewer_sees_the_whole_story(stack: Stack) -> None:
    stack.up()
    stack.until(r"Runway is up", READY_S_MAX)

    # A cascade planned, beside the decision that began it, and released wave by wave.
    plan = stack.until(r"the plan: .+, .+ in \d+ waves", STORY_S_MAX)
    assert re.search(r"never more than \d+ at once", plan)

    # One canary is hurt, and goes back with the evidence; the alias never moved.
    hurt = re.search(r"the demo hurts (\w+) version (\d+)", stack.until(r"the demo hurts", STORY_S_MAX))
    assert hurt is not None
    back = stack.until(rf"{hurt[1]} version {hurt[2]} was rolled back: engagement", STORY_S_MAX)
    assert "tolerated is -3.0%" in back
    assert production(stack, hurt[1]) == 1
    assert "rollout_rolled_back" in stack.runway("alerts")

    # One approval of tier 1, given by CLI.
    asked = stack.until(r"waits for 1 approval until .*`runway rollouts approve ro_\d+`", STORY_S_MAX)
    model_id, rollout_id = re.search(r"(\w+) version \d+ waits for 1 approval .*(ro_\d+)", asked).groups()  # type: ignore[union-attr]
    assert "approval" in stack.runway("why", model_id)
    stack.runway("rollouts", "approve", rollout_id, "--reason", "looked at it", actor="anna")
    stack.until(rf"{model_id} version \d+ was (promoted: )?approved by anna", STORY_S_MAX)
    assert "approved by anna: looked at it" in stack.runway("rollouts", "show", rollout_id)

    asked_for_and_approved_by_two(stack, model_id)

    # One bad candidate is refused, and kept with its reason.
    mistake = stack.until(r"version \d+ was refused: .* for sure", STORY_S_MAX)
    refused_model = re.search(r"(\w+) version", mistake)
    assert refused_model is not None
    [refused] = [one for one in listed(stack, "rollouts") if "for sure" in one["conclusion"]]
    assert (refused["state"], refused["model_id"]) == ("ROLLOUT_STATE_REFUSED", refused_model[1])
    page = stack.runway("rollouts", "show", refused["rollout_id"])
    assert "Offline checks" in page
    assert "FAILED" in page
    assert "worse by more than" in stack.runway("why", refused_model[1])
    assert production(stack, refused_model[1]) != int(refused["version"])

    # An outage of the scheduler is ridden out: its breaker opens, is probed, and closes.
    stack.until(r"the demo breaks Dagster's launcher", STORY_S_MAX)
    stack.until(r"the breaker of dagster is open until", STORY_S_MAX)
    assert "breaker_open" in stack.runway("alerts")
    stack.until(r"Dagster's launcher works again", STORY_S_MAX)
    stack.until(r"the breaker of dagster is closed", STORY_S_MAX)
    assert "CLOSED" in stack.runway("schedulers")

    assert "breaker_open" not in stack.runway("alerts")

    # Nothing is lost and nothing doubled: whatever was asked for by now ends, in order, by one run for each attempt.
    asked_for = {one["retrain_id"] for one in listed(stack, "retrains")}
    await_that(
        lambda: asked_for <= {one["retrain_id"] for one in listed(stack, "retrains") if "ended_at" in one},
        STORY_S_MAX,
        "every retrain that was asked for during the outage went to its end",
    )
    retrains = listed(stack, "retrains")
    assert [one["retrain_id"] for one in retrains] == [f"rt_{at + 1:06d}" for at in range(len(retrains))]
    assert all(earlier["requested_at"] <= later["requested_at"] for earlier, later in pairwise(retrains))
    assert out_of_order(retrains) == []
    assert one_run_for_each(retrains, runs_in_dagster(stack)) == []
    assert stack.end() == 0
    assert stack.family() == []


def asked_for_and_approved_by_two(stack: Stack, model_id: str) -> None:
    """Who asks for a version of tier 1 cannot approve it; somebody else can."""
    version = str(production(stack, model_id))
    stack.runway("rollouts", "roll-back", model_id, "--reason", "passengers complain", actor="anna")
    assert production(stack, model_id) == 1
    stack.runway("rollouts", "promote", model_id, version, "--reason", "they were wrong", actor="anna")
    rollout_id = listed(stack, "rollouts")[-1]["rollout_id"]
    no = stack.refused("rollouts", "approve", rollout_id, actor="anna")
    assert "anna asked for this version: somebody else must approve it" in no
    assert production(stack, model_id) == 1
    stack.runway("rollouts", "approve", rollout_id, "--reason", "looked at it", actor="boris")
    assert production(stack, model_id) == int(version)


def production(stack: Stack, model_id: str) -> int:
    """The version that serves."""
    return int(json.loads(stack.runway("models", "show", model_id, "--json"))["model"]["aliases"]["production"])


def out_of_order(retrains: list[dict[str, Any]]) -> list[str]:
    """Attempts that began while a retrain upstream, asked for before, had not ended."""
    return [
        f"{attempt['attempt_id']} of {one['model_id']} before the end of {above['retrain_id']} of {above['model_id']}"
        for one in retrains
        for attempt in one["attempts"]
        for above in retrains
        if above["model_id"] in {model.model_id for model in with_upstream(one["model_id"])} - {one["model_id"]}
        and above["requested_at"] < attempt["leased_at"]
        and above.get("ended_at", LATER) > attempt["leased_at"]
    ]


def one_run_for_each(retrains: list[dict[str, Any]], runs: list[dict[str, str]]) -> list[str]:
    """What is wrong with Dagster's runs: each attempt has at most one, each that trained just one, with its tags."""
    attempts = {attempt["attempt_id"]: (one, attempt) for one in retrains for attempt in one["attempts"]}
    mine = [run for run in runs if "runway/attempt" in run]
    count = Counter(run["runway/attempt"] for run in mine)
    wrong = [f"{attempt_id} has {runs} runs" for attempt_id, runs in count.items() if runs > 1]
    for attempt_id, (one, attempt) in attempts.items():
        if attempt["state"] == "ATTEMPT_STATE_SUCCEEDED" and not count[attempt_id]:
            wrong.append(f"{attempt_id} trained and has no run")
        for run in mine:
            tags = (run.get("runway/model"), run.get("runway/retrain"))
            if run["runway/attempt"] == attempt_id and tags != (one["model_id"], one["retrain_id"]):
                wrong.append(f"the run of {attempt_id} is tagged {tags}")
    return wrong
