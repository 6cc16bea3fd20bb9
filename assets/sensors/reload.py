"""Makes a newly registered model appear without a restart: reloads this code location when the fleet it draws changed.

A look costs nothing: the watch of this process knows the newest revision at which anything that is drawn changed. Only
when that moved is the whole fleet fetched and compared with what is loaded. A reload starts a fresh server beside this
one, so it is asked for once the fleet has stood still between two looks (or has not for `SETTLE_S_MAX`), and never
again within `AGAIN_S`. It is asked for from a thread, because this very process ends when it succeeds and the tick must
have been answered by then.
"""

import threading
import time
from collections.abc import Callable

import dagster as dg
import msgspec
from runway_client import RunwayRpcError

from assets.fleet import Fleet
from assets.following import News, Topic
from assets.plane import Connect

EVERY_S = 2

SETTLE_S_MAX = 10.0
"""A fleet that is being registered changes for seconds; a viewer waits no longer than this for its first models."""

AGAIN_S = 30.0
"""Longer than a reload of the largest fleet takes."""

Reload = Callable[[dg.SensorEvaluationContext], str]
"""Asks for the reload; returns a sentence."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The cursor: what the last looks found, wall-clock seconds."""

    revision: int = -1
    """The newest change of the fleet that was looked at."""
    pending: str = ""
    """Fingerprint of a fleet that differs from what is loaded; empty if none does."""
    pending_since_s: float = 0.0
    asked_s: float = 0.0


def reload_sensor(
    fleet: Fleet, connect: Connect, news: News, reload: Reload, clock: Callable[[], float]
) -> dg.SensorDefinition:
    """The sensor; `fleet` is what this code location has loaded, `clock` gives wall-clock seconds."""
    loaded = fleet.fingerprint()

    @dg.sensor(
        name="reload_when_the_fleet_changes",
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reloads this code location when models or their dependencies changed in Runway.",
    )
    def reload_when_the_fleet_changes(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        seen, now_s = read_cursor(context.cursor), clock()
        changed = news.changed(Topic.FLEET, seen.revision)
        if changed is None and not seen.pending:
            return dg.SensorResult(skip_reason="Nothing changed.")
        current = seen.pending
        if changed is not None:
            plane = connect()
            try:
                current = plane.fleet().fingerprint()
            except RunwayRpcError as error:
                return dg.SensorResult(skip_reason=error.message)
            finally:
                plane.close()
            seen = msgspec.structs.replace(seen, revision=changed)
        after, due = step(seen, current, loaded, now_s)
        said = "Nothing that is drawn changed." if current == loaded else "The fleet changed; waiting for it to settle."
        if due:
            said = reload(context)
        return dg.SensorResult(skip_reason=said, cursor=msgspec.json.encode(after).decode())

    return reload_when_the_fleet_changes


def step(seen: Seen, current: str, loaded: str, now_s: float) -> tuple[Seen, bool]:
    """The cursor after a look at the fleet, and whether to reload now."""
    if current == loaded:
        return msgspec.structs.replace(seen, pending="", pending_since_s=0.0), False
    since_s = seen.pending_since_s if seen.pending else now_s
    settled = seen.pending == current or now_s - since_s >= SETTLE_S_MAX
    due = settled and now_s - seen.asked_s >= AGAIN_S
    after = msgspec.structs.replace(seen, pending=current, pending_since_s=since_s)
    return (msgspec.structs.replace(after, asked_s=now_s) if due else after), due


def read_cursor(text: str | None) -> Seen:
    """The cursor; a blank one for none, or one of another age."""
    try:
        return msgspec.json.decode(text or "{}", type=Seen)
    except msgspec.DecodeError:
        return Seen()


def reload_in_background(context: dg.SensorEvaluationContext) -> str:
    """Ask the code server that this sensor runs in to load its code again."""
    origin = context.code_location_origin
    create = getattr(origin, "create_client", None)
    if create is None:
        return "The fleet changed. This code location cannot reload itself: reload it in the UI under Deployment."
    thread = threading.Thread(target=create().reload_code, kwargs={"timeout": 600}, name="reload code", daemon=True)
    thread.start()
    return "The fleet changed: reloading this code location."


def wall_clock() -> float:
    """Seconds since the epoch; compared across restarts, so monotonic time does not serve."""
    return time.time()
