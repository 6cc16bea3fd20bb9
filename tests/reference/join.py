"""The dumb twin of the ground-truth join: nested loops over lists, one rule after another, no sorting, no keys."""

from dataclasses import dataclass, field

MICROSECONDS_PER_HOUR = 3_600_000_000


@dataclass(frozen=True)
class Prediction:
    """A prediction as it arrives."""

    id: bytes
    predicted_us: int
    score: float
    version: int = 1


@dataclass(frozen=True)
class Outcome:
    """An outcome as it arrives."""

    id: bytes
    observed_us: int
    value: float
    revision: int = 0
    label_type: str = "default"


Arrival = Prediction | Outcome


@dataclass
class TwinHour:
    """What became of the predictions of one hour and version."""

    predicted: int = 0
    joined: list[tuple[float, float, int]] = field(default_factory=list)
    """(score, value, delay in microseconds)."""
    outside: int = 0


@dataclass
class Twin:
    """By (hour, version); orphans by distinct id."""

    hours: dict[tuple[int, int], TwinHour]
    orphans: set[bytes]


def join(arrivals: list[Arrival], window_us: int, label_type: str = "default") -> Twin:
    """Join in order of arrival."""
    predictions: list[Prediction] = []
    outcomes: list[Outcome] = []
    for arrival in arrivals:
        if isinstance(arrival, Prediction):
            if not any(known.id == arrival.id for known in predictions):
                predictions.append(arrival)
        elif arrival.label_type == label_type and not any(
            known.id == arrival.id and known.revision == arrival.revision for known in outcomes
        ):
            outcomes.append(arrival)
    hours: dict[tuple[int, int], TwinHour] = {}
    for prediction in predictions:
        key = (prediction.predicted_us // MICROSECONDS_PER_HOUR, prediction.version)
        hour = hours.setdefault(key, TwinHour())
        hour.predicted += 1
        best: Outcome | None = None
        any_outcome = False
        for outcome in outcomes:
            if outcome.id != prediction.id:
                continue
            any_outcome = True
            if outcome.observed_us > prediction.predicted_us + window_us:
                continue
            if best is None or outcome.revision > best.revision:
                best = outcome
        if best is not None:
            hour.joined.append((prediction.score, best.value, best.observed_us - prediction.predicted_us))
        elif any_outcome:
            hour.outside += 1
    known_ids = {prediction.id for prediction in predictions}
    return Twin(hours=hours, orphans={outcome.id for outcome in outcomes if outcome.id not in known_ids})
