"""From a trained candidate to production: RolloutService."""

from collections.abc import Iterator

from runway.v1 import common_pb2, rollout_pb2
from runway.v1.rollout_pb2_grpc import RolloutServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.registry import PAGE_SIZE


class Rollouts:
    """Validation, promotion, rollback."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = RolloutServiceStub(connection.channel)

    def report_validation(
        self, model_id: str, version: int, validation: rollout_pb2.Validation, *, why: Why = NO_REASON
    ) -> rollout_pb2.Rollout:
        """How the candidate did against production on a holdout; promotes or refuses by policy."""
        request = rollout_pb2.ReportValidationRequest(model_id=model_id, version=version, validation=validation)
        return self._connection.change(
            self.stub.ReportValidation, request, method="RolloutService/ReportValidation", why=why
        ).rollout

    def get_rollout(self, rollout_id: str, *, min_revision: int = 0) -> rollout_pb2.Rollout:
        """One rollout."""
        request = rollout_pb2.GetRolloutRequest(
            rollout_id=rollout_id, read=common_pb2.ReadOptions(min_revision=min_revision)
        )
        return self._connection.read(self.stub.GetRollout, request, method="RolloutService/GetRollout").rollout

    def list_rollouts(
        self, *, model_id: str = "", page_size: int = PAGE_SIZE, min_revision: int = 0
    ) -> Iterator[rollout_pb2.Rollout]:
        """Rollouts, newest first, page by page."""
        request = rollout_pb2.ListRolloutsRequest(
            page=common_pb2.PageRequest(page_size=page_size),
            read=common_pb2.ReadOptions(min_revision=min_revision),
            model_id=model_id,
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
