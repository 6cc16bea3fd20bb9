"""What is known about a flight at its scheduled departure: 26 features, each with the datasets it comes from.

Nothing here looks ahead: weather is the reading at the start of the scheduled hour, delays of other flights count only
once they have really left or landed (`tests/dagster/flights` changes the future and compares).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assets.flights.data import ORIGINS, Instants, cached, column, flights, read_source
from assets.flights.reading import FEATURES as FEATURES_READER
from assets.flights.reading import note, read_by, recording

Floats = npt.NDArray[np.float64]

CACHE_NAME = "features-2013-v3.parquet"
READS_METADATA = b"runway.reads"
"""Of the table's schema: which datasets each feature was made from, as JSON; it stays with the table in the cache."""

DATASETS: Mapping[str, str] = {
    "weather": "Hourly readings at the three airports",
    "schedule": "Flights as they were scheduled",
    "planes": "Register of planes by tail number",
    "airports": "Airports with place and time zone",
    "operations": "Departures and landings as they happen",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A feature: where it comes from, and whether its values are categories."""

    name: str
    dataset: str
    description: str
    categorical: bool = False


def _feature(name: str, dataset: str, description: str, *, categorical: bool = False) -> Feature:
    return Feature(name=name, dataset=dataset, description=description, categorical=categorical)


FEATURES: tuple[Feature, ...] = (
    _feature("temp", "weather", "Temperature, degrees Fahrenheit"),
    _feature("dewp", "weather", "Dew point, degrees Fahrenheit"),
    _feature("humid", "weather", "Relative humidity, percent"),
    _feature("wind_dir", "weather", "Wind direction, degrees"),
    _feature("wind_speed", "weather", "Wind speed, miles per hour"),
    _feature("wind_gust", "weather", "Gusts, miles per hour; missing when there are none"),
    _feature("precip", "weather", "Precipitation, inches"),
    _feature("pressure", "weather", "Sea level pressure, millibars"),
    _feature("visib", "weather", "Visibility, miles"),
    _feature("hour", "schedule", "Local hour of the scheduled departure"),
    _feature("dow", "schedule", "Day of the week, Monday is 0"),
    _feature("distance", "schedule", "Miles to the destination"),
    _feature("carrier", "schedule", "Airline", categorical=True),
    _feature("dest", "schedule", "Destination", categorical=True),
    _feature("origin", "schedule", "Airport of departure", categorical=True),
    _feature("departures_hour", "schedule", "Flights scheduled from the airport in that hour"),
    _feature("plane_age", "planes", "Years since the plane was built"),
    _feature("seats", "planes", "Seats of the plane"),
    _feature("engines", "planes", "Engines of the plane"),
    _feature("manufacturer", "planes", "Maker of the plane", categorical=True),
    _feature("dest_longitude", "airports", "Longitude of the destination, degrees"),
    _feature("dest_altitude", "airports", "Altitude of the destination, feet"),
    _feature("incoming_delay", "operations", "Arrival delay of the plane's last known leg, minutes"),
    _feature("incoming_age", "operations", "Hours since that leg landed"),
    _feature("origin_delay_3h", "operations", "Mean departure delay at the airport over three hours, minutes"),
    _feature("carrier_delay_24h", "operations", "Mean departure delay of the airline over a day, minutes"),
)
FEATURE = {feature.name: feature for feature in FEATURES}
WEATHER = tuple(feature.name for feature in FEATURES if feature.dataset == "weather")
INCOMING_HOURS_MAX = 24
"""A plane seen longer ago than this says nothing about today."""


@cache
def features() -> pa.Table:
    """Features of all flights in the order of `flights()`; categories as strings. Made once, then cached."""
    return cached(CACHE_NAME, lambda: compute(flights()))


def compute(table: pa.Table) -> pa.Table:
    """Features of these flights, which are ordered by scheduled departure. Pure."""
    found: dict[str, Any] = {}
    sources: dict[str, tuple[str, ...]] = {}
    for make in (_weather, _schedule, _planes, _airports, _operations):
        with recording() as reads:
            made = make(table)
        found |= made
        sources |= dict.fromkeys(made, read_by(reads, FEATURES_READER))
    computed = pa.table({feature.name: pa.array(found[feature.name], from_pandas=True) for feature in FEATURES})
    return computed.replace_schema_metadata({READS_METADATA: json.dumps(sources)})


def sources_of_features() -> dict[str, tuple[str, ...]]:
    """Node ids of the datasets each feature was really made from."""
    kept = (features().schema.metadata or {}).get(READS_METADATA, b"{}")
    return {name: tuple(datasets) for name, datasets in json.loads(kept).items()}


def _weather(table: pa.Table) -> dict[str, Floats]:
    """The reading at the start of the scheduled hour; missing hours stay missing."""
    readings = read_source("weather")
    keys = _airport_hour(column(readings, "origin"), column(readings, "time_hour"))
    order = np.argsort(keys, kind="stable")
    wanted = _airport_hour(column(table, "origin"), column(table, "scheduled"))
    at = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    hit = keys[order][at] == wanted
    return {name: np.where(hit, column(readings, name).astype(np.float64)[order][at], np.nan) for name in WEATHER}


def _airport_hour(origin: npt.NDArray[Any], when: Instants) -> npt.NDArray[np.int64]:
    place = np.zeros(len(origin), np.int64)
    for number, name in enumerate(ORIGINS):
        place[origin == name] = number
    return when.astype("datetime64[h]").astype(np.int64) * len(ORIGINS) + place


def _schedule(table: pa.Table) -> dict[str, Any]:
    note("dataset:schedule", FEATURES_READER)
    keys = _airport_hour(column(table, "origin"), column(table, "scheduled"))
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return {
        "hour": column(table, "hour"),
        "dow": column(table, "dow"),
        "distance": column(table, "distance"),
        "carrier": column(table, "carrier"),
        "dest": column(table, "dest"),
        "origin": column(table, "origin"),
        "departures_hour": counts[inverse].astype(np.float64),
    }


def _planes(table: pa.Table) -> dict[str, Any]:
    register = read_source("planes")
    place = {tail: at for at, tail in enumerate(column(register, "tailnum"))}
    at = np.array([place.get(tail, -1) for tail in column(table, "tailnum")])
    known = at >= 0

    def number(name: str) -> Floats:
        return np.where(known, column(register, name).astype(np.float64)[at], np.nan)

    makers = column(register, "manufacturer")
    return {
        "plane_age": 2013 - number("year"),
        "seats": number("seats"),
        "engines": number("engines"),
        "manufacturer": np.where(known, makers[at], None),
    }


def _airports(table: pa.Table) -> dict[str, Floats]:
    register = read_source("airports")
    place = {code: at for at, code in enumerate(column(register, "faa"))}
    at = np.array([place.get(code, -1) for code in column(table, "dest")])
    return {
        "dest_longitude": np.where(at >= 0, column(register, "lon")[at], np.nan),
        "dest_altitude": np.where(at >= 0, column(register, "alt").astype(np.float64)[at], np.nan),
    }


def _operations(table: pa.Table) -> dict[str, Floats]:
    note("dataset:operations", FEATURES_READER)
    scheduled, departed = column(table, "scheduled"), column(table, "departed")
    dep_delay = column(table, "dep_delay")
    delay, age = _incoming(table)
    return {
        "incoming_delay": delay,
        "incoming_age": age,
        "origin_delay_3h": _rolling(column(table, "origin"), departed, dep_delay, scheduled, np.timedelta64(3, "h")),
        "carrier_delay_24h": _rolling(
            column(table, "carrier"), departed, dep_delay, scheduled, np.timedelta64(24, "h")
        ),
    }


def _incoming(table: pa.Table) -> tuple[Floats, Floats]:
    """Arrival delay of the plane's latest leg that had landed by the scheduled departure, and hours since."""
    scheduled, arrived = column(table, "scheduled"), column(table, "arrived")
    tail, arr_delay = column(table, "tailnum"), column(table, "arr_delay")
    delay, age = np.full(len(scheduled), np.nan), np.full(len(scheduled), np.nan)
    for rows in _groups(tail):
        landed = rows[~np.isnat(arrived[rows])]
        landed = landed[np.argsort(arrived[landed], kind="stable")]
        if not len(landed):
            continue
        last = np.searchsorted(arrived[landed], scheduled[rows], side="right") - 1
        leg = landed[np.maximum(last, 0)]
        hours = (scheduled[rows] - arrived[leg]) / np.timedelta64(1, "h")
        known = (last >= 0) & (hours <= INCOMING_HOURS_MAX)
        delay[rows] = np.where(known, arr_delay[leg], np.nan)
        age[rows] = np.where(known, hours, np.nan)
    return delay, age


def _rolling(
    group: npt.NDArray[Any], happened: Instants, value: Floats, asked: Instants, span: np.timedelta64
) -> Floats:
    """Mean of `value` over what happened in the group within `span` up to each `asked`; NaN where nothing did.

    A flight's own value never counts: one that leaves early has left when it is asked about.
    """
    found = np.full(len(asked), np.nan)
    for rows in _groups(group):
        past = rows[~np.isnat(happened[rows])]
        past = past[np.argsort(happened[past], kind="stable")]
        sums = np.concatenate([[0.0], np.cumsum(value[past])])
        last = np.searchsorted(happened[past], asked[rows], side="right")
        first = np.searchsorted(happened[past], asked[rows] - span, side="right")
        own = (happened[rows] <= asked[rows]) & (happened[rows] > asked[rows] - span)
        count = last - first - own
        total = sums[last] - sums[first] - np.where(own, value[rows], 0.0)
        found[rows] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def _groups(keys: npt.NDArray[Any]) -> list[npt.NDArray[np.int64]]:
    """Rows of each distinct key, ascending; rows without a key are left out."""
    known = np.flatnonzero(np.array([key is not None for key in keys]))
    _, inverse = np.unique(keys[known].astype(str), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    cuts = np.flatnonzero(np.diff(inverse[order])) + 1
    return [known[part] for part in np.split(order, cuts)]
