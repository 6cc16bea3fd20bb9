"""What follows from a look at a model, said in CEL: RulesService."""

from runway.v1 import rules_pb2
from runway.v1.rules_pb2_grpc import RulesServiceStub

from runway_client.connection import NO_REASON, Connection, Why
from runway_client.moments import Moment, read_options


class Rules:
    """Rules: `when` (CEL over the names of `describe_rule_context`) holds, then an action.

    A scope is `fleet`, `tier:1` to `tier:4`, `team:<team>` or `model:<model id>`; a name is unique in it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stub = RulesServiceStub(connection.channel)

    def set_rule(self, rule: rules_pb2.Rule, *, etag: str = "", why: Why = NO_REASON) -> rules_pb2.SetRuleResponse:
        """Add a rule or replace the one of its name and scope; the reply tells what changes for which model.

        Args:
            etag: of the rule that was read; refused if somebody changed it meanwhile.
            why: with `validate_only`, it is only told what would change.
        Raises:
            InvalidRequest: the rule does not type-check; each violation begins with line and column.
        """
        request = rules_pb2.SetRuleRequest(rule=rule, etag=etag)
        return self._connection.change(self.stub.SetRule, request, method="RulesService/SetRule", why=why)

    def remove_rule(self, scope: str, name: str, *, why: Why = NO_REASON) -> rules_pb2.RemoveRuleResponse:
        """Remove a rule; models for which it held are without it at once."""
        request = rules_pb2.RemoveRuleRequest(scope=scope, name=name)
        return self._connection.change(self.stub.RemoveRule, request, method="RulesService/RemoveRule", why=why)

    def list_rules(self, model_id: str = "", *, min_revision: int = 0, as_of: Moment = None) -> list[rules_pb2.Rule]:
        """Rules in force, highest first; with a model those that speak to it."""
        request = rules_pb2.ListRulesRequest(
            model_id=model_id, read=read_options(min_revision=min_revision, as_of=as_of)
        )
        response = self._connection.read(self.stub.ListRules, request, method="RulesService/ListRules")
        return list(response.rules)

    def check_rule(self, rule: rules_pb2.Rule) -> rules_pb2.CheckRuleResponse:
        """Type-check a rule, and tell what it would do to the fleet as it is; changes nothing."""
        request = rules_pb2.CheckRuleRequest(rule=rule)
        return self._connection.read(self.stub.CheckRule, request, method="RulesService/CheckRule")

    def describe_rule_context(self) -> list[rules_pb2.RuleContextField]:
        """The names a rule may use, with their types and meanings."""
        request = rules_pb2.DescribeRuleContextRequest()
        response = self._connection.read(
            self.stub.DescribeRuleContext, request, method="RulesService/DescribeRuleContext"
        )
        return list(response.fields)
