"""Asks the fleet's server for predictions, for the models whose policy says that it serves them."""

import http.client
import json
import os
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from runway_client import Runway

from assets.flights.fleet import BY_ID

URL_VARIABLE = "RUNWAY_SERVING_URL"
SYSTEM = "demo"
"""What `rollout.serving` says of models that the fleet's server serves."""
TIMEOUT_S = 30.0

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One version and score per flight."""

    versions: Numbers
    scores: Floats


class FleetServing:
    """The fleet's server, if there is one. While it is away production answers, as it would without it."""

    def __init__(self, url: str | None = None) -> None:
        self._url = os.environ.get(URL_VARIABLE, "") if url is None else url
        self._served: frozenset[str] = frozenset()
        self._away = False

    def look_up(self, runway: Runway) -> None:
        """Which models it serves, by their policies now."""
        if self._url:
            self._served = frozenset(model_id for model_id in BY_ID if self._is_served(runway, model_id))

    def predict(self, model_id: str, rows: Numbers, batch: str) -> Answers | None:
        """Answers for these flights; None if it serves the model not, or is away."""
        if model_id not in self._served or not len(rows):
            return None
        body = json.dumps({"model_id": model_id, "rows": rows.tolist(), "batch": batch})
        parts = urlsplit(self._url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", "/predict", body)
            answer = connection.getresponse()
            told = json.loads(answer.read())
            if answer.status != 200:
                raise OSError(told.get("error", f"status {answer.status}"))
            scores = [np.nan if score is None else score for score in told["scores"]]
            found = Answers(versions=np.array(told["versions"], np.int64), scores=np.array(scores, np.float64))
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            if not self._away:
                print(f"flights replay: the fleet's server does not answer, production does ({error})", file=sys.stderr)
            self._away = True
            return None
        finally:
            connection.close()
        self._away = False
        return found

    @staticmethod
    def _is_served(runway: Runway, model_id: str) -> bool:
        values = runway.policies.explain_policies(model_id)
        return any(value.field == "rollout.serving" and value.value == SYSTEM for value in values)
