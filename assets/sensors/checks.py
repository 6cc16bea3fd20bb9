"""Runs the checks that candidates wait for, and reports what they found.

Level-triggered: each tick compares what Runway waits for with the runs that are there, so nothing need be remembered
and a lost answer is asked for again.

    the check's run     | what a tick does
    --------------------+--------------------------------------------------------
    none                | asks for it; `run_key` is rollout and check, so once
    queued or running   | waits
    ended, check found  | reports passed or failed, with the check's own words
    ended without it    | reports it as failed: a check that crashed proves nothing
"""

from collections.abc import Iterable

import dagster as dg
from runway_client import RunwayRpcError, Unreachable
from runway_client.errors import NoAnswer

from assets.candidates import CandidateRef, tags_of
from assets.plane import Candidate, Connect, ControlPlane
from assets.sensors.lease import LIVE
from assets.tags import CHECK_TAG, ROLLOUT_TAG

EVERY_S = 2


def check_sensor(known: Iterable[dg.AssetCheckKey], connect: Connect) -> dg.SensorDefinition:
    """The sensor; `known` are the checks of candidates that this code location has, one at least."""
    keys = {(key.asset_key.path[-1], key.name): key for key in known}

    @dg.sensor(
        name="check_candidates",
        asset_selection=dg.AssetSelection.checks(*keys.values()),
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Runs the asset checks that Runway's candidates wait for, and tells Runway what they found.",
    )
    def check_candidates(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        plane = connect()
        requests: list[dg.RunRequest] = []
        said: list[str] = []
        try:
            for candidate in plane.unchecked():
                for name in candidate.checks:
                    key = keys.get((candidate.model_id, name))
                    if key is None:
                        said.append(f"{candidate.model_id} waits for check {name}, which is not an asset check here")
                        continue
                    run = run_of(context.instance, candidate, name)
                    if run is None:
                        requests.append(run_request(candidate, key))
                    elif run.status not in LIVE:
                        passed, words = found_by(context.instance, run, key)
                        verdict = "passed" if passed else "failed"
                        said.append(f"{candidate.model_id} version {candidate.version} {verdict} {name}: {words}")
                        _report(plane, candidate, name, passed, words)
        except (Unreachable, NoAnswer) as error:
            said.append(error.message)
        finally:
            plane.close()
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SensorResult(skip_reason="; ".join(said) or "No candidate waits for a check.")

    return check_candidates


def run_of(instance: dg.DagsterInstance, candidate: Candidate, name: str) -> dg.DagsterRun | None:
    """The newest run that checks a candidate by this name."""
    tags = {ROLLOUT_TAG: candidate.rollout_id, CHECK_TAG: name}
    return next(iter(instance.get_runs(filters=dg.RunsFilter(tags=tags), limit=1)), None)


def run_request(candidate: Candidate, key: dg.AssetCheckKey) -> dg.RunRequest:
    """The run of one check."""
    return dg.RunRequest(
        run_key=f"{candidate.rollout_id}:{key.name}",
        asset_selection=[],
        asset_check_keys=[key],
        tags=tags_of(
            CandidateRef(
                rollout_id=candidate.rollout_id,
                model_id=candidate.model_id,
                version=candidate.version,
                check=key.name,
            )
        ),
    )


def found_by(instance: dg.DagsterInstance, run: dg.DagsterRun, key: dg.AssetCheckKey) -> tuple[bool, str]:
    """Whether a candidate passed by an ended run, and in which words."""
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    for record in records:
        event = record.event_log_entry.dagster_event
        evaluation = event.asset_check_evaluation_data if event is not None else None
        if evaluation is not None and evaluation.asset_check_key == key:
            return evaluation.passed, evaluation.description or ""
    return False, f"its run {run.run_id[:8]} ended as {run.status.value.lower()} and found nothing"


def _report(plane: ControlPlane, candidate: Candidate, name: str, passed: bool, words: str) -> None:
    """Tell Runway; that the candidate is on its way no more is no news to anybody."""
    try:
        plane.report_check(candidate.model_id, candidate.version, name, passed=passed, explanation=words)
    except (Unreachable, NoAnswer):
        raise
    except RunwayRpcError:
        return
