"""What ListModels asks for."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from runway.v1 import registry_pb2

from control_plane.api.convert.registry import LIFECYCLES_FROM, TASKS_FROM
from control_plane.api.convert.staleness import VERDICTS_FROM
from control_plane.app.model_filters import ModelQuery, View
from control_plane.core.errors import Invalid, Reason, Violation

V = TypeVar("V")

VIEWS_FROM: dict[int, View] = {
    registry_pb2.MODEL_VIEW_UNSPECIFIED: View.ALL,
    registry_pb2.MODEL_VIEW_UNUSED: View.UNUSED,
    registry_pb2.MODEL_VIEW_NO_OWNER: View.NO_OWNER,
    registry_pb2.MODEL_VIEW_ALERTED: View.ALERTED,
    registry_pb2.MODEL_VIEW_NEVER_VALIDATED: View.NEVER_VALIDATED,
}
TIERS_FROM = {number: number for number in (1, 2, 3, 4)}


def query_from(request: registry_pb2.ListModelsRequest) -> ModelQuery:
    """Read the filters. Raises `Invalid` with every one that no model could ever match."""
    wrong: list[Violation] = []

    def known(field: str, numbers: Iterable[int], names: Mapping[Any, V]) -> frozenset[V]:
        found = []
        for place, number in enumerate(numbers):
            if number in names:
                found.append(names[number])
            else:
                message = "unspecified matches nothing: leave the filter out to match everything"
                wrong.append(Violation(field=f"{field}[{place}]", rule="not_in", message=message))
        return frozenset(found)

    view = VIEWS_FROM[request.view]
    if view is View.UNUSED and request.read.WhichOneof("as_of") is not None:
        message = "who got predictions in the past is not kept: ask for unused models of now, without as_of"
        wrong.append(Violation(field="view", rule="as_of", message=message))
    query = ModelQuery(
        text=request.query,
        teams=frozenset(request.teams),
        tiers=known("tiers", request.tiers, TIERS_FROM),
        tags=tuple(request.tags),
        owners=frozenset(request.owners),
        feature=request.feature,
        consumer=request.consumer,
        lifecycles=known("lifecycles", request.lifecycles, LIFECYCLES_FROM),
        verdicts=known("verdicts", request.verdicts, VERDICTS_FROM),
        task_types=known("task_types", request.task_types, TASKS_FROM),
        view=view,
        order_by=request.order_by,
    )
    if wrong:
        raise Invalid(Reason.INVALID_ARGUMENT, *wrong)
    return query


def query_digest(request: registry_pb2.ListModelsRequest) -> bytes:
    """The same for every page of one query, whatever the size of its pages."""
    bare = registry_pb2.ListModelsRequest()
    bare.CopyFrom(request)
    bare.ClearField("page")
    bare.read.min_revision = 0
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()
