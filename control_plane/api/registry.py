"""RegistryService: models. Versions and aliases are in `versions`."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import cast

import msgspec
from runway.v1 import common_pb2, registry_pb2, registry_pb2_grpc

from control_plane.api.convert.common import PAGE_SIZE_DEFAULT
from control_plane.api.convert.find import query_digest, query_from
from control_plane.api.convert.masks import merged_model
from control_plane.api.convert.model_messages import ModelMessages
from control_plane.api.convert.policies import overrides_from, policy_change
from control_plane.api.convert.registry import LIFECYCLES_FROM, facts_from, model, model_id_from
from control_plane.api.convert.rules import also_broken
from control_plane.api.interceptors import Context, violations_of
from control_plane.api.plane import Plane, digest_of, require_reason
from control_plane.api.versions import VersionMethods
from control_plane.app.ground_truth import GroundTruth
from control_plane.app.model_filters import View
from control_plane.app.model_finder import ModelFinder
from control_plane.app.model_order import Facts
from control_plane.core.commands import RegisterModel, SetLifecycle, UpdateModel
from control_plane.core.decide.policies import ValueChange, facts_changes
from control_plane.core.errors import Invalid, Reason
from control_plane.core.ids import ModelId
from control_plane.core.policies import Overrides, built_in, normal, resolve
from control_plane.core.registry.types import ModelFacts
from control_plane.core.relations import consumers_of
from control_plane.core.staleness.verdict import Evaluation
from control_plane.core.state import ModelRecord, State


class RegistryServicer(VersionMethods, registry_pb2_grpc.RegistryServiceServicer):
    """Parse, submit or read, render."""

    def __init__(self, plane: Plane, ground_truth: GroundTruth, latest: Mapping[ModelId, Evaluation]) -> None:
        super().__init__(plane, ground_truth)
        self._models = ModelMessages()
        self._finder = ModelFinder()
        self._latest = latest

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
        facts, own = record.facts, record.own_policies
        command = _update_command(record, request)
        # The command holds what the mask was merged into; that the request is the same, only the request can say.
        outcome = await self._plane.submit(command, request.mutation, digest=digest_of(request))
        if outcome.repeated:
            state = await self._plane.before(outcome)
            record = state.model(model_id)
            facts, own = record.facts, record.own_policies
            command = _update_command(record, request)
        if outcome.dry:
            shown = _dry(state, record, command)
        else:
            shown = self._models.of(outcome.state, outcome.state.model(model_id))
        return registry_pb2.UpdateModelResponse(
            model=shown,
            revision=outcome.revision,
            policy_changes=map(policy_change, _told(state, facts, own, command)),
        )

    async def GetModel(  # noqa: N802
        self, request: registry_pb2.GetModelRequest, context: Context
    ) -> registry_pb2.GetModelResponse:
        """One model."""
        state = await self._plane.read(request.read)
        found = state.model(model_id_from(request.model_id))
        models, _ = self._remembered(request.read)
        return registry_pb2.GetModelResponse(model=models.of(state, found), revision=state.revision)

    async def ListModels(  # noqa: N802
        self, request: registry_pb2.ListModelsRequest, context: Context
    ) -> registry_pb2.ListModelsResponse:
        """Models that match, in order. The reply is put together from encoded models: a page costs what it weighs."""
        query = query_from(request)
        past = request.read.WhichOneof("as_of") is not None
        traffic = await self._ground_truth.last_predictions() if query.view is View.UNUSED else {}
        state = await self._plane.read(request.read)
        models, finder = self._remembered(request.read)
        found = finder.page(
            state,
            query,
            Facts(
                now=self._plane.moment(state, request.read),
                latest={} if past else self._latest,
                last_predictions=traffic,
            ),
            digest=query_digest(request),
            size=request.page.page_size or PAGE_SIZE_DEFAULT,
            token=request.page.page_token,
        )
        rest = registry_pb2.ListModelsResponse(
            next_page_token=found.next_token, revision=state.revision, total_size=found.total
        )
        listed = [models.listed(state, state.models[model_id]) for model_id in found.model_ids]
        # Bytes are sent as they are, see `interceptors`.
        return cast("registry_pb2.ListModelsResponse", b"".join((*listed, rest.SerializeToString())))

    def _remembered(self, read: common_pb2.ReadOptions) -> tuple[ModelMessages, ModelFinder]:
        """What is remembered from read to read. Nothing is of a moment of the past: it would keep the whole moment."""
        if read.WhichOneof("as_of") is not None:
            return ModelMessages(), ModelFinder()
        return self._models, self._finder

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


def _update_command(record: ModelRecord, request: registry_pb2.UpdateModelRequest) -> UpdateModel:
    """The command that leads from a model as it stands to what the request wants of it."""
    wanted = merged_model(record.facts, record.own_policies, request.model, request.update_mask)
    _check(wanted)
    return UpdateModel(
        model_id=record.facts.model_id,
        facts=facts_from(wanted),
        policies=overrides_from(wanted.policies, "model.policies"),
        # The mask was merged into what stands now: nothing may come between.
        etag=request.model.etag or record.etag,
    )


def _told(state: State, facts: ModelFacts, own: Overrides, command: UpdateModel) -> Iterator[ValueChange]:
    """What a command changes in the policies in force of its model, whose facts and own words were these before."""
    scope = f"model:{command.model_id}"
    said_after = {scope: normal(command.policies or {})}
    return facts_changes(state, facts, command.facts or facts, {scope: own}, said_after)


def _dry(state: State, record: ModelRecord, command: UpdateModel) -> registry_pb2.Model:
    """The model as the command would leave it, with the policies that would be in force."""
    facts = command.facts or record.facts
    own = normal(command.policies or {})
    layers = state.policies.layers(facts.tier, facts.team, facts.model_id, {f"model:{facts.model_id}": own})
    policies, _ = resolve(built_in(facts.tier, facts.task_type), layers)
    after = msgspec.structs.replace(record, facts=facts, policies=policies, own_policies=own)
    return model(after, consumers_of(state, facts.model_id))


def _check(wanted: registry_pb2.Model) -> None:
    """Raise `Invalid` with every violation of a whole model, named as fields of the request."""
    found = [replace(violation, field=f"model.{violation.field}") for violation in violations_of(wanted)]
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found, *also_broken(wanted, found))
