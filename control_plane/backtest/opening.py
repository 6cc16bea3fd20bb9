"""How a world and a contender are told to the core: what scopes say, what a version is, how a validation comes out."""

import hashlib
import math

from control_plane.backtest.contenders import EVERY_MODEL, Contender, not_worse
from control_plane.backtest.world import Comparison, Trained, World
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import Metric, VersionFacts
from control_plane.core.rollout.types import Validation


def layers_of(world: World, contender: Contender) -> list[tuple[str, Overrides]]:
    """What each scope says: the world's, with the contender's upon it, field by field. Wide scopes first.

    Who decides without verdicts has them switched off: only it asks for retrains.
    """
    said: dict[str, Overrides] = {}
    upon: Overrides = {} if contender.evaluates else {"retraining.automatic": False}
    for scope, layer in (*world.policies, *contender.layers):
        if scope != EVERY_MODEL:
            said[scope] = {**said.get(scope, {}), **layer}
    for layer in (*(layer for scope, layer in contender.layers if scope == EVERY_MODEL), upon):
        for facts in world.models if layer else ():
            scope = f"model:{facts.model_id}"
            said[scope] = {**said.get(scope, {}), **layer}
    width = {"fleet": 0, "tier": 1, "team": 2, "model": 3}
    return sorted(said.items(), key=lambda item: (width[item[0].partition(":")[0]], item[0]))


def version_facts(trained: Trained, token: str) -> VersionFacts:
    """A version as a trainer would register it. `token` tells apart what one world hands out twice."""
    metrics: tuple[Metric, ...] = ()
    if math.isfinite(trained.holdout):
        metrics = (
            Metric(
                name=trained.metric,
                value=trained.holdout,
                standard_error=trained.holdout_error,
                sample_size=trained.holdout_size,
            ),
        )
    uri = f"backtest:{trained.model_id}/{trained.number}"
    return VersionFacts(
        artifact_uri=uri,
        artifact_sha256=hashlib.sha256(f"{uri}/{token}".encode()).hexdigest(),
        trained_until=trained.trained_until,
        metrics=metrics,
    )


def validation_of(found: Comparison, trained: Trained, margin: float) -> Validation:
    """Passed if the candidate is not worse than production by more than the margin; numbers that are none fail."""
    finite = all(map(math.isfinite, (found.candidate, found.production, found.standard_error)))
    passed = (
        finite
        and found.sample_size > 0
        and not_worse(found.candidate, found.production, margin, trained.higher_is_better)
    )
    return Validation(
        passed=passed,
        metric=trained.metric,
        candidate=found.candidate if finite else 0.0,
        production=found.production if finite else None,
        standard_error=found.standard_error if finite else 0.0,
        sample_size=found.sample_size,
    )
