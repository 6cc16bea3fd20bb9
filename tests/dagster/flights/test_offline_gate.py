"""The flights' own trainer, real artifacts and the real control plane: what the gate makes of real evidence."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from runway_cli.main import run
from runway_client import Runway, connect, messages, to_duration

from assets.attempt import Outcome, run_attempt
from assets.flights import bootstrap, training
from assets.flights.artifacts import load
from assets.flights.embedding import fit_routes, reconstruction_difference_error, reconstruction_r2
from assets.flights.fleet import FIRST_DAY, with_upstream
from assets.flights.mishap import mix_up_file
from assets.flights.training import TRAINER, rows_between
from assets.grpc_plane import GrpcPlane
from assets.plane import Evidence, TrainedVersion, Validation
from assets.trainer import Trainer, TrainingOrder
from tests.api.served_plane import ServedPlane

MODEL = "air_time"
POLICIES = messages.Policies(
    validation=messages.ValidationPolicy(margin=1.0, slice_margin=2.0, latency_ms_max=60_000.0, size_mb_max=100.0),
    rollout=messages.RolloutPolicy(approvals=0),
    retraining=messages.RetrainingPolicy(cooldown=to_duration(timedelta(0))),
)


@pytest.fixture(scope="module")
def runway(tmp_path_factory: pytest.TempPathFactory, year_features: pa.Table) -> Iterator[Runway]:
    """The fleet in production, as `make up` leaves it on its first day; small trainings."""
    with pytest.MonkeyPatch.context() as patch:
        served = ServedPlane(tmp_path_factory.mktemp("plane"), patch)
        try:
            served.start()
            patch.setattr(training, "ROWS_MAX", 2_000)
            # Of the fourteen only the one under test and what it stands on.
            patch.setattr(bootstrap, "FLEET", with_upstream(MODEL))
            with connect(served.address, "tests") as found:
                bootstrap.register(found)
                assert bootstrap.bring_into_production(found) == len(with_upstream(MODEL))
                found.operations.advance_clock(FIRST_DAY + timedelta(hours=1))
                yield found
            served.stop()
        finally:
            served.close()


@pytest.fixture(autouse=True)
def address(runway: Runway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the trainer looks for Runway."""
    monkeypatch.setenv("RUNWAY_ADDRESS", runway.address)


def retrained(runway: Runway, policies: messages.Policies, trainer: Trainer = TRAINER) -> Outcome:
    """One attempt of the model, with nothing replaced but Dagster."""
    runway.policies.set_policies(f"model:{MODEL}", policies)
    runway.retraining.request_retrain(MODEL, ignore_cooldown=True)
    plane = GrpcPlane(runway.address, retry_for_s=0.0)
    try:
        [lease] = plane.lease([], 1)
        return run_attempt(lease, plane, lambda: trainer, "run-1", lambda sentence: None)
    finally:
        plane.close()


def production(runway: Runway) -> int:
    return runway.registry.get_model(MODEL).aliases["production"]


def page(runway: Runway, rollout_id: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a person sees of it, in one line."""
    capsys.readouterr()
    assert run(["--address", runway.address, "rollouts", "show", rollout_id]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_shuffled_labels_are_refused_and_kept_with_all_that_was_measured(
    runway: Runway, capsys: pytest.CaptureFixture[str]
) -> None:
    before = production(runway)
    mix_up_file().touch()
    outcome = retrained(runway, POLICIES)
    assert (outcome.passed, outcome.promoted, production(runway)) == (False, False, before)
    [refused] = runway.rollouts.list_rollouts(model_id=MODEL, states=[messages.ROLLOUT_STATE_REFUSED])
    seen = refused.validation
    assert (refused.version, seen.metric) == (outcome.version, "mae")
    assert seen.candidate > seen.production + 1.0
    assert seen.sample_size > 1_000
    assert 0 < seen.standard_error < 1.0
    checks = {check.name: check for check in seen.checks}
    assert {"rows", "primary", "latency", "size", "load"} <= set(checks)
    assert checks["load"].passed
    assert checks["latency"].passed
    assert checks["latency"].value > 0
    assert any(name.startswith("slice:origin=") and not check.passed for name, check in checks.items())
    assert not checks["primary"].passed
    # The version is kept, with its artifact, and a person reads why.
    version = runway.registry.get_version(MODEL, version=outcome.version)
    assert load(version.artifact_uri, version.artifact_sha256).model_id == MODEL
    shown = page(runway, refused.rollout_id, capsys)
    assert f"v{outcome.version} of {MODEL} was refused; v{before} stays in production" in shown
    assert "worse by more than 1, for sure" in shown
    assert "look at what it was trained on" in shown
    assert "FAILED" in shown
    assert shown.count("for sure") == 3  # how it ended, its check, its story; not over and over


def test_a_good_candidate_passes_unless_it_breaks_a_budget(runway: Runway, capsys: pytest.CaptureFixture[str]) -> None:
    before = production(runway)
    tight = messages.Policies()
    tight.CopyFrom(POLICIES)
    tight.validation.latency_ms_max, tight.validation.size_mb_max = 0.001, 0.001
    outcome = retrained(runway, tight)
    assert (outcome.passed, production(runway)) == (False, before)
    refused = next(iter(runway.rollouts.list_rollouts(model_id=MODEL)))
    assert {check.name for check in refused.validation.checks if not check.passed} == {"latency", "size"}
    shown = page(runway, refused.rollout_id, capsys)
    assert "make it faster, or raise validation.latency_ms_max" in shown

    outcome = retrained(runway, POLICIES)
    assert (outcome.passed, outcome.promoted, production(runway)) == (True, True, outcome.version)
    promoted = next(iter(runway.rollouts.list_rollouts(model_id=MODEL)))
    assert all(check.passed for check in promoted.validation.checks)


class Careless:
    """Trains as the fleet does, and something happens to what it stored before anybody has read it."""

    def train(self, order: TrainingOrder, say: Callable[[str], None]) -> TrainedVersion:
        trained = TRAINER.train(order, say)
        Path(urlsplit(trained.artifact_uri).path).write_bytes(b"half an art")
        return trained

    def validate(self, order: TrainingOrder, version: int, say: Callable[[str], None]) -> Evidence | Validation:
        return TRAINER.validate(order, version, say)


def test_an_artifact_that_cannot_be_loaded_refuses_its_candidate(runway: Runway) -> None:
    before = production(runway)
    outcome = retrained(runway, POLICIES, Careless())
    assert (outcome.passed, production(runway)) == (False, before)
    assert "it does not load from where it was stored" in outcome.validation.explanation
    assert "the registry says" in outcome.validation.explanation


def test_the_error_of_two_embeddings_is_paired_by_route(year_features: pa.Table) -> None:
    early = fit_routes(rows_between(FIRST_DAY - timedelta(days=30), FIRST_DAY - timedelta(days=20)))
    later = fit_routes(rows_between(FIRST_DAY - timedelta(days=30), FIRST_DAY - timedelta(days=10)))
    rows = rows_between(FIRST_DAY - timedelta(days=10), FIRST_DAY)
    assert reconstruction_difference_error(early, early, rows) == 0.0
    error = reconstruction_difference_error(early, later, rows)
    difference = reconstruction_r2(early, rows)[0] - reconstruction_r2(later, rows)[0]
    assert 0 < error < 0.1
    assert abs(difference) < 6 * error
    assert np.isclose(error, reconstruction_difference_error(later, early, rows))
