"""Cross-fitting: outputs for training flights come from estimators that have not seen them."""

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from assets.flights import estimators
from assets.flights.data import Instants, instant

START, END = instant(datetime(2013, 1, 1, tzinfo=UTC)), instant(datetime(2013, 3, 1, tzinfo=UTC))


def _blank() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=30, early_stopping=False, random_state=1)


def _noise(rows: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Instants]:
    rng = np.random.default_rng(3)
    scheduled = START + rng.integers(0, 59 * 86_400, rows).astype("timedelta64[s]").astype("timedelta64[us]")
    return rng.normal(size=(rows, 6)), (rng.random(rows) < 0.4).astype(float), scheduled


def test_of_pure_noise_nothing_is_learned_from_ones_own_outputs() -> None:
    matrix, value, scheduled = _noise(3_000)
    fitted = estimators.fit(_blank, matrix, value, scheduled, (START, END))
    seen = fitted.serving.predict_proba(matrix)[:, 1]
    assert roc_auc_score(value, seen) > 0.8, "the one that serves knows its flights by heart"
    assert abs(roc_auc_score(value, fitted.scores(matrix, scheduled)) - 0.5) < 0.05


def test_flights_outside_the_window_are_scored_by_what_serves() -> None:
    matrix, value, scheduled = _noise(1_000)
    fitted = estimators.fit(_blank, matrix, value, scheduled, (START, END))
    later = scheduled + np.timedelta64(90, "D")
    assert (fitted.scores(matrix, later) == fitted.serving.predict_proba(matrix)[:, 1]).all()


def test_a_part_without_one_of_the_classes_is_scored_by_what_serves() -> None:
    matrix, value, scheduled = _noise(400)
    one_week = scheduled < START + np.timedelta64(2, "D")
    value = np.where(one_week, value, 0.0)
    fitted = estimators.fit(_blank, matrix, value, scheduled, (START, END))
    assert np.isfinite(fitted.scores(matrix, scheduled)).all()
