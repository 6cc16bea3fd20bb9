"""Orphans and the state of ingest as messages."""

from datetime import UTC, datetime, timedelta

from runway.v1 import facts_pb2

from control_plane.api.convert.common import timestamp
from control_plane.app.fact_reports import Orphan, SourceActivity
from control_plane.app.ground_truth import SampledModel
from control_plane.core.ground_truth.batch import IMPUTED_OFFSET

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def orphan_outcome(orphan: Orphan) -> facts_pb2.OrphanOutcome:
    """An outcome without its prediction; a guessed one with the revision that its sender gave."""
    revision = orphan.revision - IMPUTED_OFFSET if orphan.revision < 0 else orphan.revision
    return facts_pb2.OrphanOutcome(
        prediction_id=orphan.prediction_id,
        label_type=orphan.label_type,
        observed_at=timestamp(_EPOCH + timedelta(microseconds=orphan.observed_us)),
        value=orphan.value,
        revision=revision,
    )


def sampled_model(model: SampledModel, speed_rate: float) -> facts_pb2.SampledModel:
    """A model of which less than everything is kept."""
    return facts_pb2.SampledModel(
        model_id=model.model_id,
        tier=model.tier,
        policy_rate=model.policy_rate,
        ingest_rate=model.rate,
        speed_rate=speed_rate,
    )


def ingest_source(activity: SourceActivity, silent: bool) -> facts_pb2.IngestSource:
    """What one sender sent of one model."""
    return facts_pb2.IngestSource(
        source=activity.source,
        model_id=activity.model_id,
        predictions=activity.predictions,
        outcomes=activity.outcomes,
        last_predictions_at=timestamp(activity.last_predictions_at),
        last_outcomes_at=timestamp(activity.last_outcomes_at),
        silent=silent,
    )
