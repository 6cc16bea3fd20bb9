"""The fleet as its trainers need it: 14 models, what each predicts, reads and consumes, and how long it is trained.

What people declare of them (owners, teams, tiers, policies, consumers, descriptions) is in `fleet/*.yaml`, and a test
holds the two together.

route_embedding --+--> air_time ----------------+--> arrival_delay_* --+--> missed_connection_*
plane_reliability +--> departure_delay_* -------+                      +--> crew_overtime
weather_disruption ---> departure_delay_*
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from assets.flights.features import WEATHER

Task = Literal["binary", "regression", "embedding"]
Label = Literal["dep_delay_15", "dep_delay_60", "arr_delay_15", "arr_delay_45", "air_time", "elapsed", "none"]

EMBEDDING_SIZE = 4
"""Numbers per route that models read from the embedding."""

HISTORY = timedelta(days=59)
"""A retrain looks at about two months."""
HOLDOUT = timedelta(days=10)
"""The newest part of that is kept from training: candidate and production are compared on it."""

FIRST_DAY = datetime(2013, 3, 1, tzinfo=UTC)
"""The first versions are trained on January and February; the replay begins here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightModel:
    """One model of the fleet. `origin` empty: all three airports."""

    model_id: str
    task: Task
    label: Label
    features: tuple[str, ...]
    upstream: tuple[str, ...] = ()
    origin: str = ""
    iterations: int = 60
    """Boosting rounds."""

    @property
    def metric(self) -> str:
        """What the model is judged by."""
        return {"binary": "auc", "regression": "mae", "embedding": "reconstruction_r2"}[self.task]

    @property
    def output(self) -> str:
        """The name under which consumers read its output; the same for the three airports."""
        return self.model_id.removesuffix(f"_{self.origin.lower()}") if self.origin else self.model_id


SCHEDULE = ("hour", "dow", "distance", "carrier", "departures_hour")
PLANE = ("plane_age", "seats", "engines", "manufacturer")
LIVE = ("incoming_delay", "incoming_age", "origin_delay_3h", "carrier_delay_24h")
PLACE = ("dest_longitude", "dest_altitude")


def _departure_delay(origin: str) -> FlightModel:
    return FlightModel(
        model_id=f"departure_delay_{origin.lower()}",
        task="binary",
        label="dep_delay_15",
        features=(*WEATHER, *SCHEDULE, *PLANE, *LIVE),
        upstream=("plane_reliability", "route_embedding", "weather_disruption"),
        origin=origin,
    )


def _arrival_delay(origin: str) -> FlightModel:
    return FlightModel(
        model_id=f"arrival_delay_{origin.lower()}",
        task="binary",
        label="arr_delay_15",
        features=(*WEATHER, *SCHEDULE, *LIVE, *PLACE),
        upstream=("air_time", f"departure_delay_{origin.lower()}", "route_embedding"),
        origin=origin,
    )


def _missed_connection(origin: str) -> FlightModel:
    return FlightModel(
        model_id=f"missed_connection_{origin.lower()}",
        task="binary",
        label="arr_delay_45",
        features=("hour", "dow", "distance", "precip", "visib", "incoming_delay", "origin_delay_3h"),
        upstream=(f"arrival_delay_{origin.lower()}",),
        origin=origin,
    )


FLEET: tuple[FlightModel, ...] = (
    FlightModel(
        model_id="route_embedding",
        task="embedding",
        label="none",
        features=("origin", "dest", "distance", "dest_longitude"),
    ),
    FlightModel(
        model_id="plane_reliability",
        task="binary",
        label="dep_delay_15",
        features=(*PLANE, "carrier", "incoming_delay", "incoming_age"),
        iterations=40,
    ),
    FlightModel(
        model_id="weather_disruption",
        task="binary",
        label="dep_delay_60",
        features=(*WEATHER, "hour", "origin"),
        iterations=40,
    ),
    FlightModel(
        model_id="air_time",
        task="regression",
        label="air_time",
        features=("distance", "wind_dir", "wind_speed", "pressure", "temp", "hour", "carrier", *PLACE, "seats"),
        upstream=("route_embedding",),
    ),
    *(_departure_delay(origin) for origin in ("EWR", "JFK", "LGA")),
    *(_arrival_delay(origin) for origin in ("EWR", "JFK", "LGA")),
    *(_missed_connection(origin) for origin in ("EWR", "JFK", "LGA")),
    FlightModel(
        model_id="crew_overtime",
        task="regression",
        label="elapsed",
        features=("distance", "hour", "dow", "carrier", "seats", "origin_delay_3h", *PLACE),
        upstream=("air_time", "arrival_delay_ewr", "arrival_delay_jfk", "arrival_delay_lga"),
    ),
)
BY_ID: Mapping[str, FlightModel] = {model.model_id: model for model in FLEET}


def in_order(model_ids: set[str] | None = None) -> list[FlightModel]:
    """Models so that each comes after what it consumes (the fleet is written in that order)."""
    return [model for model in FLEET if model_ids is None or model.model_id in model_ids]


def with_upstream(model_id: str) -> list[FlightModel]:
    """A model and everything it stands on, in order."""
    wanted: set[str] = set()
    pending = [model_id]
    while pending:
        one = pending.pop()
        if one not in wanted:
            wanted.add(one)
            pending.extend(BY_ID[one].upstream)
    return in_order(wanted)
