"""A remembered message shows every change of its model."""

from datetime import UTC, datetime

from runway.v1 import common_pb2, registry_pb2

from control_plane.api.convert.model_messages import ModelMessages
from control_plane.api.convert.registry import model
from control_plane.api.registry import register_command
from control_plane.app.machine import FleetMachine
from control_plane.app.replica import Replica, Submission
from control_plane.core.commands import Command, MoveAlias, RegisterVersion, SetLifecycle, SetPolicies, UpdateModel
from control_plane.core.ids import ModelId
from control_plane.core.registry.types import Lifecycle, VersionFacts
from control_plane.core.state import ModelRecord, State

NOW = datetime(2013, 3, 1, tzinfo=UTC)
DELAY = ModelId("delay")


def test_every_change_is_seen_and_nothing_is_built_twice() -> None:
    replica: Replica[State, Command] = Replica(FleetMachine())

    def after(command: Command) -> ModelRecord:
        replica.decide(Submission(command=command, request_id=None, actor="ana", reason="test"), NOW)
        return replica.state.models[DELAY]

    messages = ModelMessages()
    wire = registry_pb2.Model(
        model_id="delay",
        owner="ana@example.com",
        team="ops",
        tier=common_pb2.TIER_1,
        task_type=common_pb2.TASK_TYPE_BINARY,
    )
    record = after(register_command(wire))
    changes: list[Command] = [
        UpdateModel(model_id=DELAY, facts=record.facts, policies={"staleness.window_days": 3.0}),
        SetPolicies(scope="fleet", overrides={"retraining.automatic": False}),
        SetLifecycle(model_id=DELAY, lifecycle=Lifecycle.DEPRECATED),
        RegisterVersion(
            model_id=DELAY, facts=VersionFacts(artifact_uri="file:a", artifact_sha256="0" * 64, trained_until=NOW)
        ),
        MoveAlias(model_id=DELAY, alias="mine", version=1),
    ]
    assert messages.of(replica.state, record) == model(record)
    for command in changes:
        record = after(command)
        assert messages.of(replica.state, record) == model(record)
        assert messages.of(replica.state, record) is messages.of(replica.state, record)
