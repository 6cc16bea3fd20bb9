"""A small fleet with a history on a real server: predictions by the hour, outcomes soon after, a jump of inputs."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
from runway_client import (
    OutcomeBatch,
    PredictionBatch,
    Runway,
    Why,
    messages,
    outcome_batch,
    prediction_batch,
    prediction_ids,
    to_duration,
    to_timestamp,
)

BORN = datetime(2013, 3, 1, tzinfo=UTC)
DAYS = 14
DRIFT_DAY = 6
PER_HOUR = 60
EDGES = [float(edge) for edge in np.linspace(0.1, 0.9, 9)]
PROFILE = json.dumps(
    {
        "features": {"wind": {"kind": "numeric", "edges": EDGES, "counts": [2_000] * 10 + [0]}},
        "prediction": {"edges": EDGES, "counts": [2_000] * 10},
    }
).encode()


def tell_history(client: Runway) -> None:
    """`delay` drifts on the seventh day, `calm` does not; `late` is promoted when half of the history is over."""
    client.operations.advance_clock(BORN)
    for model_id in ("delay", "calm", "late"):
        client.registry.register_model(
            messages.Model(
                model_id=model_id,
                owner="anna@example.com",
                team="flight_ops",
                tier=messages.TIER_2,
                task_type=messages.TASK_TYPE_BINARY,
                policies=messages.Policies(
                    label=messages.LabelSpec(window=to_duration(timedelta(days=1))),
                    # What really happened must not depend on how fast the evaluator of the test's server is.
                    retraining=messages.RetrainingPolicy(automatic=False),
                ),
            )
        )
    for model_id in ("delay", "calm"):
        promote(client, model_id, BORN)
    for day in range(DAYS):
        if day == DAYS // 2:
            promote(client, "late", BORN + timedelta(days=day))
        for model_id in ("delay", "calm"):
            send_day(client, model_id, day)
        client.operations.advance_clock(BORN + timedelta(days=day + 1))


def promote(client: Runway, model_id: str, trained_until: datetime) -> None:
    """The first version, into production by force."""
    version = client.registry.register_version(
        messages.ModelVersion(
            model_id=model_id,
            artifact_uri=f"file:///{model_id}",
            artifact_sha256="0" * 64,
            trained_until=to_timestamp(trained_until),
            metrics=[messages.Metric(name="auc", value=0.8, standard_error=0.01, sample_size=2_000)],
        ),
        reference_profile=PROFILE,
    )
    client.rollouts.promote_version(model_id, version.version, force=True, why=Why(reason="first"))


def send_day(client: Runway, model_id: str, day: int) -> None:
    """A day of predictions and their outcomes."""
    rows = 24 * PER_HOUR
    rng = np.random.default_rng([day, len(model_id)])
    drifted = model_id == "delay" and day >= DRIFT_DAY
    start = np.datetime64((BORN + timedelta(days=day)).replace(tzinfo=None), "us")
    at = start + np.arange(rows) * np.timedelta64(3_600_000_000 // PER_HOUR, "us")
    ids = prediction_ids(at, np.arange(rows) + day * rows)
    wind = rng.random(rows) * (0.4 if drifted else 1.0)
    score = rng.random(rows)
    value = rng.random(rows) < (0.5 if drifted else 0.1 + 0.8 * score)
    predictions = PredictionBatch(
        batch_id=f"p-{model_id}-{day}",
        model_id=model_id,
        version=1,
        arrow_ipc=prediction_batch(ids, at, score, {"wind": wind}),
    )
    outcomes = OutcomeBatch(
        batch_id=f"o-{model_id}-{day}",
        model_id=model_id,
        arrow_ipc=outcome_batch(ids, at + np.timedelta64(2, "h"), value.astype(np.float64)),
    )
    for answer in (*client.ingest_predictions(iter([predictions])), *client.ingest_outcomes(iter([outcomes]))):
        assert answer.refused is None, answer
