"""One attempt of a retrain: train under a lease, register, report, validate, report.

    step                          | fails by itself                     | attempt is over meanwhile
    ------------------------------+-------------------------------------+--------------------------
    renew, train                  | report failure (retry is Runway's)  | stop, report nothing
    RegisterVersion, ReportAttempt| report failure                      | stop, report nothing
    validate                      | report a failed validation          | -
    ReportValidation              | raise; evidence that cannot be      | stop, report nothing
                                  | judged: report a failed validation  |

Nothing here knows Dagster: `assets.model_assets` turns an `Outcome` into its events, and the run-status sensor reports
for a worker that died before it could.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime

import msgspec
from runway_client import RunwayRpcError

from assets.failures import failure_class
from assets.heartbeat import Heartbeat, LeaseLostError
from assets.plane import ControlPlane, Evidence, Lease, TrainedVersion, Validated, Validation, lease_is_gone
from assets.trainer import NoTrainerError, Trainer, TrainingOrder

FAILURE_CHARS_MAX = 500
"""A sentence. The stack trace is in the run's log."""

Say = Callable[[str], None]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a finished attempt went."""

    version: int
    trained: TrainedVersion
    validation: Validation
    """As Runway has it."""
    checks: dict[str, str] = {}
    """What each of its checks found, in a sentence."""
    passed: bool
    """Not refused: promoted, or on its way through approval and canary."""
    promoted: bool
    training_s: float
    data_until: datetime
    """It learnt from what was known then."""


class ValidationCrashedError(Exception):
    """The validation raised, or gave what cannot be judged; the candidate was refused."""


def run_attempt(lease: Lease, plane: ControlPlane, find_trainer: Callable[[], Trainer], run: str, say: Say) -> Outcome:
    """Do all of it.

    Args:
        find_trainer: raises NoTrainerError if there is none.
        run: Dagster's run id.
        say: writes a sentence to the run's log.
    Raises:
        LeaseLostError: the attempt is over for the control plane; nothing was or need be reported.
        Exception: whatever training or validation raised, after it was reported.
    """
    order = TrainingOrder(
        model_id=lease.model_id,
        attempt_id=lease.attempt_id,
        retrain_id=lease.retrain_id,
        data_until=lease.data_until,
        causes=lease.causes,
        run_id=run,
        memory_scale=lease.memory_scale,
    )
    started_s = time.monotonic()
    told = _tell_started(plane)
    try:
        trainer = find_trainer()
        with Heartbeat(plane, lease, run):
            trained = trainer.train(order, say)
            training_s = time.monotonic() - started_s
            version = plane.register_version(lease, trained, run)
        if told.result():
            say(told.result())
        say(f"trained in {training_s:.1f} s and registered as version {version}")
        plane.report_success(lease, version, run, training_s)
        _tell_lineage(plane, lease, version, trained, run, say)
    except LeaseLostError:
        raise
    except BaseException as error:
        _report_crash(plane, lease, run, error, say)
        raise
    report, crash = _validated(trainer, order, version, say)
    try:
        validated = plane.report_validation(lease.model_id, version, report)
    except RunwayRpcError as error:
        _stop_if_over(error)
        if not isinstance(report, Evidence) or error.reason != "INVALID_ARGUMENT":
            raise
        # A candidate whose metric is NaN must not wait for its timeout, and telling it again would change nothing.
        validated, crash = _refused(plane, lease, version, error), error
    if crash is not None:
        raise ValidationCrashedError(validated.validation.explanation) from crash
    say(validated.validation.explanation)
    return Outcome(
        version=version,
        trained=trained,
        validation=validated.validation,
        checks=validated.checks,
        passed=validated.passed,
        promoted=validated.promoted,
        training_s=training_s,
        data_until=lease.data_until,
    )


def _refused(plane: ControlPlane, lease: Lease, version: int, error: RunwayRpcError) -> Validated:
    """What becomes of a candidate whose evidence Runway could not judge."""
    wrong = "; ".join(f"{one.field}: {one.message}" for one in error.violations) or error.message
    why = f"its evidence cannot be judged: {wrong}"[:FAILURE_CHARS_MAX]
    try:
        return plane.report_validation(
            lease.model_id, version, Validation(passed=False, metric="none", candidate=0.0, explanation=why)
        )
    except RunwayRpcError as again:
        _stop_if_over(again)
        raise


def _stop_if_over(error: RunwayRpcError) -> None:
    """Raise LeaseLostError if the control plane says that the attempt is over."""
    if error.reason in {"ROLLOUT_FINISHED", "RETRAIN_FINISHED"}:
        raise LeaseLostError(error.message) from error


def _tell_started(plane: ControlPlane) -> "Future[str]":
    """Say that Dagster could start this run, beside its work: a control plane that is away must not keep it waiting.

    The result is why it could not be said, empty if it was. The next run says it again.
    """

    def tell() -> str:
        try:
            plane.report_started()
        except RunwayRpcError as error:
            return f"that the run has started could not be reported: {error.message}"
        return ""

    aside = ThreadPoolExecutor(max_workers=1)
    try:
        return aside.submit(tell)
    finally:
        aside.shutdown(wait=False)


def sentence_of(error: BaseException) -> str:
    """The first line of what an exception says, with its type."""
    said = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    return text[:FAILURE_CHARS_MAX]


def _validated(
    trainer: Trainer, order: TrainingOrder, version: int, say: Say
) -> tuple[Validation | Evidence, BaseException | None]:
    try:
        return trainer.validate(order, version, say), None
    except Exception as error:
        why = f"the validation crashed: {sentence_of(error)}"
        return Validation(passed=False, metric="none", candidate=0.0, explanation=why), error


def _tell_lineage(plane: ControlPlane, lease: Lease, version: int, trained: TrainedVersion, run: str, say: Say) -> None:
    """Say what was read. A version is good without it, and the next training says it again."""
    if not trained.reads:
        return
    try:
        plane.report_lineage(lease.model_id, version, trained.reads, run)
    except RunwayRpcError as error:
        say(f"what was read could not be reported: {error.message}")


def _report_crash(plane: ControlPlane, lease: Lease, run: str, error: BaseException, say: Say) -> None:
    """Tell the control plane; what cannot be told now, the run-status sensor tells later.

    Raises:
        LeaseLostError: the error was that the attempt is over, or telling showed it.
    """
    if isinstance(error, RunwayRpcError) and lease_is_gone(error):
        raise LeaseLostError(error.message) from error
    # An interruption that no lost lease caused is a person's doing: they do not want it back at once.
    interrupted = not isinstance(error, Exception)
    failure = "terminated in Dagster" if interrupted else sentence_of(error)
    try:
        plane.report_failure(
            lease.attempt_id,
            lease.lease_token,
            failure,
            run,
            permanent=interrupted or isinstance(error, NoTrainerError),
            failure_class=failure_class(error),
        )
    except RunwayRpcError as refused:
        if lease_is_gone(refused):
            raise LeaseLostError(refused.message) from error
        say(f"the failure could not be reported yet: {refused.message}")
