"""What turned out: the outcome of each model's prediction, and the moment from which on it is known.

Nobody makes up what never was: a cancelled flight neither leaves nor lands, so a prediction of it stays without an
outcome for ever, and coverage shows it. That is no negative (a cancelled flight was not on time) and no fault of the
data.
"""

from datetime import timedelta

import numpy as np
import numpy.typing as npt

from assets.flights.data import Instants, column, flights
from assets.flights.fleet import FlightModel
from assets.flights.reading import note

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

DEPARTED_LATE = "departed_late"
"""Label type of `departures`, beside the models' own."""

WINDOW = timedelta(hours=36)
"""An outcome counts this long after the scheduled departure: the longest flight with the longest delay fits in."""


def outcomes(model: FlightModel, rows: Rows) -> tuple[Floats, Instants]:
    """Value and moment of knowledge of each flight's outcome; NaN and NaT if it never comes.

    A departure is known when the plane leaves (for one that leaves early: at the scheduled time, when the question is
    asked), everything else when it lands. Cancelled flights do neither; diverted ones leave but do not land where they
    should.
    """
    table = flights()

    def of(name: str) -> Floats:
        note("dataset:operations", model.model_id)
        values: Floats = column(table, name, rows)
        return values

    never = np.full(len(rows), np.nan)
    departed: Instants = np.maximum(column(table, "departed", rows), column(table, "scheduled", rows))
    arrived: Instants = column(table, "arrived", rows)
    match model.label:
        case "dep_delay_15":
            return _late(of("dep_delay"), 15), departed
        case "dep_delay_60":
            return _late(of("dep_delay"), 60), departed
        case "arr_delay_15":
            return _late(of("arr_delay"), 15), arrived
        case "arr_delay_45":
            return _late(of("arr_delay"), 45), arrived
        case "air_time":
            return np.where(np.isnat(arrived), np.nan, of("air_time")), arrived
        case "elapsed":
            return of("elapsed"), arrived
        case "none":
            return never, np.full(len(rows), np.datetime64("NaT"), dtype="datetime64[us]")


def departures(model: FlightModel, rows: Rows) -> tuple[Floats, Instants] | None:
    """Whether each flight left as late as the model asks whether it lands; None for a model that asks otherwise.

    A stand-in for the landing that is known hours before it, and for diverted flights all there will ever be.
    """
    minutes = {"arr_delay_15": 15.0, "arr_delay_45": 45.0}.get(model.label)
    if minutes is None:
        return None
    table = flights()
    note("dataset:operations", model.model_id)
    departed: Instants = np.maximum(column(table, "departed", rows), column(table, "scheduled", rows))
    return _late(column(table, "dep_delay", rows), minutes), departed


def _late(delay: Floats, minutes: float) -> Floats:
    return np.where(np.isnan(delay), np.nan, (delay > minutes).astype(np.float64))
