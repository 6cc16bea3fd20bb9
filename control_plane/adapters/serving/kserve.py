"""A canary of a KServe InferenceService: a new `storageUri` with `canaryTrafficPercent`.

KServe makes a revision of every change of the predictor and sends `canaryTrafficPercent` of the requests to the newest
one, the rest to the one that last had all of them. So a canary is a new storage URI with its percent; a promotion takes
the percent away; a rollback sets it to 0, which sends everything to the revision before at once, without a new
rollout of anything. KServe knows no third part: there is no control of its own size, so production is compared.
"""

from dataclasses import dataclass

from control_plane.adapters.serving.http import HttpClient
from control_plane.adapters.serving.kubernetes import Object, Objects, Resource, noted_versions, object_name
from control_plane.app.serving import ServedVersion, ServingRefused, Target, Weights
from control_plane.core.ids import ModelId

SERVICES = Resource(group="serving.kserve.io", version="v1beta1", plural="inferenceservices")
PERCENT = "canaryTrafficPercent"
FORMATS = ("sklearn", "xgboost", "lightgbm", "pytorch", "tensorflow", "triton", "onnx", "pmml", "paddle", "huggingface")
"""Predictors of the old style, which hold the URI under the framework's name instead of `model`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceNames:
    """Template of the InferenceService's name."""

    service: str = "{model}"


class KServeServing:
    """One namespace of a cluster."""

    def __init__(self, http: HttpClient, namespace: str, names: ServiceNames) -> None:
        self._objects = Objects(http, SERVICES, namespace)
        self._names = names

    async def set_weights(self, target: Target) -> None:
        """Patch the predictor."""
        name = object_name(self._names.service, target.model_id)
        await self._objects.change(name, target, lambda found: predicted(found, target))

    async def weights(self, model_id: ModelId) -> Weights | None:
        """Read the predictor."""
        found = await self._objects.read(object_name(self._names.service, model_id))
        if found is None:
            return None
        production, candidate = noted_versions(found)
        percent = found.get("spec", {}).get("predictor", {}).get(PERCENT)
        if production is None:
            return None
        return Weights(
            production=production,
            candidate=candidate,
            candidate_weight=(percent or 0) / 100 if candidate is not None else 0.0,
        )

    async def close(self) -> None:
        """Let go of connections."""
        await self._objects.close()


def predicted(found: Object, target: Target) -> Object:
    """The merge patch that makes an InferenceService serve a target; empty if it does. Raises ServingRefused."""
    if target.shadow:
        raise ServingRefused("KServe copies no requests: set rollout.shadow to 0 for this model")
    if target.production is None:
        raise ServingRefused(f"{target.model_id} has nothing in production: there is nothing to split")
    predictor = found.get("spec", {}).get("predictor", {})
    where = next((name for name in ("model", *FORMATS) if name in predictor), None)
    if where is None:
        raise ServingRefused("the InferenceService's predictor names no model: give it spec.predictor.model")
    uri = predictor[where].get("storageUri", "")
    if target.candidate is not None:
        return _changes(predictor, where, _uri(target.candidate), whole_percent(target.candidate_weight))
    production = _uri(target.production)
    if uri == production:
        return _changes(predictor, where, production, None)
    if noted_versions(found)[0] == target.production.version:
        # A rollback: the newest revision is the candidate's and stays, without requests, until the next canary.
        return _changes(predictor, where, uri, 0)
    return _changes(predictor, where, production, None)


def _changes(predictor: Object, where: str, uri: str, percent: int | None) -> Object:
    if predictor[where].get("storageUri") == uri and predictor.get(PERCENT) == percent:
        return {}
    return {"spec": {"predictor": {PERCENT: percent, where: {"storageUri": uri}}}}


def whole_percent(weight: float) -> int:
    """Whole percents, which is all that KServe splits by: never none of some, never all of less.

    >>> [whole_percent(weight) for weight in (0.0, 0.001, 0.05, 0.999, 1.0)]
    [0, 1, 5, 99, 100]
    """
    if weight <= 0 or weight >= 1:
        return 100 if weight >= 1 else 0
    return min(max(round(100 * weight), 1), 99)


def _uri(version: ServedVersion) -> str:
    if not version.uri:
        raise ServingRefused(f"version {version.version} has no artifact URI for KServe to load")
    return version.uri
