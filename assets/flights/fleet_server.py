"""What the fleet's own server knows and does, without HTTP: weights, counts, harm, and answers for flights.

Everything is kept in one file: a restart forgets nothing, so what it says stays cumulative.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from assets.flights.artifacts import Artifact, ArtifactError, load
from assets.flights.data import column, flights
from assets.flights.fleet import BY_ID, FlightModel
from assets.flights.home import home, write_atomically
from assets.flights.labels import outcomes
from assets.flights.scoring import Outputs
from assets.flights.splitting import (
    CANDIDATE,
    CONTROL,
    REST,
    ArmTally,
    Floats,
    Harm,
    Ids,
    Split,
    arms,
    engagement,
    latency,
    travellers,
    usefulness,
)

ROWS_MAX = 20_000
"""Flights in one request: some three weeks of all airports."""
PROBE_ROWS = 256


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A version and its artifact."""

    version: int
    uri: str
    sha256: str


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How a model shall be served: what POST /weights takes."""

    model_id: str
    rollout_id: str
    production: Served | None
    candidate: Served | None = None
    candidate_weight: float = 0.0
    control_weight: float = 0.0
    shadow: bool = False
    group_id: str = ""
    epoch: int = 0
    revision: int = 0

    @property
    def salt(self) -> str:
        """What travellers are hashed with: models that move together serve the same travellers the same set."""
        return self.group_id or self.rollout_id


class Canary(msgspec.Struct, kw_only=True):
    """What is counted of a model since its canary (or its shadow) began."""

    key: str = ""
    arms: dict[str, ArmTally] = msgspec.field(default_factory=dict)
    batch: str = ""
    """The last one counted: one that is sent again after a crash counts once."""


class Kept(msgspec.Struct, kw_only=True):
    """All that a restart must not forget."""

    wishes: dict[str, Wish] = msgspec.field(default_factory=dict)
    canaries: dict[str, Canary] = msgspec.field(default_factory=dict)
    harms: dict[str, Harm] = msgspec.field(default_factory=dict)


class Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What POST /predict takes: flights by their place in the table, ascending, and what the batch is called."""

    model_id: str
    rows: list[int]
    batch: str = ""


class HarmAsk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What POST /harm takes. Without a version the present candidate is hurt; all zeros ends it."""

    model_id: str
    version: int = 0
    engagement: float = 0.0
    latency_ms: float = 0.0


class NotTaken(Exception):
    """A request that cannot be done; `status` and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class FleetServer:
    """All models of the fleet. Thread-safe: one request after the other."""

    def __init__(self, registry: Callable[[], Mapping[str, Served]]) -> None:
        self._registry = registry
        self._file = home() / "serving.json"
        self._lock = threading.Lock()
        self._kept = self._read()
        self._production: Mapping[str, Served] = {}
        self._looked_up_for = ""
        self._base_ms: dict[str, float] = {}

    # --- what the control plane asks ---

    def set_weights(self, wish: Wish) -> None:
        """Serve so from now on; old news is refused, an unloadable version too."""
        if wish.model_id not in BY_ID:
            raise NotTaken(422, f"{wish.model_id} is no model of this fleet")
        if not 0 <= wish.candidate_weight <= 1 or not 0 <= wish.control_weight <= 1 - wish.candidate_weight:
            raise NotTaken(422, "candidate_weight and control_weight must be shares that sum to at most 1")
        for served in filter(None, (wish.production, wish.candidate)):
            self._load(served)
        with self._lock:
            before = self._kept.wishes.get(wish.model_id)
            if before is not None and (before.epoch, before.revision) > (wish.epoch, wish.revision):
                raise NotTaken(409, "these weights are older than those in force")
            self._kept.wishes[wish.model_id] = wish
            key = f"{wish.rollout_id}{' shadow' if wish.shadow else ''}"
            canary = self._kept.canaries.setdefault(wish.model_id, Canary())
            if wish.candidate is not None and canary.key != key:
                self._kept.canaries[wish.model_id] = Canary(key=key)
            harm = self._kept.harms.get(wish.model_id)
            still = {one.version for one in (wish.production, wish.candidate) if one is not None}
            if harm is not None and harm.version not in still:
                del self._kept.harms[wish.model_id]  # nobody serves it any more
            self._write()

    def weights(self, model_id: str) -> Wish | None:
        """How a model is served; None if nobody has said."""
        with self._lock:
            return self._kept.wishes.get(model_id)

    def metrics(self, model_id: str, rollout_id: str = "") -> dict[str, ArmTally]:
        """What candidate and control have measured; empty arms before a canary, and for another rollout than asked."""
        with self._lock:
            canary = self._kept.canaries.get(model_id, Canary())
            if rollout_id and canary.key.partition(" ")[0] != rollout_id:
                canary = Canary()
            return {name: canary.arms.get(name, ArmTally()) for name in (CANDIDATE, CONTROL)}

    def harm(self, ask: HarmAsk) -> Harm | None:
        """Hurt a version; None when that ended it."""
        with self._lock:
            wish = self._kept.wishes.get(ask.model_id)
            version = ask.version or (wish.candidate.version if wish is not None and wish.candidate is not None else 0)
            ends = not ask.engagement and not ask.latency_ms
            if not version and not ends:
                raise NotTaken(422, f"{ask.model_id} has no candidate now: say which version to hurt")
            if not 0 <= ask.engagement <= 1 or ask.latency_ms < 0:
                raise NotTaken(422, "engagement must be a share from 0 to 1, latency_ms at least 0")
            if ends:
                self._kept.harms.pop(ask.model_id, None)
            else:
                self._kept.harms[ask.model_id] = Harm(
                    version=version, engagement=ask.engagement, latency_ms=ask.latency_ms
                )
            self._write()
            return self._kept.harms.get(ask.model_id)

    def everything(self) -> Kept:
        """A copy of all that is kept."""
        with self._lock:
            return msgspec.json.decode(msgspec.json.encode(self._kept), type=Kept)

    # --- what the replay asks ---

    def predict(self, ask: Ask) -> dict[str, Any]:
        """Version and score for each flight: the one that its first traveller sees. Every traveller is counted."""
        model = BY_ID.get(ask.model_id)
        if model is None:
            raise NotTaken(422, f"{ask.model_id} is no model of this fleet")
        rows = np.asarray(ask.rows, np.int64)
        if not 0 < len(rows) <= ROWS_MAX or (np.diff(rows) <= 0).any() or rows[0] < 0 or rows[-1] >= len(flights()):
            raise NotTaken(422, f"rows must be 1 to {ROWS_MAX} places of flights, ascending")
        with self._lock:
            return self._predict(model, rows, ask.batch)

    def _predict(self, model: FlightModel, rows: Ids, batch: str) -> dict[str, Any]:
        production = self._all_production(batch)
        wish = self._kept.wishes.get(model.model_id)
        if model.model_id not in production:
            raise NotTaken(422, f"{model.model_id} has nothing in production")
        answers = {REST: self._scores(model, rows, production)}
        versions = {REST: production[model.model_id].version}
        if wish is None or wish.candidate is None:
            return _answer(rows, versions[REST], answers[REST])
        # Models that move together are asked as one set: the candidate stands on its group's candidates.
        beside = {
            one.model_id: one.candidate
            for one in self._kept.wishes.values()
            if one.candidate is not None and one.group_id and one.group_id == wish.group_id
        }
        answers[CANDIDATE] = self._scores(model, rows, {**production, **beside, model.model_id: wish.candidate})
        versions[CANDIDATE] = wish.candidate.version
        units = travellers(column(flights(), "flight_id", rows))
        split = Split(salt=wish.salt, candidate_weight=wish.candidate_weight, control_weight=wish.control_weight)
        seen, control = arms(units, split)
        canary = self._kept.canaries.setdefault(model.model_id, Canary())
        if not batch or canary.batch != batch:
            self._count(model, rows, wish, answers, versions, units, seen, control)
            canary.batch = batch
            self._write()
        first = seen[:, 0]
        return _answer(
            rows,
            np.where(first, versions[CANDIDATE], versions[REST]),
            np.where(first, answers[CANDIDATE], answers[REST]),
        )

    def _count(
        self,
        model: FlightModel,
        rows: Ids,
        wish: Wish,
        answers: Mapping[str, Floats],
        versions: Mapping[str, int],
        units: Ids,
        seen: Any,
        control: Any,
    ) -> None:
        """What each arm was asked, and what came of it. In the shadow the candidate sees a copy of what the control
        is asked, and no traveller sees its answer: nobody engages with that."""
        happened, _ = outcomes(model, rows)
        tallies = self._kept.canaries[model.model_id].arms
        asked = {CANDIDATE: control if wish.shadow else seen, CONTROL: control}
        for arm, mask in asked.items():
            by = CANDIDATE if arm == CANDIDATE else REST
            harm = self._kept.harms.get(model.model_id)
            harm = harm if harm is not None and harm.version == versions[by] else None
            served = wish.candidate if by == CANDIDATE else wish.production
            base_ms = self._base(model, served) if served is not None else 0.0
            metrics = {"latency_ms": latency(base_ms, units, harm)[mask]}
            if not wish.shadow and model.label != "none":
                spent = engagement(usefulness(model, answers[by], happened), units, harm)[mask]
                metrics["engagement"] = spent[~np.isnan(spent)]
            tallies.setdefault(arm, ArmTally()).add(int(mask.sum()), metrics)

    # --- artifacts ---

    def _all_production(self, batch: str) -> dict[str, Served]:
        """What is in production of every model: as the control plane told us, otherwise as its registry says."""
        if not batch or batch.rpartition("/")[2] != self._looked_up_for:
            self._production = self._registry()
            self._looked_up_for = batch.rpartition("/")[2]
        told = {name: wish.production for name, wish in self._kept.wishes.items() if wish.production is not None}
        return {**self._production, **told}

    def _scores(self, model: FlightModel, rows: Ids, served: Mapping[str, Served]) -> Floats:
        artifacts = {model_id: self._load(one) for model_id, one in served.items()}
        return Outputs(rows, artifacts).score(model.model_id)

    def _base(self, model: FlightModel, served: Served) -> float:
        """Milliseconds that scoring one flight takes with a version, measured once."""
        if served.sha256 not in self._base_ms:
            artifacts = {model_id: self._load(one) for model_id, one in self._all_production("").items()}
            artifacts[model.model_id] = self._load(served)
            rows, took = np.arange(PROBE_ROWS, dtype=np.int64), []
            for _ in range(3):
                began = time.perf_counter()
                Outputs(rows, artifacts).score(model.model_id)
                took.append(time.perf_counter() - began)
            self._base_ms[served.sha256] = 1_000 * min(took) / PROBE_ROWS
        return self._base_ms[served.sha256]

    def _load(self, served: Served) -> Artifact:
        try:
            return load(served.uri, served.sha256)
        except ArtifactError as error:
            raise NotTaken(422, str(error)) from error

    def _read(self) -> Kept:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError):
            return Kept()

    def _write(self) -> None:
        write_atomically(self._file, msgspec.json.encode(self._kept))


def _answer(rows: Ids, versions: Any, scores: Floats) -> dict[str, Any]:
    """JSON has no NaN: a flight that a model is not about has no score."""
    return {
        "versions": np.broadcast_to(versions, len(rows)).tolist(),
        "scores": [None if np.isnan(score) else float(score) for score in scores],
    }
