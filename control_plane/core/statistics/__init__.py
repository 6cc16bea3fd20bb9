# ruff: noqa: A005 - nobody imports it by its short name
"""Statistics that the rest of the core stands on: pure functions of counts, no clock, no randomness.

`bins` (from values to counts), `drift` (distance and significance of one pair), `fleet` (the same numbers for
every feature of every model at once), `performance` (did the metric get worse), `concept` (does a score still mean
the same), `cbpe` (what to expect without outcomes), `correlation` (does a stand-in follow), `downstream` (what
consumers say of a model), `embeddings` (are two versions compatible), `season` (what this time of the year usually
brings), `forecast` (when a threshold is reached), `sample` (what counts as a sample).

They are a library too: `from control_plane.core.statistics import psi` (see docs/statistics.md). Names are fetched
when they are asked for, so that importing one costs one module.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from control_plane.core.statistics.bins import (
        CategoricalBins,
        NumericBins,
        canonical_key,
        categorical_bins,
        coarsened,
        merge,
        numeric_bins,
        rebaselined,
    )
    from control_plane.core.statistics.cbpe import calibration, expected_metrics
    from control_plane.core.statistics.concept import concept_drift
    from control_plane.core.statistics.correlation import rank_correlation
    from control_plane.core.statistics.downstream import ConsumerDrop, attribute
    from control_plane.core.statistics.drift import (
        benjamini_hochberg,
        chi_square,
        js_distance,
        kl,
        psi,
        psi_bias,
        psi_debiased,
    )
    from control_plane.core.statistics.embeddings import stability
    from control_plane.core.statistics.fleet import discoveries, row_divergence, row_drift
    from control_plane.core.statistics.forecast import crossing
    from control_plane.core.statistics.performance import metric_drop, performance_signal
    from control_plane.core.statistics.sample import InvalidSample
    from control_plane.core.statistics.season import period_windows, rebinned, usual_psi

__all__ = [
    "CategoricalBins",
    "ConsumerDrop",
    "InvalidSample",
    "NumericBins",
    "attribute",
    "benjamini_hochberg",
    "calibration",
    "canonical_key",
    "categorical_bins",
    "chi_square",
    "coarsened",
    "concept_drift",
    "crossing",
    "discoveries",
    "expected_metrics",
    "js_distance",
    "kl",
    "merge",
    "metric_drop",
    "numeric_bins",
    "performance_signal",
    "period_windows",
    "psi",
    "psi_bias",
    "psi_debiased",
    "rank_correlation",
    "rebaselined",
    "rebinned",
    "row_divergence",
    "row_drift",
    "stability",
    "usual_psi",
]

_IN = {
    "bins": "CategoricalBins NumericBins canonical_key categorical_bins coarsened merge numeric_bins rebaselined",
    "cbpe": "calibration expected_metrics",
    "concept": "concept_drift",
    "correlation": "rank_correlation",
    "downstream": "ConsumerDrop attribute",
    "drift": "benjamini_hochberg chi_square js_distance kl psi psi_bias psi_debiased",
    "embeddings": "stability",
    "fleet": "discoveries row_divergence row_drift",
    "forecast": "crossing",
    "performance": "metric_drop performance_signal",
    "sample": "InvalidSample",
    "season": "period_windows rebinned usual_psi",
}
_MODULE_OF = {name: module for module, names in _IN.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"{__name__} has no {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
