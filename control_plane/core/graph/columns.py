"""Facts of all nodes in arrays, so that an answer of a hundred thousand nodes is filtered and summed up without a loop.

One place per node, at its index in the graph. Names of owners and teams are kept once and numbered; 0 is the empty
name. A place that a removed node leaves is taken by a later one.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from control_plane.core.graph.facts import Node, NodeKind
from control_plane.core.ids import node_kind

KIND_CODES = {kind.value: code for code, kind in enumerate(NodeKind)}
"""Kinds as small integers, in the order of the enum."""

CAPACITY_MIN = 64


class Names:
    """Names and their numbers, counted from 0 in the order in which they came. They stay: owners are few."""

    def __init__(self) -> None:
        self._names = [""]
        self._codes = {"": 0}

    def code(self, name: str) -> int:
        """The number of a name, a new one if it is new."""
        known = self._codes.get(name)
        if known is None:
            known = self._codes[name] = len(self._names)
            self._names.append(name)
        return known

    def known(self, name: str) -> int | None:
        """The number of a name, if it has one."""
        return self._codes.get(name)

    def sorted_of(self, codes: npt.NDArray[np.int32]) -> tuple[str, ...]:
        """The distinct names of some numbers, sorted, without the empty one."""
        present = np.flatnonzero(np.bincount(codes, minlength=len(self._names)))
        return tuple(sorted(self._names[code] for code in present.tolist() if code))


class Columns:
    """The arrays, each of the same length, which is at least the largest index plus one."""

    def __init__(self) -> None:
        self.owners = Names()
        self.teams = Names()
        self.kind = np.zeros(0, np.int8)
        self.tier = np.zeros(0, np.int8)
        """0: none."""
        self.owner = np.zeros(0, np.int32)
        self.team = np.zeros(0, np.int32)
        self.gpu_hours = np.zeros(0, np.float64)
        """What a retrain costs; 0: not known."""
        self.written = np.zeros(0, np.int64)
        """The graph's `nodes_version` when the node was last written."""

    def put(self, index: int, node: Node, version: int) -> None:
        """Write a node's facts; what a retrain costs stays."""
        if index >= len(self.kind):
            self._grow(index + 1)
        self.kind[index] = KIND_CODES[node_kind(node.node_id)]
        self.tier[index] = node.tier or 0
        self.owner[index] = self.owners.code(node.owner)
        self.team[index] = self.teams.code(node.team)
        self.written[index] = version

    def fill(self, nodes: Sequence[Node]) -> None:
        """Write the facts of all nodes of a new graph, the first at index 0."""
        self._grow(len(nodes))
        size = len(nodes)
        self.kind[:size] = [KIND_CODES[node_kind(node.node_id)] for node in nodes]
        self.tier[:size] = [node.tier or 0 for node in nodes]
        self.owner[:size] = [self.owners.code(node.owner) for node in nodes]
        self.team[:size] = [self.teams.code(node.team) for node in nodes]

    def forget(self, index: int) -> None:
        """The node is gone; the next one at its place starts without a cost."""
        self.gpu_hours[index] = 0.0

    def copy(self) -> "Columns":
        """Independent arrays; the names are shared, since numbers never change their meaning."""
        copy = Columns()
        copy.owners, copy.teams = self.owners, self.teams
        for name in ("kind", "tier", "owner", "team", "gpu_hours", "written"):
            setattr(copy, name, getattr(self, name).copy())
        return copy

    def _grow(self, size: int) -> None:
        """To at least `size` places and twice what there was, so that growing costs little per node."""
        capacity = max(size, 2 * len(self.kind), CAPACITY_MIN)
        for name in ("kind", "tier", "owner", "team", "gpu_hours", "written"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros(capacity - len(old), old.dtype)]))
