"""[impact_100k_p99_ms], [graph_100k_rss_mib]: impact at 100,000 nodes / 1,000,000 edges, and what holding them takes.

The graph is loaded through the API into a real control plane; then one client asks one question at a time, over nodes
drawn at random, unbounded, from the call to the parsed answer with waves, distances, owners and a summary. Beside it,
on the same edges: a recursive CTE in Postgres, `networkx.descendants`, and an embedded property-graph database
(ladybug, which goes on with kuzu). Those three give the bare set and are asked fewer questions, since they take their
time. Each peer in a library runs in a process of its own, whose resident memory is told beside the control plane's.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg
from runway.v1 import graph_pb2, graph_pb2_grpc

from bench.fleet import Fleet, make_lineage
from bench.plane import load_fleet, running_plane
from bench.table import Row

IDS = ("impact_100k_p99_ms", "graph_100k_rss_mib")

QUESTIONS = 600
ROUNDS = 2
"""The better p99 of two: one hiccup of the machine is not our p99."""

PEER_QUESTIONS = 40
WARM_UP = 40
RSS_MIB_TARGET = 1536
P99_MS_TARGET = 25

CTE = """
WITH RECURSIVE reached (id) AS (
    SELECT downstream FROM bench_edge WHERE upstream = %s
    UNION
    SELECT edge.downstream FROM bench_edge AS edge JOIN reached ON edge.upstream = reached.id
) SELECT id FROM reached
"""

CYPHER = "MATCH (a:N {id: $id})-[:E* SHORTEST 1..30]->(b:N) RETURN b.id"
"""Every node once. 30 hops are the database's own limit; shortest paths in this graph are far shorter."""

Times = tuple[float, float]
"""p50 and p99, milliseconds."""


def run() -> list[Row]:
    """Measure all four on one graph."""
    fleet = make_lineage(nodes=100_000, dependencies=1_000_000)
    rng = np.random.default_rng(2)
    asked = [fleet.node_ids[i] for i in rng.integers(0, len(fleet.node_ids), QUESTIONS)]
    with running_plane() as plane, plane.channel() as channel:
        load_fleet(plane.address, fleet)
        stub = graph_pb2_grpc.GraphServiceStub(channel)

        def ask(node_id: str) -> graph_pb2.GetImpactResponse:
            return stub.GetImpact(graph_pb2.GetImpactRequest(node_id=node_id), timeout=60)

        first_ms = _timed(ask, asked[:1])[0]
        _timed(ask, asked[:WARM_UP])
        ours = min((_percentiles(_timed(ask, asked)) for _ in range(ROUNDS)), key=lambda times: times[1])
        rss_mib = psutil.Process(plane.pid).memory_info().rss / 2**20
        replies = [ask(node_id) for node_id in asked[:PEER_QUESTIONS]]
        if not all(reply.completeness.complete for reply in replies):
            raise AssertionError("an unbounded answer is not complete")
        digests = [digest(row.node_id for row in reply.reached) for reply in replies]
        sizes = [len(reply.reached) for reply in replies]
        del replies
        cte = _postgres(plane.postgres.url(), fleet, asked[:PEER_QUESTIONS], digests)
    networkx, ladybug = (_peer(name, fleet, asked[:PEER_QUESTIONS], digests) for name in ("networkx", "ladybug"))
    graph = f"{len(fleet.node_ids):,} nodes, {len(fleet.dependencies):,} edges"
    return [
        Row(
            id="impact_100k_p99_ms",
            value=ours[1],
            unit="ms",
            peers={
                "runway p50": ours[0],
                "runway first answer after loading": first_ms,
                "postgres recursive CTE p50": cte[0],
                "postgres recursive CTE p99": cte[1],
                "networkx p50": networkx.times[0],
                "networkx p99": networkx.times[1],
                "ladybug p50": ladybug.times[0],
                "ladybug p99": ladybug.times[1],
            },
            note=(
                f"target < {P99_MS_TARGET}, through gRPC, unbounded; {graph}; answers of {np.median(sizes):,.0f} nodes "
                f"(median), {max(sizes):,} (largest), all equal; peers give the bare set, {PEER_QUESTIONS} questions"
            ),
        ),
        Row(
            id="graph_100k_rss_mib",
            value=rss_mib,
            unit="MiB",
            peers={"networkx": networkx.rss_mib, "ladybug": ladybug.rss_mib},
            note=f"target < {RSS_MIB_TARGET}; resident memory of the control plane after answering; {graph}",
        ),
    ]


def digest(node_ids: Iterable[str]) -> str:
    """Equal for equal sets of ids."""
    return hashlib.sha256("\n".join(sorted(node_ids)).encode()).hexdigest()


def _timed(ask: Callable[[str], object], asked: Sequence[str]) -> list[float]:
    """Milliseconds of each question."""
    times_ms = []
    for node_id in asked:
        begun = time.perf_counter()
        ask(node_id)
        times_ms.append((time.perf_counter() - begun) * 1e3)
    return times_ms


def _percentiles(times_ms: Sequence[float]) -> Times:
    p50, p99 = np.percentile(times_ms, [50, 99])
    return float(p50), float(p99)


def _postgres(url: str, fleet: Fleet, asked: Sequence[str], digests: Sequence[str]) -> Times:
    """A recursive CTE, prepared, over one connection on the Unix socket."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        connection.execute(
            "CREATE TABLE bench_edge (upstream text, downstream text, PRIMARY KEY (upstream, downstream))"
        )
        with connection.cursor() as cursor, cursor.copy("COPY bench_edge FROM STDIN") as copy:
            for edge in fleet.dependencies:
                copy.write_row(edge)
        connection.execute("VACUUM ANALYZE bench_edge")
        return _checked(
            "the recursive CTE", lambda node_id: [row[0] for row in connection.execute(CTE, (node_id,))], asked, digests
        )


def _checked(name: str, ask: Callable[[str], Collection[str]], asked: Sequence[str], digests: Sequence[str]) -> Times:
    """Time each question and compare its answer."""
    times_ms = []
    for node_id, expected in zip(asked, digests, strict=True):
        begun = time.perf_counter()
        found = ask(node_id)
        times_ms.append((time.perf_counter() - begun) * 1e3)
        if digest(found) != expected:
            raise AssertionError(f"{name} and Runway disagree about {node_id}")
    return _percentiles(times_ms)


class Measured:
    """What a peer in a process of its own took."""

    def __init__(self, text: str) -> None:
        found = json.loads(text)
        self.times: Times = (float(found["p50"]), float(found["p99"]))
        self.rss_mib = float(found["rss_mib"])


def _peer(name: str, fleet: Fleet, asked: Sequence[str], digests: Sequence[str]) -> Measured:
    """Run one library on the same graph in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="runway-bench-") as directory:
        home = Path(directory)
        (home / "nodes.csv").write_text("".join(f"{node_id}\n" for node_id in fleet.node_ids))
        (home / "edges.csv").write_text("".join(f"{up},{down}\n" for up, down in fleet.dependencies))
        (home / "asked.json").write_text(json.dumps([list(asked), list(digests)]))
        done = subprocess.run(
            [sys.executable, "-m", "bench.impact_100k", name, directory], check=True, stdout=subprocess.PIPE, text=True
        )
        return Measured(done.stdout)


def _networkx(home: Path) -> Callable[[str], Collection[str]]:
    import networkx as nx  # noqa: PLC0415 (only the process that measures it should hold it)

    graph: nx.DiGraph[str] = nx.DiGraph()
    with (home / "nodes.csv").open() as nodes:
        graph.add_nodes_from(line.strip() for line in nodes)
    with (home / "edges.csv").open() as edges:
        graph.add_edges_from((up, down) for up, _, down in (line.strip().partition(",") for line in edges))
    return lambda node_id: nx.descendants(graph, node_id)


def _ladybug(home: Path) -> Callable[[str], Collection[str]]:
    import ladybug  # noqa: PLC0415 (only the process that measures it should hold it)

    connection = ladybug.Connection(ladybug.Database(str(home / "graph")))
    connection.execute("CREATE NODE TABLE N(id STRING, PRIMARY KEY(id))")
    connection.execute("CREATE REL TABLE E(FROM N TO N)")
    connection.execute(f'COPY N FROM "{home / "nodes.csv"}" (HEADER=false)')
    connection.execute(f'COPY E FROM "{home / "edges.csv"}" (HEADER=false)')

    def ask(node_id: str) -> list[str]:
        found: Any = connection.execute(CYPHER, {"id": node_id})
        return [row[0] for row in found.get_all()]

    return ask


def _child(name: str, home: Path) -> None:
    """Load, answer, and print what it took."""
    ask = {"networkx": _networkx, "ladybug": _ladybug}[name](home)
    asked, digests = json.loads((home / "asked.json").read_text())
    ask(asked[0])
    p50, p99 = _checked(name, ask, asked, digests)
    print(json.dumps({"p50": p50, "p99": p99, "rss_mib": psutil.Process().memory_info().rss / 2**20}))


if __name__ == "__main__":
    _child(sys.argv[1], Path(sys.argv[2]))
