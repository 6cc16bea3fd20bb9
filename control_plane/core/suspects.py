"""What may be behind a model's trouble: the data and the models that it stands on, nearest first.

1. A model whose embeddings are another space now, or whose promotion did harm, explains those downstream of it.
2. A feature that a look names (as faulty, as drifted) is explained by the nearest datasets that it comes from: one
   dataset that breaks shows in several of its features, and which of them shows first is chance.
3. Without a name in the look, a fault of the data is explained by the nearest datasets of the model.
4. What stands on nothing explains itself.
"""

import re

from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.ids import ModelId, NodeId, model_node, node_kind, node_name
from control_plane.core.staleness.verdict import Evaluation
from control_plane.core.state import ModelRecord

WORD = re.compile(r"[a-z0-9_]+")
"""What names of features are made of."""


class Suspects:
    """Answers from one graph; what was looked up is kept until an edge changes."""

    def __init__(self) -> None:
        self._graph = DependencyGraph()
        self._version = -1
        self._datasets: dict[NodeId, tuple[str, ...]] = {}
        self._features: dict[ModelId, tuple[NodeId, ...]] = {}

    def of_graph(self, graph: DependencyGraph) -> None:
        """Answer from this graph from now on."""
        if graph is self._graph and graph.topology_version == self._version:
            return
        self._graph, self._version = graph, graph.topology_version
        self._datasets.clear()
        self._features.clear()

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
