"""Nodes, dependencies and where they were seen."""

from datetime import datetime

from control_plane.core.events.base import EventBase
from control_plane.core.graph.facts import Dependency, Node
from control_plane.core.graph.lineage_facts import EdgeChange, EdgeState, LineagePolicy, LineageRun, NodeMove
from control_plane.core.ids import NodeId


class NodesDeclared(EventBase, frozen=True, kw_only=True):
    """Nodes were added or changed."""

    nodes: tuple[Node, ...]


class DependenciesDeclared(EventBase, frozen=True, kw_only=True):
    """Edges were added or changed."""

    dependencies: tuple[Dependency, ...]


class DependenciesRetracted(EventBase, frozen=True, kw_only=True):
    """Edges were removed."""

    dependencies: tuple[Dependency, ...]


class NodesDiscovered(EventBase, frozen=True, kw_only=True):
    """Sources named nodes that nobody has declared, or said more of such nodes; carries all of their facts."""

    nodes: tuple[Node, ...]


class NodesRemoved(EventBase, frozen=True, kw_only=True):
    """Nodes without edges were removed."""

    node_ids: tuple[NodeId, ...]


class NodesMoved(EventBase, frozen=True, kw_only=True):
    """Nodes became others: renamed, or recognized as the same. `quarantined`: moved edges that would close a cycle."""

    moves: tuple[NodeMove, ...]
    quarantined: tuple[EdgeChange, ...] = ()


class LineageReported(EventBase, frozen=True, kw_only=True):
    """Sources told something new of runs. Nodes have ids here.

    `untyped` counts pairs of input and output that no type of edge joins. `wanted_moves` are discovered nodes that turn
    out to be others by what was told.
    """

    runs: tuple[LineageRun, ...]
    untyped: int = 0
    wanted_moves: tuple[NodeMove, ...] = ()


class EdgesSettled(EventBase, frozen=True, kw_only=True):
    """Edges changed their states: found, seen again, suspect, retired, quarantined or let in."""

    changes: tuple[EdgeChange, ...]


class OverrideSet(EventBase, frozen=True, kw_only=True):
    """Somebody has the last word on an edge."""

    dependency: Dependency
    present: bool
    owner: str
    reason: str
    expires_at: datetime | None = None


class OverrideCleared(EventBase, frozen=True, kw_only=True):
    """An override was taken back, or expired; the edge is `after` since, None if nothing else speaks of it."""

    dependency: Dependency
    owner: str
    expired: bool
    after: EdgeState | None
    reason: str
    cycle: tuple[NodeId, ...] = ()


class LineagePolicySet(EventBase, frozen=True, kw_only=True):
    """Other bounds for edges that are no longer seen."""

    policy: LineagePolicy


class UnfinishedRunsDropped(EventBase, frozen=True, kw_only=True):
    """Runs that never said how they ended are forgotten, as (source, job, run)."""

    runs: tuple[tuple[str, str, str], ...]
    reason: str
