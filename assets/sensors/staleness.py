"""Brings Runway's verdicts into Dagster: numbers that plot, and the state of the check `fresh`.

Verdicts are fetched when the watch of this process has heard that one changed. Scores move between two verdicts, and
that is no event (an evaluation that changes nothing is not logged), so now and then they are fetched unasked.

Only what changed is written, and a bounded number per tick: an observation and a check cost Dagster's storage 16 ms.
The cursor holds a short digest per model of what was last written.
"""

import hashlib
from collections.abc import Callable

import dagster as dg
import msgspec
from runway_client import RunwayRpcError

from assets.fleet import Fleet
from assets.following import News, Topic
from assets.plane import Connect, Verdict
from assets.verdicts import events_of

VERDICTS_PER_TICK_MAX = 50
"""Below one second of writing, so that a fleet of 500 is drawn within half a minute and no tick times out."""

EVERY_S = 3

SCORES_EVERY_S = 15.0
"""How often scores are fetched though no verdict changed."""

DIGEST_CHARS = 8
SCORE_DIGITS = 3
PSI_DIGITS = 2
"""A score or PSI that moved by less than this is not news."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The cursor."""

    digests: dict[str, str] = {}
    """Model -> digest of what was last shown."""
    revision: int = -1
    """The newest change of verdicts that was looked at."""
    looked_s: float = 0.0
    """Wall-clock seconds."""
    more: bool = False
    """The last look found more than one tick writes."""


def staleness_sensor(fleet: Fleet, connect: Connect, news: News, clock: Callable[[], float]) -> dg.SensorDefinition:
    """The sensor; `fleet` is what this code location has loaded, `clock` gives wall-clock seconds."""
    known_models = {model.model_id for model in fleet.models}

    @dg.sensor(
        name="show_staleness",
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Shows Runway's verdicts on the assets: scores over time and the check `fresh`.",
    )
    def show_staleness(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        shown, now_s = read_cursor(context.cursor), clock()
        changed = news.changed(Topic.VERDICTS, shown.revision)
        if changed is None and not shown.more and 0 <= now_s - shown.looked_s < SCORES_EVERY_S:
            return dg.SensorResult(skip_reason="No verdict changed.")
        plane = connect()
        try:
            verdicts = plane.verdicts()
        except RunwayRpcError as error:
            return dg.SensorResult(skip_reason=error.message)
        finally:
            plane.close()
        digests = {model_id: text for model_id, text in shown.digests.items() if model_id in known_models}
        fresh = [
            verdict
            for verdict in verdicts
            if verdict.model_id in known_models and digest(verdict) != digests.get(verdict.model_id)
        ]
        for verdict in fresh[:VERDICTS_PER_TICK_MAX]:
            for event in events_of(verdict):
                context.instance.report_runless_asset_event(event)
            digests[verdict.model_id] = digest(verdict)
        after = Shown(
            digests=dict(sorted(digests.items())),
            revision=shown.revision if changed is None else changed,
            looked_s=now_s,
            more=len(fresh) > VERDICTS_PER_TICK_MAX,
        )
        names = ", ".join(sorted(verdict.model_id for verdict in fresh[:VERDICTS_PER_TICK_MAX]))
        return dg.SensorResult(
            skip_reason=f"Shown: {names}." if names else "No verdict changed.",
            cursor=msgspec.json.encode(after).decode(),
        )

    return show_staleness


def read_cursor(text: str | None) -> Shown:
    """The cursor; a blank one for none, or one of another age."""
    try:
        return msgspec.json.decode(text or "{}", type=Shown)
    except msgspec.DecodeError:
        return Shown()


def digest(verdict: Verdict) -> str:
    """Changes when there is something new to show."""
    score = None if verdict.score is None else round(verdict.score, SCORE_DIGITS)
    psi = None if verdict.top_psi is None else round(verdict.top_psi, PSI_DIGITS)
    news = (verdict.verdict, score, verdict.version, verdict.top_feature, psi, verdict.confidence, verdict.rules)
    return hashlib.sha256(msgspec.json.encode(news)).hexdigest()[:DIGEST_CHARS]
