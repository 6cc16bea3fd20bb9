"""A whole fleet in one call: 5,000 models and 50,000 dependencies, checked, planned and durable, through gRPC.

Beside it what a team would build in an afternoon: the same rows into Postgres tables with foreign keys and checks, in
one transaction, row by row (executemany) and by COPY. That is less than half of the work: nothing there looks for
cycles, resolves policies, tells what would change, or keeps who did it and why.
"""

import statistics
import threading
import time
from collections.abc import Callable

import psycopg
from runway.v1 import fleet_pb2, graph_pb2
from runway_client import connect

from bench.fleet import Fleet, make_fleet
from bench.plane import Plane, _models, _node, running_plane
from bench.table import Row

IDS = ("import_5k_s",)

MODELS = 5_000
OTHERS = 5_000
DEPENDENCIES = 50_000
REPEATS = 3

TABLES = """
drop table if exists edge, node, model;
create table model (model_id text primary key check (model_id ~ '^[a-z][a-z0-9_]{0,99}$'), owner text not null,
    team text not null, tier int not null check (tier between 1 and 4), task_type text not null, description text);
create table node (node_id text primary key check (node_id ~ '^(dataset|feature|model|consumer):[a-z][a-z0-9_]{0,99}$'),
    owner text, team text);
create table edge (upstream text references node, downstream text references node, type text not null,
    primary key (upstream, downstream, type), check (upstream <> downstream));
create index on edge (downstream);
"""
MODEL_COLUMNS = "model (model_id, owner, team, tier, task_type, description)"
NODE_COLUMNS = "node (node_id, owner, team)"
EDGE_COLUMNS = "edge (upstream, downstream, type)"

Rows = dict[str, list[tuple[object, ...]]]


def manifest_of(fleet: Fleet) -> fleet_pb2.Manifest:
    """The fleet as a manifest."""
    return fleet_pb2.Manifest(
        nodes=map(_node, fleet.datasets + fleet.features + fleet.consumers),
        models=_models(fleet.models),
        dependencies=[graph_pb2.Dependency(upstream_id=up, downstream_id=down) for up, down in fleet.dependencies],
    )


def run() -> list[Row]:
    """Measure."""
    manifest = manifest_of(make_fleet(models=MODELS, others=OTHERS, dependencies=DEPENDENCIES))
    rows = _rows(manifest)
    times: dict[str, list[float]] = {name: [] for name in ("first", "again", "wait", "executemany", "copy")}
    for _ in range(REPEATS):
        with running_plane() as plane:
            for name, taken in zip(("first", "again", "wait"), _import(plane, manifest), strict=True):
                times[name].append(taken)
            times["executemany"].append(_tables(plane.postgres.url(), rows, _executemany))
            times["copy"].append(_tables(plane.postgres.url(), rows, _copy))
    median = {name: statistics.median(taken) for name, taken in times.items()}
    return [
        Row(
            id="import_5k_s",
            value=median["first"],
            unit="s",
            peers={
                "runway, the same again (no change)": median["again"],
                "longest wait of another caller meanwhile": median["wait"],
                "postgres tables, executemany": median["executemany"],
                "postgres tables, COPY": median["copy"],
                "ratio to executemany": median["first"] / median["executemany"],
            },
            note=(
                f"target < 3; {MODELS:,} models, {len(manifest.nodes):,} other nodes and {DEPENDENCIES:,} dependencies "
                f"in one call of {manifest.ByteSize() / 2**20:.1f} MiB, planned, free of cycles, durable; the tables "
                "have keys and checks only: no cycles, no plan, no history"
            ),
        )
    ]


def _import(plane: Plane, manifest: fleet_pb2.Manifest) -> tuple[float, float, float]:
    """Seconds to apply to an empty control plane, to apply the same again, and the longest that a read had to wait
    during the first.
    """
    with connect(plane.address) as runway, connect(plane.address) as other:
        over = threading.Event()
        waits: list[float] = [0.0]

        def ask() -> None:
            while not over.wait(0.005):
                asked = time.perf_counter()
                other.operations.get_status()
                waits.append(time.perf_counter() - asked)

        asking = threading.Thread(target=ask)
        asking.start()
        begun = time.perf_counter()
        done = runway.fleet.apply(manifest)
        first = time.perf_counter() - begun
        over.set()
        asking.join()
        assert len(done.changes) == MODELS + len(manifest.nodes) + DEPENDENCIES, len(done.changes)
        begun = time.perf_counter()
        assert not runway.fleet.apply(manifest).changes
        return first, time.perf_counter() - begun, max(waits)


def _rows(manifest: fleet_pb2.Manifest) -> Rows:
    models: list[tuple[object, ...]] = [
        (m.model_id, m.owner, m.team, int(m.tier), "binary", m.description) for m in manifest.models
    ]
    nodes: list[tuple[object, ...]] = [(n.node_id, n.owner, n.team) for n in manifest.nodes]
    nodes += [(f"model:{m.model_id}", m.owner, m.team) for m in manifest.models]
    edges: list[tuple[object, ...]] = [(e.upstream_id, e.downstream_id, str(e.type)) for e in manifest.dependencies]
    return {MODEL_COLUMNS: models, NODE_COLUMNS: nodes, EDGE_COLUMNS: edges}


def _executemany(cursor: psycopg.Cursor, columns: str, rows: list[tuple[object, ...]]) -> None:
    marks = ", ".join(["%s"] * len(rows[0]))
    cursor.executemany(f"insert into {columns} values ({marks})".encode(), rows)


def _copy(cursor: psycopg.Cursor, columns: str, rows: list[tuple[object, ...]]) -> None:
    with cursor.copy(f"copy {columns} from stdin".encode()) as copy:
        for row in rows:
            copy.write_row(row)


def _tables(url: str, rows: Rows, write: Callable[[psycopg.Cursor, str, list[tuple[object, ...]]], None]) -> float:
    """Seconds to write all rows in one transaction, committed."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
        begun = time.perf_counter()
        with connection.transaction(), connection.cursor() as cursor:
            for columns, of in rows.items():
                write(cursor, columns, of)
        return time.perf_counter() - begun
