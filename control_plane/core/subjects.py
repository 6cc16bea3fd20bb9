"""What an event is about: by this a watcher chooses.

An event is about its model, and about every model that it names: the ends of a dependency, a model's node, the models
that cool down. The teams of an event are those its models belonged to when it happened, so that a model which changes
hands does not take its past with it.
"""

from typing import Any, NamedTuple

from control_plane.core.events import (
    CascadeCooldownStarted,
    Envelope,
    Event,
    ModelRegistered,
    ModelUpdated,
    PoliciesSet,
    RuleRemoved,
    RuleSet,
    event_kind,
)
from control_plane.core.ids import ModelId, TeamId
from control_plane.core.state import State

MODEL_PREFIX = "model:"
TEAM_PREFIX = "team:"


class Subject(NamedTuple):
    """Kind, models and teams of one event."""

    kind: str
    models: frozenset[ModelId] = frozenset()
    teams: frozenset[TeamId] = frozenset()


def subject_of(state: State, envelope: Envelope) -> Subject:
    """What an event is about; `state` is at least as new as the event."""
    models = models_of(envelope.event)
    records = [state.models[model_id] for model_id in models if model_id in state.models]
    return Subject(
        kind=event_kind(envelope.event),
        models=models,
        teams=frozenset(record.team_at(envelope.seq) for record in records) | _team_named(envelope.event),
    )


def models_of(event: Event) -> frozenset[ModelId]:
    """All models that an event names."""
    if isinstance(event, CascadeCooldownStarted):
        return frozenset((event.upstream, *event.until))
    about = event_model(event)
    if about is not None:
        return frozenset((about,))
    named = (node_id for node_id in _node_ids(event) if node_id.startswith(MODEL_PREFIX))
    return frozenset(ModelId(node_id.removeprefix(MODEL_PREFIX)) for node_id in named)


def team_of(state: State, envelope: Envelope) -> TeamId | None:
    """The team of the model that an event is about, when it happened; None if it is about no one model."""
    model_id = event_model(envelope.event)
    record = state.models.get(model_id) if model_id is not None else None
    return record.team_at(envelope.seq) if record is not None else None


def _team_named(event: Event) -> frozenset[TeamId]:
    """The team whose policies an event sets."""
    scope = getattr(event, "scope", "")
    return frozenset((TeamId(scope.removeprefix(TEAM_PREFIX)),)) if scope.startswith(TEAM_PREFIX) else frozenset()


def _node_ids(event: Event) -> list[str]:
    """Ids of the nodes that an event of the graph names.

    Events of the graph are told by their fields, not by their kinds: a kind that is added is found by itself.
    """
    found: list[str] = []
    for name in event.__struct_fields__:
        value: Any = getattr(event, name)
        if isinstance(value, str):
            if name.endswith(NODE_FIELDS):
                found.append(value)
        elif isinstance(value, tuple) and value:
            if name.endswith("node_ids"):
                found.extend(value)
            else:
                found.extend(node for entry in value for node in _ends(entry))
        else:
            found.extend(_ends(value))
    return found


NODE_FIELDS = ("upstream", "downstream", "node_id", "new_node_id", "scope")
"""What a field is called that holds a node; the scope of a policy may be one."""

NODE_LISTS = ("inputs", "outputs")
"""What a field is called that holds the nodes of a run."""


def _ends(entry: Any) -> list[str]:
    """The nodes that one entry (a node, a dependency, the change of an edge, a run) names."""
    values = [getattr(entry, name, None) for name in NODE_FIELDS]
    found = [value for value in values if isinstance(value, str)]
    for name in NODE_LISTS:
        for node in getattr(entry, name, ()):
            found.extend(_ends(node))
    return found


def event_model(event: Event) -> ModelId | None:
    """The model an event is about, if it is about one."""
    match event:
        case ModelRegistered() | ModelUpdated():
            return event.facts.model_id
        case CascadeCooldownStarted():
            return event.upstream
        case PoliciesSet() | RuleSet() | RuleRemoved():
            kind, _, name = event.scope.partition(":")
            return ModelId(name) if kind == "model" else None
        case _:
            return getattr(event, "model_id", None)
