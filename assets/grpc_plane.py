"""The control plane over gRPC, through the Python client."""

import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from runway_client import Why, connect, from_timestamp, messages, to_timestamp
from runway_client.connection import RETRY_FOR_S

from assets.failures import FailureClass
from assets.fleet import Dependency, Fleet, make_fleet
from assets.grpc_messages import (
    bare_enum,
    evidence_message,
    model_from,
    node_from,
    timestamp_of,
    training_lineage,
    validation_from,
    validation_message,
    verdict_from,
)
from assets.plane import (
    Candidate,
    Change,
    Evidence,
    Joined,
    Lease,
    Limits,
    Metric,
    ModelJoined,
    Read,
    Status,
    TrainedVersion,
    Validated,
    Validation,
    Verdict,
    Waiting,
)
from assets.tags import SCHEDULER

WEB_VARIABLE = "RUNWAY_DAGSTER_URL"
"""Where people see Dagster's pages; the log links of attempts begin with it."""


class GrpcPlane:
    """`ControlPlane` over one channel; threads may share it."""

    def __init__(self, address: str | None = None, *, retry_for_s: float = RETRY_FOR_S) -> None:
        self._runway = connect(address, SCHEDULER, retry_for_s=retry_for_s)

    def close(self) -> None:
        """Let go of the channel."""
        self._runway.close()

    def fleet(self) -> Fleet:
        """Registry and graph, without what is retired. A model that came between the two reads is left for the next
        look; one that lineage found and nobody registered is a mere node."""
        graph = self._runway.graph.get_graph()
        models = list(self._runway.registry.list_models(min_revision=graph.revision))
        nodes = {node.node_id: node for node in graph.nodes}
        retired = {f"model:{model.model_id}" for model in models if model.lifecycle == messages.LIFECYCLE_STATE_RETIRED}
        registered = {f"model:{model.model_id}": model for model in models}
        drawn = nodes.keys() - retired
        return make_fleet(
            [model_from(model) for node_id, model in registered.items() if node_id in drawn],
            [node_from(node) for node_id, node in nodes.items() if node_id in drawn and node_id not in registered],
            [
                Dependency(
                    upstream=edge.upstream_id,
                    downstream=edge.downstream_id,
                    type=bare_enum(messages.DependencyType.Name(edge.type), "DEPENDENCY_TYPE_").lower(),
                )
                for edge in graph.dependencies
                if edge.upstream_id in drawn and edge.downstream_id in drawn
            ],
            graph.revision,
        )

    def status(self) -> Status:
        """Counts, revision and limits."""
        reply = self._runway.operations.get_status()
        return Status(
            revision=reply.revision,
            models=reply.models,
            nodes=reply.nodes,
            dependencies=reply.dependencies,
            limits=Limits(running_max=reply.limits.running_max, running_per_team_max=reply.limits.running_per_team_max),
            now=from_timestamp(reply.now),
            driven=reply.clock_mode == messages.CLOCK_MODE_DRIVEN,
        )

    def changes(self, after_revision: int, kinds: Sequence[str]) -> Iterator[Change]:
        """Changes of these kinds as they come; resumes by itself after breaks, once it was connected."""
        for item in self._runway.watch(after_revision, kinds=kinds):
            match item:
                case messages.Event():
                    yield Change(revision=item.revision, kind=item.kind, model_id=item.model_id)
                case messages.Progress():
                    yield Change(revision=item.revision)

    def lease(self, known_attempt_ids: list[str], leases_max: int) -> list[Lease]:
        """What may run now, and again what we hold but do not know."""
        return [
            Lease(
                attempt_id=lease.attempt_id,
                retrain_id=lease.retrain_id,
                model_id=lease.model_id,
                lease_token=lease.lease_token,
                team=lease.team,
                tier=int(lease.tier),
                data_until=from_timestamp(lease.data_until),
                causes=tuple(lease.causes),
                resource_class=lease.resource_class,
                memory_scale=lease.memory_scale or 1,
                group=lease.group,
                probe=lease.probe,
            )
            for lease in self._runway.retraining.lease_retrains(SCHEDULER, leases_max, known_attempt_ids)
        ]

    def renew(self, attempt_id: str, lease_token: str, run: str) -> None:
        """Still running."""
        self._runway.retraining.renew_lease(attempt_id, lease_token, run=run)

    def register_version(self, lease: Lease, trained: TrainedVersion, run: str) -> int:
        """Register what an attempt made; its version number."""
        version = messages.ModelVersion(
            model_id=lease.model_id,
            artifact_uri=trained.artifact_uri,
            artifact_sha256=trained.artifact_sha256,
            artifact_size_bytes=trained.artifact_size_bytes,
            trained_from=timestamp_of(trained.trained_from),
            trained_until=to_timestamp(trained.trained_until),
            metrics=[
                messages.Metric(
                    name=metric.name,
                    value=metric.value,
                    standard_error=metric.standard_error,
                    sample_size=metric.sample_size,
                )
                for metric in trained.metrics
            ],
            upstream_versions=trained.upstream_versions,
            run=run,
            code_revision=trained.code_revision,
        )
        registered = self._runway.registry.register_version(
            version,
            reference_profile=trained.reference_profile,
            embeddings=trained.embeddings,
            attempt_id=lease.attempt_id,
            lease_token=lease.lease_token,
            why=Why(reason=f"trained by {lease.attempt_id}"),
        )
        return int(registered.version)

    def report_success(self, lease: Lease, version: int, run: str, duration_s: float) -> None:
        """The attempt made `version`."""
        self._runway.retraining.report_success(
            lease.attempt_id,
            lease.lease_token,
            version,
            run=run,
            log_url=_log_url(run),
            duration=timedelta(seconds=duration_s),
        )

    def report_lineage(self, model_id: str, version: int, reads: Sequence[Read], run: str) -> None:
        """What the training of a version really read."""
        self._runway.lineage.report_lineage([training_lineage(model_id, version, reads, run)])

    def report_failure(
        self,
        attempt_id: str,
        lease_token: str,
        failure: str,
        run: str,
        *,
        permanent: bool,
        failure_class: FailureClass = "",
    ) -> None:
        """The attempt failed, in a sentence."""
        self._runway.retraining.report_failure(
            attempt_id,
            lease_token,
            failure,
            permanent=permanent,
            failure_class=messages.FailureClass.Value(f"FAILURE_CLASS_{failure_class or 'UNSPECIFIED'}"),
            run=run,
            log_url=_log_url(run),
        )

    def report_started(self) -> None:
        """Dagster has started a run."""
        self._runway.schedulers.report_calls(SCHEDULER, [(messages.CALL_OUTCOME_SUCCEEDED, "")])

    def report_never_started(self, attempt_id: str, lease_token: str, failure: str, run: str) -> None:
        """Dagster could not start the run of an attempt."""
        try:
            self._runway.retraining.report_failure(
                attempt_id,
                lease_token,
                failure,
                failure_class=messages.FAILURE_CLASS_SCHEDULER,
                run=run,
                log_url=_log_url(run),
            )
        finally:
            self._runway.schedulers.report_calls(SCHEDULER, [(messages.CALL_OUTCOME_FAILED, failure)])

    def report_validation(self, model_id: str, version: int, report: Validation | Evidence) -> Validated:
        """What became of the candidate."""
        rollouts = self._runway.rollouts
        if isinstance(report, Evidence):
            rollout = rollouts.report_validation(model_id, version, evidence=evidence_message(report))
        else:
            rollout = rollouts.report_validation(model_id, version, validation_message(report))
        refused = rollout.state in (messages.ROLLOUT_STATE_REFUSED, messages.ROLLOUT_STATE_ABORTED)
        return Validated(
            passed=rollout.validation.passed and not refused,
            promoted=rollout.state == messages.ROLLOUT_STATE_PROMOTED,
            validation=validation_from(rollout.validation),
            checks={check.name: check.explanation for check in (*rollout.validation.checks, *rollout.checks)},
        )

    def unchecked(self) -> list[Candidate]:
        """Candidates that wait for checks."""
        validating = self._runway.rollouts.list_rollouts(states=[messages.ROLLOUT_STATE_VALIDATING])
        return [
            Candidate(
                rollout_id=rollout.rollout_id,
                model_id=rollout.model_id,
                version=rollout.version,
                checks=tuple(rollout.missing_checks),
            )
            for rollout in validating
            if rollout.missing_checks
        ]

    def report_check(self, model_id: str, version: int, name: str, *, passed: bool, explanation: str) -> None:
        """What a check of a candidate found."""
        self._runway.rollouts.report_check(model_id, version, name, passed=passed, explanation=explanation)

    def candidate_of_attempt(self, retrain_id: str, attempt_id: str) -> int | None:
        """The version of an attempt that is still waiting for its validation; None if none is."""
        retrain = self._runway.retraining.get_retrain(retrain_id)
        if retrain.state != messages.RETRAIN_STATE_VALIDATING:
            return None
        versions = [attempt.version for attempt in retrain.attempts if attempt.attempt_id == attempt_id]
        return int(versions[0]) if versions and versions[0] else None

    def waiting(self) -> list[Waiting]:
        """Retrains that wait."""
        return [
            Waiting(
                retrain_id=retrain.retrain_id,
                model_id=retrain.model_id,
                held_by=retrain.held_by,
                ignore_cooldown=retrain.ignore_cooldown,
            )
            for retrain in self._runway.retraining.list_retrains(states=[messages.RETRAIN_STATE_WAITING])
        ]

    def hold_retrain(self, retrain_id: str, why: str) -> None:
        """Let a waiting retrain wait until it is released."""
        self._runway.retraining.hold_retrain(retrain_id, why=Why(reason=why))

    def release_retrain(self, retrain_id: str) -> None:
        """Let a held retrain go on."""
        self._runway.retraining.release_retrain(retrain_id)

    def cancelled(self, retrain_id: str) -> str:
        """Why a retrain was cancelled or superseded, in a sentence; empty if it was not."""
        retrain = self._runway.retraining.get_retrain(retrain_id)
        if retrain.state not in (messages.RETRAIN_STATE_CANCELLED, messages.RETRAIN_STATE_SUPERSEDED):
            return ""
        return str(retrain.conclusion) or "cancelled"

    def verdicts(self) -> list[Verdict]:
        """The standing of the fleet, worst first."""
        return [verdict_from(standing) for standing in self._runway.staleness.list_staleness()]

    def productions(self) -> dict[str, int]:
        """Model -> version in production, of models that have one."""
        aliases = {model.model_id: model.aliases for model in self._runway.registry.list_models()}
        return {model_id: int(of["production"]) for model_id, of in aliases.items() if "production" in of}

    def version(self, model_id: str, version: int) -> TrainedVersion:
        """What is known about a version; its profile is left out."""
        found = self._runway.registry.get_version(model_id, version=version)
        return TrainedVersion(
            artifact_uri=found.artifact_uri,
            artifact_sha256=found.artifact_sha256,
            artifact_size_bytes=found.artifact_size_bytes,
            trained_from=from_timestamp(found.trained_from) if found.HasField("trained_from") else None,
            trained_until=from_timestamp(found.trained_until),
            metrics=tuple(
                Metric(
                    name=metric.name,
                    value=metric.value,
                    standard_error=metric.standard_error,
                    sample_size=int(metric.sample_size),
                )
                for metric in found.metrics
            ),
            upstream_versions=dict(found.upstream_versions),
            code_revision=found.code_revision,
        )

    def evaluate(self, model_id: str) -> Verdict:
        """Look at a model now."""
        return verdict_from(self._runway.staleness.evaluate_model(model_id))

    def join_partition(self, start: datetime, end: datetime, *, authoritative: bool) -> Joined:
        """Join a stretch of time, and say of each model what its policy wants."""
        reply = self._runway.facts.join_partition(start, end, authoritative=authoritative)
        wanted = {
            model.model_id: model.effective_policies.staleness.coverage_min
            for model in self._runway.registry.list_models()
        }
        return Joined(
            hours_joined=reply.hours_joined,
            hours_live=reply.hours_live,
            predicted=reply.predicted,
            joined=reply.joined,
            late=reply.late,
            orphans=reply.orphans,
            engine=reply.engine,
            cpu_s=reply.cpu_s,
            models=tuple(
                ModelJoined(
                    model_id=one.model_id,
                    predicted=one.predicted,
                    joined=one.joined,
                    coverage=one.coverage if one.HasField("coverage") else None,
                    coverage_min=wanted.get(one.model_id, 0.0),
                )
                for one in reply.models
            ),
        )

    def request_retrain(self, model_id: str, reason: str, request_id: str) -> str:
        """Ask for a retrain, whoever would run it; what it is called."""
        reply = self._runway.retraining.request_retrain(
            model_id, ignore_cooldown=True, why=Why(reason=reason, request_id=request_id)
        )
        return str(reply.retrain.retrain_id)


def _log_url(run: str) -> str:
    """The run's page, if this process knows where Dagster's pages are."""
    web = os.environ.get(WEB_VARIABLE, "").rstrip("/")
    return f"{web}/runs/{run}" if web and run else ""
