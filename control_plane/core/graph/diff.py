"""How one graph differs from another: what was added, removed and changed, in the order of the keys."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from control_plane.core.graph.facts import Dependency, GraphSnapshot, Node

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[T]):
    """The same thing, known by its key, before and after."""

    before: T
    after: T


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphDiff:
    """What to do to one graph to get the other. A dependency of another type is another dependency."""

    nodes_added: tuple[Node, ...]
    nodes_removed: tuple[Node, ...]
    nodes_changed: tuple[Change[Node], ...]
    dependencies_added: tuple[Dependency, ...]
    dependencies_removed: tuple[Dependency, ...]
    dependencies_changed: tuple[Change[Dependency], ...]

    @property
    def empty(self) -> bool:
        """Whether both graphs are equal."""
        return not any(
            (
                self.nodes_added,
                self.nodes_removed,
                self.nodes_changed,
                self.dependencies_added,
                self.dependencies_removed,
                self.dependencies_changed,
            )
        )


def diff(before: GraphSnapshot, after: GraphSnapshot) -> GraphDiff:
    """Compare two graphs by what they hold; each list is sorted by key."""
    nodes = _Compared(before.nodes, after.nodes, lambda node: node.node_id)
    edges = _Compared(before.dependencies, after.dependencies, lambda dependency: dependency.key)
    return GraphDiff(
        nodes_added=nodes.added,
        nodes_removed=nodes.removed,
        nodes_changed=nodes.changed,
        dependencies_added=edges.added,
        dependencies_removed=edges.removed,
        dependencies_changed=edges.changed,
    )


class _Compared(Generic[T]):
    """Two collections, matched by key."""

    def __init__(self, before: Iterable[T], after: Iterable[T], key: Callable[[T], Any]) -> None:
        old: Mapping[Any, T] = {key(one): one for one in before}
        new: Mapping[Any, T] = {key(one): one for one in after}
        self.added = tuple(new[k] for k in sorted(new.keys() - old.keys()))
        self.removed = tuple(old[k] for k in sorted(old.keys() - new.keys()))
        self.changed = tuple(
            Change(before=old[k], after=new[k]) for k in sorted(old.keys() & new.keys()) if old[k] != new[k]
        )
