"""Tables of the catalogue.

Counts are keyed by one integer, `series << 32 | hour` (or day): ranges of a series are read in order, and old ones are
deleted without a scan. A series is a version's predictions, all or one slice of them, binned by one profile.
"""

import numpy as np

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, path TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL,
    hour_max INTEGER NOT NULL, sliced INTEGER NOT NULL, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS merging (path TEXT PRIMARY KEY, kind TEXT NOT NULL, old TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forgotten (path TEXT PRIMARY KEY, after_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS file_hours (
    model_id TEXT NOT NULL, kind TEXT NOT NULL, hour INTEGER NOT NULL, file_id INTEGER NOT NULL, rows INTEGER NOT NULL,
    PRIMARY KEY (model_id, kind, hour, file_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS file_hours_by_file ON file_hours (file_id);
CREATE TABLE IF NOT EXISTS hours_in_ids (
    model_id TEXT NOT NULL, hour_in_id INTEGER NOT NULL, hour INTEGER NOT NULL,
    PRIMARY KEY (model_id, hour_in_id, hour)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hours_in_ids_by_hour ON hours_in_ids (model_id, hour);
CREATE TABLE IF NOT EXISTS volumes (
    model_id TEXT NOT NULL, hour INTEGER NOT NULL, predictions INTEGER NOT NULL,
    PRIMARY KEY (model_id, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tiers (model_id TEXT PRIMARY KEY, tier INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hour_rates (
    model_id TEXT NOT NULL, hour INTEGER NOT NULL, rate REAL NOT NULL, PRIMARY KEY (model_id, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS source_hours (
    model_id TEXT NOT NULL, kind TEXT NOT NULL, label_type TEXT NOT NULL, source TEXT NOT NULL, hour INTEGER NOT NULL,
    rows INTEGER NOT NULL, PRIMARY KEY (model_id, kind, label_type, source, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS due (
    model_id TEXT NOT NULL, hour INTEGER NOT NULL, file_id INTEGER NOT NULL, after_hour INTEGER NOT NULL,
    PRIMARY KEY (model_id, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS joined_hours (
    model_id TEXT NOT NULL, hour INTEGER NOT NULL, joined_us INTEGER NOT NULL,
    PRIMARY KEY (model_id, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (key BLOB PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, model_id TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL,
    slice TEXT NOT NULL, UNIQUE (model_id, version, digest, slice));
CREATE TABLE IF NOT EXISTS hour_counts (key INTEGER PRIMARY KEY, rows INTEGER NOT NULL, cells BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS day_counts (key INTEGER PRIMARY KEY, rows INTEGER NOT NULL, cells BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS day_fine_counts (key INTEGER PRIMARY KEY, cells BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sent_counts (
    series INTEGER NOT NULL, hour INTEGER NOT NULL, producer TEXT NOT NULL, slice TEXT NOT NULL,
    rows INTEGER NOT NULL, content BLOB NOT NULL, cells BLOB NOT NULL,
    PRIMARY KEY (series, hour, producer, slice)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent_batches (
    key BLOB PRIMARY KEY, hour INTEGER NOT NULL, content BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sent_batches_by_hour ON sent_batches (hour);
CREATE TABLE IF NOT EXISTS slices (
    model_id TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (model_id, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS partials (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, hour INTEGER NOT NULL, version INTEGER NOT NULL,
    layer TEXT NOT NULL, packed BLOB NOT NULL,
    PRIMARY KEY (model_id, label_type, hour, version, layer)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS partial_times (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, hour INTEGER NOT NULL, computed_us INTEGER NOT NULL,
    PRIMARY KEY (model_id, label_type, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS beliefs (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, hour INTEGER NOT NULL, computed_us INTEGER NOT NULL,
    version INTEGER NOT NULL, layer TEXT NOT NULL, bucket INTEGER NOT NULL, packed BLOB NOT NULL,
    PRIMARY KEY (model_id, label_type, hour, computed_us, version)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS beliefs_by_time ON beliefs (computed_us);
CREATE TABLE IF NOT EXISTS passes (at_us INTEGER PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS day_partials (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, day INTEGER NOT NULL, version INTEGER NOT NULL,
    layer TEXT NOT NULL, hours INTEGER NOT NULL, kept REAL NOT NULL, computed_us INTEGER NOT NULL, packed BLOB NOT NULL,
    PRIMARY KEY (model_id, label_type, day, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stale_days (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, day INTEGER NOT NULL,
    PRIMARY KEY (model_id, label_type, day)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slice_partials (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, hour INTEGER NOT NULL, slice TEXT NOT NULL,
    version INTEGER NOT NULL, packed BLOB NOT NULL,
    PRIMARY KEY (model_id, label_type, hour, slice, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orphan_hours (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, hour INTEGER NOT NULL, orphans INTEGER NOT NULL,
    PRIMARY KEY (model_id, label_type, hour)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tombstones (hash INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS erasing (request_id TEXT PRIMARY KEY, begun BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erased (request_id TEXT PRIMARY KEY, done BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orphans (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, hour INTEGER NOT NULL, prediction_id BLOB NOT NULL,
    observed_us INTEGER NOT NULL, value REAL NOT NULL, revision INTEGER NOT NULL,
    PRIMARY KEY (model_id, label_type, hour, prediction_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS labels (
    model_id TEXT NOT NULL, label_type TEXT NOT NULL, spec BLOB NOT NULL,
    PRIMARY KEY (model_id, label_type)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS first_labels (model_id TEXT PRIMARY KEY, label_type TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reference_profiles (
    model_id TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (model_id, version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS horizons (model_id TEXT PRIMARY KEY, hour INTEGER NOT NULL) WITHOUT ROWID;
"""

_WIDTHS = (1, 2, 4, 8)


def key_of(series: int, hour_or_day: int) -> int:
    """The key of one row of counts."""
    return series << 32 | hour_or_day


def pack_counts(counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> bytes:
    """The narrowest unsigned integers that hold all counts, after a byte that says how narrow: most hours need one
    byte a cell, and adding them up needs no decoding."""
    largest = int(counts.max(initial=0))
    width = next(width for width in _WIDTHS if largest < 256**width)
    return bytes([width]) + counts.astype(f"<u{width}").tobytes()


def unpack_counts(packed: bytes) -> np.ndarray[tuple[int], np.dtype[np.unsignedinteger]]:
    """The counts, as narrow as they were stored."""
    return np.frombuffer(packed, f"<u{packed[0]}", offset=1)
