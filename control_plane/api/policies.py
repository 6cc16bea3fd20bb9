"""PolicyService: what each scope says, what that comes to, and what a change would change for whom."""

from runway.v1 import policies_pb2, policies_pb2_grpc

from control_plane.api.convert.common import timestamp
from control_plane.api.convert.policies import overrides_from, policies_message, policy_change, policy_layer
from control_plane.api.convert.registry import model_id_from
from control_plane.api.interceptors import Context
from control_plane.api.plane import ANONYMOUS, Plane
from control_plane.core.commands import SetPolicies
from control_plane.core.decide.policies import changes
from control_plane.core.errors import Invalid, NotFound, Reason, Violation
from control_plane.core.policies import (
    PolicyVersion,
    built_in,
    explanation,
    is_scope,
    normal,
    resolve,
    scalars,
    value_text,
)
from control_plane.core.state import State


class PolicyServicer(policies_pb2_grpc.PolicyServiceServicer):
    """Parse, submit or read, render."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def SetPolicies(  # noqa: N802
        self, request: policies_pb2.SetPoliciesRequest, context: Context
    ) -> policies_pb2.SetPoliciesResponse:
        """Replace what one scope says; the reply tells what changes for which model."""
        scope = request.scope
        overrides = normal(overrides_from(request.policies))
        command = SetPolicies(scope=scope, overrides=overrides, etag=request.etag)
        outcome = await self._plane.submit(command, request.mutation)
        book = outcome.state.policies
        number = outcome.result.version or 0
        if outcome.dry:
            layer = policies_pb2.PolicyLayer(
                scope=scope,
                policies=policies_message(overrides),
                version=number,
                set_by=request.mutation.actor or ANONYMOUS,
                reason=request.mutation.reason,
                set_at=timestamp(self._plane.now()),
            )
            before = book.overrides(scope)
        else:
            versions = book.versions(scope)
            layer = policy_layer(scope, versions[number - 1] if number else None)
            before = versions[number - 2].overrides if number > 1 else {}
        told = changes(outcome.state, scope, before, overrides) if outcome.result.changed else ()
        return policies_pb2.SetPoliciesResponse(
            layer=layer, changes=map(policy_change, told), revision=outcome.revision
        )

    async def GetPolicies(  # noqa: N802
        self, request: policies_pb2.GetPoliciesRequest, context: Context
    ) -> policies_pb2.GetPoliciesResponse:
        """What one scope says, or said at one of its versions."""
        state = await self._plane.read(request.read)
        versions = _versions(state, request.scope)
        if request.version > len(versions):
            have = f"its versions are 1 to {len(versions)}" if versions else "it never said anything"
            raise NotFound(
                Reason.POLICY_NOT_FOUND,
                f"{request.scope} has no version {request.version}: {have}",
                scope=request.scope,
                version=str(request.version),
            )
        found = versions[(request.version or len(versions)) - 1] if versions else None
        return policies_pb2.GetPoliciesResponse(layer=policy_layer(request.scope, found), revision=state.revision)

    async def ListPolicies(  # noqa: N802
        self, request: policies_pb2.ListPoliciesRequest, context: Context
    ) -> policies_pb2.ListPoliciesResponse:
        """Every scope that says anything."""
        state = await self._plane.read(request.read)
        book = state.policies
        return policies_pb2.ListPoliciesResponse(
            layers=[policy_layer(scope, book.newest(scope)) for scope in book.scopes()], revision=state.revision
        )

    async def ListPolicyVersions(  # noqa: N802
        self, request: policies_pb2.ListPolicyVersionsRequest, context: Context
    ) -> policies_pb2.ListPolicyVersionsResponse:
        """Every version of one scope, newest first."""
        state = await self._plane.read(request.read)
        found = _versions(state, request.scope)
        return policies_pb2.ListPolicyVersionsResponse(
            layers=[policy_layer(request.scope, one) for one in reversed(found)], revision=state.revision
        )

    async def ExplainPolicies(  # noqa: N802
        self, request: policies_pb2.ExplainPoliciesRequest, context: Context
    ) -> policies_pb2.ExplainPoliciesResponse:
        """The policies in force for a model, and where each value comes from."""
        state = await self._plane.read(request.read)
        facts = state.model(model_id_from(request.model_id)).facts
        layers = state.policies.layers(facts.tier, facts.team, facts.model_id)
        policies, sources = resolve(built_in(facts.tier, facts.task_type), layers)
        values = [
            policies_pb2.PolicyValue(
                field=path,
                value=value_text(scalar),
                source=sources[path],
                explanation=explanation(path, sources[path], facts.tier),
            )
            for path, scalar in sorted(scalars(policies).items())
        ]
        return policies_pb2.ExplainPoliciesResponse(values=values, revision=state.revision)


def _versions(state: State, scope: str) -> "list[PolicyVersion]":
    """All versions of a scope; `Invalid` or `NotFound` for what can be none."""
    if not is_scope(scope):
        message = f"{scope!r} is no scope: write fleet, tier:1 to tier:4, team:<team> or model:<model id>"
        raise Invalid(Reason.INVALID_ARGUMENT, Violation(field="scope", rule="scope", message=message))
    if scope.startswith("model:"):
        state.model(model_id_from(scope))
    return list(state.policies.versions(scope))
