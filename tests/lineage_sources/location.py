"""A small code location for a real webserver: an asset of ours, one that names its node, and one of nobody's."""

import dagster as dg

raw = dg.AssetSpec(["lake", "raw"], description="As it comes")


@dg.asset(deps=[raw], metadata={"runway/node": "feature:temp"})
def temp() -> None:
    """Temperatures."""


@dg.asset(deps=[temp], kinds={"model"})
def churn() -> None:
    """A model that Runway has never heard of."""


defs = dg.Definitions(assets=[raw, temp, churn])
