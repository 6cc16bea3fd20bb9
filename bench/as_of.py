"""[as_of_ms] A whole past state of 5,000 models and 50,000 edges, at random revisions of a long log.

How long the log is matters little: a past state costs a checkpoint and at most `SNAPSHOT_EVERY_EVENTS` events, and
finding a time takes one more look-up each time the log doubles. So that filling it takes a minute or two, it has
200,000 events unless AS_OF_EVENTS says otherwise; the table says how many.

The log is decided, chained and stored by the control plane's own parts, with a checkpoint at the spacing it keeps. One
event in ten moves an alias, four in ten add or retract an edge, the others change facts of a model. The value is the
median of a `History` that has nothing in memory: find the revision of a time, fetch the nearest checkpoint, decode it,
replay the rest.

Side by side: the same by replaying from the beginning (measured on a prefix, scaled to the mean revision), and what
people build instead, temporal tables in the same Postgres (valid_from, valid_to) that are asked for all edges and all
aliases at that revision. Both answers must be equal.
"""

import gc
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import structlog
import uvloop
import zstandard

from bench.fleet import Fleet, make_fleet
from bench.table import Row
from control_plane.adapters.postgres.embedded import EmbeddedPostgres
from control_plane.adapters.postgres.event_log import PostgresEventLog
from control_plane.adapters.postgres.leadership import PostgresLeadership
from control_plane.adapters.postgres.snapshots import PostgresSnapshotStore
from control_plane.app import limits
from control_plane.app.collector import collector_paused
from control_plane.app.history import History
from control_plane.app.machine import FleetMachine
from control_plane.app.ports import Record, Snapshot
from control_plane.app.replica import Replica, Submission
from control_plane.core.commands import (
    Command,
    DeclareDependencies,
    DeclareNodes,
    MoveAlias,
    RegisterModel,
    RegisterVersion,
    RetractDependencies,
    UpdateModel,
)
from control_plane.core.graph.facts import Dependency, DependencyType, Node
from control_plane.core.graph.rules import usual_type
from control_plane.core.ids import ModelId, NodeId, TeamId
from control_plane.core.registry.types import ModelFacts, TaskType, VersionFacts
from control_plane.core.state import State

IDS = ("as_of_ms",)

EVENTS = int(os.environ.get("AS_OF_EVENTS", "200000"))
ASKED = 60
BATCH = 1_000
START = datetime(2013, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=30)
"""Between two batches of commands."""

Answer = tuple[set[tuple[str, str]], dict[str, int]]
"""Edges, and versions by model of one alias."""


def run() -> list[Row]:
    """Fill, ask, compare."""
    structlog.configure(processors=[], logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory(prefix="runway-bench-") as directory:
        postgres = EmbeddedPostgres(Path(directory) / "postgres")
        postgres.start()
        try:
            return uvloop.run(_measure(postgres.url()))
        finally:
            postgres.destroy()


async def _measure(url: str) -> list[Row]:
    leadership, log, snapshots = PostgresLeadership(url), PostgresEventLog(url), PostgresSnapshotStore(url)
    replica: Replica[State, Command] = Replica(FleetMachine())
    replica.epoch = await leadership.acquire()
    fleet = make_fleet(models=5_000, others=2_000, dependencies=50_000)
    blocked: list[float] = []
    begun = time.perf_counter()
    with psycopg.connect(url, autocommit=True) as connection:
        temporal = _Temporal(connection)
        first = await _fill(replica, fleet, log, snapshots, temporal, blocked)
        filled_s = time.perf_counter() - begun
        temporal.index()
        gc.freeze()  # as a control plane does after its start
        await _ask(log, snapshots, first, first, temporal)
        rows = [
            await _ask(log, snapshots, first, revision, temporal)
            for revision in np.random.default_rng(2).integers(first, replica.durable, ASKED).tolist()
        ]
        replay_s = await _replayed(log)
    kept = await snapshots.kept()
    for part in (log, snapshots):
        await part.close()
    await leadership.release()
    ours, theirs = np.array(rows).T * 1e3
    return [
        Row(
            id="as_of_ms",
            value=float(np.median(ours)),
            unit="ms",
            peers={
                "ours p99": float(np.percentile(ours, 99)),
                "temporal tables p50": float(np.median(theirs)),
                "temporal tables p99": float(np.percentile(theirs, 99)),
                "replay from the start (scaled)": replay_s * 1e3 * replica.durable / 2,
                "taking a checkpoint blocks the loop, worst": max(blocked) * 1e3,
                "checkpoints": float(len(kept)),
                "checkpoints MiB": sum(one.size_bytes for one in kept) / 2**20,
            },
            note=(
                f"target < 200; a whole state at {ASKED} random times within {replica.durable:,} events (filled in "
                f"{filled_s:.0f} s), 5,000 models, 50,000 edges; peers answer edges and one alias of all models only"
            ),
        )
    ]


async def _ask(
    log: PostgresEventLog, snapshots: PostgresSnapshotStore, first: int, revision: int, temporal: "_Temporal"
) -> tuple[float, float]:
    """Seconds of ours and theirs for one moment; their answers are equal."""
    at = (await log.read(revision - 1, 1))[0].at
    begun = time.perf_counter()
    history = History(machine=FleetMachine(), event_log=log, snapshots=snapshots)
    found = await history.state_at(await history.revision_at(at))
    ours = time.perf_counter() - begun
    begun = time.perf_counter()
    edges, aliases = temporal.at(found.revision)
    theirs = time.perf_counter() - begun
    assert {(edge.upstream, edge.downstream) for edge in found.graph.dependencies()} == edges
    assert {i: r.aliases["shadow"] for i, r in found.models.items() if "shadow" in r.aliases} == aliases
    await history.close()
    return ours, theirs


async def _replayed(log: PostgresEventLog) -> float:
    """Seconds per event of a replay from the beginning."""
    replica: Replica[State, Command] = Replica(FleetMachine())
    begun = time.perf_counter()
    while replica.durable < 60_000 and (page := await log.read(replica.durable, limits.PAGE_RECORDS)):
        replica.replay(page)
    return (time.perf_counter() - begun) / replica.durable


async def _fill(
    replica: Replica[State, Command],
    fleet: Fleet,
    log: PostgresEventLog,
    snapshots: PostgresSnapshotStore,
    temporal: "_Temporal",
    blocked: list[float],
) -> int:
    """Write the log, checkpoints and temporal tables; the revision from which the whole fleet is there."""
    saved, now, first = 0, START, 0
    work: Iterator[Command | None] = _commands(fleet, replica)
    pending: list[Record] = []
    while replica.state.revision < EVENTS:
        command = next(work)
        if command is None:
            first = replica.state.revision
            continue
        replica.decide(Submission(command=command, actor="bench", reason="a made-up history"), now)
        temporal.note(command, replica.state.revision)
        if replica.pending < BATCH // 2 and replica.state.revision < EVENTS:
            now += STEP / BATCH
            continue
        batch = replica.take()
        assert batch is not None
        pending = list(batch.records)
        await log.append(replica.epoch, pending)
        replica.stored(batch)
        now += STEP
        if replica.durable - saved >= limits.SNAPSHOT_EVERY_EVENTS:
            saved = replica.durable
            begun = time.perf_counter()
            with collector_paused():
                seq, digest, encode = replica.capture()
            blocked.append(time.perf_counter() - begun)
            blob = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(encode())
            await snapshots.save(Snapshot(seq=seq, hash=digest, codec=FleetMachine.snapshot_codec, blob=blob))
    return first


def _facts(name: str, words: str) -> ModelFacts:
    return ModelFacts(
        model_id=ModelId(name), team=TeamId("bench"), tier=2, task_type=TaskType.BINARY, description=words
    )


def _commands(fleet: Fleet, replica: Replica[State, Command]) -> Iterator[Command | None]:
    """Register everything, say so with None, then change it for ever."""
    rng = np.random.default_rng(1)
    names = [node_id.removeprefix("model:") for node_id in fleet.models]
    for name in names:
        yield RegisterModel(facts=_facts(name, "A model of the benchmark fleet."))
    yield DeclareNodes(nodes=tuple(Node(node_id=NodeId(i)) for i in fleet.datasets + fleet.features + fleet.consumers))
    edges = [
        Dependency(
            upstream=NodeId(up),
            downstream=NodeId(down),
            edge_type=usual_type(NodeId(up), NodeId(down)) or DependencyType.CONSUMES_OUTPUT,
        )
        for up, down in fleet.dependencies
    ]
    for place in range(0, len(edges), 10_000):
        yield DeclareDependencies(dependencies=tuple(edges[place : place + 10_000]))
    for name in names:
        for _ in range(2):
            yield RegisterVersion(
                model_id=ModelId(name),
                facts=VersionFacts(artifact_uri="file:///a", artifact_sha256="0" * 64, trained_until=START),
            )
    yield None
    for number in range(10**9):
        turn = number % 10
        if turn == 0:
            name = names[rng.integers(len(names))]
            old = replica.state.models[ModelId(name)].aliases.get("shadow", 2)
            yield MoveAlias(model_id=ModelId(name), alias="shadow", version=3 - old)
        elif turn in (1, 2):
            edge = edges[rng.integers(len(edges))]
            yield RetractDependencies(dependencies=(edge,))
            yield DeclareDependencies(dependencies=(edge,))
        else:
            name = names[rng.integers(len(names))]
            yield UpdateModel(model_id=ModelId(name), facts=_facts(name, f"Words of change {number}."))


class _Temporal:
    """Edges and one alias as people keep a history in SQL. Filled in bulk at the end, kinder than real life."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._edges: dict[tuple[str, str], int] = {}
        self._aliases: dict[str, tuple[int, int]] = {}
        self._edge_rows: list[tuple[str, str, int, int | None]] = []
        self._alias_rows: list[tuple[str, int, int, int | None]] = []

    def note(self, command: Command, revision: int) -> None:
        """What a command did, at a revision."""
        match command:
            case DeclareDependencies(dependencies=told):
                self._edges.update({(one.upstream, one.downstream): revision for one in told})
            case RetractDependencies(dependencies=told):
                for one in told:
                    since = self._edges.pop((one.upstream, one.downstream))
                    self._edge_rows.append((one.upstream, one.downstream, since, revision))
            case MoveAlias(model_id=model_id, version=version):
                if (known := self._aliases.get(model_id)) is not None:
                    self._alias_rows.append((model_id, *known, revision))
                self._aliases[model_id] = (version, revision)
            case _:
                pass

    def index(self) -> None:
        """Write all, with the index that serves the question."""
        execute = self._connection.execute
        execute("CREATE TABLE edges (upstream text, downstream text, valid_from bigint, valid_to bigint)")
        execute("CREATE TABLE aliases (model_id text, version int, valid_from bigint, valid_to bigint)")
        edges = self._edge_rows + [(*key, since, None) for key, since in self._edges.items()]
        aliases = self._alias_rows + [(model_id, *known, None) for model_id, known in self._aliases.items()]
        with self._connection.cursor() as cursor:
            with cursor.copy("COPY edges FROM STDIN") as copy:
                for edge in edges:
                    copy.write_row(edge)
            with cursor.copy("COPY aliases FROM STDIN") as copy:
                for alias in aliases:
                    copy.write_row(alias)
        for table in ("edges", "aliases"):
            span = "int8range(valid_from, valid_to)"
            execute(f"CREATE INDEX ON {table} USING gist ({span})".encode())
            execute(f"VACUUM ANALYZE {table}".encode())

    def at(self, revision: int) -> Answer:
        """Both, as they were."""
        edges = self._connection.execute(
            "SELECT upstream, downstream FROM edges WHERE int8range(valid_from, valid_to) @> %s::bigint", (revision,)
        ).fetchall()
        aliases = self._connection.execute(
            "SELECT model_id, version FROM aliases WHERE int8range(valid_from, valid_to) @> %s::bigint", (revision,)
        ).fetchall()
        return {(up, down) for up, down in edges}, dict(aliases)
