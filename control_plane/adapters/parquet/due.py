"""Which hours a pass joins.

Hours are due when rows of theirs came in since they were joined, and the speed view does not serve them. An hour that
was never joined is joined by the next pass. One that was, and got late outcomes since, is joined again, with all its
rows; at ten billion rows a day and labels that trickle in for a week that would be seventy billion rows an hour. So a
pass joins at most `REJOINED_ROWS_MAX` rows again, of those hours first whose last join lies back furthest for their
age: an hour of six days ago waits six times as long as one of yesterday. Until then its late outcomes are told as late.
A pass that somebody asked for, and the daily authoritative join, leaves nothing out.
"""

from control_plane.adapters.parquet.facts import Facts
from control_plane.core.ground_truth.ids import MICROSECONDS_PER_HOUR, NO_HOUR

JOB_ROWS_MAX = 2_000_000
"""Rows joined in one tick, but for an hour that is larger by itself. Twice as many cost a tenth more each: their hash
tables leave the cache."""
JOB_HOURS_MAX = 2_048
"""Hours joined in one tick: a day of a fleet of 85 models."""
REJOINED_ROWS_MAX = 400_000_000
"""Rows joined again in one pass: some three minutes of a core. A small fleet never gets near it."""

Hour = tuple[str, int]


class DueHours:
    """The hours of one pass after the other; asked with the facts' lock held."""

    def __init__(self, facts: Facts, *, rejoined_rows_max: int = REJOINED_ROWS_MAX) -> None:
        self._facts = facts
        self._rejoined_rows_max = rejoined_rows_max
        self._postponed: frozenset[Hour] | None = frozenset()

    def begin(self, *, all_of_them: bool) -> None:
        """A pass begins."""
        self._postponed = frozenset() if all_of_them else None

    def some(self, now_us: int) -> list[Hour]:
        """The next hours of the pass, by model and hour, within the limits of one job; empty if there are no more."""
        due = self._due(now_us)
        if self._postponed is None:
            self._postponed = self._left_out(due, now_us)
        chosen: list[Hour] = []
        total = 0
        for hour, rows in due:
            if hour in self._postponed:
                continue
            if chosen and (total + rows > JOB_ROWS_MAX or len(chosen) >= JOB_HOURS_MAX):
                break
            chosen.append(hour)
            total += rows
        return chosen

    def _due(self, now_us: int) -> list[tuple[Hour, int]]:
        """Due hours that the speed view does not serve, with their rows of both sides."""
        speed = self._facts.speed
        live = {model_id: set(speed.hours(model_id)) for model_id in speed.models()}
        return [
            ((str(model_id), int(hour)), int(rows))
            for model_id, hour, rows in self._facts.catalog.db.execute(
                "SELECT d.model_id, d.hour, (SELECT coalesce(sum(h.rows), 0) FROM file_hours h "
                "WHERE h.model_id = d.model_id AND h.hour = d.hour AND h.kind IN ('predictions', 'outcomes')) "
                "FROM due d WHERE d.after_hour <= ? ORDER BY d.model_id, d.hour",
                (now_us // MICROSECONDS_PER_HOUR,),
            ).fetchall()
            if (hour == NO_HOUR or hour < speed.horizon(model_id)) and hour not in live.get(model_id, ())
        ]

    def _left_out(self, due: list[tuple[Hour, int]], now_us: int) -> frozenset[Hour]:
        """Hours that were joined before and can wait for a later pass."""
        if sum(rows for _, rows in due) <= self._rejoined_rows_max:
            return frozenset()
        joined = {
            (str(model_id), int(hour)): int(at_us)
            for model_id, hour, at_us in self._facts.catalog.db.execute(
                "SELECT j.model_id, j.hour, j.joined_us FROM joined_hours j "
                "JOIN due d ON d.model_id = j.model_id AND d.hour = j.hour"
            )
        }

        def waited(hour: Hour) -> float:
            age_us = max(MICROSECONDS_PER_HOUR, now_us - hour[1] * MICROSECONDS_PER_HOUR)
            return (now_us - joined[hour]) / age_us

        again = sorted(
            ((hour, rows) for hour, rows in due if hour in joined), key=lambda one: (-waited(one[0]), one[0])
        )
        left_out = []
        total = 0
        for hour, rows in again:
            total += rows
            if total > self._rejoined_rows_max:
                left_out.append(hour)
        return frozenset(left_out)
