"""What `runway` prints of predictions, outcomes and performance."""

from runway_client import messages

from tests.api.control_plane_fake import ControlPlaneFake
from tests.api.shells import Runner, text


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
