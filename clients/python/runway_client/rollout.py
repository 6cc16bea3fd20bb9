"""From a trained candidate to production: RolloutService."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from runway.v1 import common_pb2, rollout_pb2
from runway.v1.rollout_pb2_grpc import RolloutServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.registry import PAGE_SIZE
from runway_client.times import to_timestamp


class Rollouts:
    """Validation, promotion, rollback."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = RolloutServiceStub(connection.channel)

    def report_validation(
        self,
        model_id: str,
        version: int,
        validation: rollout_pb2.Validation | None = None,
        *,
        evidence: rollout_pb2.ValidationEvidence | None = None,
        why: Why = NO_REASON,
    ) -> rollout_pb2.Rollout:
        """How the candidate did against production on a holdout: judged already, or evidence for the gate to judge."""
        request = rollout_pb2.ReportValidationRequest(
            model_id=model_id, version=version, validation=validation, evidence=evidence
        )
        return self._connection.change(
            self.stub.ReportValidation, request, method="RolloutService/ReportValidation", why=why
        ).rollout

    def report_check(
        self,
        model_id: str,
        version: int,
        name: str,
        *,
        passed: bool,
        explanation: str = "",
        value: float | None = None,
        bound: float | None = None,
        why: Why = NO_REASON,
    ) -> rollout_pb2.Rollout:
        """One check of a candidate; one that failed refuses it."""
        check = rollout_pb2.ValidationCheck(name=name, passed=passed, explanation=explanation, value=value, bound=bound)
        request = rollout_pb2.ReportCheckRequest(model_id=model_id, version=version, check=check)
        return self._connection.change(
            self.stub.ReportCheck, request, method="RolloutService/ReportCheck", why=why
        ).rollout

    def get_rollout(self, rollout_id: str, *, min_revision: int = 0) -> rollout_pb2.Rollout:
        """One rollout."""
        request = rollout_pb2.GetRolloutRequest(
            rollout_id=rollout_id, read=common_pb2.ReadOptions(min_revision=min_revision)
        )
        return self._connection.read(self.stub.GetRollout, request, method="RolloutService/GetRollout").rollout

    def list_rollouts(
        self,
        *,
        model_id: str = "",
        states: Sequence[rollout_pb2.RolloutState.ValueType] = (),
        group_id: str = "",
        page_size: int = PAGE_SIZE,
        min_revision: int = 0,
    ) -> Iterator[rollout_pb2.Rollout]:
        """Rollouts, newest first, page by page."""
        request = rollout_pb2.ListRolloutsRequest(
            page=common_pb2.PageRequest(page_size=page_size),
            read=common_pb2.ReadOptions(min_revision=min_revision),
            model_id=model_id,
            states=states,
            group_id=group_id,
        )
        while True:
            response = self._connection.read(self.stub.ListRollouts, request, method="RolloutService/ListRollouts")
            yield from response.rollouts
            if not response.next_page_token:
                return
            request.page.page_token = response.next_page_token

    def promote_version(
        self, model_id: str, version: int, *, force: bool = False, why: Why = NO_REASON
    ) -> rollout_pb2.Rollout:
        """Promote by hand; needs a passed validation unless forced with a reason."""
        request = rollout_pb2.PromoteVersionRequest(model_id=model_id, version=version, force=force)
        return self._connection.change(
            self.stub.PromoteVersion, request, method="RolloutService/PromoteVersion", why=why
        ).rollout

    def roll_back(self, model_id: str, *, why: Why = NO_REASON) -> rollout_pb2.Rollout:
        """Point production back at the version before."""
        request = rollout_pb2.RollBackRequest(model_id=model_id)
        return self._connection.change(self.stub.RollBack, request, method="RolloutService/RollBack", why=why).rollout

    def approve_rollout(self, rollout_id: str, *, why: Why = NO_REASON) -> rollout_pb2.Rollout:
        """Yes, by somebody other than who asked for it."""
        request = rollout_pb2.ApproveRolloutRequest(rollout_id=rollout_id)
        return self._connection.change(
            self.stub.ApproveRollout, request, method="RolloutService/ApproveRollout", why=why
        ).rollout

    def decline_rollout(self, rollout_id: str, *, why: Why = NO_REASON) -> rollout_pb2.Rollout:
        """No: it ends, production stays."""
        request = rollout_pb2.DeclineRolloutRequest(rollout_id=rollout_id)
        return self._connection.change(
            self.stub.DeclineRollout, request, method="RolloutService/DeclineRollout", why=why
        ).rollout

    def abort_rollout(self, rollout_id: str, *, why: Why = NO_REASON) -> rollout_pb2.Rollout:
        """End it; traffic goes back to production."""
        request = rollout_pb2.AbortRolloutRequest(rollout_id=rollout_id)
        return self._connection.change(
            self.stub.AbortRollout, request, method="RolloutService/AbortRollout", why=why
        ).rollout

    def hold_rollout(self, rollout_id: str, *, why: Why = NO_REASON) -> rollout_pb2.Rollout:
        """Take no further step until released."""
        request = rollout_pb2.HoldRolloutRequest(rollout_id=rollout_id)
        return self._connection.change(
            self.stub.HoldRollout, request, method="RolloutService/HoldRollout", why=why
        ).rollout

    def release_rollout(self, rollout_id: str, *, why: Why = NO_REASON) -> rollout_pb2.Rollout:
        """Go on."""
        request = rollout_pb2.ReleaseRolloutRequest(rollout_id=rollout_id)
        return self._connection.change(
            self.stub.ReleaseRollout, request, method="RolloutService/ReleaseRollout", why=why
        ).rollout

    def advance_rollout(self, rollout_id: str, *, why: Why = NO_REASON) -> rollout_pb2.Rollout:
        """Take the next step now, whatever the judge says; needs a reason."""
        request = rollout_pb2.AdvanceRolloutRequest(rollout_id=rollout_id)
        return self._connection.change(
            self.stub.AdvanceRollout, request, method="RolloutService/AdvanceRollout", why=why
        ).rollout

    def report_canary(
        self,
        rollout_id: str,
        metrics: Sequence[rollout_pb2.CanaryMetric],
        *,
        candidate_requests: int,
        control_requests: int,
        why: Why = NO_REASON,
    ) -> rollout_pb2.ReportCanaryResponse:
        """What candidate and control have measured since the canary began."""
        request = rollout_pb2.ReportCanaryRequest(
            rollout_id=rollout_id,
            metrics=metrics,
            candidate_requests=candidate_requests,
            control_requests=control_requests,
        )
        return self._connection.change(self.stub.ReportCanary, request, method="RolloutService/ReportCanary", why=why)

    def group_rollouts(
        self, group_id: str, rollout_ids: Sequence[str], *, why: Why = NO_REASON
    ) -> Sequence[rollout_pb2.Rollout]:
        """Let live rollouts move as one from now on."""
        request = rollout_pb2.GroupRolloutsRequest(group_id=group_id, rollout_ids=rollout_ids)
        return self._connection.change(
            self.stub.GroupRollouts, request, method="RolloutService/GroupRollouts", why=why
        ).rollouts

    def set_freeze(
        self,
        name: str,
        *,
        scope: str,
        starts_at: datetime,
        ends_at: datetime,
        reason: str = "",
        why: Why = NO_REASON,
    ) -> rollout_pb2.FreezeWindow:
        """No step forward for a scope in a window of time."""
        freeze = rollout_pb2.FreezeWindow(
            name=name,
            scope=scope,
            starts_at=to_timestamp(starts_at),
            ends_at=to_timestamp(ends_at),
            reason=reason,
        )
        request = rollout_pb2.SetFreezeRequest(freeze=freeze)
        return self._connection.change(self.stub.SetFreeze, request, method="RolloutService/SetFreeze", why=why).freeze

    def remove_freeze(self, name: str, *, why: Why = NO_REASON) -> None:
        """Take a window back."""
        request = rollout_pb2.RemoveFreezeRequest(name=name)
        self._connection.change(self.stub.RemoveFreeze, request, method="RolloutService/RemoveFreeze", why=why)

    def list_freezes(self, *, min_revision: int = 0) -> Sequence[rollout_pb2.FreezeWindow]:
        """Windows that are not over, by start."""
        request = rollout_pb2.ListFreezesRequest(read=common_pb2.ReadOptions(min_revision=min_revision))
        return self._connection.read(self.stub.ListFreezes, request, method="RolloutService/ListFreezes").freezes
