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

from tests.e2e.stacks import READY_S_MAX, STORY_S_MAX, Stack, await_that

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

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
    assert json.loads(stack.runway("models", "show", hurt[1], "--json"))["model"]["aliases"]["production"] == "1"

    # One approval of tier 1, given by CLI.
    asked = stack.until(r"waits for 1 approval until .*`runway rollouts approve ro_\d+`", STORY_S_MAX)
    model_id, rollout_id = re.search(r"(\w+) version \d+ waits for 1 approval .*(ro_\d+)", asked).groups()  # type: ignore[union-attr]
    assert "approval" in stack.runway("why", model_id)
    stack.runway("rollouts", "approve", rollout_id, "--reason", "looked at it", actor="anna")
    stack.until(rf"{model_id} version \d+ was (promoted: )?approved by anna", STORY_S_MAX)
    assert "approved by anna: looked at it" in stack.runway("rollouts", "show", rollout_id)

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

    # An outage of the scheduler is ridden out: its breaker opens, is probed, and closes.
    stack.until(r"the demo breaks Dagster's launcher", STORY_S_MAX)
    stack.until(r"the breaker of dagster is open until", STORY_S_MAX)
    assert "breaker_open" in stack.runway("alerts")
    stack.until(r"Dagster's launcher works again", STORY_S_MAX)
    stack.until(r"the breaker of dagster is closed", STORY_S_MAX)
    assert "CLOSED" in stack.runway("schedulers")

    # Nothing is lost and nothing doubled: each attempt that got to Dagster has exactly one run there.
    def all_ended() -> bool:
        return all(
            one["state"] not in ("RETRAIN_STATE_WAITING", "RETRAIN_STATE_RUNNING") for one in listed(stack, "retrains")
        )

    await_that(all_ended, STORY_S_MAX, "every retrain went to its end")
    retrains = listed(stack, "retrains")
    assert [one["retrain_id"] for one in retrains] == [f"rt_{at + 1:06d}" for at in range(len(retrains))]
    attempts = Counter(run["runway/attempt"] for run in runs_in_dagster(stack) if "runway/attempt" in run)
    assert set(attempts.values()) == {1}
    made = {attempt["attempt_id"] for one in retrains for attempt in one["attempts"]}
    assert set(attempts) <= made
    trained = {a["attempt_id"] for one in retrains for a in one["attempts"] if a["state"] == "ATTEMPT_STATE_SUCCEEDED"}
    assert trained <= set(attempts)
    assert all(earlier["requested_at"] <= later["requested_at"] for earlier, later in pairwise(retrains))
    assert stack.end() == 0
    assert stack.family() == []
