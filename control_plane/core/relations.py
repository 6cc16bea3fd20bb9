"""Who uses a model, whom a policy speaks to, whose life is over: joins of the state's parts that rules ask for."""

from control_plane.core.errors import Reason, Refused
from control_plane.core.ids import ModelId, NodeId, model_node, node_kind, node_name
from control_plane.core.state import ModelRecord, State


def check_not_retired(record: ModelRecord) -> None:
    """Raise `Refused` if the model's life is over."""
    if record.retired:
        raise Refused(
            Reason.MODEL_RETIRED,
            f"{record.model_id} is retired: it is neither trained nor promoted, and its aliases stay where they are "
            f"(`runway models activate {record.model_id}` brings it back)",
            model_id=record.model_id,
        )


def consumers_of(state: State, model_id: ModelId) -> list[NodeId]:
    """Consumers and models that use a model's output, directly or through features and datasets only; by id.

    A retired model uses nothing any more.
    """
    found: set[NodeId] = set()
    seen = {model_node(model_id)}
    waiting = list(seen)
    while waiting:
        for edge in state.graph.downstream_of(waiting.pop()):
            node = edge.downstream
            if node in seen:
                continue
            seen.add(node)
            if node_kind(node) not in ("model", "consumer"):
                waiting.append(node)
                continue
            record = state.models.get(ModelId(node_name(node))) if node_kind(node) == "model" else None
            if record is None or not record.retired:
                found.add(node)
    return sorted(found)


def models_in(state: State, scope: str) -> list[ModelRecord]:
    """Models that a policy scope speaks to, by id."""
    kind, _, name = scope.partition(":")
    match kind:
        case "model":
            found = [state.models[ModelId(name)]] if name in state.models else []
        case "team":
            found = [record for record in state.models.values() if record.facts.team == name]
        case "tier":
            found = [record for record in state.models.values() if record.facts.tier == int(name)]
        case _:
            found = list(state.models.values())
    return sorted(found, key=lambda record: record.model_id)
