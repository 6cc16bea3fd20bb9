"""RegistryService: versions and aliases."""

from runway.v1 import registry_pb2

from control_plane.api.convert.common import instant_from, newest_first_key, page, span_from
from control_plane.api.convert.registry import (
    alias_move,
    attempt_id_from,
    model_id_from,
    version_facts_from,
    version_in,
)
from control_plane.api.interceptors import Context
from control_plane.api.plane import Plane
from control_plane.app.ground_truth import GroundTruth
from control_plane.core.commands import MoveAlias, RegisterVersion, RemoveAlias, ReportLoadCheck
from control_plane.core.errors import NotFound, Reason
from control_plane.core.ids import LeaseToken
from control_plane.core.registry.rules import alias_as_of


class VersionMethods:
    """The methods of RegistryService about versions and where aliases point."""

    def __init__(self, plane: Plane, ground_truth: GroundTruth) -> None:
        self._plane = plane
        self._ground_truth = ground_truth

    async def RegisterVersion(  # noqa: N802
        self, request: registry_pb2.RegisterVersionRequest, context: Context
    ) -> registry_pb2.RegisterVersionResponse:
        """Store the reference profile, then add the version: an event never names a profile that is not there."""
        model_id = model_id_from(request.version.model_id)
        digest = ""
        if request.reference_profile and not request.mutation.validate_only:
            digest = await self._ground_truth.put_profile(request.reference_profile)
        embeddings = ""
        if request.embeddings and not request.mutation.validate_only:
            embeddings = await self._ground_truth.put_embeddings(request.embeddings)
        command = RegisterVersion(
            model_id=model_id,
            facts=version_facts_from(request.version, digest, embeddings),
            attempt_id=attempt_id_from(request.attempt_id),
            lease_token=LeaseToken(request.lease_token) if request.lease_token else None,
        )
        outcome = await self._plane.submit(command, request.mutation)
        if outcome.dry or outcome.result.version is None:
            return registry_pb2.RegisterVersionResponse(revision=outcome.revision)
        found = outcome.state.version(model_id, outcome.result.version)
        return registry_pb2.RegisterVersionResponse(version=version_in(outcome.state, found), revision=outcome.revision)

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
            version=version_in(state, state.version(model_id, number)), revision=state.revision
        )

    async def ListVersions(  # noqa: N802
        self, request: registry_pb2.ListVersionsRequest, context: Context
    ) -> registry_pb2.ListVersionsResponse:
        """Versions, newest first."""
        state = await self._plane.read(request.read)
        found = state.model(model_id_from(request.model_id)).versions[::-1]
        shown, token = page(found, [newest_first_key(v.number) for v in found], request.page)
        return registry_pb2.ListVersionsResponse(
            versions=[version_in(state, one) for one in shown], next_page_token=token, revision=state.revision
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

    async def RemoveAlias(  # noqa: N802
        self, request: registry_pb2.RemoveAliasRequest, context: Context
    ) -> registry_pb2.RemoveAliasResponse:
        """Remove a team's own alias."""
        model_id = model_id_from(request.model_id)
        outcome = await self._plane.submit(RemoveAlias(model_id=model_id, alias=request.alias), request.mutation)
        moves = [move for move in outcome.state.model(model_id).alias_moves if move.alias == request.alias]
        return registry_pb2.RemoveAliasResponse(
            move=alias_move(moves[-1]) if moves and not outcome.dry else None, revision=outcome.revision
        )

    async def ListAliases(  # noqa: N802
        self, request: registry_pb2.ListAliasesRequest, context: Context
    ) -> registry_pb2.ListAliasesResponse:
        """Where aliases point, over the whole fleet."""
        state = await self._plane.read(request.read)
        moves = []
        for model_id in sorted(state.models):
            record = state.models[model_id]
            if request.team not in ("", record.facts.team):
                continue
            newest = {move.alias: move for move in record.alias_moves}
            moves += [newest[alias] for alias in sorted(record.aliases) if request.alias in ("", alias)]
        return registry_pb2.ListAliasesResponse(moves=map(alias_move, moves), revision=state.revision)

    async def ReportLoadCheck(  # noqa: N802
        self, request: registry_pb2.ReportLoadCheckRequest, context: Context
    ) -> registry_pb2.ReportLoadCheckResponse:
        """Somebody tried to load a version."""
        model_id = model_id_from(request.model_id)
        command = ReportLoadCheck(
            model_id=model_id,
            version=request.version,
            passed=request.passed,
            environment=request.environment,
            detail=request.detail,
        )
        outcome = await self._plane.submit(command, request.mutation)
        found = version_in(outcome.state, outcome.state.version(model_id, request.version))
        return registry_pb2.ReportLoadCheckResponse(version=found, revision=outcome.revision)

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
            since = self._plane.moment(state, request.read) - span_from(request.within, "within")
            moves = [move for move in moves if move.moved_at >= since]
        return registry_pb2.ListAliasMovesResponse(
            moves=[alias_move(move) for move in moves if request.alias in ("", move.alias)],
            revision=state.revision,
        )
