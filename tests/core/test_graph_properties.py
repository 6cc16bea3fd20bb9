"""The real graph against its dumb twin, after every change, in any order of changes."""

from collections import Counter
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from control_plane.core.errors import NotFound, Reason
from control_plane.core.graph.causes import common_causes
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Dependency, DependencyType, Node, NodeKind
from control_plane.core.graph.impact import Impact, ImpactFilter, PathsWanted, impact, upstream
from control_plane.core.graph.order import nearest_upstream_models, topological_waves
from control_plane.core.graph.paths import all_paths
from control_plane.core.graph.preview import Change, Preview, preview
from control_plane.core.graph.rules import dependency_problems
from control_plane.core.graph.summary import summarise
from control_plane.core.ids import NodeId, node_kind
from tests.reference.graph_twin import GraphTwin

IDS = [NodeId(f"{kind}:n{i}") for i in range(3) for kind in ("dataset", "feature", "model", "consumer")]
node_ids = st.sampled_from(IDS)
nodes = st.builds(
    Node,
    node_id=node_ids,
    owner=st.sampled_from(["", "ana"]),
    team=st.sampled_from(["", "ops", "data"]),
    tier=st.sampled_from([None, 1, 2]),
)
# Any ends, whatever their kinds: the graph itself must hold for all of them; kinds are a rule of their own.
edges = st.builds(
    Dependency,
    upstream=node_ids,
    downstream=node_ids,
    edge_type=st.sampled_from(list(DependencyType)),
    note=st.sampled_from(["", "note"]),
)
filters = st.builds(
    ImpactFilter,
    depth_max=st.none() | st.integers(1, 4),
    kinds=st.frozensets(st.sampled_from(NodeKind), max_size=2),
    tiers=st.frozensets(st.integers(1, 2), max_size=1),
    teams=st.frozensets(st.sampled_from(["ops", "data", "nobody"]), max_size=1),
    types=st.frozensets(st.sampled_from(DependencyType), max_size=3),
    paths=st.sampled_from([PathsWanted.SHORTEST, PathsWanted.ALL]),
    paths_max=st.integers(1, 12),
)


def chosen(node: Node, wanted: ImpactFilter) -> bool:
    """Whether a filter wants a node in its answer."""
    return (
        (not wanted.kinds or node.kind in wanted.kinds)
        and (not wanted.tiers or node.tier in wanted.tiers)
        and (not wanted.teams or node.team in wanted.teams)
    )


class GraphMachine(RuleBasedStateMachine):
    """Changes both, and after each compares every answer about a few nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = DependencyGraph()
        self.twin = GraphTwin()
        self.costs: dict[NodeId, float] = {}

    @initialize(start=st.lists(edges, max_size=25))
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
        self.costs.pop(node_id, None)

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
    @rule(data=st.data(), wanted=filters)
    def ask(self, data: st.DataObject, wanted: ImpactFilter) -> None:
        node_id = data.draw(st.sampled_from(sorted(self.twin.nodes)))
        along = self.twin.along(wanted.types)
        for answer, twin in (
            (impact(self.graph, node_id, wanted), along),
            (upstream(self.graph, node_id, wanted), along.turned_round()),
        ):
            expected = twin.impact_waves(node_id, max_depth=wanted.depth_max, chosen=lambda n: chosen(n, wanted))
            assert list(zip(answer.node_ids, answer.waves.tolist(), strict=True)) == sorted(
                expected.items(), key=lambda item: (item[1], item[0])
            )
            assert sum(len(wave) for wave in answer.by_wave()) == len(answer)
            near = {
                n
                for n in twin.reached(node_id)
                if not wanted.depth_max or twin.distance(node_id, n) <= wanted.depth_max
            }
            ways = {n: [p for p in twin.paths(node_id, n) if near.issuperset(p[1:])] for n in expected}
            for row in answer.reached():
                assert row.distance == twin.distance(node_id, row.node_id) == len(row.path) - 1
                assert row.path == min(ways[row.node_id], key=lambda path: (len(path), path[::-1]))
                assert row.path_count == len(ways[row.node_id])
            listed = sorted((p for paths in ways.values() for p in paths), key=lambda path: (len(path), path))
            cut = listed[: wanted.paths_max]
            if wanted.paths is PathsWanted.ALL:
                assert [list(row.all_paths) for row in answer.reached()] == [
                    [path for path in cut if path[-1] == row.node_id] for row in answer.reached()
                ]
            deeper = len(twin.reached(node_id)) - len(near)
            dropped = len(listed) - len(cut) if wanted.paths is PathsWanted.ALL else 0
            assert answer.complete == (not deeper and not dropped)
            assert any(f"{dropped} of {len(listed)} paths" in why for why in answer.reasons) == bool(dropped)
            self.sum_up(answer, near)

    def sum_up(self, answer: Impact, reached: set[NodeId]) -> None:
        """The summary counts what was reached, whatever was chosen from it."""
        found = summarise(self.graph, answer.layout.numbering, answer.others)
        nodes = [self.twin.nodes[n] for n in sorted(reached)]
        models = [n for n in nodes if n.kind is NodeKind.MODEL]
        assert found.by_kind == Counter(n.kind for n in nodes)
        assert found.models_by_tier == Counter(n.tier for n in models if n.tier)
        assert found.tier_1_models == tuple(n.node_id for n in models if n.tier == 1)
        assert found.owners == tuple(sorted({n.owner for n in nodes} - {""}))
        assert found.teams == tuple(sorted({n.team for n in nodes} - {""}))
        assert found.consumers == tuple(n.node_id for n in nodes if n.kind is NodeKind.CONSUMER)
        costs = [self.costs.get(n.node_id, 0.0) for n in models]
        assert found.retrain_gpu_hours == sum(costs)
        assert found.retrain_cost_unknown == costs.count(0.0)

    @rule(node_id=node_ids, hours=st.integers(0, 9))
    def say_what_a_retrain_costs(self, node_id: NodeId, hours: int) -> None:
        if node_id in self.twin.nodes:
            self.graph.put_retrain_cost(node_id, float(hours))
            self.costs[node_id] = float(hours)

    @rule(asked=st.sets(node_ids, min_size=2, max_size=4), kinds=st.frozensets(st.sampled_from(NodeKind), max_size=2))
    def find_causes(self, asked: set[NodeId], kinds: frozenset[NodeKind]) -> None:
        known = asked & self.twin.nodes.keys()
        if len(known) < 2:
            return
        expected = self.twin.common_causes(known)
        found = common_causes(self.graph, known, kinds)
        assert {c.node_id: (c.distance, c.root) for c in found} == {
            n: (distance, root)
            for n, (distance, _, root) in expected.items()
            if not kinds or self.twin.nodes[n].kind in kinds
        }
        if not kinds:
            assert {c.node_id for c in found if c.nearest} == {n for n, (_, nearest, _) in expected.items() if nearest}
        assert [(c.distance, c.node_id) for c in found] == sorted((c.distance, c.node_id) for c in found)

    @precondition(lambda self: self.twin.nodes)
    @rule(
        data=st.data(),
        add=st.lists(edges, max_size=4),
        types=st.frozensets(st.sampled_from(DependencyType), max_size=2),
    )
    def look_before(self, data: st.DataObject, add: list[Dependency], types: frozenset[DependencyType]) -> None:
        retire = data.draw(st.sets(st.sampled_from(sorted(self.twin.nodes)), max_size=2))
        remove = data.draw(st.lists(st.sampled_from(sorted(self.twin.edges)), max_size=3)) if self.twin.edges else []
        unchanged = self.graph.to_snapshot()
        wanted = ImpactFilter(types=types, paths=PathsWanted.SHORTEST)
        change = Change(retire=sorted(retire), add=add, remove=[self.twin.edges[key] for key in remove])
        found = preview(self.graph, change, wanted)
        assert self.graph.to_snapshot() == unchanged
        after = self.twin.copy()
        for key in remove:
            after.edges.pop(key, None)
        for node_id in retire:
            after.remove_node(node_id)
        problems = dependency_problems(DependencyGraph.from_snapshot(after.snapshot()), add)
        for place, dependency in enumerate(add):
            if place not in {problem.index for problem in problems}:
                after.edges.setdefault(dependency.key, dependency)
        assert {problem.message for problem in problems} <= set(found.refusals)
        self.check_preview(found, after, retire, types)

    def check_preview(
        self, found: Preview, after: GraphTwin, retire: set[NodeId], types: frozenset[DependencyType]
    ) -> None:
        once, then = self.twin.along(types), after.along(types)
        affected = {n for n in once.nodes if n in retire or once.above(n) != then.above(n)}
        layers, layers_before = then.layers(affected), once.layers(affected)
        rows = list(found.affected.reached())
        assert {row.node_id for row in rows} == affected
        gone, new = set(self.twin.edges) - set(after.edges), set(after.edges) - set(self.twin.edges)
        for row in rows:
            assert row.wave == (layers_before if row.node_id in retire else layers)[row.node_id]
            if row.node_id in retire:
                assert (row.distance, row.path) == (0, ())
                continue
            ends = sorted({key[1] for key in gone | new if not types or key[2] in types} - retire)
            hops = [
                0 if end == row.node_id else twin.distance(end, row.node_id)
                for twin in (once, then)
                for end in ends
                if end == row.node_id or row.node_id in twin.reached(end)
            ]
            assert row.distance == min(hops) + 1 == len(row.path) - 1
            assert row.path[-1] == row.node_id
            assert any(key[:2] == row.path[:2] for key in gone | new)
        fed = {key[1] for key in self.twin.edges} - {key[1] for key in after.edges} - retire
        assert found.orphaned == tuple(sorted(fed))
        hit = {key[1] for key in gone} - retire
        assert found.directly_hit == tuple(sorted(n for n in hit if node_kind(n) in ("model", "consumer")))

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
        for node_id, hours in self.costs.items():
            self.graph.put_retrain_cost(node_id, hours)

    @invariant()
    def same_content(self) -> None:
        assert self.graph.to_snapshot() == self.twin.snapshot()
        assert self.graph.dependency_count == len(self.twin.edges)


TestGraphMachine = GraphMachine.TestCase
TestGraphMachine.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
