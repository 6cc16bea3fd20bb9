"""Whatever the order and however often things are told, what is known in the end is the same, and never has a cycle."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.commands import (
    ClearOverride,
    Command,
    DeclareDependencies,
    DeclareNodes,
    RemoveNodes,
    RenameNode,
    ReportLineage,
    RetractDependencies,
    SetLineagePolicy,
    SetOverride,
)
from control_plane.core.errors import RunwayError
from control_plane.core.graph.facts import Dependency, Node, NodeKind
from control_plane.core.graph.lineage_facts import LineageNode, LineagePolicy, LineageRun, RunState
from control_plane.core.graph.lineage_fold import dependency_of
from control_plane.core.graph.rules import usual_type
from control_plane.core.ids import NodeId
from control_plane.core.plan import plan
from control_plane.core.snapshots import decode_snapshot, encode_snapshot
from tests.core.fleets import START, Fleet
from tests.reference.lineage_twin import LineageTwin
from tests.simulation.edges import check_edges

POLICY = LineagePolicy(
    suspect_after_runs=1, suspect_after=timedelta(hours=10), retire_after_runs=3, retire_after=timedelta(hours=20)
)
HOUR = timedelta(hours=1)
NOW = START + timedelta(hours=24)

# Names in the order in which data flows, so that no two of them close a cycle.
NAMES = ("a", "b", "dataset:c", "d", "dataset:e", "f")


def node(place: int, kind: NodeKind | None) -> LineageNode:
    """A node by its place in the flow."""
    name = NAMES[place]
    return LineageNode(node_id=name) if ":" in name else LineageNode(external_id=name, kind=kind)


@st.composite
def told_runs(draw: st.DrawFn) -> LineageRun:
    """One event of one of a few runs; it reads what lies before what it writes."""
    kinds = st.sampled_from([None, None, NodeKind.FEATURE, NodeKind.MODEL])
    middle = draw(st.integers(1, len(NAMES) - 1))
    reads = draw(st.lists(st.builds(node, st.integers(0, middle - 1), kinds), max_size=2))
    writes = draw(st.lists(st.builds(node, st.integers(middle, len(NAMES) - 1), kinds), max_size=2))
    job = str(middle)  # a job has one place in the flow, else what its runs read and wrote together could run backwards
    return LineageRun(
        source=draw(st.sampled_from(["openlineage", "metaflow"])),
        job=job,
        run_id=draw(st.sampled_from(["r1", "r2", "r3", "r4"])),
        state=draw(st.sampled_from([*RunState, RunState.COMPLETE, RunState.COMPLETE])),
        event_time=START + draw(st.integers(0, 24)) * HOUR,
        inputs=tuple(reads),
        outputs=tuple(writes),
    )


def settle(fleet: Fleet) -> None:
    """Do what is due until nothing is."""
    for _ in range(20):
        due = plan(fleet.state, fleet.now)
        if not due:
            return
        for command in due:
            fleet.do(command)
    raise AssertionError(f"never at rest: {due}")


@settings(max_examples=150, deadline=None)
@given(st.lists(told_runs(), min_size=1, max_size=12), st.data())
def test_order_and_repetition_do_not_matter(told: list[LineageRun], data: st.DataObject) -> None:
    twin = LineageTwin(POLICY)
    twin.tell(told)
    order = data.draw(st.permutations([*told, *data.draw(st.lists(st.sampled_from(told), max_size=4))]))
    fleet = Fleet(now=NOW)
    fleet.do(SetLineagePolicy(policy=POLICY))
    while order:
        size = data.draw(st.integers(1, len(order)))
        fleet.do(ReportLineage(runs=tuple(order[:size])))
        order = order[size:]
        if data.draw(st.booleans()):
            settle(fleet)
    settle(fleet)
    ledger = fleet.state.lineage
    assert {key: record.state for key, record in ledger.records.items()} == twin.states(NOW)
    found = {
        key: [
            (s.source, s.job, s.first_seen_at, s.last_seen_at, s.runs_seen, ledger.missed(s)) for s in record.sightings
        ]
        for key, record in ledger.records.items()
    }
    assert found == twin.seen()
    check_edges(fleet.state)


# Anything at all


IDS = tuple(NodeId(f"{kind}:{name}") for kind in ("dataset", "model") for name in ("a", "b", "c", "d"))


def _edges() -> st.SearchStrategy[Dependency]:
    pairs = st.tuples(st.sampled_from(IDS), st.sampled_from(IDS)).filter(lambda pair: pair[0] != pair[1])
    typed = pairs.map(lambda pair: (*pair, usual_type(*pair)))
    return typed.map(lambda key: dependency_of((key[0], key[1], key[2])) if key[2] is not None else None).filter(bool)  # type: ignore[return-value]


def _any_run() -> st.SearchStrategy[LineageRun]:
    named = st.sampled_from([*(LineageNode(node_id=i) for i in IDS), LineageNode(external_id="x")])
    names = st.lists(named | st.just(LineageNode(external_id="x", kind=NodeKind.MODEL)), min_size=1, max_size=2).map(
        tuple
    )
    return st.builds(
        LineageRun,
        source=st.just("openlineage"),
        job=st.sampled_from(["j", "k"]),
        run_id=st.integers(0, 9).map(str),
        state=st.sampled_from([RunState.START, RunState.COMPLETE, RunState.COMPLETE]),
        event_time=st.none(),
        inputs=names,
        outputs=names,
        confidence=st.sampled_from([1.0, 0.2]),
    )


def commands() -> st.SearchStrategy[Command]:
    """Everything that touches edges."""
    edges = st.lists(_edges(), min_size=1, max_size=3).map(tuple)
    declared = st.builds(
        Node, node_id=st.sampled_from(IDS[:4]), external_ids=st.sampled_from([(), ("x",), ("y",), ("x", "y")])
    )
    return st.one_of(
        st.builds(ReportLineage, runs=st.lists(_any_run(), min_size=1, max_size=3).map(tuple)),
        st.builds(ReportLineage, runs=st.lists(_any_run(), min_size=1, max_size=3).map(tuple)),
        st.builds(DeclareNodes, nodes=st.lists(declared, min_size=1, max_size=2).map(tuple)),
        st.builds(DeclareDependencies, dependencies=edges),
        st.builds(RetractDependencies, dependencies=edges),
        st.builds(RemoveNodes, node_ids=st.tuples(st.sampled_from(IDS))),
        st.builds(RenameNode, node_id=st.sampled_from(IDS), new_node_id=st.sampled_from(IDS)),
        st.builds(
            SetOverride,
            dependency=_edges(),
            present=st.booleans(),
            owner=st.just("ana"),
            reason=st.just("so"),
            expires_at=st.none() | st.integers(1, 60).map(lambda hours: START + hours * HOUR),
        ),
        st.builds(ClearOverride, dependency=_edges()),
    )


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(commands(), st.integers(0, 8)), max_size=25), st.integers(0, 25))
def test_whatever_happens_the_graph_and_the_ledger_agree(steps: list[tuple[Command, int]], cut: int) -> None:
    fleet = Fleet()
    fleet.do(DeclareNodes(nodes=tuple(Node(node_id=node_id) for node_id in IDS[:4])))
    fleet.do(SetLineagePolicy(policy=POLICY))
    fleet.model("a")
    resumed: Fleet | None = None
    for number, (command, hours) in enumerate(steps):
        if number == cut:
            resumed = Fleet(state=decode_snapshot(encode_snapshot(fleet.state)), now=fleet.now)
        told = []
        for one in (fleet, resumed):
            if one is None:
                continue
            try:
                told.append(one.new_events(command))
            except RunwayError as error:
                told.append([error.reason.value, error.message])
            told[-1] += one.pass_time(hours * HOUR)
            check_edges(one.state)
        assert len({tuple(t) for t in told}) == 1
    if resumed is not None:
        assert encode_snapshot(resumed.state) == encode_snapshot(fleet.state)
