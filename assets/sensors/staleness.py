"""Brings Runway's verdicts into Dagster: numbers that plot, and the state of the check `fresh`.

Only what changed is written, and a bounded number per tick: an observation and a check cost Dagster's storage 16 ms.
The cursor holds a short digest per model of what was last written.
"""

import hashlib

import dagster as dg
import msgspec
from runway_client import RunwayRpcError

from assets.fleet import Fleet
from assets.model_assets import Connect
from assets.plane import Verdict
from assets.verdicts import events_of

VERDICTS_PER_TICK_MAX = 50
"""Below one second of writing, so that a fleet of 500 is drawn within half a minute and no tick times out."""

EVERY_S = 3
DIGEST_CHARS = 8
SCORE_DIGITS = 3
"""A score that moved by less than this is not news."""


def staleness_sensor(fleet: Fleet, connect: Connect) -> dg.SensorDefinition:
    """The sensor; `fleet` is what this code location has loaded."""
    known_models = {model.model_id for model in fleet.models}

    @dg.sensor(
        name="show_staleness",
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Shows Runway's verdicts on the assets: scores over time and the check `fresh`.",
    )
    def show_staleness(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        plane = connect()
        try:
            verdicts = plane.verdicts()
        except RunwayRpcError as error:
            return dg.SensorResult(skip_reason=error.message)
        finally:
            plane.close()
        shown = read_cursor(context.cursor)
        changed = [
            verdict
            for verdict in verdicts
            if verdict.model_id in known_models and digest(verdict) != shown.get(verdict.model_id)
        ][:VERDICTS_PER_TICK_MAX]
        if not changed:
            return dg.SensorResult(skip_reason="No verdict changed.")
        for verdict in changed:
            for event in events_of(verdict):
                context.instance.report_runless_asset_event(event)
            shown[verdict.model_id] = digest(verdict)
        kept = {model_id: text for model_id, text in sorted(shown.items()) if model_id in known_models}
        return dg.SensorResult(
            skip_reason=f"Shown: {', '.join(sorted(verdict.model_id for verdict in changed))}.",
            cursor=msgspec.json.encode(kept).decode(),
        )

    return show_staleness


def read_cursor(text: str | None) -> dict[str, str]:
    """Model -> digest of what was last shown; empty for no cursor, or one of another age."""
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, str])
    except msgspec.DecodeError:
        return {}


def digest(verdict: Verdict) -> str:
    """Changes when there is something new to show."""
    score = None if verdict.score is None else round(verdict.score, SCORE_DIGITS)
    news = (verdict.verdict, score, verdict.version, verdict.top_feature, verdict.confidence)
    return hashlib.sha256(msgspec.json.encode(news)).hexdigest()[:DIGEST_CHARS]
