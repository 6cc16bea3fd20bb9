"""Asks labelled consumers about the models they read, from the newest looks at the fleet."""

from collections.abc import Mapping
from weakref import ref

from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.ids import ModelId, model_node, node_name
from control_plane.core.staleness.evidence import MetricRole, PerformanceSource
from control_plane.core.staleness.verdict import Evaluation, MetricReading
from control_plane.core.state import State
from control_plane.core.statistics.downstream import Attribution, ConsumerDrop, attribute
from control_plane.core.statistics.performance import Z_95


class Downstream:
    """Remembers who reads whom while the graph stays the same: a walk per labelled model is not for every tick."""

    def __init__(self) -> None:
        self._read: dict[ModelId, frozenset[str]] = {}
        self._of: tuple[ref[DependencyGraph], int] | None = None

    def ask(self, state: State, latest: Mapping[ModelId, Evaluation]) -> dict[str, Attribution]:
        """What labelled consumers say about every model that has no outcomes of its own."""
        if self._of is None or self._of[0]() is not state.graph or self._of[1] != state.graph_revision:
            self._read, self._of = {}, (ref(state.graph), state.graph_revision)
        consumers, candidates = [], set()
        for model_id, record in state.models.items():
            if record.retired:
                continue
            look = latest.get(model_id)
            measured = _labelled(look) if look is not None else None
            if look is None or measured is None:
                candidates.add(str(model_id))
                continue
            consumers.append(
                ConsumerDrop(
                    consumer=model_id,
                    drop=measured.drop / measured.tolerance,
                    standard_error=(measured.drop - measured.drop_low) / Z_95 / measured.tolerance,
                    upstream=self._upstream(state, model_id),
                    own_cause=bool(look.data_quality),
                    sample_size=measured.sample_size,
                )
            )
        return attribute(consumers, candidates) if consumers and candidates else {}

    def _upstream(self, state: State, model_id: ModelId) -> frozenset[str]:
        found = self._read.get(model_id)
        if found is None:
            node = model_node(model_id)
            nodes = state.graph.upstream_models(node) if state.graph.has_node(node) else ()
            found = self._read[model_id] = frozenset(node_name(one) for one in nodes)
        return found


def _labelled(look: Evaluation) -> MetricReading | None:
    """The primary metric on the model's own outcomes, if there are enough of them."""
    performance = next((signal for signal in look.signals if signal.name == "performance"), None)
    if performance is None or performance.missing or performance.source is not PerformanceSource.LABELS:
        return None
    found = next((one for one in look.metrics if one.role is MetricRole.PRIMARY and not one.slice), None)
    return found if found is not None and found.baseline is not None and found.tolerance > 0 else None
