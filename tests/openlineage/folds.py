"""Events told to the rules alone, without a server."""

from collections.abc import Iterable

from control_plane.api.openlineage.translate import translate
from control_plane.core.commands import ReportLineage
from control_plane.core.graph.lineage_facts import EdgeState
from control_plane.core.ids import NodeId
from tests.core.fleets import Fleet
from tests.openlineage.http import Event

Edges = set[tuple[str, str]]


def told(fleet: Fleet, events: Iterable[Event]) -> Fleet:
    """Tell each event by itself."""
    for event in events:
        run = translate(event)
        if run is not None:
            fleet.do(ReportLineage(runs=(run,)))
    return fleet


def edges_of(fleet: Fleet) -> Edges:
    """Edges that count or would if they closed no cycle, in the names of the source where there are any."""

    def name(node_id: NodeId) -> str:
        names = fleet.state.graph.node(node_id).external_ids
        return names[0] if names else node_id

    kept = {EdgeState.ACTIVE, EdgeState.SUSPECT, EdgeState.QUARANTINED}
    records = fleet.state.lineage.records
    return {(name(up), name(down)) for (up, down, _), record in records.items() if record.state in kept}
