"""RegistryService: models. Versions and aliases are in `versions`."""

from runway.v1 import registry_pb2, registry_pb2_grpc

from control_plane.api.convert.common import page
from control_plane.api.convert.masks import merged_model
from control_plane.api.convert.model_messages import ModelMessages
from control_plane.api.convert.policies import overrides_from
from control_plane.api.convert.registry import LIFECYCLES_FROM, facts_from, model_id_from
from control_plane.api.interceptors import Context, validate
from control_plane.api.plane import Plane, digest_of, require_reason
from control_plane.api.versions import VersionMethods
from control_plane.app.ground_truth import GroundTruth
from control_plane.core.commands import RegisterModel, SetLifecycle, UpdateModel
from control_plane.core.state import ModelRecord


class RegistryServicer(VersionMethods, registry_pb2_grpc.RegistryServiceServicer):
    """Parse, submit or read, render."""

    def __init__(self, plane: Plane, ground_truth: GroundTruth) -> None:
        super().__init__(plane, ground_truth)
        self._models = ModelMessages()

    async def RegisterModel(  # noqa: N802
        self, request: registry_pb2.RegisterModelRequest, context: Context
    ) -> registry_pb2.RegisterModelResponse:
        """Add a model."""
        outcome = await self._plane.submit(register_command(request.model), request.mutation)
        if outcome.dry:
            return registry_pb2.RegisterModelResponse(revision=outcome.revision)
        record = outcome.state.model(model_id_from(request.model.model_id))
        return registry_pb2.RegisterModelResponse(
            model=self._models.of(outcome.state, record), revision=outcome.revision
        )

    async def UpdateModel(  # noqa: N802
        self, request: registry_pb2.UpdateModelRequest, context: Context
    ) -> registry_pb2.UpdateModelResponse:
        """Change the fields of the mask."""
        model_id = model_id_from(request.model.model_id)
        state = await self._plane.read(registry_pb2.GetModelRequest().read)
        record = state.model(model_id)
        own = state.policies.overrides(f"model:{model_id}")
        wanted = merged_model(record.facts, own, request.model, request.update_mask)
        validate(wanted)
        command = UpdateModel(
            model_id=model_id,
            facts=facts_from(wanted),
            policies=overrides_from(wanted.policies, "model.policies"),
            # The mask was merged into what stands now: nothing may come between.
            etag=request.model.etag or record.etag,
        )
        # The command holds what the mask was merged into; that the request is the same, only the request can say.
        outcome = await self._plane.submit(command, request.mutation, digest=digest_of(request))
        if outcome.dry:
            return registry_pb2.UpdateModelResponse(model=wanted, revision=outcome.revision)
        return registry_pb2.UpdateModelResponse(
            model=self._models.of(outcome.state, outcome.state.model(model_id)), revision=outcome.revision
        )

    async def GetModel(  # noqa: N802
        self, request: registry_pb2.GetModelRequest, context: Context
    ) -> registry_pb2.GetModelResponse:
        """One model."""
        state = await self._plane.read(request.read)
        found = state.model(model_id_from(request.model_id))
        return registry_pb2.GetModelResponse(model=self._models.of(state, found), revision=state.revision)

    async def ListModels(  # noqa: N802
        self, request: registry_pb2.ListModelsRequest, context: Context
    ) -> registry_pb2.ListModelsResponse:
        """Models by id."""
        state = await self._plane.read(request.read)
        ids = sorted(model_id for model_id, record in state.models.items() if _matches(record, request))
        shown, token = page(ids, ids, request.page)
        return registry_pb2.ListModelsResponse(
            models=[self._models.of(state, state.models[model_id]) for model_id in shown],
            next_page_token=token,
            revision=state.revision,
        )

    async def SetLifecycle(  # noqa: N802
        self, request: registry_pb2.SetLifecycleRequest, context: Context
    ) -> registry_pb2.SetLifecycleResponse:
        """Activate, deprecate or retire a model."""
        if request.force:
            require_reason(request.mutation, "a forced retirement")
        model_id = model_id_from(request.model_id)
        command = SetLifecycle(model_id=model_id, lifecycle=LIFECYCLES_FROM[request.lifecycle], force=request.force)
        outcome = await self._plane.submit(command, request.mutation)
        return registry_pb2.SetLifecycleResponse(
            model=self._models.of(outcome.state, outcome.state.model(model_id)), revision=outcome.revision
        )


def register_command(message: registry_pb2.Model) -> RegisterModel:
    """The command that registers a model."""
    return RegisterModel(facts=facts_from(message), policies=overrides_from(message.policies, "model.policies"))


def _matches(record: ModelRecord, request: registry_pb2.ListModelsRequest) -> bool:
    facts = record.facts
    if request.teams and facts.team not in request.teams:
        return False
    if request.tiers and facts.tier not in request.tiers:
        return False
    for tag in request.tags:
        key, equals, value = tag.partition("=")
        if key not in facts.tags or (equals and facts.tags[key] != value):
            return False
    return True
