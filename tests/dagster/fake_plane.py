"""A small control plane in memory, faithful in what Dagster can see: order, leases, tokens, attempts, validation.

Its clock is `now`, moved by the test. `lose_replies` drops answers after the work was done, `away` refuses everything
and breaks watches. `calls` counts what was asked; a watch counts once however much it brings.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import grpc
import msgspec
from runway_client import InvalidRequest, Refused, Unreachable

from assets.failures import FailureClass
from assets.fleet import Dependency, Fleet, Model, Node, make_fleet
from assets.grpc_messages import evidence_message, validation_from
from assets.plane import (
    Candidate,
    Change,
    Evidence,
    Joined,
    Lease,
    Limits,
    ModelJoined,
    Read,
    Status,
    TrainedVersion,
    Validated,
    Validation,
    Verdict,
    Waiting,
)
from control_plane.api.convert.rollout import evidence_from, validation
from control_plane.core.rollout.gate import direction_of, gate
from control_plane.core.rollout.types import ValidationPolicy

LEASE_TTL = timedelta(minutes=10)
ATTEMPTS_MAX = 3
State = Literal["WAITING", "RUNNING", "VALIDATING", "PROMOTED", "REFUSED", "FAILED", "CANCELLED"]


@dataclass
class Attempt:
    lease: Lease
    expires_at: datetime
    state: Literal["RUNNING", "SUCCEEDED", "FAILED", "EXPIRED"] = "RUNNING"
    failure: str = ""
    run: str = ""
    version: int = 0
    renewals: int = 0


@dataclass
class Retrain:
    retrain_id: str
    model_id: str
    state: State = "WAITING"
    attempts: list[Attempt] = field(default_factory=list)
    conclusion: str = ""
    held_by: str = ""
    hold_reason: str = ""
    validation: Validation | None = None
    checks: dict[str, tuple[bool, str]] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        return self.state in ("WAITING", "RUNNING", "VALIDATING")


def judged(found: Evidence) -> Validation:
    """By the gate itself."""
    told = evidence_from(evidence_message(found))
    return validation_from(validation(gate(told, ValidationPolicy(), direction_of(told), canary=False)))


class FakePlane:
    """Implements `assets.plane.ControlPlane`."""

    def __init__(self, fleet: Fleet, limits: Limits | None = None) -> None:
        self._shown = fleet
        self.limits = limits or Limits(running_max=2, running_per_team_max=2)
        self.now = datetime(2013, 3, 1, tzinfo=UTC)
        self.retrains: dict[str, Retrain] = {}
        self.calls_succeeded = 0
        self.calls_failed = 0
        self.versions: dict[str, list[TrainedVersion]] = {}
        self.production: dict[str, int] = {}
        self._standing: dict[str, Verdict] = {}
        self.validations: list[tuple[str, int, Validation]] = []
        self.checks: dict[str, tuple[str, ...]] = {}
        """Names of the checks that a model's candidates wait for."""
        self.requests: dict[str, str] = {}
        self.lineage: list[tuple[str, int, tuple[Read, ...], str]] = []
        self.no_lineage = False
        self.driven = True
        self.facts: dict[datetime, tuple[int, int]] = {}
        """Hour -> predictions of `air_time`, and how many of them have their outcome."""
        self.joins: list[tuple[datetime, datetime, bool]] = []
        self.coverage_min = 0.8
        self.lose_replies = 0
        self.revision = 1
        self.calls: Counter[str] = Counter()
        self.log: list[Change] = []
        self._away = False
        self._moved = threading.Condition()

    # What a test does.

    @property
    def shown(self) -> Fleet:
        """Registry and graph."""
        return self._shown

    @shown.setter
    def shown(self, fleet: Fleet) -> None:
        self._shown = fleet
        self.happened("ModelUpdated")

    @property
    def standing(self) -> dict[str, Verdict]:
        """Verdicts; a new dict is a change that is heard of, a change in place is not."""
        return self._standing

    @standing.setter
    def standing(self, standing: dict[str, Verdict]) -> None:
        self._standing = standing
        self.happened("VerdictChanged")

    @property
    def away(self) -> bool:
        """Whether nobody can reach it."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        with self._moved:
            self._away = away
            self._moved.notify_all()

    def happened(self, kind: str, model_id: str = "") -> None:
        """An event."""
        with self._moved:
            self.revision += 1
            self.log.append(Change(revision=self.revision, kind=kind, model_id=model_id))
            self._moved.notify_all()

    def session(self) -> "Session":
        """A connection that can be closed by itself."""
        return Session(self)

    def ask(self, *model_ids: str) -> None:
        for model_id in model_ids:
            self.request_retrain(model_id, "test", f"ask-{model_id}-{len(self.retrains)}")

    def retrain_of(self, model_id: str) -> Retrain:
        return [retrain for retrain in self.retrains.values() if retrain.model_id == model_id][-1]

    def attempt(self, attempt_id: str) -> Attempt:
        return self._find(attempt_id)[1]

    def advance(self, span: timedelta) -> None:
        self.now += span
        for retrain in self.retrains.values():
            for attempt in retrain.attempts:
                if attempt.state == "RUNNING" and attempt.expires_at < self.now:
                    self._failed(retrain, attempt, "the lease was not renewed", ended="EXPIRED")

    # The port.

    def close(self) -> None:
        return

    def fleet(self) -> Fleet:
        self._here("fleet")
        return msgspec.structs.replace(self.shown, revision=self.revision)

    def read_limits(self) -> Limits:
        self._here("read_limits")
        return self.limits

    def status(self) -> Status:
        self._here("status")
        return Status(
            revision=self.revision,
            models=len(self.shown.models),
            nodes=len(self.shown.nodes) + len(self.shown.models),
            dependencies=len(self.shown.dependencies),
            limits=self.limits,
            now=self.now,
            driven=self.driven,
        )

    def join_partition(self, start: datetime, end: datetime, *, authoritative: bool) -> Joined:
        self._here("join_partition")
        if start > self.now:
            raise InvalidRequest("INVALID_ARGUMENT", f"{start.isoformat()} has not come yet")
        self.joins.append((start, end, authoritative))
        hours = [rows for hour, rows in self.facts.items() if start <= hour < end]
        predicted, joined = sum(rows[0] for rows in hours), sum(rows[1] for rows in hours)
        model = ModelJoined(
            model_id="air_time",
            predicted=predicted,
            joined=joined,
            coverage=joined / predicted if predicted else None,
            coverage_min=self.coverage_min,
        )
        return Joined(
            hours_joined=len(hours),
            hours_live=0,
            predicted=predicted,
            joined=joined,
            late=1,
            orphans=2,
            engine="duckdb",
            cpu_s=0.25,
            models=(model,) if predicted else (),
        )

    def changes(self, after_revision: int, kinds: Sequence[str]) -> Iterator[Change]:
        """Until it goes away."""
        return self.follow(after_revision, kinds, threading.Event())

    def follow(self, after_revision: int, kinds: Sequence[str], closed: threading.Event) -> Iterator[Change]:
        """What `changes` gives, until closed."""
        self._here("changes")
        yield Change(revision=after_revision)
        while not closed.is_set():
            with self._moved:
                while not (closed.is_set() or self._away or self.revision > after_revision):
                    self._moved.wait()
                fresh = [change for change in self.log if change.revision > after_revision]
                revision = self.revision
            if self.away:
                raise Unreachable("UNREACHABLE", "the control plane went away", code=grpc.StatusCode.UNAVAILABLE)
            yield from (change for change in fresh if not kinds or change.kind in kinds)
            yield Change(revision=revision)
            after_revision = revision

    def wake(self) -> None:
        """Let watches look whether they are closed."""
        with self._moved:
            self._moved.notify_all()

    def lease(self, known_attempt_ids: list[str], leases_max: int) -> list[Lease]:
        self._here("lease")
        known = set(known_attempt_ids)
        running = [r.attempts[-1] for r in self.retrains.values() if r.state == "RUNNING"]
        leases = [attempt.lease for attempt in running if attempt.lease.attempt_id not in known]
        models = {model.model_id: model for model in self.shown.models}
        live = {retrain.model_id for retrain in self.retrains.values() if retrain.live}
        waiting = [one for one in self.retrains.values() if one.state == "WAITING" and not one.held_by]
        count = len(running)
        for retrain in sorted(waiting, key=lambda r: (models[r.model_id].tier, r.retrain_id)):
            if count >= self.limits.running_max or len(leases) >= leases_max:
                break
            if self._upstream(retrain.model_id) & live:
                continue
            model, number = models[retrain.model_id], len(retrain.attempts) + 1
            lease = Lease(
                attempt_id=f"{retrain.retrain_id}_a{number}",
                retrain_id=retrain.retrain_id,
                model_id=model.model_id,
                lease_token=f"token-{retrain.retrain_id}-{number}",
                team=model.team,
                tier=model.tier,
                data_until=self.now,
                causes=("operator",),
            )
            retrain.attempts.append(Attempt(lease, self.now + LEASE_TTL))
            retrain.state = "RUNNING"
            leases.append(lease)
            count += 1
        self._changed()
        self._maybe_lose()
        return leases

    def renew(self, attempt_id: str, lease_token: str, run: str) -> None:
        self._here("renew")
        attempt = self._held(attempt_id, lease_token)
        attempt.expires_at, attempt.run = self.now + LEASE_TTL, run
        attempt.renewals += 1

    def register_version(self, lease: Lease, trained: TrainedVersion, run: str) -> int:
        self._here("register_version")
        attempt = self._held(lease.attempt_id, lease.lease_token)
        versions = self.versions.setdefault(lease.model_id, [])
        versions.append(trained)
        attempt.version = len(versions)
        self._changed()
        return len(versions)

    def report_success(self, lease: Lease, version: int, run: str, duration_s: float) -> None:
        self._here("report_success")
        attempt = self._held(lease.attempt_id, lease.lease_token)
        if attempt.version != version:
            raise InvalidRequest("INVALID_ARGUMENT", "not the version of this attempt")
        retrain = self._find(lease.attempt_id)[0]
        attempt.state, attempt.run, retrain.state = "SUCCEEDED", run, "VALIDATING"
        self._changed()

    def report_lineage(self, model_id: str, version: int, reads: Sequence[Read], run: str) -> None:
        self._here("report_lineage")
        if self.no_lineage:
            raise Unreachable("UNREACHABLE", "cannot reach the control plane", code=grpc.StatusCode.UNAVAILABLE)
        self.lineage.append((model_id, version, tuple(reads), run))

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
        self._here("report_failure")
        retrain, attempt = self._find(attempt_id)
        if attempt.state == "FAILED":
            return
        self._held(attempt_id, lease_token)
        attempt.run = run
        self._failed(retrain, attempt, failure, permanent=permanent)

    def report_started(self) -> None:
        self._here("report_started")
        self.calls_succeeded += 1

    def report_never_started(self, attempt_id: str, lease_token: str, failure: str, run: str) -> None:
        self._here("report_never_started")
        self.calls_failed += 1
        retrain, attempt = self._find(attempt_id)
        if attempt.state == "FAILED":
            return
        self._held(attempt_id, lease_token)
        attempt.run = run
        self._failed(retrain, attempt, failure, permanent=False)

    def report_validation(self, model_id: str, version: int, report: Validation | Evidence) -> Validated:
        self._here("report_validation")
        retrain = self._validating(model_id, version)
        found = judged(report) if isinstance(report, Evidence) else report
        self.validations.append((model_id, version, found))
        retrain.validation = found
        self._settle(retrain)
        return Validated(
            passed=found.passed and retrain.state != "REFUSED",
            promoted=retrain.state == "PROMOTED",
            validation=found,
        )

    def unchecked(self) -> list[Candidate]:
        self._here("unchecked")
        return [
            Candidate(
                rollout_id=f"ro_{retrain.retrain_id}",
                model_id=retrain.model_id,
                version=retrain.attempts[-1].version,
                checks=missing,
            )
            for retrain in self.retrains.values()
            if retrain.state == "VALIDATING" and (missing := self._missing(retrain))
        ]

    def report_check(self, model_id: str, version: int, name: str, *, passed: bool, explanation: str) -> None:
        self._here("report_check")
        retrain = self._validating(model_id, version)
        retrain.checks[name] = (passed, explanation)
        self._settle(retrain)

    def _validating(self, model_id: str, version: int) -> Retrain:
        retrain = self.retrain_of(model_id)
        if retrain.state != "VALIDATING" or retrain.attempts[-1].version != version:
            raise Refused("ROLLOUT_FINISHED", f"version {version} of {model_id} is not waiting for a validation")
        return retrain

    def _missing(self, retrain: Retrain) -> tuple[str, ...]:
        return tuple(name for name in self.checks.get(retrain.model_id, ()) if name not in retrain.checks)

    def _settle(self, retrain: Retrain) -> None:
        """A failed validation or check refuses; without either, and with all that were asked for, it is promoted."""
        failed = [why for passed, why in retrain.checks.values() if not passed]
        validation = retrain.validation
        if failed or (validation is not None and not validation.passed):
            retrain.state = "REFUSED"
            retrain.conclusion = failed[0] if failed else validation.explanation if validation else ""
        elif validation is not None and not self._missing(retrain):
            retrain.state, retrain.conclusion = "PROMOTED", validation.explanation
            self.production[retrain.model_id] = retrain.attempts[-1].version
            self.happened("AliasMoved", retrain.model_id)
        self._changed()

    def candidate_of_attempt(self, retrain_id: str, attempt_id: str) -> int | None:
        self._here("candidate_of_attempt")
        retrain = self.retrains[retrain_id]
        return self._find(attempt_id)[1].version if retrain.state == "VALIDATING" else None

    def waiting(self) -> list[Waiting]:
        self._here("waiting")
        return [
            Waiting(retrain_id=one.retrain_id, model_id=one.model_id, held_by=one.held_by)
            for one in self.retrains.values()
            if one.state == "WAITING"
        ]

    def hold_retrain(self, retrain_id: str, why: str) -> None:
        self._here("hold_retrain")
        self._held_by(retrain_id, "dagster", why)

    def release_retrain(self, retrain_id: str) -> None:
        self._here("release_retrain")
        self._held_by(retrain_id, "", "")

    def _held_by(self, retrain_id: str, who: str, why: str) -> None:
        retrain = self.retrains[retrain_id]
        if retrain.state != "WAITING":
            raise Refused("RETRAIN_NOT_WAITING", f"{retrain_id} waits no more")
        retrain.held_by, retrain.hold_reason = who, why

    def cancelled(self, retrain_id: str) -> str:
        self._here("cancelled")
        retrain = self.retrains[retrain_id]
        return retrain.conclusion if retrain.state == "CANCELLED" else ""

    def verdicts(self) -> list[Verdict]:
        self._here("verdicts")
        return [self.standing[model_id] for model_id in sorted(self.standing)]

    def productions(self) -> dict[str, int]:
        self._here("productions")
        return dict(self.production)

    def version(self, model_id: str, version: int) -> TrainedVersion:
        self._here("version")
        return self.versions[model_id][version - 1]

    def evaluate(self, model_id: str) -> Verdict:
        self._here("evaluate")
        return self.standing.get(model_id, Verdict(model_id=model_id, verdict="UNKNOWN"))

    def request_retrain(self, model_id: str, reason: str, request_id: str) -> str:
        self._here("request_retrain")
        if request_id not in self.requests:
            live = [r for r in self.retrains.values() if r.model_id == model_id and r.live]
            retrain = live[0] if live else Retrain(f"rt_{len(self.retrains) + 1:06d}", model_id)
            self.retrains[retrain.retrain_id] = retrain
            self.requests[request_id] = retrain.retrain_id
            self._changed()
        return self.requests[request_id]

    def _here(self, method: str) -> None:
        self.calls[method] += 1
        if self.away:
            raise Unreachable("UNREACHABLE", "cannot reach the control plane", code=grpc.StatusCode.UNAVAILABLE)

    def _maybe_lose(self) -> None:
        if self.lose_replies > 0:
            self.lose_replies -= 1
            raise Unreachable("UNREACHABLE", "the answer was lost", code=grpc.StatusCode.UNAVAILABLE)

    def _changed(self) -> None:
        self.happened("RetrainRequested")

    def _find(self, attempt_id: str) -> tuple[Retrain, Attempt]:
        for retrain in self.retrains.values():
            for attempt in retrain.attempts:
                if attempt.lease.attempt_id == attempt_id:
                    return retrain, attempt
        raise Refused("ATTEMPT_NOT_FOUND", f"there is no attempt {attempt_id}")

    def _held(self, attempt_id: str, lease_token: str) -> Attempt:
        attempt = self._find(attempt_id)[1]
        if attempt.state != "RUNNING" or attempt.lease.lease_token != lease_token:
            raise Refused("LEASE_LOST", f"{attempt_id} is over: {attempt.failure or attempt.state}")
        return attempt

    def _failed(
        self,
        retrain: Retrain,
        attempt: Attempt,
        failure: str,
        *,
        ended: Literal["FAILED", "EXPIRED"] = "FAILED",
        permanent: bool = False,
    ) -> None:
        attempt.state, attempt.failure = ended, failure
        over = permanent or len(retrain.attempts) >= ATTEMPTS_MAX
        retrain.state = "FAILED" if over else "WAITING"
        retrain.conclusion = failure if over else ""
        self._changed()

    def _upstream(self, model_id: str) -> set[str]:
        upstream, found, todo = self.shown.upstream(), set[str](), [f"model:{model_id}"]
        while todo:
            for node_id in upstream.get(todo.pop(), ()):
                if node_id not in found:
                    found.add(node_id)
                    todo.append(node_id)
        return {node_id.removeprefix("model:") for node_id in found if node_id.startswith("model:")}


class Session:
    """One connection to a `FakePlane`."""

    def __init__(self, plane: FakePlane) -> None:
        self._plane = plane
        self._closed = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plane, name)

    def changes(self, after_revision: int, kinds: Sequence[str]) -> Iterator[Change]:
        """Until this session is closed."""
        return self._plane.follow(after_revision, kinds, self._closed)

    def close(self) -> None:
        """End what this session follows."""
        self._closed.set()
        self._plane.wake()


def model(model_id: str, tier: int = 2, team: str = "ops", **facts: object) -> Model:
    return msgspec.convert(
        {"model_id": model_id, "owner": "ada@example.com", "team": team, "tier": tier, "task_type": "binary"} | facts,
        type=Model,
    )


def small_fleet() -> Fleet:
    """weather -> temp -> air_time -> {departure_delay, arrival_delay} -> gate desk."""
    return make_fleet(
        [
            model("air_time", 1, task_type="regression", age_backstop_days=30.0, description="Minutes in the air."),
            model("departure_delay", 2, consumers=("gate_desk",)),
            model("arrival_delay", 1, team="network", tags={"fleet": "flights", "who asked": "the board, 2013"}),
        ],
        [
            Node(kind="dataset", slug="weather", description="Hourly observations.", owner="team:data", team="data"),
            Node(kind="feature", slug="temp", team="data"),
            Node(kind="consumer", slug="gate_desk"),
        ],
        [
            Dependency(upstream=upstream, downstream=downstream)
            for upstream, downstream in (
                ("dataset:weather", "feature:temp"),
                ("feature:temp", "model:air_time"),
                ("model:air_time", "model:departure_delay"),
                ("model:air_time", "model:arrival_delay"),
                ("model:departure_delay", "model:arrival_delay"),
                ("model:departure_delay", "consumer:gate_desk"),
            )
        ],
    )
