"""[impact_5k_p99_ms] Impact of a change at 5,000 nodes / 50,000 edges: unbounded, complete, through gRPC.

One client, one question at a time, over nodes drawn at random; from the call to the parsed answer. Postgres answers a
recursive CTE over an indexed edge table, networkx `descendants` in this process. Both give the bare set; Runway also
gives waves, distances and owners. Every answer of all three is compared before any figure is reported.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import networkx as nx
import numpy as np
import psycopg
from runway.v1 import graph_pb2, graph_pb2_grpc

from bench.fleet import Fleet, make_fleet
from bench.plane import load_fleet, running_plane
from bench.table import Row
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Dependency, DependencyType, GraphSnapshot, Node
from control_plane.core.graph.impact import impact
from control_plane.core.ids import NodeId

IDS = ("impact_5k_p99_ms",)

QUESTIONS = 1000
ROUNDS = 3
"""The median of three p99s: one hiccup of the machine is not our p99."""

CTE = """
WITH RECURSIVE reached (id) AS (
    SELECT downstream FROM bench_edge WHERE upstream = %s
    UNION
    SELECT edge.downstream FROM bench_edge AS edge JOIN reached ON edge.upstream = reached.id
) SELECT id FROM reached
"""

T = TypeVar("T")
Answers = list[frozenset[str]]


def run() -> list[Row]:
    """Measure all three on one graph."""
    fleet = make_fleet(models=2800, others=2200, dependencies=50_000)
    rng = np.random.default_rng(2)
    asked = [fleet.node_ids[i] for i in rng.integers(0, len(fleet.node_ids), QUESTIONS)]
    with running_plane() as plane, plane.channel() as channel:
        load_fleet(plane.address, fleet)
        stub = graph_pb2_grpc.GraphServiceStub(channel)

        def ask_runway(node_id: str) -> graph_pb2.GetImpactResponse:
            return stub.GetImpact(graph_pb2.GetImpactRequest(node_id=node_id), timeout=30)

        ours, replies = _measure(ask_runway, asked)
        if not all(reply.completeness.complete for reply in replies):
            raise AssertionError("an unbounded answer is not complete")
        answers: Answers = [frozenset(row.node_id for row in reply.reached) for reply in replies]
        in_process = _in_process(fleet, asked, answers)
        cte = _postgres(plane.postgres.url(), fleet, asked, answers)
    networkx = _networkx(fleet, asked, answers)
    sizes = [len(answer) for answer in answers]
    return [
        Row(
            id="impact_5k_p99_ms",
            value=ours[1],
            unit="ms",
            peers={
                "runway p50": ours[0],
                "runway in process p99": in_process[1],
                "postgres recursive CTE p50": cte[0],
                "postgres recursive CTE p99": cte[1],
                "networkx p50": networkx[0],
                "networkx p99": networkx[1],
            },
            note=(
                f"target < 5; {len(fleet.node_ids):,} nodes, {len(fleet.dependencies):,} edges; answers of "
                f"{np.median(sizes):,.0f} nodes (median), {max(sizes):,} (largest), all equal; "
                "peers give the bare set without waves"
            ),
        )
    ]


def _measure(ask: Callable[[str], T], asked: Sequence[str]) -> tuple[tuple[float, float], list[T]]:
    """Medians over the rounds of p50 and p99, in milliseconds, and the answers of the last round."""
    p50s, p99s = [], []
    for node_id in asked[:100]:
        ask(node_id)
    for _ in range(ROUNDS):
        answers, times_ms = [], []
        for node_id in asked:
            begun = time.perf_counter()
            answers.append(ask(node_id))
            times_ms.append((time.perf_counter() - begun) * 1e3)
        p50, p99 = np.percentile(times_ms, [50, 99])
        p50s.append(float(p50))
        p99s.append(float(p99))
    return (float(np.median(p50s)), float(np.median(p99s))), answers


def _same(name: str, found: Sequence[frozenset[str]], answers: Answers) -> None:
    if list(found) != answers:
        raise AssertionError(f"{name} and Runway disagree")


def _in_process(fleet: Fleet, asked: Sequence[str], answers: Answers) -> tuple[float, float]:
    """The rule itself, without process, wire and rendering."""
    graph = DependencyGraph.from_snapshot(
        GraphSnapshot(
            nodes=[Node(node_id=NodeId(node_id)) for node_id in fleet.node_ids],
            dependencies=[
                Dependency(upstream=NodeId(up), downstream=NodeId(down), edge_type=DependencyType.DERIVED_FROM)
                for up, down in fleet.dependencies
            ],
        )
    )
    times, found = _measure(lambda node_id: impact(graph, NodeId(node_id)), asked)
    _same("the rule in process", [frozenset(answer.node_ids) for answer in found], answers)
    return times


def _postgres(url: str, fleet: Fleet, asked: Sequence[str], answers: Answers) -> tuple[float, float]:
    """A recursive CTE, prepared, over one connection on the Unix socket."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        connection.execute(
            "CREATE TABLE bench_edge (upstream text, downstream text, PRIMARY KEY (upstream, downstream))"
        )
        with connection.cursor() as cursor, cursor.copy("COPY bench_edge FROM STDIN") as copy:
            for edge in fleet.dependencies:
                copy.write_row(edge)
        connection.execute("VACUUM ANALYZE bench_edge")
        times, found = _measure(lambda node_id: connection.execute(CTE, (node_id,)).fetchall(), asked)
    _same("the recursive CTE", [frozenset(row[0] for row in rows) for rows in found], answers)
    return times


def _networkx(fleet: Fleet, asked: Sequence[str], answers: Answers) -> tuple[float, float]:
    """`networkx.descendants` in this process."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(fleet.node_ids)
    graph.add_edges_from(fleet.dependencies)
    times, found = _measure(lambda node_id: nx.descendants(graph, node_id), asked)
    _same("networkx", [frozenset(reached) for reached in found], answers)
    return times
