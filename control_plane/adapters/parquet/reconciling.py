"""What the Delta tables hold, the catalogue knows: checked whenever a store opens.

The tables are the truth about rows, the catalogue an index of them beside everything else that it keeps. A crash leaves
the two apart only where somebody wrote down what was under way (a conversion, a merge), and is finished from there. A
catalogue that was lost (`catalog.sqlite` is gone) is made anew from the tables: files, hours, label types, slices; all
hours are joined again. What it held beside that and no table has, is gone with it: counts by reference profiles are
made anew when the profile is set, ids of batches are not known any more (their rows are: a batch sent again still
changes no answer), hours of a sample count as whole.

Files that another engine wrote in place of ours (an OPTIMIZE) are entered in their place. Files that it added on its
own account are its own to join.
"""

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from control_plane.adapters.parquet.catalog import FileEntry
from control_plane.adapters.parquet.compaction import Compaction
from control_plane.adapters.parquet.facts import Facts
from control_plane.adapters.parquet.retention import GRACE, MICROSECOND
from control_plane.adapters.parquet.sealing import HOURS_PER_DAY, SLICES_SEPARATOR
from control_plane.adapters.parquet.tables import OTHER_DAY, TableFile
from control_plane.core.errors import Reason, Unavailable
from control_plane.core.ground_truth.ids import ID_BYTES, IdColumns, id_columns, id_hours
from control_plane.core.ground_truth.tables import KINDS, TableKind

_CONVERTED = re.compile(r"(\d{10})-(\d{10})\.parquet$")
_OURS = re.compile(r"/(\d{10}-\d{10}|merged-[^/]*|erased-[^/]*)\.parquet$")


def reconcile(facts: Facts) -> int:
    """Bring the catalogue to what the tables hold; how many files it did not know.

    Raises:
        Unavailable: the tables are not those of this catalogue, or cannot be read.
    """
    Compaction(facts).recover()
    known = {str(row[0]) for row in facts.catalog.db.execute("SELECT path FROM files WHERE kind <> 'features'")}
    counted: dict[str, tuple[TableKind, TableFile]] = {}
    for kind in KINDS:
        for file in facts.tables.files(kind):
            counted[facts.tables.path(kind, file.path)] = (kind, file)
        facts.log.start_after(facts.tables.committed(kind))
    if known and not counted:
        raise Unavailable(
            Reason.STORE_UNAVAILABLE,
            f"the catalogue in {facts.root} lists {len(known)} files, the tables at {facts.tables.place.url} none: set "
            "the url under which they were written, or restore them",
        )
    lost = known - counted.keys()
    lost_days = {path.split("/")[1] for path in lost}
    new = [
        (path, *found)
        for path, found in sorted(counted.items())
        if path not in known and (_OURS.search(path) or path.split("/")[1] in lost_days) and not _under_way(facts, path)
    ]
    if lost:
        after_us = facts.catalog.meta("passed_us") + GRACE // MICROSECOND
        with facts.catalog.transaction():
            facts.catalog.forget_files(sorted(lost), delete_after_us=after_us)
    for path, kind, file in new:
        _enter(facts, path, kind, file, with_volumes=not known)
    if not known and new:
        _enter_features(facts)
    return len(new)


def _under_way(facts: Facts, path: str) -> bool:
    """Its segments are still here: the conversion that wrote it will be finished, with the same segments."""
    found = _CONVERTED.search(path)
    if found is None:
        return False
    first, last = int(found[1]), int(found[2])
    sealed = facts.catalog.meta("sealed_segment")
    if not any(first <= number <= last and number > sealed for number in facts.log.numbers()):
        return False
    with facts.catalog.transaction():
        facts.catalog.set_meta("sealing_from", first)
        facts.catalog.set_meta("sealing_to", last)
    return True


def _enter(facts: Facts, path: str, kind: TableKind, file: TableFile, *, with_volumes: bool) -> None:
    """Read what the catalogue must know of a file, and tell it."""
    rows = pq.read_table(
        facts.tables.place.local(path),
        columns=["model_id", "hour", "prediction_id", "slices" if kind == "predictions" else "label_type"],
        partitioning=None,
        read_dictionary=["model_id", "slices", "label_type"],
    )
    counts, pairs = _hours(rows)
    sliced = kind == "predictions" and rows.column("slices").null_count < rows.num_rows
    newest = max((hour for _, hour in counts), default=-1)
    last_hour = newest if file.day == OTHER_DAY else _last_hour(file)
    entry = FileEntry(
        kind=kind,
        path=path,
        rows=counts,
        hours_in_ids=frozenset(pairs) if kind == "predictions" else frozenset(),
        sliced=sliced,
        size=file.size,
        last_hour=last_hour,
    )
    with facts.catalog.transaction():
        facts.catalog.add_file(entry)
        if kind == "predictions" and with_volumes:
            for (model_id, hour), count in counts.items():
                facts.catalog.add_volume(model_id, hour, count)
    for model_id in pc.unique(rows.column("model_id")).to_pylist():
        of_model = rows.filter(pc.equal(rows.column("model_id"), model_id))
        if kind == "outcomes":
            for label_type in pc.unique(of_model.column("label_type")).to_pylist():
                facts.note_label(model_id, label_type)
        elif sliced:
            texts = pc.unique(of_model.column("slices")).to_pylist()
            facts.admitted(model_id, [name for text in texts if text for name in text.split(SLICES_SEPARATOR) if name])


def _last_hour(file: TableFile) -> int:
    return (file.day - OTHER_DAY).days * HOURS_PER_DAY + HOURS_PER_DAY - 1


def _hours(rows: pa.Table) -> tuple[dict[tuple[str, int], int], set[tuple[str, int, int]]]:
    """Rows by (model, hour), and (model, hour in id, hour)."""
    models = rows.column("model_id").unify_dictionaries().combine_chunks()
    names = models.dictionary.to_pylist()
    model = models.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    hour = rows.column("hour").to_numpy().astype(np.int64)
    in_id = id_hours(read_ids(rows))
    distinct, counts = np.unique(np.stack([model, hour, in_id]), axis=1, return_counts=True)
    found: Counter[tuple[str, int]] = Counter()
    pairs = set()
    for (at, of, inside), count in zip(distinct.T.tolist(), counts.tolist(), strict=True):
        found[(names[at], of)] += count
        pairs.add((names[at], inside, of))
    return dict(found), pairs


def read_ids(rows: pa.Table) -> IdColumns:
    """The ids of a table of rows; other engines write them as bytes of any length."""
    column = rows.column("prediction_id").cast(pa.binary(ID_BYTES)).combine_chunks()
    raw = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * ID_BYTES :][: len(column) * ID_BYTES]
    return id_columns(raw.reshape(-1, ID_BYTES))


def _enter_features(facts: Facts) -> None:
    """Features beside the tables: by model and hour, so that a profile can be counted."""
    for path in facts.tables.place.paths("features"):
        file = facts.tables.place.local(path)
        rows = pq.read_table(
            file, columns=["model_id", "hour", "prediction_id"], partitioning=None, read_dictionary=["model_id"]
        )
        counts, _ = _hours(rows)
        entry = FileEntry(
            kind="features", path=path, rows=counts, hours_in_ids=frozenset(), sliced=False, size=file.stat().st_size
        )
        with facts.catalog.transaction():
            facts.catalog.add_file(entry, due=False)
