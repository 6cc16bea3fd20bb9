"""Models, versions and aliases: RegistryService."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import overload

from google.protobuf.field_mask_pb2 import FieldMask
from runway.v1 import common_pb2, registry_pb2
from runway.v1.registry_pb2_grpc import RegistryServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.times import to_duration, to_timestamp

PAGE_SIZE = 500
"""Few round trips for a fleet of thousands, and a page stays far below the message limit."""


class Registry:
    """What exists, who owns it, what runs in production, and what ran when."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = RegistryServiceStub(connection.channel)

    def register_model(self, model: registry_pb2.Model, *, why: Why = NO_REASON) -> registry_pb2.Model:
        """Add a model; its node appears in the graph at once."""
        request = registry_pb2.RegisterModelRequest(model=model)
        return self._connection.change(
            self.stub.RegisterModel, request, method="RegistryService/RegisterModel", why=why
        ).model

    def update_model(
        self, model: registry_pb2.Model, fields: Sequence[str] = (), *, why: Why = NO_REASON
    ) -> registry_pb2.Model:
        """Change the named fields, or every field that is set; `model.etag` guards against another's change."""
        request = registry_pb2.UpdateModelRequest(model=model, update_mask=FieldMask(paths=fields))
        return self._connection.change(
            self.stub.UpdateModel, request, method="RegistryService/UpdateModel", why=why
        ).model

    def get_model(self, model_id: str, *, min_revision: int = 0) -> registry_pb2.Model:
        """One model."""
        request = registry_pb2.GetModelRequest(
            model_id=model_id, read=common_pb2.ReadOptions(min_revision=min_revision)
        )
        return self._connection.read(self.stub.GetModel, request, method="RegistryService/GetModel").model

    def list_models(
        self,
        *,
        teams: Sequence[str] = (),
        tiers: "Sequence[common_pb2.Tier.ValueType]" = (),
        tags: Sequence[str] = (),
        min_revision: int = 0,
    ) -> Iterator[registry_pb2.Model]:
        """All models that match, page by page."""
        request = registry_pb2.ListModelsRequest(
            page=common_pb2.PageRequest(page_size=PAGE_SIZE),
            read=common_pb2.ReadOptions(min_revision=min_revision),
            teams=teams,
            tiers=tiers,
            tags=tags,
        )
        while True:
            response = self._connection.read(self.stub.ListModels, request, method="RegistryService/ListModels")
            yield from response.models
            if not response.next_page_token:
                return
            request.page.page_token = response.next_page_token

    def register_version(
        self,
        version: registry_pb2.ModelVersion,
        *,
        reference_profile: bytes = b"",
        attempt_id: str = "",
        lease_token: str = "",
        why: Why = NO_REASON,
    ) -> registry_pb2.ModelVersion:
        """Add a trained version; it serves nobody until an alias points at it. The reply carries its number."""
        request = registry_pb2.RegisterVersionRequest(
            version=version, reference_profile=reference_profile, attempt_id=attempt_id, lease_token=lease_token
        )
        return self._connection.change(
            self.stub.RegisterVersion, request, method="RegistryService/RegisterVersion", why=why
        ).version

    @overload
    def get_version(self, model_id: str, *, version: int, min_revision: int = 0) -> registry_pb2.ModelVersion: ...
    @overload
    def get_version(self, model_id: str, *, alias: str, min_revision: int = 0) -> registry_pb2.ModelVersion: ...
    def get_version(
        self, model_id: str, *, version: int | None = None, alias: str | None = None, min_revision: int = 0
    ) -> registry_pb2.ModelVersion:
        """One version, by number or by alias."""
        request = registry_pb2.GetVersionRequest(
            model_id=model_id, read=common_pb2.ReadOptions(min_revision=min_revision)
        )
        if version is not None:
            request.version = version
        if alias is not None:
            request.alias = alias
        return self._connection.read(self.stub.GetVersion, request, method="RegistryService/GetVersion").version

    def list_versions(self, model_id: str, *, min_revision: int = 0) -> Iterator[registry_pb2.ModelVersion]:
        """All versions of a model, newest first."""
        request = registry_pb2.ListVersionsRequest(
            model_id=model_id,
            page=common_pb2.PageRequest(page_size=PAGE_SIZE),
            read=common_pb2.ReadOptions(min_revision=min_revision),
        )
        while True:
            response = self._connection.read(self.stub.ListVersions, request, method="RegistryService/ListVersions")
            yield from response.versions
            if not response.next_page_token:
                return
            request.page.page_token = response.next_page_token

    def move_alias(
        self,
        model_id: str,
        alias: str,
        version: int,
        *,
        expected_version: int | None = None,
        why: Why = NO_REASON,
    ) -> registry_pb2.AliasMove:
        """Point an alias at a version; refused unless it points at `expected_version` now (0: it must not exist)."""
        request = registry_pb2.MoveAliasRequest(
            model_id=model_id, alias=alias, version=version, expected_version=expected_version
        )
        return self._connection.change(self.stub.MoveAlias, request, method="RegistryService/MoveAlias", why=why).move

    def list_alias_moves(
        self,
        model_id: str,
        *,
        alias: str = "",
        as_of: datetime | None = None,
        within: timedelta | None = None,
        min_revision: int = 0,
    ) -> list[registry_pb2.AliasMove]:
        """Moves of a model's aliases, newest first; with `as_of`, only what was in force then."""
        request = registry_pb2.ListAliasMovesRequest(
            model_id=model_id,
            alias=alias,
            as_of=None if as_of is None else to_timestamp(as_of),
            within=None if within is None else to_duration(within),
            read=common_pb2.ReadOptions(min_revision=min_revision),
        )
        response = self._connection.read(self.stub.ListAliasMoves, request, method="RegistryService/ListAliasMoves")
        return list(response.moves)
