"""Which nodes a report names: those there are, those that are new, and those that turn out to be others."""

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Node, NodeKind
from control_plane.core.graph.lineage import Ledger
from control_plane.core.graph.lineage_facts import LineageNode, LineageRun, NodeMove, RunState
from control_plane.core.graph.lineage_names import discovered_id, greater_kind, normal_name
from control_plane.core.ids import NodeId, node_kind


class Resolver:
    """Resolves one report; `nodes` are new or say more than before, `moves` should happen. Changes nothing else.

    A name that a node claims is that node, else it makes one. Whatever of a name's kinds is told, the greatest is meant
    (see `lineage_names`), until somebody declares the node.
    """

    def __init__(self, graph: DependencyGraph, ledger: Ledger) -> None:
        self._graph = graph
        self._ledger = ledger
        self._claims: dict[str, NodeId] = {}
        self._kinds: dict[str, NodeKind] = {}
        self.nodes: dict[NodeId, Node] = {}
        self.moves: dict[NodeId, NodeId] = {}

    def resolve(self, runs: Sequence[LineageRun], now: datetime) -> tuple[LineageRun, ...]:
        """The same runs with an id for every node, a time, and an id for what is no run."""
        for told in runs:
            for node in (*told.inputs, *told.outputs):
                if not node.node_id:
                    name, kind = normal_name(node.external_id), node.kind or NodeKind.DATASET
                    self._kinds[name] = greater_kind(kind, self._kinds.get(name, NodeKind.DATASET))
        return tuple(self._run(told, now) for told in runs)

    def _run(self, told: LineageRun, now: datetime) -> LineageRun:
        when = min(told.event_time or now, now)
        return replace(
            told,
            event_time=when,
            run_id=told.run_id or (f"static@{when.isoformat()}" if told.state is RunState.STATIC else ""),
            inputs=tuple(self._named(node) for node in told.inputs),
            outputs=tuple(self._named(node) for node in told.outputs),
        )

    def _named(self, told: LineageNode) -> LineageNode:
        node_id = self._by_id(told) if told.node_id else self._by_name(told)
        for alias in sorted({normal_name(alias) for alias in told.aliases} - {""}):
            self._also(node_id, alias)
        return LineageNode(node_id=node_id, version=told.version)

    def _by_id(self, told: LineageNode) -> NodeId:
        node_id = self._ledger.at(NodeId(told.node_id))
        name = normal_name(told.external_id)
        self._say(node_id, told, told.title)
        if name:
            owner = self._owner(name)
            if owner is None:
                self._claim(node_id, name)
            elif owner != node_id and not self._facts(owner).declared:
                self.moves[owner] = node_id
        return node_id

    def _by_name(self, told: LineageNode) -> NodeId:
        name = normal_name(told.external_id)
        kind = self._kinds[name]
        owner = self._owner(name)
        if owner is None:
            node_id = self._ledger.at(discovered_id(name, kind))
            self._say(node_id, told, told.title or told.external_id)
            self._claim(node_id, name)
            return node_id
        facts = self._facts(owner)
        meant = greater_kind(facts.kind, kind)
        # It may already be on its way: to a greater kind than is told now, or to a node of another name.
        wanted = self.moves.get(owner) or self._ledger.wanted_moves.get(owner)
        onward = wanted is None or wanted == discovered_id(name, NodeKind(node_kind(wanted)))
        if wanted is not None and onward:
            meant = greater_kind(meant, NodeKind(node_kind(wanted)))
        if onward and not facts.declared and meant is not facts.kind and owner == discovered_id(name, facts.kind):
            self.moves[owner] = discovered_id(name, meant)
        self._say(owner, told, told.title)
        return owner

    def _also(self, node_id: NodeId, alias: str) -> None:
        """A node has another name: it claims it, unless somebody declared another node for it. If that is known only
        from what sources say, the two become one.
        """
        owner = self._owner(alias)
        if owner is None:
            self._claim(node_id, alias)
        elif owner != node_id and not (owner in self.moves or node_id in self.moves):
            if not self._facts(owner).declared:
                self.moves[owner] = node_id
            elif not self._facts(node_id).declared:
                self.moves[node_id] = owner

    def _owner(self, name: str) -> NodeId | None:
        owner = self._claims.get(name) or self._ledger.claims.get(name)
        return None if owner is None else self._ledger.at(owner)

    def _facts(self, node_id: NodeId) -> Node:
        return self.nodes.get(node_id) or self._graph.node(node_id)

    def _claim(self, node_id: NodeId, name: str) -> None:
        facts = self._facts(node_id)
        self.nodes[node_id] = replace(facts, external_ids=(*facts.external_ids, name))
        self._claims[name] = node_id

    def _say(self, node_id: NodeId, told: LineageNode, title: str) -> None:
        """Make the node if it is not there; of one that nobody declared, keep the longest words told."""
        if node_id not in self.nodes and not self._graph.has_node(node_id):
            self.nodes[node_id] = Node(
                node_id=node_id, title=title[:TITLE_CHARS], description=told.description, declared=False
            )
            return
        facts = self._facts(node_id)
        if facts.declared:
            return
        first_words = facts.title in facts.external_ids or not facts.title
        titles = [told.title] if first_words and told.title else [told.title, facts.title]
        said = replace(facts, title=_longest(titles), description=_longest([told.description, facts.description]))
        if said != facts:
            self.nodes[node_id] = said

    def wanted(self) -> tuple[NodeMove, ...]:
        """Moves that should happen, by node."""
        return tuple(NodeMove(node_id=old, new_node_id=self.moves[old]) for old in sorted(self.moves))


TITLE_CHARS = 500
"""As in the contract."""


def _longest(texts: Sequence[str]) -> str:
    return max(texts, key=lambda text: (len(text), text))
