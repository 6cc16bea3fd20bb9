"""What is old goes: whole days of rows, counts, orphans past their listing, and files that nothing needs any more.

A file leaves the Delta table and the catalogue first and the disk after `GRACE`: whoever opened the table before, of
this process or of another engine, may still be reading it.
"""

from datetime import timedelta

from control_plane.adapters.parquet.binning import HOURS_PER_DAY
from control_plane.adapters.parquet.facts import Facts, hour_of
from control_plane.adapters.parquet.sources import KEPT_HOURS, forget_sources
from control_plane.core.ground_truth.tables import KINDS

GRACE = timedelta(hours=1)
"""How long a file that does not count any more can still be read: longer than any query."""
MICROSECOND = timedelta(microseconds=1)


def drop_old(
    facts: Facts,
    now_us: int,
    *,
    keep: timedelta,
    hours_keep: timedelta,
    counts_keep: timedelta,
    orphans_keep: timedelta,
) -> int:
    """Forget files of days that are older than what is kept, counts and listed orphans; how many files."""
    hours_before = hour_of(now_us - hours_keep // MICROSECOND)
    days_before = hour_of(now_us - counts_keep // MICROSECOND) // HOURS_PER_DAY
    with facts.lock:
        old = facts.catalog.files_before(hour_of(now_us - keep // MICROSECOND))
    for kind in KINDS:
        gone = {path.partition("/")[2] for of, path in old if of == kind}
        if gone:
            files = facts.tables.files(kind)
            facts.tables.commit(kind, (), removed=[file for file in files if file.path in gone])
    with facts.lock, facts.catalog.transaction():
        facts.catalog.forget_files([path for _, path in old], delete_after_us=now_us + GRACE // MICROSECOND)
        if days_before != facts.catalog.meta("counts_dropped_day"):
            facts.histograms.drop_before(hours_before, days_before)
            facts.catalog.db.execute("DELETE FROM sent_batches WHERE hour < ?", (days_before * HOURS_PER_DAY,))
            facts.catalog.set_meta("counts_dropped_day", max(0, days_before))
        forget_sources(facts.catalog.db, hour_of(now_us) - KEPT_HOURS)
        facts.catalog.db.execute("DELETE FROM orphans WHERE observed_us < ?", (now_us - orphans_keep // MICROSECOND,))
    return len(old)


def delete_forgotten(facts: Facts, now_us: int) -> None:
    """Delete the files whose grace is over. One that cannot be deleted now is tried again by the next pass."""
    with facts.lock:
        paths = facts.catalog.forgotten(now_us)
    for path in paths:
        facts.tables.place.delete(path)
    if paths:
        with facts.lock, facts.catalog.transaction():
            facts.catalog.deleted(paths)
