"""What `runway` prints of retrains, rollouts, and why."""

import json

from tests.api.control_plane_fake import ControlPlaneFake
from tests.api.shells import Runner, text


def test_retrains(runway: Runner, fake: ControlPlaneFake) -> None:
    assert runway("retrains list").out == text("""
RETRAIN    MODEL              STATE     TIER  CAUSE            REQUESTED  TRIES  NOTE
rt_000002  air_time           WAITING      1  stale, operator  5 h ago        1  cooldown until 2013-03-04 14:00
rt_000001  arrival_delay_jfk  PROMOTED     2  upstream         3 d ago        0  v1 was promoted
""")
    assert "rt_000001" not in runway("retrains list --live").out
    assert runway("retrains list --limit 1").out.endswith("there are more: --limit 4 shows them\n")
    assert "rt_000002_a1  FAILED  4 h ago  3 h ago" in runway("retrains show rt_000002").out
    asked = runway("retrains request model:air_time --ignore-cooldown --reason winter")
    assert asked.out.startswith("air_time has rt_000002 already; your request was added to it.\n")
    request = fake.requests("RetrainingService/RequestRetrain")[-1]
    assert (request.mutation.actor, request.mutation.reason, request.ignore_cooldown) == ("anna", "winter", True)
    assert runway("retrains cancel rt_000002").out == "rt_000002 of air_time was cancelled.\n"


def test_rollouts(runway: Runner) -> None:
    assert runway("rollouts list").out == text("""
ROLLOUT    MODEL              VERSION  STATE     STARTED  TRAFFIC  METRIC  CANDIDATE  PRODUCTION  NOTE
ro_000001  arrival_delay_jfk       v1  PROMOTED  3 d ago        -  auc         0.712         0.7  better by 0.012
""")
    assert "auc             candidate 0.712, production 0.7\n" in runway("rollouts show ro_000001").out
    promoted = runway("rollouts promote air_time v4 --force --reason hotfix")
    assert promoted.out == "ro_000002: v4 of air_time is in production, in place of v3.\n"
    assert runway("rollouts roll-back air_time").out.endswith("rolled back; v2 is in production again.\n")


def test_why_tells_a_models_story(runway: Runner) -> None:
    said = runway("why air_time").out
    assert said.startswith("air_time (tier 1, team ")
    assert "under way" in said
    assert "rt_000002 is waiting" in said
    assert "It waits for cooldown until 2013-03-04 14:00." in said
    assert "runway retrains show rt_000002" in said
    assert "air_time" in runway("why air_tme").err


def test_why_is_one_json_document(runway: Runner) -> None:
    told = json.loads(runway("why air_time --json").out)
    assert set(told) == {"model", "staleness", "retrains", "rollouts"}
    assert told["model"]["model_id"] == told["staleness"]["model_id"] == "air_time"
    assert [one["retrain_id"] for one in told["retrains"]]
