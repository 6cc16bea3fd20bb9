"""A model whose policy skips validation: its trained version goes straight to production."""

from datetime import UTC, datetime

from control_plane.app.machine import FleetMachine
from control_plane.app.replica import Replica, Submission
from control_plane.core.commands import (
    Command,
    LeaseRetrains,
    RegisterModel,
    RegisterVersion,
    ReportSuccess,
    RequestRetrain,
    Result,
)
from control_plane.core.ids import LeaseToken, ModelId, TeamId
from control_plane.core.registry.types import ModelFacts, TaskType, VersionFacts
from control_plane.core.retraining.types import RetrainCause, RetrainState
from control_plane.core.rollout.types import RolloutState

NOW = datetime(2013, 3, 1, tzinfo=UTC)
TOKEN = LeaseToken("token")
MODEL = ModelId("skips")


def test_a_skipped_validation_promotes_at_once_and_leaves_no_candidate() -> None:
    replica = Replica(FleetMachine())

    def submit(command: Command) -> Result:
        return replica.decide(Submission(command=command, actor="test", reason=""), NOW).result

    facts = ModelFacts(model_id=MODEL, owner="team:a", team=TeamId("a"), tier=1, task_type=TaskType.BINARY)
    submit(RegisterModel(facts=facts, policies={"validation.skip": True, "rollout.approvals": 0}))
    submit(RequestRetrain(model_id=MODEL, cause=RetrainCause.OPERATOR))
    (attempt_id,) = submit(LeaseRetrains(scheduler="test", lease_tokens=(TOKEN,))).attempt_ids
    trained = VersionFacts(artifact_uri="memory:1", artifact_sha256="a" * 64, trained_until=NOW)
    submit(RegisterVersion(model_id=MODEL, facts=trained, attempt_id=attempt_id, lease_token=TOKEN))
    submit(ReportSuccess(attempt_id=attempt_id, lease_token=TOKEN, version=1))

    record = replica.state.models[MODEL]
    assert record.aliases == {"production": 1}
    assert [retrain.state for retrain in replica.state.retrains.values()] == [RetrainState.PROMOTED]
    assert [rollout.state for rollout in replica.state.rollouts.values()] == [RolloutState.PROMOTED]
    assert record.live_retrain is None
    assert record.live_rollout is None
