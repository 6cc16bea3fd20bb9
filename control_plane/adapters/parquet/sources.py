"""Who sends what, by the hour: so that a sender who falls silent is seen, and named.

Counted by the time in the rows (when a prediction was made, when an outcome was observed), not by the clock of the
server: a history loaded in an hour still shows its rhythm, and what is read again after a crash counts the same.
Rows of open segments are in memory and read again at a start; those of sealed ones are in the catalogue.
"""

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.serving import instant_of
from control_plane.app.fact_reports import SourceActivity
from control_plane.core.ground_truth.missing import SourceHours

KEPT_HOURS = 120 * 24
"""How long the hours of a sender are kept: the longest window, and a month that says what is usual."""
Key = tuple[str, str, str, str]
"""(model id, kind, label type, source)."""


def enter_sources(db: sqlite3.Connection, counted: dict[Key, dict[int, int]]) -> None:
    """Add what a segment counted; inside the transaction in which it is sealed."""
    db.executemany(
        "INSERT INTO source_hours VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET rows = rows + excluded.rows",
        [(*key, hour, rows) for key, hours in counted.items() for hour, rows in hours.items()],
    )


def forget_sources(db: sqlite3.Connection, before_hour: int) -> None:
    """Delete hours that are too old to say anything."""
    db.execute("DELETE FROM source_hours WHERE hour < ?", (before_hour,))


def outcome_sources(facts: Facts, model_id: str, label_type: str, first: int, last: int) -> tuple[SourceHours, ...]:
    """When outcomes of first <= hour < last were observed, by sender; hold the facts' lock."""
    found: dict[str, dict[int, int]] = {}
    for source, hour, rows in facts.catalog.db.execute(
        "SELECT source, hour, rows FROM source_hours "
        "WHERE model_id = ? AND kind = 'outcomes' AND label_type = ? AND hour >= ? AND hour < ?",
        (model_id, label_type, first, last),
    ):
        found.setdefault(source, {})[int(hour)] = int(rows)
    for of_segment in facts.unsealed_sources.values():
        for (model, kind, label, source), hours in of_segment.items():
            if (model, kind, label) == (model_id, "outcomes", label_type):
                of_source = found.setdefault(source, {})
                for hour, rows in hours.items():
                    if first <= hour < last:
                        of_source[hour] = of_source.get(hour, 0) + rows
    return tuple(
        SourceHours(source=source, hours=tuple(sorted(hours)), rows=tuple(rows for _, rows in sorted(hours.items())))
        for source, hours in sorted(found.items())
        if hours
    )


def labels_with_outcomes(facts: Facts, model_id: str) -> dict[str, int]:
    """Outcomes by label type, as long as hours of senders are kept; hold the facts' lock."""
    found = {
        str(label): int(rows)
        for label, rows in facts.catalog.db.execute(
            "SELECT label_type, sum(rows) FROM source_hours WHERE model_id = ? AND kind = 'outcomes' "
            "GROUP BY label_type",
            (model_id,),
        )
    }
    for of_segment in facts.unsealed_sources.values():
        for (model, kind, label, _), hours in of_segment.items():
            if (model, kind) == (model_id, "outcomes"):
                found[label] = found.get(label, 0) + sum(hours.values())
    return found


@dataclass(slots=True)
class _Sent:
    predictions: int = 0
    outcomes: int = 0
    last_prediction: int = -1
    last_outcome: int = -1

    def add(self, kind: str, rows: int, last: int) -> None:
        if kind == "predictions":
            self.predictions += rows
            self.last_prediction = max(self.last_prediction, last)
        else:
            self.outcomes += rows
            self.last_outcome = max(self.last_outcome, last)


def source_activity(facts: Facts, model_id: str = "") -> tuple[SourceActivity, ...]:
    """What each sender sent of each model (or of one), by source and model; hold the facts' lock."""
    found: dict[tuple[str, str], _Sent] = {}
    where, wanted = ("WHERE model_id = ? ", (model_id,)) if model_id else ("", ())
    for model, kind, source, rows, last in facts.catalog.db.execute(
        f"SELECT model_id, kind, source, sum(rows), max(hour) FROM source_hours {where}"  # noqa: S608 - a constant
        "GROUP BY model_id, kind, source",
        wanted,
    ):
        found.setdefault((source, model), _Sent()).add(kind, int(rows), int(last))
    for of_segment in facts.unsealed_sources.values():
        for (model, kind, _, source), hours in of_segment.items():
            if model_id in ("", model):
                found.setdefault((source, model), _Sent()).add(kind, sum(hours.values()), max(hours))
    return tuple(
        SourceActivity(
            source=source,
            model_id=model,
            predictions=sent.predictions,
            outcomes=sent.outcomes,
            last_predictions_at=_end(sent.last_prediction),
            last_outcomes_at=_end(sent.last_outcome),
        )
        for (source, model), sent in sorted(found.items())
    )


def _end(hour: int) -> datetime | None:
    """The end of the hour of the newest row."""
    return None if hour < 0 else instant_of(hour + 1)
