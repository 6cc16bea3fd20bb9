"""Models, versions and aliases: RegistryService."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import overload

from google.protobuf.field_mask_pb2 import FieldMask
from runway.v1 import common_pb2, registry_pb2, staleness_pb2
from runway.v1.registry_pb2_grpc import RegistryServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.moments import Moment, read_options
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

    def get_model(self, model_id: str, *, min_revision: int = 0, as_of: Moment = None) -> registry_pb2.Model:
        """One model, now or at a revision or time."""
        request = registry_pb2.GetModelRequest(
            model_id=model_id, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        return self._connection.read(self.stub.GetModel, request, method="RegistryService/GetModel").model

    def list_models(
        self,
        *,
        query: str = "",
        teams: Sequence[str] = (),
        tiers: "Sequence[common_pb2.Tier.ValueType]" = (),
        tags: Sequence[str] = (),
        owners: Sequence[str] = (),
        feature: str = "",
        consumer: str = "",
        lifecycles: "Sequence[registry_pb2.LifecycleState.ValueType]" = (),
        verdicts: "Sequence[staleness_pb2.Verdict.ValueType]" = (),
        task_types: "Sequence[common_pb2.TaskType.ValueType]" = (),
        view: "registry_pb2.ModelView.ValueType" = registry_pb2.MODEL_VIEW_UNSPECIFIED,
        order_by: str = "",
        page_size: int = PAGE_SIZE,
        min_revision: int = 0,
        as_of: Moment = None,
    ) -> Iterator[registry_pb2.Model]:
        """All models that match, page by page. Filters are combined with AND, the values of one with OR (tags: AND).

        Args:
            query: words; each must begin a word of the id, owner, team, description, a tag, a feature, a consumer or a
                link's title.
            tags: each `key` or `key=value`.
            feature: reads this feature directly.
            consumer: is consumed by this application or model directly: `gate_desk`, `model:air_time`.
            view: a ready-made question, MODEL_VIEW_NO_OWNER and so on.
            order_by: comma-separated keys, each with an optional ` desc`: model_id, tier, team, owner, verdict, score,
                registered_at, updated_at, lifecycle.
        """
        request = registry_pb2.ListModelsRequest(
            page=common_pb2.PageRequest(page_size=page_size),
            read=read_options(min_revision=min_revision, as_of=as_of),
            query=query,
            teams=teams,
            tiers=tiers,
            tags=tags,
            owners=owners,
            feature=feature,
            consumer=consumer,
            lifecycles=lifecycles,
            verdicts=verdicts,
            task_types=task_types,
            view=view,
            order_by=order_by,
        )
        while True:
            response = self._connection.read(self.stub.ListModels, request, method="RegistryService/ListModels")
            yield from response.models
            if not response.next_page_token:
                return
            request.page.page_token = response.next_page_token

    def set_lifecycle(
        self,
        model_id: str,
        lifecycle: "registry_pb2.LifecycleState.ValueType",
        *,
        force: bool = False,
        why: Why = NO_REASON,
    ) -> registry_pb2.Model:
        """Activate, deprecate or retire a model; retiring one that others consume needs `force` and a reason."""
        request = registry_pb2.SetLifecycleRequest(model_id=model_id, lifecycle=lifecycle, force=force)
        return self._connection.change(
            self.stub.SetLifecycle, request, method="RegistryService/SetLifecycle", why=why
        ).model

    def register_version(
        self,
        version: registry_pb2.ModelVersion,
        *,
        reference_profile: bytes = b"",
        embeddings: bytes = b"",
        attempt_id: str = "",
        lease_token: str = "",
        why: Why = NO_REASON,
    ) -> registry_pb2.ModelVersion:
        """Add a trained version; it serves nobody until an alias points at it. The reply carries its number."""
        request = registry_pb2.RegisterVersionRequest(
            version=version,
            reference_profile=reference_profile,
            embeddings=embeddings,
            attempt_id=attempt_id,
            lease_token=lease_token,
        )
        return self._connection.change(
            self.stub.RegisterVersion, request, method="RegistryService/RegisterVersion", why=why
        ).version

    @overload
    def get_version(
        self, model_id: str, *, version: int, min_revision: int = 0, as_of: Moment = None
    ) -> registry_pb2.ModelVersion: ...
    @overload
    def get_version(
        self, model_id: str, *, alias: str, min_revision: int = 0, as_of: Moment = None
    ) -> registry_pb2.ModelVersion: ...
    def get_version(
        self,
        model_id: str,
        *,
        version: int | None = None,
        alias: str | None = None,
        min_revision: int = 0,
        as_of: Moment = None,
    ) -> registry_pb2.ModelVersion:
        """One version, by number or by alias; with `as_of`, what the alias pointed at then."""
        request = registry_pb2.GetVersionRequest(
            model_id=model_id, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        if version is not None:
            request.version = version
        if alias is not None:
            request.alias = alias
        return self._connection.read(self.stub.GetVersion, request, method="RegistryService/GetVersion").version

    def list_versions(
        self, model_id: str, *, min_revision: int = 0, as_of: Moment = None
    ) -> Iterator[registry_pb2.ModelVersion]:
        """All versions of a model, newest first."""
        request = registry_pb2.ListVersionsRequest(
            model_id=model_id,
            page=common_pb2.PageRequest(page_size=PAGE_SIZE),
            read=read_options(min_revision=min_revision, as_of=as_of),
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

    def remove_alias(self, model_id: str, alias: str, *, why: Why = NO_REASON) -> registry_pb2.AliasMove:
        """Remove a team's own alias; its history is kept."""
        request = registry_pb2.RemoveAliasRequest(model_id=model_id, alias=alias)
        return self._connection.change(
            self.stub.RemoveAlias, request, method="RegistryService/RemoveAlias", why=why
        ).move

    def list_aliases(
        self, alias: str = "", *, team: str = "", min_revision: int = 0, as_of: Moment = None
    ) -> list[registry_pb2.AliasMove]:
        """Where an alias points for every model that has it, by model then alias; with `as_of`, where it pointed then.

        `list_aliases("production", as_of=...)` is what was in production then, over the whole fleet.
        """
        request = registry_pb2.ListAliasesRequest(
            alias=alias, team=team, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        response = self._connection.read(self.stub.ListAliases, request, method="RegistryService/ListAliases")
        return list(response.moves)

    def report_load_check(
        self,
        model_id: str,
        version: int,
        *,
        passed: bool,
        environment: str = "",
        detail: str = "",
        why: Why = NO_REASON,
    ) -> registry_pb2.ModelVersion:
        """Say that a version was loaded, or could not be; `detail` is the error, or how long it took."""
        request = registry_pb2.ReportLoadCheckRequest(
            model_id=model_id, version=version, passed=passed, environment=environment, detail=detail
        )
        return self._connection.change(
            self.stub.ReportLoadCheck, request, method="RegistryService/ReportLoadCheck", why=why
        ).version

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
            read=read_options(min_revision=min_revision),
        )
        response = self._connection.read(self.stub.ListAliasMoves, request, method="RegistryService/ListAliasMoves")
        return list(response.moves)
