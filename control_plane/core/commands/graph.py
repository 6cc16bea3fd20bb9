"""Nodes, dependencies, lineage."""

from datetime import datetime

from control_plane.core.commands.base import CommandBase
from control_plane.core.graph.facts import Dependency, Node
from control_plane.core.graph.lineage_facts import LineagePolicy, LineageRun
from control_plane.core.ids import NodeId


class DeclareNodes(CommandBase, frozen=True, kw_only=True):
    """Add datasets, features and consumers, or change their facts."""

    nodes: tuple[Node, ...]


class DeclareDependencies(CommandBase, frozen=True, kw_only=True):
    """Add edges, all or none."""

    dependencies: tuple[Dependency, ...]


class RetractDependencies(CommandBase, frozen=True, kw_only=True):
    """Remove edges, all or none; their ends and types say which."""

    dependencies: tuple[Dependency, ...]


class RemoveNodes(CommandBase, frozen=True, kw_only=True):
    """Remove datasets, features and consumers, all or none."""

    node_ids: tuple[NodeId, ...]


class RenameNode(CommandBase, frozen=True, kw_only=True):
    """Give a node another id; if that is a node already, the two become one."""

    node_id: NodeId
    new_node_id: NodeId


class ReportLineage(CommandBase, frozen=True, kw_only=True):
    """What runs have read and written, as their sources tell it."""

    runs: tuple[LineageRun, ...]


class SetOverride(CommandBase, frozen=True, kw_only=True):
    """Have the last word on an edge. `replace_revision`: the override of somebody else that is replaced, or 0."""

    dependency: Dependency
    present: bool
    owner: str
    reason: str
    expires_at: datetime | None = None
    replace_revision: int = 0


class ClearOverride(CommandBase, frozen=True, kw_only=True):
    """Take the last word back; its ends and type say which."""

    dependency: Dependency


class SetLineagePolicy(CommandBase, frozen=True, kw_only=True):
    """When discovered edges become suspect, and when they are retired."""

    policy: LineagePolicy


class SettleLineage(CommandBase, frozen=True, kw_only=True):
    """Time has passed, or the graph has changed: move the edges whose state no longer follows from what is known."""
