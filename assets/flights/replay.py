"""Replay the year: move the control plane's clock, and send what a serving system would have sent by then.

    python -m assets.flights.replay --from 2013-03-01 --days 60 --seconds-per-day 4

A day is six steps of four hours. In each step every flight scheduled in it is scored by whatever is in production at
that moment, every outcome that became known in it is sent, and then the clock moves to its end. Batch ids follow from
model and step, so a step that is sent again after a crash changes nothing; where to go on is the control plane's clock.

Trainings take seconds while a virtual day takes seconds too. So that a training does not last weeks, time waits for
trainings under way, for a bounded while each day.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
from runway_client import (
    OutcomeBatch,
    PredictionBatch,
    Runway,
    RunwayRpcError,
    Unreachable,
    connect,
    from_timestamp,
    messages,
    outcome_batch,
    prediction_batch,
    prediction_ids,
)

from assets.flights.artifacts import Artifact, ArtifactError
from assets.flights.data import FlightsError, Instants, column, flights, instant
from assets.flights.fleet import FIRST_DAY, FLEET, FlightModel
from assets.flights.home import home, write_atomically
from assets.flights.labels import DEPARTED_LATE, WINDOW, Floats, Rows, departures, outcomes
from assets.flights.scoring import Outputs, inputs_of
from assets.flights.served import FleetServing
from assets.flights.training import Serving, TrainingError, in_production, rows_between

STEPS_PER_DAY = 6
STEP = timedelta(days=1) / STEPS_PER_DAY
LAST_DAY = datetime(2014, 1, 1, tzinfo=UTC)
SECONDS_PER_DAY = 4.0
PATIENCE_S = 60.0
"""How long the clock waits for trainings each virtual day."""
PICKUP_S = 12.0
"""How long it waits for a scheduler to take what may run; a scheduler that is away must not stop time."""
POLL_S = 0.25
AWAY_S_MAX = 3600.0
"""How long the replay puts up with a control plane that does not answer."""
PAUSE_S_MIN, PAUSE_S_MAX = 0.5, 5.0
"""Pause before it is asked again, doubled each time: soon for a restart, seldom for an outage."""
SCORING, OPERATIONS = "flights scoring", "flights operations"
"""Who sends predictions, and who outcomes."""
KEYS_PER_FLIGHT = 64
"""Prediction ids: one flight has one for each model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which stretch of the year, how fast."""

    start: datetime
    end: datetime
    seconds_per_day: float


class Replay:
    """One replay; knows nothing that the control plane does not know, but where it began."""

    def __init__(self, runway: Runway, plan: Plan) -> None:
        self._runway = runway
        self._plan = plan
        self._artifacts: dict[str, Artifact] = {}
        self._versions: dict[str, int] = {}
        self._patience_s = PATIENCE_S
        self._serving = FleetServing()
        self.steps_sent = 0

    def run(self) -> None:
        """From the control plane's clock to the end."""
        now = max(from_timestamp(self._runway.operations.get_status().now), self._plan.start)
        step = self._plan.start + ((now - self._plan.start) // STEP) * STEP
        while step < self._plan.end:
            began = time.monotonic()
            self._send(step)
            self._runway.operations.advance_clock(step + STEP)
            self.steps_sent += 1
            self._wait_for_trainings()
            step += STEP
            if step.hour == 0:
                self._patience_s = PATIENCE_S
                print(f"{step - STEP:%Y-%m-%d} is over", flush=True)
            time.sleep(max(0.0, self._plan.seconds_per_day / STEPS_PER_DAY - (time.monotonic() - began)))

    def _send(self, step: datetime) -> None:
        """Everything that happened in [step, step + STEP)."""
        self._look_up()
        if step.hour == 0 or not self.steps_sent:
            self._serving.look_up(self._runway)
        rows = rows_between(step, step + STEP)
        for answer in self._runway.ingest_predictions(self._predictions(step, rows)):
            if answer.refused is not None:
                raise answer.refused
        recent = rows_between(max(self._plan.start, step - WINDOW), step + STEP)
        for answer in self._runway.ingest_outcomes(self._outcomes(step, recent)):
            if answer.refused is not None:
                raise answer.refused

    def _look_up(self) -> None:
        """What is in production now; artifacts stay loaded while it is the same."""
        if in_production(self._runway) != self._versions:
            serving = Serving(self._runway)
            self._artifacts = serving.artifacts(serving.versions)
            self._versions = {model_id: version.version for model_id, version in serving.versions.items()}

    def _predictions(self, step: datetime, rows: Rows) -> Iterator[PredictionBatch]:
        if not len(rows):
            return
        outputs = Outputs(rows, self._artifacts)
        scheduled = column(flights(), "scheduled", rows)
        parts = {name: column(flights(), name, rows) for name in ("origin", "carrier")}
        tail = column(flights(), "tailnum", rows)
        for model in FLEET:
            if model.model_id not in self._artifacts:
                continue
            mask = outputs.mask(model)
            if not mask.any():
                continue
            inputs = inputs_of(model, outputs)
            production, batch_id = self._versions[model.model_id], f"flights/{model.model_id}/{step:%Y-%m-%dT%H}"
            scores = outputs.score(model.model_id).copy()
            versions = np.full(len(rows), production, np.int64)
            served = self._serving.predict(model.model_id, rows[mask], batch_id)
            if served is not None:
                scores[mask], versions[mask] = served.scores, served.versions
            for version in sorted({int(number) for number in versions[mask]}):
                of = mask & (versions == version)
                yield PredictionBatch(
                    batch_id=batch_id if version == production else f"{batch_id}/v{version}",
                    model_id=model.model_id,
                    version=version,
                    arrow_ipc=prediction_batch(
                        _ids(model, rows[of]),
                        scheduled[of],
                        scores[of],
                        {name: values[of] for name, values in inputs.items()},
                        # Models of one airport have no airports to be sliced by.
                        {name: values[of] for name, values in parts.items() if name != "origin" or not model.origin},
                        # By the plane, so that it can be shown how all that was said of one is erased.
                        entity_id=[name or None for name in tail[of]],
                    ),
                    source=SCORING,
                )

    def _outcomes(self, step: datetime, rows: Rows) -> Iterator[OutcomeBatch]:
        """Outcomes that became known in the step, of flights that were predicted in this replay."""
        origin = column(flights(), "origin", rows)
        for model in FLEET:
            if model.model_id not in self._artifacts:
                continue
            of_model = rows[origin == model.origin] if model.origin else rows
            told = [("", outcomes(model, of_model))]
            sooner = departures(model, of_model)
            if sooner is not None:
                told.append((DEPARTED_LATE, sooner))
            for label_type, (value, known_at) in told:
                now = _known_in(step, value, known_at)
                if now.any():
                    yield OutcomeBatch(
                        batch_id="/".join(filter(None, ("flights", model.model_id, f"{step:%Y-%m-%dT%H}", label_type))),
                        model_id=model.model_id,
                        arrow_ipc=outcome_batch(_ids(model, of_model[now]), known_at[now], value[now]),
                        label_type=label_type,
                        source=OPERATIONS,
                    )

    def _wait_for_trainings(self) -> None:
        """Hold time while retrains run, or may run and wait to be picked up."""
        began = time.monotonic()
        while self._patience_s > 0:
            live = list(self._runway.retraining.list_retrains(states=LIVE))
            states = [(one.state, bool(one.waiting_for)) for one in live]
            validated = messages.RETRAIN_STATE_VALIDATING
            validating = {one.rollout_id for one in live if one.state == validated and one.rollout_id}
            if validating:
                # A canary and whoever is to approve need time to pass; only what is being computed stops it.
                still = self._runway.rollouts.list_rollouts(states=[messages.ROLLOUT_STATE_VALIDATING])
                validating &= {one.rollout_id for one in still}
            running = bool(validating) or any(state == messages.RETRAIN_STATE_RUNNING for state, _ in states)
            ready = any(state == messages.RETRAIN_STATE_WAITING and not held_up for state, held_up in states)
            waited_s = time.monotonic() - began
            if not running and not (ready and waited_s < PICKUP_S):
                return
            time.sleep(POLL_S)
            self._patience_s -= POLL_S


LIVE = (
    messages.RETRAIN_STATE_WAITING,
    messages.RETRAIN_STATE_RUNNING,
    messages.RETRAIN_STATE_VALIDATING,
)


def _known_in(step: datetime, value: Floats, known_at: Instants) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Which outcomes became known in a step; none of a flight that was cancelled ever does."""
    return (known_at >= instant(step)) & (known_at < instant(step + STEP)) & ~np.isnan(value)


def _ids(model: FlightModel, rows: Rows) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """The same flight and model always get the same prediction id."""
    table = flights()
    keys = column(table, "flight_id", rows) * KEYS_PER_FLIGHT + FLEET.index(model)
    return prediction_ids(column(table, "scheduled", rows), keys)


def planned(first_day: date | None, days: int | None, seconds_per_day: float) -> Plan:
    """What the arguments ask for; where a replay began is remembered, for it decides which outcomes have predictions.

    Raises:
        ValueError: a day outside the data, with what to write instead.
    """
    remembered = home() / "replay.json"
    if first_day is not None:
        start = datetime(first_day.year, first_day.month, first_day.day, tzinfo=UTC)
    elif remembered.exists():
        start = datetime.fromisoformat(json.loads(remembered.read_text())["start"])
    else:
        start = FIRST_DAY
    if not FIRST_DAY <= start < LAST_DAY:
        raise ValueError(
            f"--from {start:%Y-%m-%d}: write a day from {FIRST_DAY:%Y-%m-%d} (earlier ones train the first models) "
            f"to {LAST_DAY - timedelta(days=1):%Y-%m-%d}"
        )
    if days is not None and days < 1:
        raise ValueError(f"--days {days}: at least 1")
    write_atomically(remembered, json.dumps({"start": start.isoformat()}).encode())
    end = LAST_DAY if days is None else min(LAST_DAY, start + timedelta(days=days))
    return Plan(start=start, end=end, seconds_per_day=max(0.0, seconds_per_day))


def main() -> int:
    """Exit code: 0 when the last day is over, 1 with a sentence when it cannot go on, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m assets.flights.replay", description="Replay the year of flights.")
    parser.add_argument("--from", dest="first_day", type=date.fromisoformat, help="first day, YYYY-MM-DD")
    parser.add_argument("--days", type=int, help="how many days; default: to the end of the year")
    parser.add_argument("--seconds-per-day", type=float, default=SECONDS_PER_DAY, help="pace; 0: as fast as it goes")
    parser.add_argument("--address", help="the control plane; default RUNWAY_ADDRESS")
    arguments = parser.parse_args()
    try:
        plan = planned(arguments.first_day, arguments.days, arguments.seconds_per_day)
    except ValueError as error:
        parser.error(str(error))
    try:
        follow(plan, arguments.address)
    except KeyboardInterrupt:
        return 0
    except (RunwayRpcError, ArtifactError, FlightsError, TrainingError) as error:
        print(f"flights replay: {error}", file=sys.stderr)
        return 1
    return 0


def follow(plan: Plan, address: str | None) -> None:
    """Replay to the end, over any number of restarts of the control plane: each time from its own clock.

    Raises:
        Unreachable: it has been away for AWAY_S_MAX.
        RunwayRpcError: it refuses what is sent.
        ArtifactError, FlightsError, TrainingError: files or first versions of the fleet are missing.
    """
    away_since: float | None = None
    pause_s = PAUSE_S_MIN
    while True:
        replay: Replay | None = None
        try:
            with connect(address, actor="flights replay") as runway:
                replay = Replay(runway, plan)
                replay.run()
                return
        except Unreachable as error:
            if away_since is None or (replay is not None and replay.steps_sent):
                print(
                    f"flights replay: the control plane is away, time stands still until it is back ({error})",
                    flush=True,
                )
                away_since, pause_s = time.monotonic(), PAUSE_S_MIN
            if time.monotonic() - away_since > AWAY_S_MAX:
                raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)


if __name__ == "__main__":
    sys.exit(main())
