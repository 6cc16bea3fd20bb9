"""Columns of the tables that every engine shares: name and Delta type.

Hours count from 1970. `bucket` is the hash by which ids are sampled, x 256. Rows are partitioned by `day`: that of a
prediction's `predicted_at`, and for an outcome the day in its id, or that of its observation if the id carries none.
"""

from typing import Literal

TableKind = Literal["predictions", "outcomes"]
KINDS: tuple[TableKind, ...] = ("predictions", "outcomes")

COLUMNS: dict[TableKind, tuple[tuple[str, str], ...]] = {
    "predictions": (
        ("prediction_id", "binary"),
        ("predicted_at", "timestamp"),
        ("score", "double"),
        ("version", "integer"),
        ("model_id", "string"),
        ("hour", "integer"),
        ("bucket", "short"),
        ("arrival", "long"),
        ("source", "string"),
        ("slices", "string"),
        ("entity_id", "string"),
        ("day", "date"),
    ),
    "outcomes": (
        ("prediction_id", "binary"),
        ("observed_at", "timestamp"),
        ("value", "double"),
        ("revision", "integer"),
        ("label_type", "string"),
        ("late", "boolean"),
        ("model_id", "string"),
        ("hour", "integer"),
        ("bucket", "short"),
        ("arrival", "long"),
        ("source", "string"),
        ("day", "date"),
    ),
}

PARTIALS = "partials"
"""Table by which an engine beside us hands over what it joined: a row for each (model, label, hour) and layer,
absolute; the last one wins."""
LABELS_FILE = "labels.json"
"""Beside the tables: the labels of each model, written by the control plane."""
