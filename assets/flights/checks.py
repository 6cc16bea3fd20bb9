"""What the flights' own people want to see of a candidate: an asset check of Dagster, run on its version.

The policy of crew_overtime names it, and waits two weeks for it: Dagster takes some seconds for a check, and a second
of the demo is six hours.
"""

from typing import TYPE_CHECKING

import dagster as dg

from assets.candidates import candidate_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MODEL_ID = "crew_overtime"
MINUTES_MAX = 24 * 60
"""No flight within the country is longer than a day."""


@dg.asset_check(
    asset=MODEL_ID,
    name="plausible_minutes",
    description="The answers of a candidate for the flights of its holdout are times that a flight can take: none is "
    "missing, negative, or longer than a day. Run by hand it looks at what is in production.",
)
def plausible_minutes(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Asks the version, as it is stored."""
    candidate = candidate_of(context.run.tags)
    minutes = answers(candidate.version if candidate is not None else None)
    odd = int((~((minutes > 0) & (minutes <= MINUTES_MAX))).sum())  # NaN is neither
    return dg.AssetCheckResult(
        passed=odd == 0 and len(minutes) > 0,
        description=f"{len(minutes)} answers, {odd} of which no flight can take",
        metadata={"answers": len(minutes), "odd": odd},
    )


def answers(version: int | None) -> "npt.NDArray[np.float64]":
    """What a version (None: the one in production) says of the flights of its holdout, minutes."""
    from runway_client import connect, from_timestamp  # noqa: PLC0415 - only where a check runs

    from assets.flights.artifacts import load  # noqa: PLC0415 - these bring scikit-learn with them
    from assets.flights.fleet import HOLDOUT, with_upstream  # noqa: PLC0415
    from assets.flights.scoring import Outputs  # noqa: PLC0415
    from assets.flights.training import Serving, rows_between  # noqa: PLC0415

    with connect(actor="flights checks") as runway:
        serving = Serving(runway)
        found = serving.versions[MODEL_ID]
        if version is not None:
            found = runway.registry.get_version(MODEL_ID, version=version)
    artifacts = serving.artifacts(model.model_id for model in with_upstream(MODEL_ID)[:-1])
    artifacts[MODEL_ID] = load(found.artifact_uri, found.artifact_sha256)
    cut = from_timestamp(found.trained_until)
    return Outputs(rows_between(cut, cut + HOLDOUT), artifacts).output(MODEL_ID)


CHECKS = (plausible_minutes,)
