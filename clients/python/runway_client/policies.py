"""What each scope says about policies, and what that comes to: PolicyService."""

from runway.v1 import policies_pb2
from runway.v1.policies_pb2_grpc import PolicyServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.moments import Moment, read_options


class Policies:
    """Policies as layers: built-in < fleet < tier < team < model, field by field.

    A scope is `fleet`, `tier:1` to `tier:4`, `team:<team>` or `model:<model id>`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = PolicyServiceStub(connection.channel)

    def set_policies(
        self,
        scope: str,
        policies: policies_pb2.Policies,
        *,
        etag: str = "",
        why: Why = NO_REASON,
    ) -> policies_pb2.SetPoliciesResponse:
        """Replace all that a scope says; the reply tells what changes for which model.

        Args:
            policies: what the scope says from now on; empty removes it.
            etag: of the layer that was read; refused if somebody changed the scope meanwhile.
            why: with `validate_only`, it is only told what would change.
        """
        request = policies_pb2.SetPoliciesRequest(scope=scope, policies=policies, etag=etag)
        return self._connection.change(self.stub.SetPolicies, request, method="PolicyService/SetPolicies", why=why)

    def get_policies(
        self, scope: str, *, version: int = 0, min_revision: int = 0, as_of: Moment = None
    ) -> policies_pb2.PolicyLayer:
        """What a scope says, or said at one of its versions; a scope that never said anything has version 0."""
        request = policies_pb2.GetPoliciesRequest(
            scope=scope, version=version, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        return self._connection.read(self.stub.GetPolicies, request, method="PolicyService/GetPolicies").layer

    def list_policies(self, *, min_revision: int = 0, as_of: Moment = None) -> list[policies_pb2.PolicyLayer]:
        """Every scope that says anything: the fleet, tiers, teams, models."""
        request = policies_pb2.ListPoliciesRequest(read=read_options(min_revision=min_revision, as_of=as_of))
        response = self._connection.read(self.stub.ListPolicies, request, method="PolicyService/ListPolicies")
        return list(response.layers)

    def list_policy_versions(
        self, scope: str, *, min_revision: int = 0, as_of: Moment = None
    ) -> list[policies_pb2.PolicyLayer]:
        """Every version of a scope, newest first, with who set it and why."""
        request = policies_pb2.ListPolicyVersionsRequest(
            scope=scope, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        response = self._connection.read(
            self.stub.ListPolicyVersions, request, method="PolicyService/ListPolicyVersions"
        )
        return list(response.layers)

    def explain_policies(
        self, model_id: str, *, min_revision: int = 0, as_of: Moment = None
    ) -> list[policies_pb2.PolicyValue]:
        """Every value in force for a model, by field, and which scope it comes from."""
        request = policies_pb2.ExplainPoliciesRequest(
            model_id=model_id, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        response = self._connection.read(self.stub.ExplainPolicies, request, method="PolicyService/ExplainPolicies")
        return list(response.values)
