"""How much each input matters to a model: what its metric loses on flights it has not seen when the input is shuffled.

Drift of an input that the model hardly looks at is no reason to retrain it; the profile carries these weights.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from sklearn.metrics import mean_absolute_error, roc_auc_score

from assets.flights.fleet import FlightModel
from assets.flights.scoring import Outputs, encode, inputs_of
from assets.flights.threads import one_thread

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

ROWS_MAX = 1_500
"""Flights that are scored once for each input: a tenth of a second per model, and errors of some thousandths of AUC."""
SHARE_MIN = 0.002
"""What an input counts at least, as a share of all: chance must not hide one altogether."""
SEED = 2013


def importances(model: FlightModel, held: Outputs, known: Rows, value: Floats) -> Mapping[str, float]:
    """Shares of the inputs, which sum to about 1; empty if too little is known to say.

    Args:
        held: flights the model has not seen, with its artifact.
        known: places of those with an outcome, ascending.
        value: outcomes of all flights of `held`, shape (n,).
    Source: Breiman 2001, Random Forests, section 10 (permutation importance), on a holdout.
    """
    artifact = held.artifact(model.model_id)
    if model.task == "embedding" or not len(known) or len(np.unique(value[known])) < 2:
        return {}
    rng = np.random.default_rng(SEED)
    rows = np.sort(rng.choice(known, ROWS_MAX, replace=False)) if len(known) > ROWS_MAX else known
    matrix, truth = encode(artifact, inputs_of(model, held))[rows], value[rows]
    binary = model.task == "binary"
    estimator = artifact.estimator.serving

    def quality(inputs: Floats) -> float:
        if binary:
            return float(roc_auc_score(truth, estimator.predict_proba(inputs)[:, 1]))
        return -float(mean_absolute_error(truth, estimator.predict(inputs)))

    if len(np.unique(truth)) < 2:
        return {}
    lost = {}
    with one_thread():
        best = quality(matrix)
        for at, name in enumerate(artifact.inputs):
            shuffled = matrix.copy()
            shuffled[:, at] = rng.permutation(shuffled[:, at])
            lost[name] = max(best - quality(shuffled), 0.0)
    whole = sum(lost.values())
    return {name: max(one / whole, SHARE_MIN) for name, one in lost.items()} if whole > 0 else {}
