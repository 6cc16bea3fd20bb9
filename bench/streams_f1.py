"""[sea_f1, agrawal_f1] F1 of alarms at true staleness on seeded streams, labels two days late, and of detectors.

Four models per stream, 120 days, each with a stream, changes and benign shifts of its own; versions are really trained.
Runway's verdicts decide under one policy for all (`streams.compare.POLICY`); ADWIN, DDM and Page-Hinkley hear every
error when its label comes, by their defaults and by one tuned setting each. All go through the same requests,
trainings and validations, and are scored by `control_plane.backtest.scoring`. The note tells how it goes with labels 14
days late, and missing for half the models, against the best tuned detector there.
"""

import os

from bench.streams.compare import SETTINGS, TWO_DAYS, best_of, compared, world_of
from bench.streams.detectors import defaults, tuned
from bench.table import Row
from control_plane.backtest.report import Result

IDS = ("sea_f1", "agrawal_f1")

STREAM = {"sea_f1": "SEA", "agrawal_f1": "Agrawal"}
TARGET = {"sea_f1": 0.80, "agrawal_f1": 0.75}


def run() -> list[Row]:
    """Both streams, or the one that is asked for."""
    only = os.environ.get("ONLY", "")
    return [_row(one) for one in IDS if only in ("", one)]


def _row(bench_id: str) -> Row:
    stream = STREAM[bench_id]
    ours, *detectors = compared(world_of(stream, TWO_DAYS), (*defaults(), *tuned()))
    others = []
    for setting in SETTINGS[1:]:
        own, *peers = compared(world_of(stream, setting), tuned())
        best = best_of(peers)
        others.append(f"labels {setting.name}: {_told(own)}; best detector {best.name}: {_told(best)}")
    best = best_of(detectors)
    return Row(
        id=bench_id,
        value=ours.f1,
        unit="F1",
        peers={one.name: one.f1 for one in detectors},
        note=(
            f"target >= {TARGET[bench_id]:.2f} with < 0.15 benign retrains a month; "
            f"labels {TWO_DAYS.name}: {_told(ours)}; "
            f"best detector {best.name}: {_told(best)}; {'; '.join(others)}"
        ),
    )


def _told(one: Result) -> str:
    delay = "no detection" if one.detection_delay_hours is None else f"delay {one.detection_delay_hours:.0f} h"
    return f"F1 {one.f1:.2f}, {delay}, {one.false_alarms_per_model_month:.2f} benign a month, {one.retrains} retrains"
