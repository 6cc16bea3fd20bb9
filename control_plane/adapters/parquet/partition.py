"""Joining a stretch of time when somebody asks for it, and saying what came of it.

What the store does by itself every hour is done at once: everything is sealed, and hours that wait for a join are
joined. An authoritative join marks every hour of the stretch as waiting first, so that each is counted again from all
its rows. Hours that the speed view still serves are left to it: they hold every row, and a later join replaces them.
"""

import time
from datetime import datetime

from control_plane.adapters.parquet.facts import Facts, hour_of
from control_plane.adapters.parquet.maintenance import Maintenance
from control_plane.adapters.parquet.reading import Reader
from control_plane.adapters.parquet.serving import whole_hours
from control_plane.app.fact_reports import JoinReport


def join_partition(
    facts: Facts,
    maintenance: Maintenance,
    reader: Reader,
    start: datetime,
    end: datetime,
    now: datetime,
    *,
    model_id: str,
    authoritative: bool,
) -> JoinReport:
    """See `FactStore.join_partition`."""
    first, last = whole_hours(start, end)
    began_s = time.process_time()
    joined_hours = 0
    if authoritative or _anything_new(facts, model_id, first, last, now):
        joined_hours = maintenance.finish(now)  # what lies in segments becomes files, and marks its hours
    if authoritative:
        _mark_all(facts, model_id, first, last)
        joined_hours = maintenance.finish(now)
    by_model, live = [], 0
    predicted = joined = late = orphans = 0
    for one in _models(facts, model_id):
        row = reader.coverage(one, None, start, end, now).total
        with facts.lock:
            live += sum(first <= hour < last for hour in facts.speed.hours(one))
        if row.predicted or row.orphans:
            by_model.append((one, row.predicted, row.joined + row.joined_early, row.coverage))
        predicted, joined = predicted + row.predicted, joined + row.joined + row.joined_early
        late, orphans = late + row.late, orphans + row.orphans
    return JoinReport(
        hours_joined=joined_hours,
        hours_live=live,
        predicted=predicted,
        joined=joined,
        late=late,
        orphans=orphans,
        cpu_s=time.process_time() - began_s,
        by_model=tuple(by_model),
    )


def _models(facts: Facts, model_id: str) -> list[str]:
    """The model asked for, or all of which there is anything."""
    if model_id:
        return [model_id]
    with facts.lock:
        stored = facts.catalog.db.execute("SELECT DISTINCT model_id FROM file_hours").fetchall()
        return sorted({*(str(row[0]) for row in stored), *facts.speed.models()})


def _anything_new(facts: Facts, model_id: str, first: int, last: int, now: datetime) -> bool:
    """Whether an hour that the speed view need not wait for is held by it, waits for a join, or has rows not sealed.

    Else there is nothing to do: who asks for many hours one by one should not have a segment closed for each.
    """
    now_us = int(now.timestamp()) * 1_000_000
    with facts.lock:
        facts.now_us = max(facts.now_us, now_us)
        models = [model_id] if model_id else facts.speed.models()
        waited = {one: facts.live_from(one) for one in models}
        live = [(one, hour) for one in models for hour in facts.speed.hours(one)]
        due = facts.catalog.db.execute(
            "SELECT model_id, hour FROM due WHERE hour >= ? AND hour < ? AND after_hour <= ?",
            (first, last, hour_of(now_us)),
        ).fetchall()
        late = [(one, hour) for one, _, hour in facts.late]
        unsealed = [
            (one, hour)
            for by_model in facts.unsealed_volumes.values()
            for one, hours in by_model.items()
            for hour in hours
        ]
        return any(
            first <= hour < last and model_id in ("", one) and hour < waited.get(one, last)
            for one, hour in (*live, *due, *late, *unsealed)
        )


def _mark_all(facts: Facts, model_id: str, first: int, last: int) -> None:
    """Every hour of which there are predictions waits for a join."""
    with facts.lock, facts.catalog.transaction():
        newest = facts.catalog.db.execute("SELECT coalesce(max(id), 0) FROM files").fetchone()[0]
        hours: dict[str, set[int]] = {}
        for one, hour in facts.catalog.db.execute(
            "SELECT DISTINCT model_id, hour FROM file_hours WHERE hour >= ? AND hour < ? AND (? = '' OR model_id = ?)",
            (first, last, model_id, model_id),
        ):
            hours.setdefault(one, set()).add(int(hour))
        for one, of_model in hours.items():
            facts.catalog.mark_due(one, of_model, int(newest))
