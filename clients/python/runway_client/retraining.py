"""Retrains, and the leases under which schedulers run them: RetrainingService."""

from collections.abc import Iterable, Iterator
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from runway.v1 import common_pb2, retraining_pb2
from runway.v1.retraining_pb2_grpc import RetrainingServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.registry import PAGE_SIZE
from runway_client.times import to_duration


class Retraining:
    """Ask for retrains, look at them, and (schedulers) lease, renew and report."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = RetrainingServiceStub(connection.channel)

    def request_retrain(
        self,
        model_id: str,
        *,
        ignore_cooldown: bool = False,
        supersede: bool = False,
        off_peak: bool = False,
        why: Why = NO_REASON,
    ) -> retraining_pb2.RequestRetrainResponse:
        """Ask for a retrain; `created` is false if it joined one that was already live.

        With `supersede` it takes that one's place; with `off_peak` it waits for the off-peak hours.
        """
        request = retraining_pb2.RequestRetrainRequest(
            model_id=model_id, ignore_cooldown=ignore_cooldown, supersede=supersede, off_peak=off_peak
        )
        return self._connection.change(
            self.stub.RequestRetrain, request, method="RetrainingService/RequestRetrain", why=why
        )

    def cancel_retrain(self, retrain_id: str, *, why: Why = NO_REASON) -> retraining_pb2.Retrain:
        """End a retrain that has not ended; a running attempt loses its lease."""
        request = retraining_pb2.CancelRetrainRequest(retrain_id=retrain_id)
        return self._connection.change(
            self.stub.CancelRetrain, request, method="RetrainingService/CancelRetrain", why=why
        ).retrain

    def hold_retrain(self, retrain_id: str, *, why: Why = NO_REASON) -> retraining_pb2.Retrain:
        """Let a waiting retrain wait until it is released."""
        request = retraining_pb2.HoldRetrainRequest(retrain_id=retrain_id)
        return self._connection.change(
            self.stub.HoldRetrain, request, method="RetrainingService/HoldRetrain", why=why
        ).retrain

    def release_retrain(self, retrain_id: str, *, why: Why = NO_REASON) -> retraining_pb2.Retrain:
        """Let a held retrain go on."""
        request = retraining_pb2.ReleaseRetrainRequest(retrain_id=retrain_id)
        return self._connection.change(
            self.stub.ReleaseRetrain, request, method="RetrainingService/ReleaseRetrain", why=why
        ).retrain

    def plan_retrains(
        self,
        model_ids: Iterable[str] = (),
        *,
        cascade: bool = True,
        ignore_cooldown: bool = False,
        off_peak: bool = False,
    ) -> retraining_pb2.RetrainPlan:
        """What would happen if these were asked for; without any, to what is live. Changes nothing."""
        request = retraining_pb2.PlanRetrainsRequest(
            model_ids=model_ids, without_cascade=not cascade, ignore_cooldown=ignore_cooldown, off_peak=off_peak
        )
        return self._connection.read(self.stub.PlanRetrains, request, method="RetrainingService/PlanRetrains").plan

    def apply_retrain_plan(
        self,
        model_ids: Iterable[str],
        *,
        ignore_cooldown: bool = False,
        off_peak: bool = False,
        etag: str = "",
        why: Why = NO_REASON,
    ) -> retraining_pb2.ApplyRetrainPlanResponse:
        """Ask for what a plan names, as one group.

        Raises:
            Aborted: the plan with this `etag` would be another one by now.
        """
        request = retraining_pb2.ApplyRetrainPlanRequest(
            model_ids=model_ids, ignore_cooldown=ignore_cooldown, off_peak=off_peak, etag=etag
        )
        return self._connection.change(
            self.stub.ApplyRetrainPlan, request, method="RetrainingService/ApplyRetrainPlan", why=why
        )

    def list_returns(
        self, *, model_id: str = "", team: str = "", page_size: int = PAGE_SIZE
    ) -> retraining_pb2.ListReturnsResponse:
        """What retrains brought, newest first (one page), with totals by model."""
        request = retraining_pb2.ListReturnsRequest(
            page=common_pb2.PageRequest(page_size=page_size), model_id=model_id, team=team
        )
        return self._connection.read(self.stub.ListReturns, request, method="RetrainingService/ListReturns")

    def get_retrain(self, retrain_id: str, *, min_revision: int = 0) -> retraining_pb2.Retrain:
        """One retrain with its attempts."""
        request = retraining_pb2.GetRetrainRequest(
            retrain_id=retrain_id, read=common_pb2.ReadOptions(min_revision=min_revision)
        )
        return self._connection.read(self.stub.GetRetrain, request, method="RetrainingService/GetRetrain").retrain

    def list_retrains(
        self,
        *,
        model_id: str = "",
        states: Iterable[retraining_pb2.RetrainState.ValueType] = (),
        team: str = "",
        group: str = "",
        page_size: int = PAGE_SIZE,
        min_revision: int = 0,
    ) -> Iterator[retraining_pb2.Retrain]:
        """Retrains, newest first, page by page."""
        request = retraining_pb2.ListRetrainsRequest(
            page=common_pb2.PageRequest(page_size=page_size),
            read=common_pb2.ReadOptions(min_revision=min_revision),
            model_id=model_id,
            states=states,
            team=team,
            group=group,
        )
        while True:
            response = self._connection.read(self.stub.ListRetrains, request, method="RetrainingService/ListRetrains")
            yield from response.retrains
            if not response.next_page_token:
                return
            request.page.page_token = response.next_page_token

    def lease_retrains(
        self, scheduler: str, leases_max: int, known_attempt_ids: Iterable[str] = (), *, why: Why = NO_REASON
    ) -> list[retraining_pb2.Lease]:
        """Take what may run now. Leases that `scheduler` holds but does not name in `known_attempt_ids` come again."""
        request = retraining_pb2.LeaseRetrainsRequest(
            scheduler=scheduler, leases_max=leases_max, known_attempt_ids=known_attempt_ids
        )
        response = self._connection.change(
            self.stub.LeaseRetrains, request, method="RetrainingService/LeaseRetrains", why=why
        )
        return list(response.leases)

    def renew_lease(self, attempt_id: str, lease_token: str, *, run: str = "", why: Why = NO_REASON) -> Timestamp:
        """Still running; when the lease now expires.

        Raises:
            Refused: reason LEASE_LOST: stop the work.
        """
        request = retraining_pb2.RenewLeaseRequest(attempt_id=attempt_id, lease_token=lease_token, run=run)
        return self._connection.change(
            self.stub.RenewLease, request, method="RetrainingService/RenewLease", why=why
        ).expires_at

    def report_success(
        self,
        attempt_id: str,
        lease_token: str,
        version: int,
        *,
        run: str = "",
        log_url: str = "",
        duration: timedelta | None = None,
        why: Why = NO_REASON,
    ) -> retraining_pb2.Retrain:
        """The attempt trained and registered `version`."""
        request = retraining_pb2.ReportAttemptRequest(
            attempt_id=attempt_id,
            lease_token=lease_token,
            succeeded_version=version,
            run=run,
            log_url=log_url,
            duration=None if duration is None else to_duration(duration),
        )
        return self._report(request, why)

    def report_failure(
        self,
        attempt_id: str,
        lease_token: str,
        failure: str,
        *,
        permanent: bool = False,
        failure_class: retraining_pb2.FailureClass.ValueType = retraining_pb2.FAILURE_CLASS_UNSPECIFIED,
        run: str = "",
        log_url: str = "",
        duration: timedelta | None = None,
        why: Why = NO_REASON,
    ) -> retraining_pb2.Retrain:
        """The attempt failed, with a sentence; `permanent` if trying again is pointless.

        `failure_class` decides when and how it is tried again; without one it is read from the sentence.
        """
        request = retraining_pb2.ReportAttemptRequest(
            attempt_id=attempt_id,
            lease_token=lease_token,
            failure=failure,
            permanent=permanent,
            failure_class=failure_class,
            run=run,
            log_url=log_url,
            duration=None if duration is None else to_duration(duration),
        )
        return self._report(request, why)

    def _report(self, request: retraining_pb2.ReportAttemptRequest, why: Why) -> retraining_pb2.Retrain:
        return self._connection.change(
            self.stub.ReportAttempt, request, method="RetrainingService/ReportAttempt", why=why
        ).retrain
