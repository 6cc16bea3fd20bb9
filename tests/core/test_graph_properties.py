"""The real graph against its dumb twin, after every change, in any order of changes."""

from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from control_plane.core.errors import NotFound, Reason
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Dependency, DependencyType, Node, NodeKind
from control_plane.core.graph.impact import ImpactFilter, PathsWanted, impact, upstream
from control_plane.core.graph.order import nearest_upstream_models, topological_waves
from control_plane.core.graph.paths import all_paths
from control_plane.core.graph.rules import dependency_problems
from control_plane.core.ids import NodeId, node_kind
from tests.reference.graph_twin import GraphTwin

IDS = [NodeId(f"{kind}:n{i}") for i in range(3) for kind in ("dataset", "feature", "model", "consumer")]
node_ids = st.sampled_from(IDS)
nodes = st.builds(Node, node_id=node_ids, owner=st.sampled_from(["", "ana"]))
# Any ends, whatever their kinds: the graph itself must hold for all of them; kinds are a rule of their own.
edges = st.builds(
    Dependency,
    upstream=node_ids,
    downstream=node_ids,
    edge_type=st.sampled_from(list(DependencyType)),
    note=st.sampled_from(["", "note"]),
)


class GraphMachine(RuleBasedStateMachine):
    """Changes both, and after each compares every answer about a few nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = DependencyGraph()
        self.twin = GraphTwin()

    @initialize(start=st.lists(edges, max_size=40))
    def begin(self, start: list[Dependency]) -> None:
        for node_id in IDS:
            self.put(Node(node_id=node_id))
        for dependency in start:
            self.declare(dependency)

    @rule(node=nodes)
    def put(self, node: Node) -> None:
        assert self.graph.put_node(node) == (self.twin.nodes.get(node.node_id) != node)
        self.twin.nodes[node.node_id] = node

    @rule(node_id=node_ids)
    def remove(self, node_id: NodeId) -> None:
        if node_id not in self.twin.nodes:
            return
        gone = self.graph.remove_node(node_id)
        assert list(gone) == [self.twin.edges[key] for key in sorted(self.twin.edges) if node_id in key[:2]]
        self.twin.remove_node(node_id)

    @rule(dependency=edges)
    def declare(self, dependency: Dependency) -> None:
        ends = {dependency.upstream, dependency.downstream}
        if not ends <= self.twin.nodes.keys():
            return
        cycle = self.graph.find_cycle(dependency.upstream, dependency.downstream)
        assert (cycle is not None) == self.twin.closes_cycle(dependency)
        if cycle is None:
            changed = self.graph.add_dependencies([dependency])
            assert changed == (self.twin.edges.get(dependency.key) != dependency)
            self.twin.add(dependency)
            return
        assert cycle[0] == cycle[-1] == dependency.upstream
        assert cycle[1] == dependency.downstream
        assert all(after in self.twin.after(before) for before, after in pairwise(cycle[1:]))

    @rule(dependency=edges)
    def retract(self, dependency: Dependency) -> None:
        removed = self.graph.remove_dependencies([dependency])
        assert removed == (self.twin.edges.pop(dependency.key, None) is not None)

    @rule(batch=st.lists(edges, max_size=12))
    def judge_batch(self, batch: list[Dependency]) -> None:
        """The batch check blames for cycles exactly those that adding one by one would refuse."""
        before = self.graph.to_snapshot()
        problems = dependency_problems(self.graph, batch)
        assert self.graph.to_snapshot() == before
        unsound = {p.index for p in problems if p.reason != Reason.DEPENDENCY_CYCLE}
        trial = self.twin.copy()
        blamed = []
        for index, dependency in enumerate(batch):
            if index in unsound:
                continue
            if trial.closes_cycle(dependency):
                blamed.append(index)
            else:
                trial.add(dependency)
        assert [p.index for p in problems if p.reason == Reason.DEPENDENCY_CYCLE] == blamed

    @precondition(lambda self: self.twin.nodes)
    @rule(
        data=st.data(),
        max_depth=st.none() | st.integers(1, 4),
        kinds=st.frozensets(st.sampled_from(list(NodeKind)), max_size=2),
    )
    def ask(self, data: st.DataObject, max_depth: int | None, kinds: frozenset[NodeKind]) -> None:
        node_id = data.draw(st.sampled_from(sorted(self.twin.nodes)))
        wanted = ImpactFilter(depth_max=max_depth, kinds=kinds, paths=PathsWanted.SHORTEST)
        for answer, twin in (
            (impact(self.graph, node_id, wanted), self.twin),
            (upstream(self.graph, node_id, wanted), self.twin.turned_round()),
        ):
            expected = twin.impact_waves(node_id, max_depth=max_depth, kinds=frozenset(k.value for k in kinds))
            assert list(zip(answer.node_ids, answer.waves.tolist(), strict=True)) == sorted(
                expected.items(), key=lambda item: (item[1], item[0])
            )
            assert sum(len(wave) for wave in answer.by_wave()) == len(answer)
            for row in answer.reached():
                paths = twin.paths(node_id, row.node_id)
                assert row.distance == min(len(p) - 1 for p in paths) == len(row.path) - 1
                assert row.path in paths
                if max_depth is None:
                    assert row.path_count == len(paths)
            all_reached = twin.reached(node_id)
            deeper = [n for n in all_reached if max_depth and twin.distance(node_id, n) > max_depth]
            assert answer.complete == (not deeper)

    @precondition(lambda self: len(self.twin.nodes) > 1)
    @rule(data=st.data(), paths_max=st.integers(1, 8))
    def enumerate_paths(self, data: st.DataObject, paths_max: int) -> None:
        source, target = data.draw(st.permutations(sorted(self.twin.nodes)))[:2]
        every = sorted(self.twin.paths(source, target), key=lambda path: (len(path), path))
        found = all_paths(self.graph, source, target, paths_max=paths_max)
        assert list(found.paths) == every[:paths_max]
        assert found.total == len(every)
        assert found.complete == (len(every) <= paths_max)

    @rule(asked=st.sets(node_ids))
    def waves(self, asked: set[NodeId]) -> None:
        known = asked & self.twin.nodes.keys()
        waves = topological_waves(self.graph, known)
        assert sorted(n for wave in waves for n in wave) == sorted(known)
        number = {n: i for i, wave in enumerate(waves) for n in wave}
        for node_id in known:
            below = self.twin.turned_round().reached(node_id) & known
            # The earliest wave that allows: one after the last of what it depends on.
            assert number[node_id] == max((number[n] + 1 for n in below), default=0)
            assert self.graph.upstream_among(node_id, asked) == tuple(sorted(below))
        if known != asked:
            try:
                topological_waves(self.graph, asked)
            except NotFound:
                return
            raise AssertionError("an unknown node was accepted")

    @rule(node_id=node_ids)
    def models(self, node_id: NodeId) -> None:
        if node_id not in self.twin.nodes:
            return
        turned = self.twin.turned_round()
        up = sorted(n for n in turned.reached(node_id) if node_kind(n) == "model")
        assert list(self.graph.upstream_models(node_id)) == up
        down = sorted(n for n in self.twin.reached(node_id) if node_kind(n) == "model")
        assert list(self.graph.downstream_models(node_id)) == down
        nearest = [
            n for n in up if any(all(node_kind(m) != "model" for m in path[1:-1]) for path in turned.paths(node_id, n))
        ]
        assert list(nearest_upstream_models(self.graph, node_id)) == nearest

    @rule()
    def start_again(self) -> None:
        """Go on with a graph rebuilt from its snapshot: nothing may depend on how it came to be."""
        self.graph = DependencyGraph.from_snapshot(self.graph.to_snapshot())

    @invariant()
    def same_content(self) -> None:
        assert self.graph.to_snapshot() == self.twin.snapshot()
        assert self.graph.dependency_count == len(self.twin.edges)


TestGraphMachine = GraphMachine.TestCase
TestGraphMachine.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
