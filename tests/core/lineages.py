"""What tests of lineage begin with: runs, edges and a fleet with a few nodes."""

from datetime import datetime, timedelta

from control_plane.core.commands import DeclareDependencies, DeclareNodes, ReportLineage, Result
from control_plane.core.graph.facts import Dependency, DependencyType, Node, NodeKind
from control_plane.core.graph.lineage_facts import EdgeKey, EdgeState, LineageNode, LineageRun, RunState
from control_plane.core.graph.rules import usual_type
from control_plane.core.ids import NodeId
from tests.core.fleets import START, Fleet

DAY = timedelta(days=1)


def named(text: str) -> LineageNode:
    """`dataset:x` is our id; anything else is the source's name, `model!name` for a model."""
    kind, mark, name = text.partition("!")
    if mark:
        return LineageNode(external_id=name, kind=NodeKind(kind))
    if text.partition(":")[0] in set(NodeKind):
        return LineageNode(node_id=text)
    return LineageNode(external_id=text)


def run(
    reads: str,
    writes: str,
    *,
    job: str = "etl",
    run_id: str = "r1",
    state: RunState = RunState.COMPLETE,
    at: datetime | None = START,
    source: str = "openlineage",
    confidence: float = 1.0,
) -> LineageRun:
    """A run that reads and writes, each names separated by blanks."""
    return LineageRun(
        source=source,
        job=job,
        run_id=run_id,
        state=state,
        event_time=at,
        inputs=tuple(map(named, reads.split())),
        outputs=tuple(map(named, writes.split())),
        confidence=confidence,
    )


def key(upstream: str, downstream: str, edge_type: DependencyType | None = None) -> EdgeKey:
    """An edge of a type, or of the usual one."""
    up, down = NodeId(upstream), NodeId(downstream)
    found = edge_type or usual_type(up, down)
    assert found is not None
    return up, down, found


def dependency(upstream: str, downstream: str, edge_type: DependencyType | None = None) -> Dependency:
    """An edge to declare."""
    up, down, found = key(upstream, downstream, edge_type)
    return Dependency(upstream=up, downstream=down, edge_type=found)


def tell(fleet: Fleet, *runs: LineageRun) -> Result:
    """Report runs."""
    return fleet.do(ReportLineage(runs=runs))


def declare(fleet: Fleet, *pairs: tuple[str, str]) -> Result:
    """Declare edges of the usual types."""
    return fleet.do(DeclareDependencies(dependencies=tuple(dependency(*pair) for pair in pairs)))


def nodes(fleet: Fleet, *ids: str) -> Result:
    """Declare nodes."""
    return fleet.do(DeclareNodes(nodes=tuple(Node(node_id=NodeId(node_id)) for node_id in ids)))


def state_of(fleet: Fleet, upstream: str, downstream: str) -> EdgeState | None:
    """What became of the edge of the usual type; the graph must agree."""
    edge = key(upstream, downstream)
    found = fleet.state.lineage.state_of(edge)
    assert (fleet.state.graph.dependency(edge) is not None) == (found is not None and found.counts)
    return found
