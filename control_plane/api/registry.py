"""RegistryService."""

from runway.v1 import registry_pb2, registry_pb2_grpc

from control_plane.api.convert.common import instant_from, newest_first_key, page, span_from
from control_plane.api.convert.masks import merged_model
from control_plane.api.convert.model_messages import ModelMessages
from control_plane.api.convert.policies import (
    retraining_policy_from,
    staleness_policy_from,
    validation_policy_from,
)
from control_plane.api.convert.registry import (
    alias_move,
    attempt_id_from,
    facts_from,
    label_spec_from,
    model,
    model_id_from,
    version,
    version_facts_from,
)
from control_plane.api.interceptors import Context, validate
from control_plane.api.plane import Plane, digest_of
from control_plane.app.ground_truth import GroundTruth
from control_plane.core.commands import MoveAlias, RegisterModel, RegisterVersion, UpdateModel
from control_plane.core.errors import NotFound, Reason
from control_plane.core.ids import LeaseToken
from control_plane.core.registry.rules import alias_as_of
from control_plane.core.state import ModelRecord


class RegistryServicer(registry_pb2_grpc.RegistryServiceServicer):
    """Parse, submit or read, render."""

    def __init__(self, plane: Plane, ground_truth: GroundTruth) -> None:
        self._plane = plane
        self._models = ModelMessages()
        self._ground_truth = ground_truth

    async def RegisterModel(  # noqa: N802
        self, request: registry_pb2.RegisterModelRequest, context: Context
    ) -> registry_pb2.RegisterModelResponse:
        """Add a model."""
        outcome = await self._plane.submit(_register_command(request.model), request.mutation)
        if outcome.dry:
            return registry_pb2.RegisterModelResponse(revision=outcome.revision)
        record = outcome.state.model(model_id_from(request.model.model_id))
        return registry_pb2.RegisterModelResponse(model=model(record), revision=outcome.revision)

    async def UpdateModel(  # noqa: N802
        self, request: registry_pb2.UpdateModelRequest, context: Context
    ) -> registry_pb2.UpdateModelResponse:
        """Change the fields of the mask."""
        model_id = model_id_from(request.model.model_id)
        record = (await self._plane.read(registry_pb2.GetModelRequest().read)).model(model_id)
        wanted = merged_model(record, request.model, request.update_mask)
        validate(wanted)
        command = UpdateModel(
            model_id=model_id,
            facts=facts_from(wanted),
            staleness_policy=staleness_policy_from(wanted.staleness_policy, wanted.tier),
            retraining_policy=retraining_policy_from(wanted.retraining_policy),
            validation_policy=validation_policy_from(wanted.validation_policy),
            label_spec=label_spec_from(wanted.label_spec, wanted.task_type),
            # The mask was merged into what stands now: nothing may come between.
            etag=request.model.etag or record.etag,
        )
        # The command holds what the mask was merged into; that the request is the same, only the request can say.
        outcome = await self._plane.submit(command, request.mutation, digest=digest_of(request))
        if outcome.dry:
            return registry_pb2.UpdateModelResponse(model=wanted, revision=outcome.revision)
        return registry_pb2.UpdateModelResponse(model=model(outcome.state.model(model_id)), revision=outcome.revision)

    async def GetModel(  # noqa: N802
        self, request: registry_pb2.GetModelRequest, context: Context
    ) -> registry_pb2.GetModelResponse:
        """One model."""
        state = await self._plane.read(request.read)
        found = state.model(model_id_from(request.model_id))
        return registry_pb2.GetModelResponse(model=self._models.of(found), revision=state.revision)

    async def ListModels(  # noqa: N802
        self, request: registry_pb2.ListModelsRequest, context: Context
    ) -> registry_pb2.ListModelsResponse:
        """Models by id."""
        state = await self._plane.read(request.read)
        ids = sorted(model_id for model_id, record in state.models.items() if _matches(record, request))
        shown, token = page(ids, ids, request.page)
        return registry_pb2.ListModelsResponse(
            models=[self._models.of(state.models[model_id]) for model_id in shown],
            next_page_token=token,
            revision=state.revision,
        )

    async def RegisterVersion(  # noqa: N802
        self, request: registry_pb2.RegisterVersionRequest, context: Context
    ) -> registry_pb2.RegisterVersionResponse:
        """Store the reference profile, then add the version: an event never names a profile that is not there."""
        model_id = model_id_from(request.version.model_id)
        digest = ""
        if request.reference_profile and not request.mutation.validate_only:
            digest = await self._ground_truth.put_profile(request.reference_profile)
        command = RegisterVersion(
            model_id=model_id,
            facts=version_facts_from(request.version, digest),
            attempt_id=attempt_id_from(request.attempt_id),
            lease_token=LeaseToken(request.lease_token) if request.lease_token else None,
        )
        outcome = await self._plane.submit(command, request.mutation)
        if outcome.dry or outcome.result.version is None:
            return registry_pb2.RegisterVersionResponse(revision=outcome.revision)
        found = outcome.state.version(model_id, outcome.result.version)
        return registry_pb2.RegisterVersionResponse(version=version(found), revision=outcome.revision)

    async def GetVersion(  # noqa: N802
        self, request: registry_pb2.GetVersionRequest, context: Context
    ) -> registry_pb2.GetVersionResponse:
        """One version, by number or alias."""
        state = await self._plane.read(request.read)
        model_id = model_id_from(request.model_id)
        record = state.model(model_id)
        number = request.version
        if request.WhichOneof("which") == "alias":
            if request.alias not in record.aliases:
                have = ", ".join(sorted(record.aliases)) or "none yet"
                raise NotFound(
                    Reason.ALIAS_NOT_FOUND, f"{model_id} has no alias {request.alias!r}; its aliases: {have}"
                )
            number = record.aliases[request.alias]
        return registry_pb2.GetVersionResponse(
            version=version(state.version(model_id, number)), revision=state.revision
        )

    async def ListVersions(  # noqa: N802
        self, request: registry_pb2.ListVersionsRequest, context: Context
    ) -> registry_pb2.ListVersionsResponse:
        """Versions, newest first."""
        state = await self._plane.read(request.read)
        found = state.model(model_id_from(request.model_id)).versions[::-1]
        shown, token = page(found, [newest_first_key(v.number) for v in found], request.page)
        return registry_pb2.ListVersionsResponse(
            versions=[version(one) for one in shown], next_page_token=token, revision=state.revision
        )

    async def MoveAlias(  # noqa: N802
        self, request: registry_pb2.MoveAliasRequest, context: Context
    ) -> registry_pb2.MoveAliasResponse:
        """Point a team's own alias at a version."""
        model_id = model_id_from(request.model_id)
        command = MoveAlias(
            model_id=model_id,
            alias=request.alias,
            version=request.version,
            expected_version=request.expected_version if request.HasField("expected_version") else None,
        )
        outcome = await self._plane.submit(command, request.mutation)
        moves = [move for move in outcome.state.model(model_id).alias_moves if move.alias == request.alias]
        return registry_pb2.MoveAliasResponse(
            move=alias_move(moves[-1]) if moves and not outcome.dry else None, revision=outcome.revision
        )

    async def ListAliasMoves(  # noqa: N802
        self, request: registry_pb2.ListAliasMovesRequest, context: Context
    ) -> registry_pb2.ListAliasMovesResponse:
        """History of a model's aliases."""
        state = await self._plane.read(request.read)
        moves = state.model(model_id_from(request.model_id)).alias_moves
        if request.HasField("as_of"):
            when = instant_from(request.as_of, "as_of").timestamp()
            force = alias_as_of(moves, when)
            moves = [force[alias] for alias in sorted(force)]
        else:
            moves = moves[::-1]
        if request.HasField("within"):
            since = self._plane.now() - span_from(request.within, "within")
            moves = [move for move in moves if move.moved_at >= since]
        return registry_pb2.ListAliasMovesResponse(
            moves=[alias_move(move) for move in moves if request.alias in ("", move.alias)],
            revision=state.revision,
        )


def _register_command(message: registry_pb2.Model) -> RegisterModel:
    return RegisterModel(
        facts=facts_from(message),
        staleness_policy=staleness_policy_from(message.staleness_policy, message.tier)
        if message.HasField("staleness_policy")
        else None,
        retraining_policy=retraining_policy_from(message.retraining_policy)
        if message.HasField("retraining_policy")
        else None,
        validation_policy=validation_policy_from(message.validation_policy)
        if message.HasField("validation_policy")
        else None,
        label_spec=label_spec_from(message.label_spec, message.task_type) if message.HasField("label_spec") else None,
    )


def _matches(record: ModelRecord, request: registry_pb2.ListModelsRequest) -> bool:
    facts = record.facts
    if request.team and facts.team != request.team:
        return False
    if request.tier and facts.tier != int(request.tier):
        return False
    if request.tag:
        key, equals, value = request.tag.partition("=")
        return key in facts.tags and (not equals or facts.tags[key] == value)
    return True
