"""Sources that tell of runs, people who contradict them, and what must be true of edges whatever they say."""

from datetime import datetime, timedelta

import numpy as np
import rustworkx as rx

from control_plane.core.commands import ClearOverride, Command, ReportLineage, SetOverride
from control_plane.core.graph.facts import Dependency
from control_plane.core.graph.lineage_facts import EdgeState, LineageNode, LineageRun, RunState
from control_plane.core.graph.lineage_fold import dependency_of
from control_plane.core.ids import NodeId
from control_plane.core.state import State

DATASETS = 8
DAY = timedelta(days=1)


class Sources:
    """Jobs that read and write datasets and models; told twice, late, backwards, sometimes in circles."""

    def __init__(self, seed: int, models: int) -> None:
        self.rng = np.random.default_rng(seed + 10_000)
        self.models = models
        self.told: list[LineageRun] = []
        self.runs = 0

    def commands(self, state: State, now: datetime) -> list[Command]:
        """What sources and people do in one minute."""
        found: list[Command] = []
        if self.rng.random() < 0.15:
            found.append(ReportLineage(runs=tuple(self._run(now) for _ in range(int(self.rng.integers(1, 4))))))
        if self.told and self.rng.random() < 0.05:
            found.append(ReportLineage(runs=(self.told[int(self.rng.integers(len(self.told)))],)))
        between = [key for key in sorted(state.lineage.records) if key[0].startswith("dataset:")]
        if between and self.rng.random() < 0.03:
            # Edges of datasets only: the checkers of retraining know the models' edges as they were declared.
            edge = dependency_of(between[int(self.rng.integers(len(between)))])
            found.append(self._override(edge, now))
        return found

    def _override(self, edge: Dependency, now: datetime) -> Command:
        if self.rng.random() < 0.3:
            return ClearOverride(dependency=edge)
        return SetOverride(
            dependency=edge,
            present=bool(self.rng.random() < 0.5),
            owner=f"team{int(self.rng.integers(2))}",
            reason="I know",
            expires_at=now + timedelta(minutes=int(self.rng.integers(1, 90))) if self.rng.random() < 0.7 else None,
        )

    def _run(self, now: datetime) -> LineageRun:
        self.runs += 1
        job = int(self.rng.integers(12))
        states = (RunState.START, RunState.FAIL, RunState.COMPLETE, RunState.COMPLETE, RunState.COMPLETE)
        run = LineageRun(
            source="simulated",
            job=f"job{job}",
            run_id=f"run{self.runs // 2}",
            state=states[int(self.rng.integers(len(states)))],
            event_time=now - int(self.rng.integers(3)) * DAY,
            inputs=(self._node(), self._node()),
            outputs=(self._node(),),
            confidence=1.0 if self.rng.random() < 0.9 else 0.3,
        )
        self.told.append(run)
        return run

    def _node(self) -> LineageNode:
        if self.rng.random() < 0.3:
            return LineageNode(node_id=NodeId(f"model:m{int(self.rng.integers(self.models + 1)):02d}"))
        return LineageNode(external_id=f"lake/table{int(self.rng.integers(DATASETS))}")


def check_edges(state: State) -> None:
    """The graph holds exactly what the ledger has a reason for, and never a cycle."""
    ledger, graph = state.lineage, state.graph
    counting = {key for key, record in ledger.records.items() if record.state.counts}
    plain = {key for key in ledger.declared if key not in ledger.records}
    assert {d.key for d in graph.dependencies()} == counting | plain
    twin: rx.PyDiGraph[str, None] = rx.PyDiGraph()
    places = {n.node_id: twin.add_node(n.node_id) for n in graph.nodes()}
    twin.add_edges_from([(places[d.upstream], places[d.downstream], None) for d in graph.dependencies()])
    assert rx.is_directed_acyclic_graph(twin)
    for key, record in ledger.records.items():
        assert record.key == key
        assert graph.has_node(key[0])
        assert graph.has_node(key[1])
        assert key in ledger.declared or record.sightings or record.override is not None, "nothing speaks of it"
        assert (record.state is EdgeState.QUARANTINED) == bool(record.cycle)
        if record.override is not None:
            assert (
                record.state is (EdgeState.ACTIVE if record.override.present else EdgeState.SUPPRESSED) or record.cycle
            )
    timed = {k for k in counting if k not in ledger.declared and ledger.records[k].override is None}
    assert len(state.edge_times) == len(timed)
    for name, node_id in ledger.claims.items():
        assert name in graph.node(node_id).external_ids
