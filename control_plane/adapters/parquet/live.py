"""The speed view's hours as others may have them: packed, with the rate that they are of."""

from datetime import datetime

from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.serving import mature_before_hour
from control_plane.app.fact_reports import LiveHour
from control_plane.core.ground_truth.partials import pack


def live_hours(facts: Facts, model_id: str, now: datetime) -> tuple[LiveHour, ...]:
    """A model's live hours, of all its labels, by hour. The caller holds the lock."""
    found = []
    for hour in facts.speed.hours(model_id):
        rate = facts.speed.rate(model_id, hour)
        for spec in facts.labels_of(model_id):
            partials = facts.speed.partials(model_id, spec, hour, mature_before_hour(spec, now)) or {}
            packed = {version: pack(partial) for version, partial in partials.items()}
            found.append(LiveHour(model_id=model_id, label_type=spec.label_type, hour=hour, rate=rate, packed=packed))
    return tuple(found)
