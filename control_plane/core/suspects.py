"""What may be behind a model's trouble: the data and the models that it stands on, nearest first.

1. A model whose embeddings are another space now, or whose promotion did harm, explains those downstream of it.
2. A feature that a look names (as faulty, as drifted) is explained by the nearest datasets that it comes from: one
   dataset that breaks shows in several of its features, and which of them shows first is chance.
3. Without a name in the look, a fault of the data is explained by the nearest datasets of the model.
4. What stands on nothing explains itself.

Where several datasets are at fault that come from one, the one is the cause if most of what stands on it is in trouble:
a table that stops shows in all that is made of it, while two tables that break by themselves leave the others well.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable

from control_plane.core.alerts.grouping import Group
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.ids import ModelId, NodeId, model_node, node_kind, node_name
from control_plane.core.staleness.verdict import Evaluation
from control_plane.core.state import ModelRecord

EXPLAINED_SHARE = 0.5
"""Of the models that stand on a dataset: from this share in trouble on, what is further up explains those below it."""

DATA = ("dataset", "feature")

WORD = re.compile(r"[a-z0-9_]+")
"""What names of features are made of."""


class Suspects:
    """Answers from one graph; what was looked up is kept until an edge changes."""

    def __init__(self) -> None:
        self._graph = DependencyGraph()
        self._version = -1
        self._datasets: dict[NodeId, tuple[str, ...]] = {}
        self._features: dict[ModelId, tuple[NodeId, ...]] = {}
        self._above: dict[NodeId, dict[NodeId, int]] = {}
        self._standing: dict[NodeId, tuple[ModelId, ...]] = {}

    def of_graph(self, graph: DependencyGraph) -> None:
        """Answer from this graph from now on."""
        if graph is self._graph and graph.topology_version == self._version:
            return
        self._graph, self._version = graph, graph.topology_version
        self._datasets.clear()
        self._features.clear()
        self._above.clear()
        self._standing.clear()

    def of_look(self, record: ModelRecord, evaluation: Evaluation) -> tuple[str, ...]:
        """Behind a verdict: upstream models that changed, else the data of drifted features, else the model."""
        models = self._models(record, evaluation)
        if models:
            return models
        drifted = {feature.name for feature in evaluation.top_features if feature.drifted}
        return self._of_features(record.model_id, drifted) or (model_node(record.model_id),)

    def of_data(self, record: ModelRecord, evaluation: Evaluation) -> tuple[str, ...]:
        """Behind faults of the data: what the faults name, else all data that the model stands on, else the model."""
        named = {word for text in evaluation.data_quality for word in WORD.findall(text)}
        return self._of_features(record.model_id, named) or self.datasets_of(record.model_id)

    def datasets_of(self, model_id: ModelId) -> tuple[str, ...]:
        """The nearest datasets of a model; itself if it has none."""
        node = model_node(model_id)
        return self._nearest(node) or (node,)

    def _models(self, record: ModelRecord, evaluation: Evaluation) -> tuple[str, ...]:
        found = [model_node(ModelId(one.model_id)) for one in evaluation.upstreams if not one.compatible]
        cascade = record.cascade
        if cascade is not None and cascade.harmed:
            found.append(model_node(cascade.upstream))
        return tuple(dict.fromkeys(sorted(found)))

    def _of_features(self, model_id: ModelId, names: set[str]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for feature in self._features_of(model_id):
            if node_name(feature) in names:
                found.update(dict.fromkeys(self._nearest(feature) or (feature,)))
        return tuple(found)

    def _features_of(self, model_id: ModelId) -> tuple[NodeId, ...]:
        known = self._features.get(model_id)
        if known is None:
            node = model_node(model_id)
            edges = self._graph.upstream_of(node) if self._graph.has_node(node) else ()
            ends = {edge.upstream for edge in edges if node_kind(edge.upstream) == "feature"}
            known = self._features[model_id] = tuple(sorted(ends))
        return known

    def _nearest(self, node: NodeId) -> tuple[str, ...]:
        """The datasets with the fewest hops upstream of a node, not through models, by id; those farther away never."""
        known = self._datasets.get(node)
        if known is not None:
            return known
        found: set[NodeId] = set()
        seen, front = {node}, [node] if self._graph.has_node(node) else []
        while front and not found:
            above = {edge.upstream for one in front for edge in self._graph.upstream_of(one)} - seen
            seen |= above
            found = {one for one in above if node_kind(one) == "dataset"}
            front = sorted(one for one in above if node_kind(one) == "feature")
        self._datasets[node] = tuple(sorted(found))
        return self._datasets[node]

    def rolled_up(self, groups: Iterable[Group], serves: Callable[[ModelId], bool]) -> list[Group]:
        """Groups whose datasets come from one that explains them all as one group, the nearest such dataset first.

        Args:
            groups: as `grouped` makes them; those of other causes come back as they are.
            serves: is a model there to be in trouble at all?
        """
        alike: dict[tuple[str, str], list[Group]] = defaultdict(list)
        found = []
        for group in groups:
            if node_kind(NodeId(group.cause)) in DATA and self._graph.has_node(NodeId(group.cause)):
                alike[group.troubles[0].kind, group.troubles[0].signature].append(group)
            else:
                found.append(group)
        for some in alike.values():
            left = some
            while len(left) > 1 and (merged := self._merged(left, serves)) is not None:
                cause, below = merged
                troubles = sorted((one for group in below for one in group.troubles), key=lambda one: one.model_id)
                left = [group for group in left if group not in below]
                left.append(Group(cause=cause, troubles=tuple(troubles)))
            found.extend(left)
        return sorted(found, key=lambda group: group.key)

    def _merged(self, groups: list[Group], serves: Callable[[ModelId], bool]) -> tuple[NodeId, list[Group]] | None:
        below: dict[NodeId, list[Group]] = defaultdict(list)
        hops: dict[NodeId, int] = defaultdict(int)
        for group in groups:
            for node, distance in self._data_above(NodeId(group.cause)).items():
                below[node].append(group)
                hops[node] += distance
        several = [node for node, some in below.items() if len(some) > 1]
        for node in sorted(several, key=lambda node: (-len(below[node]), hops[node], node)):
            troubled = sum(len(group.troubles) for group in below[node])
            standing = sum(map(serves, self._models_on(node)))
            if troubled >= EXPLAINED_SHARE * standing:
                return node, below[node]
        return None

    def _data_above(self, node: NodeId) -> dict[NodeId, int]:
        """The datasets that a node of data comes from, with the hops to each; itself at 0."""
        known = self._above.get(node)
        if known is None:
            known, front, distance = {node: 0}, [node], 0
            while front:
                distance += 1
                above = {edge.upstream for one in front for edge in self._graph.upstream_of(one)}
                front = sorted(one for one in above if one not in known and node_kind(one) in DATA)
                known.update(dict.fromkeys(front, distance))
            known = {one: far for one, far in known.items() if node_kind(one) == "dataset"}
            self._above[node] = known
        return known

    def _models_on(self, node: NodeId) -> tuple[ModelId, ...]:
        """The models that a node of data reaches without going through another model."""
        known = self._standing.get(node)
        if known is None:
            seen, front = {node}, [node]
            models: set[NodeId] = set()
            while front:
                below = {edge.downstream for one in front for edge in self._graph.downstream_of(one)} - seen
                seen |= below
                models |= {one for one in below if node_kind(one) == "model"}
                front = [one for one in below if node_kind(one) in DATA]
            known = self._standing[node] = tuple(sorted(ModelId(node_name(one)) for one in models))
        return known
