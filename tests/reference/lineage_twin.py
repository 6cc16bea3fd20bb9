"""Lineage, dumb: remember every word that was told, and work everything out from all of it whenever asked."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from control_plane.core.graph.facts import NodeKind
from control_plane.core.graph.lineage_facts import EdgeKey, EdgeState, LineageNode, LineagePolicy, LineageRun, RunState
from control_plane.core.graph.lineage_names import discovered_id
from control_plane.core.graph.rules import usual_type
from control_plane.core.ids import NodeId

DONE = {RunState.COMPLETE, RunState.STATIC}
KINDS = [NodeKind.DATASET, NodeKind.CONSUMER, NodeKind.FEATURE, NodeKind.MODEL]

Run = tuple[str, str, str]
Seen = tuple[str, str, datetime, datetime, int, int]
"""Source, job, first and last seen, runs that saw it, completed runs of the job since."""


class LineageTwin:
    """A list of everything that was told."""

    def __init__(self, policy: LineagePolicy) -> None:
        self.policy = policy
        self.told: list[LineageRun] = []

    def tell(self, runs: Iterable[LineageRun]) -> None:
        """Remember."""
        self.told += runs

    def name(self, node: LineageNode) -> NodeId:
        """Our id, or one of the name and the greatest kind ever told of it."""
        if node.node_id:
            return NodeId(node.node_id)
        kinds = [
            other.kind or NodeKind.DATASET
            for run in self.told
            for other in (*run.inputs, *run.outputs)
            if other.external_id == node.external_id
        ]
        return discovered_id(node.external_id, max(kinds, key=KINDS.index))

    def seen(self) -> dict[EdgeKey, list[Seen]]:
        """What every job shows of every edge."""
        accounts: dict[Run, list[LineageRun]] = defaultdict(list)
        for run in self.told:
            accounts[run.source, run.job, run.run_id].append(run)
        times: dict[Run, list[datetime]] = {}
        shown: dict[tuple[EdgeKey, str, str], list[Run]] = defaultdict(list)
        for place, account in accounts.items():
            times[place] = [run.event_time for run in account if run.state in DONE and run.event_time is not None]
            if not times[place]:
                continue
            reads = {self.name(node) for run in account for node in run.inputs}
            writes = {self.name(node) for run in account for node in run.outputs}
            for up in reads:
                for down in writes:
                    edge_type = usual_type(up, down)
                    if up != down and edge_type is not None:
                        shown[(up, down, edge_type), place[0], place[1]].append(place)
        found: dict[EdgeKey, list[Seen]] = defaultdict(list)
        for (key, source, job), runs in sorted(shown.items()):
            first = min(min(times[run]) for run in runs)
            last = max(max(times[run]) for run in runs)
            since = [run for run, told in times.items() if run[:2] == (source, job) and told and max(told) > last]
            found[key].append((source, job, first, last, len(runs), len(since)))
        return dict(found)

    def states(self, now: datetime) -> dict[EdgeKey, EdgeState]:
        """What became of every edge, were there no cycles."""
        return {key: min((self._state(one, now) for one in seen), key=_badness) for key, seen in self.seen().items()}

    def _state(self, seen: Seen, now: datetime) -> EdgeState:
        _, _, _, last, _, missed = seen
        policy = self.policy
        if missed >= policy.retire_after_runs or now - last >= policy.retire_after:
            return EdgeState.RETIRED
        if missed >= policy.suspect_after_runs or now - last >= policy.suspect_after:
            return EdgeState.SUSPECT
        return EdgeState.ACTIVE


def _badness(state: EdgeState) -> int:
    return [EdgeState.ACTIVE, EdgeState.SUSPECT, EdgeState.RETIRED].index(state)
