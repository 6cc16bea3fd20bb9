"""The names a rule may use: one table, from which the environment of CEL, the documentation and DescribeRuleContext
come.

Words that have an order are whole numbers (`confidence >= MEDIUM`); words without one are texts under a name, so that
both `action == WAIT` and `action == 'WAIT'` are right. What is not known has a value that does no harm and a `.known`
that says so.
"""

from dataclasses import dataclass
from typing import Literal

TypeName = Literal[
    "bool",
    "int",
    "double",
    "string",
    "timestamp",
    "list(string)",
    "map(string, double)",
    "map(string, string)",
]

Value = bool | int | float | str
"""Of a constant."""

ITEMS_MAX = 20
"""Entries of a list or map of the context: what a loop over one can cost. Features come strongest first."""

FAR_DAYS = 36_500.0
"""`forecast.days` where no crossing is in sight."""

LONG_HOURS = 1_000_000.0
"""`retrain.hours_since` where no retrain ever ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextField:
    """A name of the context."""

    name: str
    type: TypeName
    description: str
    example: str


def _field(name: str, type: TypeName, description: str, example: str) -> ContextField:  # noqa: A002 - the table's word
    return ContextField(name=name, type=type, description=description, example=example)


FIELDS: tuple[ContextField, ...] = (
    _field("verdict", "int", "The verdict after hysteresis: UNKNOWN < FRESH < AT_RISK < STALE.", "verdict == STALE"),
    _field("level", "int", "What this look alone says, in the same words.", "level >= AT_RISK"),
    _field("confidence", "int", "How much the look stands on: LOW < MEDIUM < HIGH.", "confidence >= MEDIUM"),
    _field("score", "double", "Staleness score, 0 (good) to 1.", "score > 0.8"),
    _field("score_low", "double", "The score if every missing signal were best.", "score_low >= threshold"),
    _field("score_high", "double", "The score if every missing signal were worst.", "score_high < threshold"),
    _field("threshold", "double", "Score from which on the policy says STALE.", "score > threshold + 0.1"),
    _field("action", "string", "What the look recommends: RETRAIN, ALERT_DATA_OWNER, WAIT or NONE.", "action == WAIT"),
    _field("hard_trigger", "bool", "Something made it STALE whatever the score.", "hard_trigger"),
    _field("data_quality", "int", "Faults of the data that no retrain can mend.", "data_quality == 0"),
    _field("tier", "int", "1 (most critical) to 4.", "tier <= 2"),
    _field("team", "string", "The model's team.", "team == 'flights'"),
    _field("owner", "string", "Its owner; empty if there is none.", "owner == ''"),
    _field("model", "string", "Its id.", "model.startsWith('crew_')"),
    _field("task", "string", "BINARY, REGRESSION, EMBEDDING, MULTICLASS or RANKING.", "task == EMBEDDING"),
    _field("tags", "map(string, string)", "Its tags.", "'cost' in tags && tags['cost'] == 'high'"),
    _field("lifecycle", "string", "REGISTERED, ACTIVE or DEPRECATED.", "lifecycle == DEPRECATED"),
    _field("version", "int", "The version in production.", "version > 1"),
    _field("gpu_hours", "double", "What a retrain costs, as the owner says.", "gpu_hours < 8"),
    _field("age", "double", "Age signal, 0 to 1.", "age > 0.9"),
    _field("age.known", "bool", "", "age.known"),
    _field("age_days", "double", "Days since the training data ended.", "age_days > 30"),
    _field("input_drift", "double", "Input drift signal, 0 to 1.", "input_drift > 0.5"),
    _field("input_drift.known", "bool", "", "input_drift.known"),
    _field("prediction_drift", "double", "Prediction drift signal, 0 to 1.", "prediction_drift > 0.5"),
    _field("prediction_drift.known", "bool", "", "prediction_drift.known"),
    _field("concept_drift", "double", "Concept drift signal, 0 to 1.", "concept_drift > 0.3"),
    _field("concept_drift.known", "bool", "", "concept_drift.known"),
    _field("performance", "double", "Performance signal, 0 to 1.", "performance > 0.5"),
    _field("performance.known", "bool", "", "!performance.known"),
    _field(
        "performance.drop",
        "double",
        "How much worse the primary metric is than at training, in its own units; positive is worse.",
        "performance.drop > 0.02",
    ),
    _field(
        "performance.source",
        "string",
        "What it was measured on: LABELS, PROXY, DOWNSTREAM or ESTIMATE; empty if not known.",
        "performance.source == LABELS",
    ),
    _field("metric_drop", "map(string, double)", "The same for every metric by name.", "metric_drop.auc > 0.01"),
    _field(
        "drifted_features",
        "list(string)",
        "Drifted features, strongest first.",
        "drifted_features.exists(f, f == 'temp')",
    ),
    _field("psi", "map(string, double)", "Debiased PSI of the top features.", "'temp' in psi && psi.temp > 0.3"),
    _field("psi_raw", "map(string, double)", "The same, not debiased.", "'temp' in psi_raw && psi_raw.temp > 0.3"),
    _field(
        "slice_drift",
        "map(string, double)",
        "Input drift by slice.",
        "slice_drift.exists(s, s.startsWith('country=') && slice_drift[s] > 0.5)",
    ),
    _field("season.expected", "bool", "All that drifted is usual for the time of the year.", "!season.expected"),
    _field("season.known", "bool", "There is history of the same period, and something drifted.", "season.known"),
    _field(
        "embeddings.incompatible",
        "bool",
        "An upstream model's embeddings moved further than two trainings of one do.",
        "embeddings.incompatible",
    ),
    _field("coverage.alert", "bool", "Too little of the truth that should be known has arrived.", "!coverage.alert"),
    _field(
        "forecast.days",
        "double",
        f"Days until the score reaches the threshold; 0 if it has, {FAR_DAYS:,.0f} if that is not in sight.",
        "forecast.days < 3",
    ),
    _field("consumers.count", "int", "Models and applications that use the output.", "consumers.count > 10"),
    _field("consumers.tier1", "int", "Tier 1 models among them.", "consumers.tier1 > 0"),
    _field("retrain.live", "bool", "A retrain is under way.", "!retrain.live"),
    _field(
        "retrain.hours_since",
        "double",
        f"Hours since the last retrain ended; {LONG_HOURS:,.0f} if there was none.",
        "retrain.hours_since > 48",
    ),
    _field(
        "retrain.failed_in_a_row",
        "int",
        "How many retrains in a row ended failed or refused, up to the last.",
        "retrain.failed_in_a_row >= 2",
    ),
    _field("now", "timestamp", "When the look was taken.", "now.getMonth() == 11"),
    _field("hour_utc", "int", "Hour of the day of it, 0 to 23, UTC.", "hour_utc >= 22 || hour_utc < 6"),
    _field("weekday", "int", "Day of the week of it, 1 (Monday) to 7, UTC.", "weekday <= 5"),
)

CONSTANTS: dict[str, Value] = {
    "UNKNOWN": 0,
    "FRESH": 1,
    "AT_RISK": 2,
    "STALE": 3,
    "LOW": 1,
    "MEDIUM": 2,
    "HIGH": 3,
    **{
        word: word
        for word in (
            *("RETRAIN", "ALERT_DATA_OWNER", "WAIT", "NONE"),
            *("LABELS", "PROXY", "DOWNSTREAM", "ESTIMATE"),
            *("BINARY", "REGRESSION", "EMBEDDING", "MULTICLASS", "RANKING"),
            *("REGISTERED", "ACTIVE", "DEPRECATED"),
        )
    },
}
"""Words; those with an order are numbers."""

TYPES: dict[str, TypeName] = {
    **{field.name: field.type for field in FIELDS},
    **{name: "int" if isinstance(value, int) else "string" for name, value in CONSTANTS.items()},
}
"""Type of every name."""


def described() -> list[ContextField]:
    """All names for people: the fields, with what `.known` means, then the words."""
    fields = [
        field
        if field.description
        else ContextField(
            name=field.name,
            type=field.type,
            description=f"False: {field.name.partition('.')[0]} is not known, and its value is 0.",
            example=field.example,
        )
        for field in FIELDS
    ]
    words = [
        ContextField(
            name=name,
            type=TYPES[name],
            description=f"The number {value}." if isinstance(value, int) else f"The text '{value}'.",
            example=name,
        )
        for name, value in CONSTANTS.items()
    ]
    return [*fields, *words]
