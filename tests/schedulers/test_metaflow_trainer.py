"""Metaflow's Runner inside an op: one run for each attempt, tagged with it."""

import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest

from assets.metaflow_trainer import FlowFailedError, MetaflowTrainer
from assets.plane import Validation
from assets.trainer import TrainingOrder

with warnings.catch_warnings():
    # Metaflow's own vendored packages warn when they are imported.
    warnings.simplefilter("ignore")
    import metaflow.runner.metaflow_runner  # noqa: F401
    from metaflow.client import core

pytestmark = pytest.mark.slow

FLOW = Path(__file__).parent / "flows" / "versioned.py"


def an_order(attempt: str, model: str = "eta") -> TrainingOrder:
    return TrainingOrder(
        model_id=model,
        attempt_id=attempt,
        retrain_id="rt_1",
        data_until=datetime(2026, 3, 2, tzinfo=UTC),
        causes=("STALE",),
    )


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MetaflowTrainer:
    told = {
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(tmp_path),
        "METAFLOW_HOME": str(tmp_path / "home"),
        "METAFLOW_DEFAULT_METADATA": "local",
        "METAFLOW_DEFAULT_DATASTORE": "local",
        "METAFLOW_USER": "anna",
    }
    for name, text in told.items():
        monkeypatch.setenv(name, text)
    (tmp_path / ".metaflow").mkdir()
    core.metadata(f"local@{tmp_path}")
    return MetaflowTrainer(
        FLOW, "Versioned", lambda order, version, say: Validation(passed=True, metric="auc", candidate=0.8), told
    )


def test_an_attempt_is_trained_once_and_tagged(trainer: MetaflowTrainer) -> None:
    said: list[str] = []
    made = trainer.train(an_order("rt_1_a1"), said.append)
    assert (made.artifact_uri, made.artifact_size_bytes) == ("s3://models/rt_1_a1", 12)
    assert [(metric.name, metric.value) for metric in made.metrics] == [("auc", 0.8)]
    assert trainer.train(an_order("rt_1_a1"), said.append) == made
    assert "was trained before" in said[1]
    assert said[0] == said[2]
    assert trainer.train(an_order("rt_1_a2"), said.append).artifact_uri == "s3://models/rt_1_a2"


def test_a_flow_that_fails_or_says_nothing_is_a_failure_in_a_sentence(trainer: MetaflowTrainer) -> None:
    with pytest.raises(FlowFailedError, match="the flow Versioned ended failed"):
        trainer.train(an_order("rt_2_a1", "broken"), print)
    with pytest.raises(FlowFailedError, match="says nothing of what it made"):
        trainer.train(an_order("rt_3_a1", "silent"), print)
