"""What `runway` prints, to whom, and how it exits."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from google.rpc import code_pb2
from runway.v1 import common_pb2, operations_pb2, registry_pb2, staleness_pb2
from runway_cli.impact_text import PathWords
from runway_cli.main import COMMANDS, LazyGroup, run
from runway_cli.page import Column, Page, fit
from runway_client import messages

from tests.api.canned_fleet import serve_fleet
from tests.api.control_plane_fake import ControlPlaneFake, failure


class Ran(NamedTuple):
    """One command: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Runner = Callable[[str], Ran]


@pytest.fixture(scope="module")
def server() -> Iterator[ControlPlaneFake]:
    one = ControlPlaneFake()
    yield one
    one.close()


@pytest.fixture
def fake(server: ControlPlaneFake, monkeypatch: pytest.MonkeyPatch) -> ControlPlaneFake:
    server.answers.clear()
    server.calls.clear()
    server.failures.clear()
    serve_fleet(server)
    monkeypatch.setenv("RUNWAY_ADDRESS", server.address)
    monkeypatch.setenv("RUNWAY_ACTOR", "anna")
    return server


@pytest.fixture
def runway(fake: ControlPlaneFake, capsys: pytest.CaptureFixture[str]) -> Runner:
    def invoke(line: str) -> Ran:
        code = run(line.split())
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return invoke


def text(block: str) -> str:
    """A block of expected lines without the newline that begins it."""
    return block.removeprefix("\n")


def test_status(runway: Runner, fake: ControlPlaneFake) -> None:
    assert runway("status") == (
        0,
        text(f"""
control plane at {fake.address}, version 0.1.0, leader of epoch 3

clock       2013-03-04 11:00 UTC, moved by a replay
started     2013-03-04 10:00
revision    42, snapshot at 40
fleet       3 models, 5 nodes, 3 dependencies
verdicts    STALE 1, UNKNOWN 1, FRESH 1
retrains    WAITING 1
at once     at most 50, 10 per team
retraining  HELD: nothing new is leased until `runway release`
ingested    1,234,567 predictions, 1,200,000 outcomes
watchers    1
"""),
        "",
    )


def test_models_list(runway: Runner) -> None:
    assert runway("models list").out == text("""
MODEL              TIER  VERDICT  PRODUCTION  LATEST  TEAM                  TASK        OWNER
air_time              1  STALE            v3      v4  flight_ops            regression  anna@example.com
arrival_delay_jfk     2  FRESH            v1      v1  passenger_experience  binary      boris@example.com
route_embedding       3  UNKNOWN           -       -  network               embedding   team:network
""")
    assert runway("models list --team nobody").out == "no model matches\n"


def test_models_show(runway: Runner) -> None:
    out = runway("models show model:air_time").out
    assert out.startswith("air_time: regression model on tier 1, team flight_ops, owner anna@example.com.\n")
    assert "verdict         STALE since 2013-03-04 06:00 (5 h ago)\n" in out
    assert "aliases         previous v2, production v3\n" in out
    assert (
        "retraining      when it becomes STALE; 24 h cooldown; 6 h after an upstream promotion; at most 3 attempts"
        in out
    )


def test_versions_and_history(runway: Runner) -> None:
    assert runway("versions list air_time").out == text(f"""
VERSION  ALIASES     TRAINED UNTIL     REGISTERED  METRICS ON HOLDOUT  ATTEMPT       RUN   ARTIFACT SHA256
     v4  -           2013-03-02 11:00  24 h ago    rmse 7.9 ± 0.05     rt_000004_a1  run4  {"4" * 64}
     v3  production  2013-02-08 11:00  23 d ago    rmse 7.8 ± 0.05     rt_000003_a1  run3  {"3" * 64}
""")
    assert runway("models history air_time").out == text("""
MOVED              AGO  ALIAS       FROM  TO  BY      REVISION  WHY
2013-02-12 11:00  20 d  production    v2  v3  runway        33  validated: better by 0.2
""")
    assert "has no version yet" in runway("versions list route_embedding").out


def test_impact_is_an_answer(runway: Runner) -> None:
    assert runway("impact weather --paths").out == text("""
dataset:weather reaches 3 nodes in 3 waves: 2 models (1 on tier 1) and 1 feature.
On tier 1: air_time.
Owned by anna@example.com and boris@example.com (teams flight_ops and passenger_experience).
Retraining the 2 models takes 2 waves and costs 12.5 GPU hours; what 1 of them costs is not known.
The answer is complete; of its discovered edges the oldest was last seen 3 d ago (2013-03-01 11:00).
1 edge of it is suspect: its source has not shown it lately.

NODE                       TIER  TEAM                  OWNER              HOPS  PATHS  SHORTEST
wave 1
  feature:temp                -  -                     -                     1      1  weather -> temp
wave 2
  model:air_time              1  flight_ops            anna@example.com      2      1  weather -> temp -> air_time
wave 3
  model:arrival_delay_jfk     2  passenger_experience  boris@example.com     3      2  weather -> temp -> air_time -> arrival_delay_jfk

Next
  retrain in the order of the waves: `runway retrains request air_time --reason ...`
  before taking it away: `runway what-if --retire dataset:weather`
""")  # noqa: E501 (what is printed)
    assert runway("impact feature:temp").out == "feature:temp reaches nothing.\n"
    shallow = runway("impact dataset:weather --depth 1").out
    assert shallow.startswith("dataset:weather reaches 1 node in 1 wave within 1 hop: 1 feature.\nINCOMPLETE: 2 nodes")
    assert "INCOMPLETE: more than 100,000 nodes" in runway("impact model:air_time --upstream").out
    chosen = runway("impact dataset:weather --kind model --type reads_feature").out
    assert chosen.startswith(
        "dataset:weather reaches 3 nodes along reads_feature: 2 models (1 on tier 1) and 1 feature. "
        "2 of them are asked for, in 2 waves.\n"
    )


def test_every_path_is_folded_under_the_one_above(runway: Runner, fake: ControlPlaneFake) -> None:
    out = runway("impact weather --paths=all").out
    assert "  weather -> temp -> air_time -> arrival_delay_jfk\n" in out
    assert "           -> wind -> air_time -> arrival_delay_jfk\n" in out
    asked = [request.filter.paths for request in fake.requests("GraphService/GetImpact")]
    assert asked.count(messages.PATHS_ALL) == 1
    assert runway("impact --paths all weather").out == out
    assert runway("paths weather model:air_time").out == text("""
3 paths lead from dataset:weather to model:air_time, the shortest in 2 hops.
INCOMPLETE: 1 of 3 paths left out: the limit is 2.

HOPS  PATH
   2  weather -> temp -> air_time
   3                  -> wind -> air_time
""")
    assert "No path leads from model:air_time to dataset:weather." in runway("paths model:air_time weather").out


def test_long_paths_and_shared_names() -> None:
    chain = [f"model:m{number}" for number in range(9)]
    assert PathWords(chain).whole(chain) == "m0 -> m1 -> (4 more) -> m6 -> m7 -> m8"
    assert PathWords(["model:x", "feature:x", "model:y"]).whole(["feature:x", "model:x", "model:y"]) == (
        "feature:x -> model:x -> y"
    )


def test_causes(runway: Runner) -> None:
    assert runway("causes model:air_time model:arrival_delay_jfk").out == text("""
air_time and arrival_delay_jfk all stand on 2 nodes: 1 feature and 1 dataset.
Look first at feature:temp, which is nearest to them.
It may have begun in dataset:weather, on which nothing lies upstream.

CAUSE            HOPS  NEAREST  ROOT  TEAM  OWNER
feature:temp        2  yes      -     data  -
dataset:weather     3  -        yes   -     cleo@example.com

Next
  what else it reaches: `runway impact feature:temp`
""")
    assert "nothing upstream in common" in runway("causes consumer:air_time arrival_delay_jfk").out
    assert runway("causes weather").code == 2


def test_what_if(runway: Runner, fake: ControlPlaneFake) -> None:
    out = runway("what-if --retire weather --remove weather feature:temp").out
    assert "Directly hit: model:air_time.\nNothing upstream would be left for model:air_time.\n" in out
    asked = fake.requests("GraphService/PreviewChange")[0]
    assert list(asked.retire_node_ids) == ["dataset:weather"]
    assert [(edge.upstream_id, edge.type) for edge in asked.remove] == [
        ("dataset:weather", messages.DEPENDENCY_TYPE_DERIVED_FROM)
    ]
    refused = runway("what-if --add model:air_time feature:temp").out
    assert refused.startswith("Nothing would change.\nIt would be refused:\n- feature:temp cannot depend on model:air")
    assert runway("what-if").code == 2


def test_nodes_are_renamed_and_removed(runway: Runner) -> None:
    assert runway("nodes rename temp temperature").out == "feature:temp is feature:temperature now, with 2 edges.\n"
    dry = runway("nodes rename temp feature:x --dry-run").out
    assert dry == "feature:temp would become feature:x with 2 edges; nothing was changed.\n"
    merged = runway("nodes rename temp dataset:weather").out
    assert merged == "feature:temp and dataset:weather are one now: dataset:weather; 2 edges moved.\n"
    assert runway("nodes rename temp dataset:weather --dry-run").out.startswith("feature:temp would become one with")
    assert runway("nodes remove temp weather --reason gone").out == "2 nodes removed.\n"


def test_graph_diff(runway: Runner) -> None:
    assert runway("graph diff --from 41").out == text("""
2 nodes and 1 dependency changed between revisions 41 and 42.

   NODE             DOWNSTREAM    WHAT
+  feature:wind                   cleo@example.com
~  feature:temp                   owner: anna -> ben
-  dataset:weather  feature:temp  derived_from
""")


def test_graph(runway: Runner) -> None:
    assert runway("graph").out == text("""
5 nodes (2 models, 1 feature, 1 consumer and 1 dataset) and 2 dependencies.

UPSTREAM         DOWNSTREAM      TYPE
dataset:weather  feature:temp    derived_from
feature:temp     model:air_time  reads_feature
""")
    assert '"feature:temp" -> "model:air_time";' in runway("graph --dot").out


def test_staleness(runway: Runner) -> None:
    assert runway("staleness show").out == text("""
MODEL              TIER  VERDICT  SINCE    SCORE  CONFIDENCE  TEAM                  FIRST REASON
air_time              1  STALE    5 h ago   0.71  HIGH        flight_ops            temp moved by 0.39 nats: winter ended
arrival_delay_jfk     2  FRESH    3 d ago   0.12  MEDIUM      passenger_experience  -
route_embedding       3  UNKNOWN  -            -  -           network               -
""")  # noqa: E501 (what is printed)
    assert runway("staleness show air_time").out == text("""
air_time is STALE since 2013-03-04 06:00 (5 h ago): score 0.714, stale from 0.6, between 0.65 and 0.9 if missing signals were known; confidence HIGH (3 of 4 signals are known). Version v3, evaluated 10 min ago.

signals
SIGNAL         VALUE  WEIGHT  ADDS    ROWS  SIGNIFICANT  WHAT IT SAYS
input_drift      0.9     0.4  0.36  14,200  yes          7 of 25 features drifted
age              0.4     0.2  0.08       0  no           trained on data up to 24 days ago
performance  missing     0.3     -       0  -            40 labels, 200 needed

most drifted features
FEATURE   PSI  DEBIASED  P VALUE  DRIFTED
temp     0.41      0.39    1e-12  yes
seats    0.02         0      0.4  no

reasons
- temp moved by 0.39 nats: winter ended

what to do
Retrain it.
""")  # noqa: E501 (what is printed)
    assert runway("staleness explain air_time").out == text("""
air_time is STALE since 2013-03-04 06:00 (5 h ago).

Its inputs drifted.
Retraining is advised.

PSI of the most drifted features
temp   ████████████████████████ 0.41 drifted
seats  █▏ 0.02 not significant

`runway staleness show air_time` gives the numbers.
""")
    assert runway("staleness show --verdict stale").out.count("\n") == 2


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


def test_truth(runway: Runner, fake: ControlPlaneFake) -> None:
    assert runway("coverage air_time").out == text("""
air_time: 985 of 1000 mature predictions have their outcome.

DAY         PREDICTED  MATURE  JOINED  COVERAGE  LATE  ORPHANS  FROM
2013-03-04      1,200   1,000     985    98.5 %     3        1  speed
""")
    assert runway("performance air_time --days 3").out == text("""
air_time has RMSE 8.123 (8.005 to 8.244) on 985 outcomes of 2013-03-04 00:00 to 2013-03-04 11:00; 7.8 on its holdout.
That is worse than on the holdout, beyond chance.

METRIC  VALUE  95 % INTERVAL   HOLDOUT  OUTCOMES
rmse    8.123  8.005 to 8.244      7.8       985

DAY          RMSE  95 % INTERVAL   OUTCOMES  FROM
2013-03-04  8.123  8.005 to 8.244       985  batch
""")
    asked = fake.requests("GroundTruthService/GetPerformance")[-1]
    assert asked.start_time.ToJsonString() == "2013-03-01T11:00:00Z"


def test_coverage_of_the_fleet(runway: Runner) -> None:
    assert runway("coverage").out == text("""
1 of 2 models has less of the truth than its policy asks for.

MODEL              TIER  MATURE  COVERAGE  WANTED  ALERT  LIKELY CAUSE
arrival_delay_jfk  1      1,000    61.2 %  80.0 %  yes    source silent
air_time           2      1,000    98.5 %  90.0 %  -      -

`runway coverage arrival_delay_jfk` says why, and what to do.
""")
    assert "air_time" not in runway("coverage --low").out


def test_performance_says_what_is_not_final(runway: Runner, fake: ControlPlaneFake) -> None:
    told = runway("performance air_time --provisional --delays --slice country=US --by hour --as-known-at 2013-03-03")
    assert told.out == text("""
air_time (country=US), as known at 2013-03-03 00:00, has RMSE 8.123 (8.005 to 8.244) on 985 outcomes of \
2013-03-04 00:00 to 2013-03-04 11:00; 7.8 on its holdout.
That is worse than on the holdout, beyond chance.
PROVISIONAL: 82.0 % of the outcomes that will come are here. The numbers are corrected by how fast outcomes usually \
arrive, and will be revised.
12 predictions of 1 hours wait for the batch join and are not counted.

METRIC  VALUE  95 % INTERVAL   HOLDOUT  OUTCOMES
rmse    8.123  8.005 to 8.244      7.8       985

HOUR               RMSE  95 % INTERVAL   OUTCOMES    HERE  FROM                COMPUTED
2013-03-04 00:00  8.123  8.005 to 8.244       985  82.0 %  batch, provisional  2013-03-04 10:00

Half of the outcomes are there 12 s after the prediction, 95 % after 33 min.

DELAY         OUTCOMES  SO FAR  USUALLY
up to 60 s         900  91.4 %   90.0 %
up to 60 min        85   100 %    100 %
""")
    asked = fake.requests("GroundTruthService/GetPerformance")[-1]
    assert (asked.slice, asked.provisional, asked.grain) == ("country=US", True, messages.GRAIN_HOUR)
    assert asked.known_at.ToJsonString() == asked.end_time.ToJsonString() == "2013-03-03T00:00:00Z"


def test_events_and_holds(runway: Runner) -> None:
    assert runway("events").out == text("""
2013-03-04 06:00       41  air_time became STALE
2013-03-04 06:00       42  rt_000002 of air_time was requested  [anna: winter ended]
""")
    assert runway("events --since 41").out.count("\n") == 1
    assert "the clock stands at 06:00" in runway("events --all").out
    assert len(json.loads(runway("events --json").out)["events"]) == 3
    assert "is held" in runway("hold --reason storm").out
    assert "is released" in runway("release").out
    assert "nothing was changed" in runway("release --dry-run").out


def test_watch_prints_what_happens_until_it_ends(runway: Runner, fake: ControlPlaneFake) -> None:
    served = fake.answers["OperationsService/Watch"]

    def once(request: object, context: object) -> object:
        fake.answers["OperationsService/Watch"] = lambda _request, _context: (_ for _ in ()).throw(
            failure(code_pb2.OUT_OF_RANGE, "WATCH_TOO_OLD", "revision 42 is gone: begin at 70")
        )
        return served(request, context)  # type: ignore[arg-type]

    fake.answers["OperationsService/Watch"] = once
    ran = runway("watch --since 41")
    assert ran.out == "2013-03-04 06:00       42  rt_000002 of air_time was requested  [anna: winter ended]\n"
    assert ran.err.splitlines()[-1] == "runway: revision 42 is gone: begin at 70"
    assert "ended the watch" in ran.err
    assert ran.code == 1


def test_watch_asks_for_models_teams_and_kinds(runway: Runner, fake: ControlPlaneFake) -> None:
    served = fake.answers["OperationsService/Watch"]

    def once(request: object, context: object) -> object:
        fake.failures["OperationsService/Watch"].append(failure(code_pb2.INTERNAL, "INTERNAL", "enough"))
        return served(request, context)  # type: ignore[arg-type]

    fake.answers["OperationsService/Watch"] = once
    ran = runway("watch --since 39 --model model:air_time --team flight_ops --kind VerdictChanged --kind ClockAdvanced")
    assert "the clock stands at 06:00" in ran.out
    request = fake.requests("OperationsService/Watch")[0]
    assert (request.after_revision, list(request.model_ids), list(request.teams), list(request.kinds)) == (
        39,
        ["air_time"],
        ["flight_ops"],
        ["VerdictChanged", "ClockAdvanced"],
    )
    assert "did you mean flight_ops?" in runway("watch --team fligth_ops").err
    assert "leave out --since" in runway("watch --snapshot --since 3").err


def test_watch_begins_with_the_models_as_they_are(runway: Runner, fake: ControlPlaneFake) -> None:
    item = operations_pb2.SnapshotItem(
        model=registry_pb2.Model(
            model_id="air_time", team="flight_ops", tier=common_pb2.TIER_1, aliases={"production": 3}
        ),
        staleness=staleness_pb2.Staleness(verdict=staleness_pb2.VERDICT_STALE),
    )

    def serve(request: operations_pb2.WatchRequest, _context: object) -> Iterator[operations_pb2.WatchResponse]:
        assert request.include_snapshot
        yield operations_pb2.WatchResponse(snapshot_items=[item])
        yield operations_pb2.WatchResponse(snapshot_end=operations_pb2.SnapshotEnd(revision=42))
        raise failure(code_pb2.INTERNAL, "INTERNAL", "enough")

    fake.answers["OperationsService/Watch"] = serve
    assert runway("watch --snapshot").out == (
        "air_time (tier 1, team flight_ops) is STALE, version 3 in production\n"
        "1 model at revision 42; now what happens:\n"
    )
    lines = [json.loads(line) for line in runway("watch --snapshot --json").out.splitlines()]
    assert lines[0]["snapshot_items"][0]["model"]["model_id"] == "air_time"
    assert lines[1]["snapshot_end"]["revision"] == "42"


@pytest.mark.parametrize("command", ["watch --since 3 --kind verdictchange", "events --kind verdictchange"])
def test_a_kind_that_does_not_exist_is_answered_with_those_it_may_be(
    runway: Runner, fake: ControlPlaneFake, command: str
) -> None:
    wrong = failure(
        code_pb2.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        "kinds[0]: there is no kind of event 'verdictchange'",
        violations=[("kinds[0]", "there is no kind of event 'verdictchange'; the metadata lists them")],
        known_kinds="AliasMoved,StreakChanged,VerdictChanged",
    )
    fake.failures["OperationsService/Watch"].append(wrong)
    fake.failures["OperationsService/ListEvents"].append(wrong)
    ran = runway(command)
    assert ran.code == 2
    assert ran.err.splitlines()[0] == "runway: there is no kind of event 'verdictchange': did you mean VerdictChanged?"


def test_join_says_what_it_came_to(runway: Runner, fake: ControlPlaneFake) -> None:
    assert runway("join --from 2013-03-04 --to 2013-03-04T11:00 --all-again --model model:air_time").out == text("""
2013-03-04 00:00 to 2013-03-04 11:00: 20 hours of models joined by duckdb in 0.4 CPU-s; 985 of 1,200 predictions have an outcome.
1 hour is still served by the speed layer, complete as it is; a later join takes over.
3 outcomes came after the speed layer had let go of the hour.
1 outcome found no prediction.

MODEL     PREDICTED  WITH OUTCOME  COVERAGE
air_time      1,200           985    98.5 %
""")  # noqa: E501 (as it is printed)
    (request,) = fake.requests("FactsService/JoinPartition")
    assert (request.model_id, request.authoritative) == ("air_time", True)


def test_join_wants_a_time_it_can_read(runway: Runner) -> None:
    assert "Missing option '--from'" in runway("join").err
    ran = runway("join --from yesterday")
    assert (ran.code, "--from" in ran.err) == (2, True)
    ran = runway("join --from 2013-03-01 --model arrival_delay")
    assert (ran.code, "there is no model" in ran.err) == (1, True)


JSON_COMMANDS = {
    "status": "server_version",
    "models list": "models",
    "models show air_time": "model",
    "models history air_time": "moves",
    "versions list air_time": "versions",
    "staleness show": "staleness",
    "staleness show air_time": "staleness",
    "staleness explain air_time": "sentences",
    "staleness history air_time": "evaluations",
    "staleness history air_time --changes": "changes",
    "staleness replay air_time --revision 40": "identical",
    "staleness evaluate air_time": "staleness",
    "impact weather": "reached",
    "impact weather --upstream": "reached",
    "graph": "dependencies",
    "graph diff --from 41": "nodes_added",
    "paths weather model:air_time": "total",
    "causes weather feature:temp": "causes",
    "what-if --retire weather": "affected",
    "nodes rename temp feature:x": "node",
    "nodes remove temp": "changed",
    "retrains list": "retrains",
    "retrains show rt_000001": "retrain",
    "retrains request air_time": "created",
    "retrains cancel rt_000001": "retrain",
    "rollouts list": "rollouts",
    "rollouts show ro_000001": "rollout",
    "rollouts promote air_time 4 --force --reason x": "rollout",
    "rollouts roll-back air_time": "rollout",
    "coverage air_time": "rows",
    "performance air_time": "rows",
    "join --from 2013-03-04": "models",
    "events": "events",
    "hold": "revision",
    "release": "revision",
}


@pytest.mark.parametrize("command", JSON_COMMANDS)
def test_json_everywhere(runway: Runner, command: str) -> None:
    ran = runway(f"{command} --json")
    assert (ran.code, ran.err) == (0, "")
    assert JSON_COMMANDS[command] in json.loads(ran.out)
    assert runway(f"--json {command}").out == ran.out


def test_json_keeps_the_contracts_names_and_defaults(runway: Runner) -> None:
    model = json.loads(runway("models list --json").out)["models"][1]
    assert model["model_id"] == "arrival_delay_jfk"
    assert model["task_type"] == "TASK_TYPE_BINARY"
    assert model["consumers"] == []


@pytest.mark.parametrize(
    ("command", "code", "complaint"),
    [
        ("models show arival_delay", 1, "there is no model 'arival_delay': did you mean arrival_delay_jfk?"),
        ("models show zzz", 1, "there is no model 'zzz': see `runway models list`"),
        ("staleness explain model:airtime", 1, "there is no model 'airtime': did you mean air_time?"),
        ("coverage arrival", 1, "there is no model 'arrival': did you mean arrival_delay_jfk?"),
        ("impact wether", 1, "there is no node 'wether': did you mean dataset:weather?"),
        ("impact dataset:wether", 1, "there is no node 'dataset:wether': did you mean dataset:weather?"),
        ("impact air_time", 1, "several nodes are called 'air_time': say which of consumer:air_time, model:air_time"),
        ("retrains show rt_00002", 1, "there is no retrain 'rt_00002': did you mean rt_000002 or rt_000001?"),
        ("rollouts promote air_time 4", 1, "v4 of air_time has not passed a validation: force it with a reason"),
        ("rollouts promote air_time 4 --force", 2, "--force needs --reason"),
        ("rollouts promote air_time four", 2, "'four' is not a version: write 3 or v3"),
        ("performance air_time --since yesterday", 2, "'yesterday' is not a time: write 2013-03-01"),
        ("modles", 2, "there is no command 'modles': did you mean models"),
        ("models shwo", 2, "there is no command 'shwo': did you mean show?"),
        ("qqq", 2, "there is no command 'qqq': see `runway --help`"),
        ("models list --tier 9", 2, "9 is not in the range 1<=x<=4"),
        ("models show", 2, "Missing argument 'MODEL'"),
    ],
)
def test_mistakes_are_answered_with_what_to_do(runway: Runner, command: str, code: int, complaint: str) -> None:
    ran = runway(command)
    assert ran.code == code
    assert ran.out == ""
    assert ran.err.startswith("runway: ")
    assert complaint in ran.err.splitlines()[0]


def test_nobody_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runway_cli.session.RETRY_FOR_S", 0.0)
    assert run(["--address", "127.0.0.1:1", "status"]) == 3
    assert capsys.readouterr().err == (
        "runway: cannot reach the control plane at 127.0.0.1:1: start it with `make up` or set RUNWAY_ADDRESS\n"
    )


def test_no_answer_and_invalid_input(runway: Runner, fake: ControlPlaneFake) -> None:
    fake.failures["OperationsService/GetStatus"].append(
        failure(code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "too slow: allow more time")
    )
    assert runway("status").code == 4
    fake.failures["RegistryService/GetModel"].append(
        failure(code_pb2.INVALID_ARGUMENT, "INVALID_ID", "model_id: no id", [("model_id", "no id"), ("team", "none")])
    )
    ran = runway("models show A")
    assert ran.code == 2
    assert ran.err == "runway: model_id: no id\n  model_id: no id\n  team: none\n"
    fake.failures["RegistryService/GetModel"].append(
        failure(code_pb2.INVALID_ARGUMENT, "INVALID_ID", "model_id: no id", [("model_id", "no id")])
    )
    assert runway("models show A").err == "runway: model_id: no id\n"


def test_help_says_the_exit_codes_and_imports_little() -> None:
    code = (
        "import sys\nfrom runway_cli.main import COMMANDS, LazyGroup, run\nassert run(['--help']) == 0\n"
        "heavy = {'grpc', 'google.protobuf', 'rich', 'pyarrow', 'runway_client'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "3 cannot reach the control plane, 4 no answer in time" in done.stdout
    for command in ("status", "models", "impact", "retrains", "watch"):
        assert f"\n  {command} " in done.stdout


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [
        [name, *inner]
        for name, entry in COMMANDS.items()
        for inner in ([[one] for one in entry.lazy] if isinstance(entry, LazyGroup) else [[]])
    ]
    assert len(paths) > 20
    for path in paths:
        assert run([*path, "--help"]) == 0
        out = capsys.readouterr().out
        assert "--json" in out
        assert out.startswith(f"Usage: runway {' '.join(path)} ")


def test_a_closed_pipe_is_nothing_to_talk_about(fake: ControlPlaneFake) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "runway_cli.main", "models", "list"],
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert done.stderr == b""


WIDE = [
    Column(title="MODEL"),
    Column(title="TEAM", spare=1),
    Column(title="OWNER", spare=2),
    Column(title="NOTE", prose=True),
]
ROWS = [["arrival_delay_jfk", "passenger_experience", "boris@example.com", "waits for the cooldown after air_time"]]


def printed(width: int | None) -> str:
    stream = io.StringIO()
    Page(stream, width=width, colours=False).table(WIDE, ROWS)
    return stream.getvalue()


def test_a_narrow_terminal_wraps_prose_then_leaves_out_columns_and_says_so() -> None:
    assert printed(None).count("\n") == 2
    assert printed(90) == text("""
MODEL              TEAM                  OWNER              NOTE
arrival_delay_jfk  passenger_experience  boris@example.com  waits for the cooldown after
                                                            air_time
""")
    assert printed(60) == text("""
MODEL              NOTE
arrival_delay_jfk  waits for the cooldown after air_time
(left out to fit: owner, team; a wider terminal or --json shows them)
""")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_ids_are_never_cut(width: int) -> None:
    assert "arrival_delay_jfk" in printed(width)
    layout = fit(WIDE, ROWS, width)
    if layout.hidden != ["owner", "team"]:
        assert sum(layout.widths) + 2 * (len(layout.widths) - 1) <= width


def test_colours_only_where_asked() -> None:
    stream = io.StringIO()
    Page(stream, width=80, colours=True).table([Column(title="VERDICT")], [["STALE"], ["x"]])
    assert stream.getvalue() == "\x1b[1mVERDICT\x1b[0m\n\x1b[1;31mSTALE\x1b[0m\nx\n"
    assert "\x1b" not in printed(80)


def test_text_from_elsewhere_cannot_repaint_the_screen(runway: Runner) -> None:
    out = runway("models show route_embedding").out
    assert "evil[2Jtext" in out
    assert "\x1b" not in out


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
