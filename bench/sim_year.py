"""A virtual year of 5,000 models and 50,000 edges through the real rules, with everything going wrong that can.

- sim_year_5000_s: seconds of this process for the year, checkers included. Events, retrains, promotions, roll-backs and
  the most that ran at once are in the note.

Nothing does the same, so there is no peer: `pytest tests/simulation` says what the checkers hold true.
"""

import os
import time
from typing import Any

from tests.simulation.year import Year

IDS = ("sim_year_5000_s",)
MODELS = int(os.environ.get("SIM_YEAR_MODELS", "5000"))
EDGES_PER_MODEL = 10
DAYS = int(os.environ.get("SIM_YEAR_DAYS", "365"))


def run() -> list[dict[str, Any]]:
    """One row."""
    began = time.perf_counter()
    year = Year(1, models=MODELS, edges=MODELS * EDGES_PER_MODEL, days=DAYS)
    came = year.run()
    took = time.perf_counter() - began
    note = (
        f"{came.events:,} events, {came.evaluations:,} looks, {came.retrains:,} retrains, "
        f"{came.promotions:,} promotions, {came.refusals:,} refused, {came.rollbacks:,} rolled back, "
        f"at most {came.running_max} at once, {came.openings} breaker openings, {came.failovers} failovers"
    )
    return [{"id": "sim_year_5000_s", "value": round(took, 1), "unit": "s", "peers": {}, "note": note}]
