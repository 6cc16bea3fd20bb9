"""What `runway` prints of the fleet, its state and its events."""

import json
from collections.abc import Iterator

import pytest
from google.rpc import code_pb2
from runway.v1 import common_pb2, operations_pb2, registry_pb2, staleness_pb2

from tests.api.control_plane_fake import ControlPlaneFake, failure
from tests.api.shells import Runner, text


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
