"""[lease_p99_ms] From decision to lease with 10,000 waiting requests: order, cooldowns, limits and budgets, exactly.

A scheduler asks three hundred times for up to ten leases; between two calls what was leased ends, so that each call
has to choose anew among ten thousand, all waiting, in a graph of 10,000 models and 50,000 dependencies. Measured is the
decision and its events' way into the state, in process. Postgres, as a queue with `SKIP LOCKED`, answers beside it: by
tier, score and age with the limits of the fleet and of each team, and nothing of topological order.
"""

import gc
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg

from bench.fleet import make_fleet
from bench.plane import running_plane
from bench.table import Row
from control_plane.app.machine import FleetMachine
from control_plane.app.replica import Answer, Replica, Submission
from control_plane.core.commands import (
    CancelRetrain,
    Command,
    DeclareDependencies,
    LeaseRetrains,
    RegisterModel,
    RequestRetrain,
    SetLimits,
)
from control_plane.core.graph.facts import Dependency, DependencyType
from control_plane.core.ids import LeaseToken, ModelId, NodeId, TeamId
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.retraining.types import RetrainCause, RetrainingLimits
from control_plane.core.state import State

IDS = ("lease_p99_ms",)
MODELS = 10_000
DEPENDENCIES = 50_000
TEAMS = 100
CALLS = 300
LEASES = 10
START = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = RetrainingLimits(running_max=50, running_per_team_max=5, tier1_reserve=5, gpu_hours_per_week={"team_1": 100.0})

QUEUE = """
WITH held AS (SELECT team, count(*) AS running FROM bench_queue WHERE running GROUP BY team),
free AS (
    SELECT id, row_number() OVER (PARTITION BY team ORDER BY tier, score DESC, asked) AS place, team, tier, score, asked
    FROM bench_queue WHERE NOT running
),
chosen AS (
    SELECT free.id FROM free LEFT JOIN held USING (team)
    WHERE place <= 5 - coalesce(held.running, 0)
    ORDER BY free.tier, free.score DESC, free.asked
    LIMIT least(10, 50 - (SELECT count(*) FROM bench_queue WHERE running))
)
UPDATE bench_queue SET running = true WHERE id IN (
    SELECT id FROM bench_queue WHERE id IN (SELECT id FROM chosen) FOR UPDATE SKIP LOCKED
) RETURNING id
"""


def run() -> list[Row]:
    """Both queues of the same size."""
    replica = _waiting()
    gc.freeze()  # as the server does once it has recovered
    ours = _measure_ours(replica)
    with running_plane() as plane:
        queue = _measure_queue(plane.postgres.url())
    return [
        Row(
            id="lease_p99_ms",
            value=float(np.percentile(ours, 99)),
            unit="ms",
            peers={
                "runway p50": float(np.median(ours)),
                "runway, first after the graph changed": ours[0],
                "Postgres SKIP LOCKED p50": float(np.median(queue)),
                "Postgres SKIP LOCKED p99": float(np.percentile(queue, 99)),
            },
            note=f"{MODELS:,} waiting, {DEPENDENCIES:,} dependencies, up to {LEASES} leases a call; the queue of "
            "Postgres knows no order, cooldown or budget",
        )
    ]


def _submit(replica: Replica[State, Command], command: Command, now: datetime) -> Answer:
    answer = replica.decide(Submission(command=command, actor="bench", reason=""), now)
    batch = replica.take()
    if batch is not None:
        replica.stored(batch)
    return answer


def _waiting() -> Replica[State, Command]:
    """A fleet in which every model waits for a retrain."""
    replica: Replica[State, Command] = Replica(FleetMachine())
    replica.epoch = 1
    fleet = make_fleet(models=MODELS, others=10, dependencies=DEPENDENCIES)
    for number, node in enumerate(fleet.models):
        facts = ModelFacts(
            model_id=ModelId(node.removeprefix("model:")),
            owner="team:bench",
            team=TeamId(f"team_{number % TEAMS}"),
            tier=1 + number % 4,
            task_type=TaskType.BINARY,
            retrain_gpu_hours=0.5,
        )
        _submit(replica, RegisterModel(facts=facts), START)
    known = set(fleet.models)
    edges = tuple(
        Dependency(upstream=NodeId(up), downstream=NodeId(down), edge_type=DependencyType.CONSUMES_OUTPUT)
        for up, down in fleet.dependencies
        if up in known and down in known
    )
    for first in range(0, len(edges), 5_000):
        _submit(replica, DeclareDependencies(dependencies=edges[first : first + 5_000]), START)
    _submit(replica, SetLimits(limits=LIMITS), START)
    for node in fleet.models:
        command = RequestRetrain(
            model_id=ModelId(node.removeprefix("model:")), cause=RetrainCause.OPERATOR, ignore_cooldown=True
        )
        _submit(replica, command, START)
    return replica


def _measure_ours(replica: Replica[State, Command]) -> list[float]:
    found = []
    now = START
    for call in range(CALLS):
        now += timedelta(seconds=1)
        tokens = tuple(LeaseToken(f"{call}-{number}") for number in range(LEASES))
        began = time.perf_counter()
        answer = _submit(replica, LeaseRetrains(scheduler="bench", lease_tokens=tokens), now)
        found.append((time.perf_counter() - began) * 1e3)
        if not answer.result.attempt_ids:
            raise AssertionError("nothing was leased: the benchmark measures nothing")
        for attempt_id in answer.result.attempt_ids:
            retrain = replica.state.retrain_of_attempt(attempt_id)
            _submit(replica, CancelRetrain(retrain_id=retrain.retrain_id), now)
            again = RequestRetrain(model_id=retrain.model_id, cause=RetrainCause.OPERATOR, ignore_cooldown=True)
            _submit(replica, again, now)
    return found


def _measure_queue(url: str) -> list[float]:
    rng = np.random.default_rng(3)
    found = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE bench_queue (id int PRIMARY KEY, team int, tier int, score float8, asked int, running bool)"
        )
        with connection.cursor() as cursor, cursor.copy("COPY bench_queue FROM STDIN") as copy:
            for number in range(MODELS):
                copy.write_row((number, number % TEAMS, 1 + number % 4, float(rng.random()), number, False))
        connection.execute("CREATE INDEX ON bench_queue (running, tier, score DESC, asked)")
        connection.execute("ANALYZE bench_queue")
        for _ in range(CALLS):
            began = time.perf_counter()
            rows = connection.execute(QUEUE).fetchall()
            found.append((time.perf_counter() - began) * 1e3)
            connection.execute("UPDATE bench_queue SET running = false WHERE id = ANY(%s)", ([row[0] for row in rows],))
        connection.execute("DROP TABLE bench_queue")
    return found
