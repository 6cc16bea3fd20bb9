"""Messages of models, each built once per change of its model.

A model's message has some 40 fields in six messages, 18 us to build, and is read far more often than it changes.
Putting the finished message into a reply is a copy in C, 1 us.
"""

from runway.v1 import registry_pb2

from control_plane.api.convert.registry import model
from control_plane.core.ids import ModelId
from control_plane.core.state import ModelRecord

Version = tuple[int, int, int]


class ModelMessages:
    """Remembers the message of each model; as many as there are models."""

    def __init__(self) -> None:
        self._known: dict[ModelId, tuple[ModelRecord, Version, registry_pb2.Model]] = {}

    def of(self, record: ModelRecord) -> registry_pb2.Model:
        """The message of a model. It is shared: put it into replies, do not change it."""
        # What the message shows changes with the facts and policies, the versions, and the aliases. The record
        # itself is part of the key: after a replay there is another one.
        version = (record.updated_revision, len(record.versions), len(record.alias_moves))
        known = self._known.get(record.facts.model_id)
        if known is not None and known[0] is record and known[1] == version:
            return known[2]
        message = model(record)
        self._known[record.facts.model_id] = (record, version, message)
        return message
