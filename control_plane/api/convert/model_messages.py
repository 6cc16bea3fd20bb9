"""Messages of models, each built once per change of its model.

A model's message has some 90 fields in ten messages, 60 us to build, and is read far more often than it changes.
Putting the finished message into a reply is a copy in C, some microseconds.
"""

from dataclasses import dataclass

from runway.v1 import registry_pb2

from control_plane.api.convert.registry import model
from control_plane.core.ids import ModelId, NodeId
from control_plane.core.policies import EffectivePolicies
from control_plane.core.relations import consumers_of
from control_plane.core.state import ModelRecord, State

Version = tuple[int, int, int, list[NodeId]]


@dataclass(slots=True)
class _Known:
    record: ModelRecord
    policies: EffectivePolicies
    version: Version
    message: registry_pb2.Model
    listed: bytes = b""


class ModelMessages:
    """Remembers the message of each model; as many as there are models."""

    def __init__(self) -> None:
        self._messages: dict[ModelId, _Known] = {}
        self._consumers: dict[ModelId, list[NodeId]] = {}
        self._uses: tuple[State, int, int] | None = None

    def of(self, state: State, record: ModelRecord) -> registry_pb2.Model:
        """The message of a model. It is shared: put it into replies, do not change it."""
        return self._known(state, record).message

    def listed(self, state: State, record: ModelRecord) -> bytes:
        """The encoded reply that lists this model alone. Such replies one after another are one that lists them all."""
        known = self._known(state, record)
        if not known.listed:
            known.listed = registry_pb2.ListModelsResponse(models=[known.message]).SerializeToString()
        return known.listed

    def _known(self, state: State, record: ModelRecord) -> _Known:
        # What the message shows changes with the facts and own policies, the versions, the aliases, who uses the model,
        # and the policies in force. The record itself is part of the key: after a replay, or at another moment, there
        # is another one.
        model_id = record.facts.model_id
        consumers = self._consumers_of(state, model_id)
        version = (record.updated_revision, len(record.versions), len(record.alias_moves), consumers)
        known = self._messages.get(model_id)
        if (
            known is None
            or known.record is not record
            or known.policies is not record.policies
            or known.version != version
        ):
            known = self._messages[model_id] = _Known(record, record.policies, version, model(record, consumers))
        return known

    def _consumers_of(self, state: State, model_id: ModelId) -> list[NodeId]:
        """Who uses a model; looked up once for each state of the graph."""
        uses = (state, state.graph.topology_version, state.lifecycle_revision)
        if self._uses != uses:
            self._uses = uses
            self._consumers.clear()
        found = self._consumers.get(model_id)
        if found is None:
            found = self._consumers[model_id] = consumers_of(state, model_id)
        return found
