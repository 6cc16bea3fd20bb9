"""What the driver of schedulers tells the log about attempts, and what it asks the log about them."""

import structlog

from control_plane.app.breaker_watch import ACTOR
from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.app.schedulers import Job, RunState, RunStatus, job_of
from control_plane.core.commands import Command, RenewLease, ReportFailure, ReportSuccess
from control_plane.core.errors import NotFound, Refused
from control_plane.core.ids import AttemptId
from control_plane.core.retraining.types import Attempt, AttemptState, FailureClass, Retrain
from control_plane.core.state import State

log = structlog.get_logger("runway.schedulers")

FAILURE_CHARS_MAX = 500
RUN_CHARS_MAX = 500


class AttemptReports:
    """Reports on behalf of runs that do not report themselves."""

    def __init__(self, node: Node[State, Command]) -> None:
        self._node = node

    async def renew(self, attempt: Attempt, run: str) -> None:
        """Its run lives; `run` names it once that is known."""
        command = RenewLease(attempt_id=attempt.attempt_id, lease_token=attempt.lease_token, run=run[:RUN_CHARS_MAX])
        await self._submit(command, "its run lives")

    async def fail(
        self,
        attempt: Attempt,
        failure: str,
        failure_class: FailureClass | None,
        *,
        log_url: str = "",
        permanent: bool = False,
    ) -> None:
        """It failed; without a class the failure's text says which."""
        command = ReportFailure(
            attempt_id=attempt.attempt_id,
            lease_token=attempt.lease_token,
            failure=failure[:FAILURE_CHARS_MAX],
            failure_class=failure_class,
            log_url=log_url[:RUN_CHARS_MAX],
            permanent=permanent,
        )
        await self._submit(command, "the scheduler's driver")

    async def _submit(self, command: RenewLease | ReportSuccess | ReportFailure, reason: str) -> None:
        """A refusal says that the attempt has ended meanwhile; then there is nothing to report."""
        try:
            await self._node.submit(Submission(command=command, actor=ACTOR, reason=reason))
        except (Refused, NotFound) as error:
            log.debug("schedulers.report_refused", command=type(command).__name__, message=error.message)

    async def report_for(self, name: str, attempt_id: AttemptId, status: RunStatus) -> None:
        """A run ended and its attempt did not: say how, by what the log knows of its version."""
        retrain, _ = await self._node.read(lambda state: state.retrain_of_attempt(attempt_id))
        attempt = attempt_of(retrain, attempt_id)
        if attempt.state is not AttemptState.RUNNING:
            return
        versions = self._node.state.models[retrain.model_id].versions
        version = next((one.number for one in reversed(versions) if one.attempt_id == attempt_id), None)
        if status.state is RunState.SUCCEEDED and version is not None:
            command = ReportSuccess(
                attempt_id=attempt_id, lease_token=attempt.lease_token, version=version, log_url=status.log_url
            )
            await self._submit(command, f"{name} says that the run succeeded")
            return
        match status.state:
            case RunState.SUCCEEDED:
                failure = "the run ended well but registered no version: the training must call RegisterVersion"
            case RunState.STOPPED:
                failure = f"the run was stopped in {name}" + (f": {status.failure}" if status.failure else "")
            case RunState.MISSING:
                failure = f"{name} knows nothing of the run any more"
            case _:
                failure = status.failure or f"the run failed in {name}"
        by_hand = status.state is RunState.STOPPED and status.failure_class is None
        await self.fail(attempt, failure, status.failure_class, log_url=status.log_url, permanent=by_hand)


def running_on(state: State, name: str) -> list[tuple[Retrain, Attempt]]:
    """What runs on a scheduler, the most important first."""
    found = [
        (retrain, attempt)
        for retrain in state.running()
        if (attempt := retrain.running_attempt) is not None and attempt.scheduler == name
    ]
    return sorted(found, key=lambda one: (state.models[one[0].model_id].facts.tier, one[1].leased_at))


def attempt_of(retrain: Retrain, attempt_id: AttemptId) -> Attempt:
    """The attempt of a retrain by its id."""
    return next(attempt for attempt in retrain.attempts if attempt.attempt_id == attempt_id)


def startable(state: State, attempt_id: AttemptId) -> tuple[Retrain, Job]:
    """An attempt's retrain, and what its training must know."""
    retrain = state.retrain_of_attempt(attempt_id)
    return retrain, job_of(state, retrain, attempt_of(retrain, attempt_id))
