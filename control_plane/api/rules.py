"""RulesService: rules set, removed and listed, and tried on the fleet as it is before anybody sets them."""

from collections.abc import Mapping

from runway.v1 import common_pb2, rules_pb2, rules_pb2_grpc

from control_plane.api.convert.registry import model_id_from
from control_plane.api.convert.rule_messages import (
    context_field,
    fault_message,
    rule_from,
    rule_message,
)
from control_plane.api.interceptors import Context
from control_plane.api.plane import ANONYMOUS, Plane, digest_of
from control_plane.core.commands import RemoveRule, SetRule
from control_plane.core.decide.rule_words import acts_on, consequence
from control_plane.core.decide.rules import Effect, effects, etag_of
from control_plane.core.ids import ModelId
from control_plane.core.relations import models_in
from control_plane.core.rules.cel import faults_of
from control_plane.core.rules.context import described
from control_plane.core.staleness.verdict import Evaluation
from control_plane.core.state import State

FAULTS_MAX = 20
"""Models named whose data a rule cannot be asked about; the sentence counts all."""


class RulesServicer(rules_pb2_grpc.RulesServiceServicer):
    """Parse, submit or read, render. `latest` are the newest looks, which the evaluator keeps."""

    def __init__(self, plane: Plane, latest: Mapping[ModelId, Evaluation]) -> None:
        self._plane = plane
        self._latest = latest

    async def SetRule(  # noqa: N802
        self, request: rules_pb2.SetRuleRequest, context: Context
    ) -> rules_pb2.SetRuleResponse:
        """Add or replace a rule; the reply tells what changes for which model."""
        rule = rule_from(request.rule)
        state = await self._plane.read(common_pb2.ReadOptions())
        looks = self._looks(state, rule.scope)
        command = SetRule(rule=rule, etag=request.etag, looks=looks)
        found = effects(state, rule, looks, self._plane.now()) if not faults_of(rule.when) else []
        told = self._effects(found)
        outcome = await self._plane.submit(command, request.mutation, digest=digest_of(request))
        number = outcome.result.version or 0
        if outcome.dry:
            message = rule_message(rule)
            message.version, message.etag = number, etag_of(number)
            message.set_by = request.mutation.actor or ANONYMOUS
            message.set_at.FromDatetime(self._plane.now())
        else:
            version = outcome.state.rules.version(rule.scope, rule.name, number)
            message = rule_message(rule, version)
        changed = told if outcome.result.changed and not outcome.repeated else ()
        return rules_pb2.SetRuleResponse(rule=message, effects=changed, revision=outcome.revision)

    async def RemoveRule(  # noqa: N802
        self, request: rules_pb2.RemoveRuleRequest, context: Context
    ) -> rules_pb2.RemoveRuleResponse:
        """Remove a rule."""
        command = RemoveRule(scope=request.scope, name=request.name)
        outcome = await self._plane.submit(command, request.mutation)
        return rules_pb2.RemoveRuleResponse(revision=outcome.revision)

    async def ListRules(  # noqa: N802
        self, request: rules_pb2.ListRulesRequest, context: Context
    ) -> rules_pb2.ListRulesResponse:
        """All rules in force, highest first; or those that speak to one model."""
        state = await self._plane.read(request.read)
        if request.model_id:
            facts = state.model(model_id_from(request.model_id)).facts
            rules = state.rules.of(facts.tier, facts.team, facts.model_id)
        else:
            rules = state.rules.rules()
        return rules_pb2.ListRulesResponse(
            rules=[rule_message(rule, state.rules.newest(rule.scope, rule.name)) for rule in rules],
            revision=state.revision,
        )

    async def CheckRule(  # noqa: N802
        self, request: rules_pb2.CheckRuleRequest, context: Context
    ) -> rules_pb2.CheckRuleResponse:
        """Type-check a rule, and say what it would make of the fleet now."""
        rule = rule_from(request.rule)
        state = await self._plane.read(common_pb2.ReadOptions())
        if rule.scope.startswith("model:"):
            state.model(model_id_from(rule.scope))
        faults = faults_of(rule.when)
        if faults:
            return rules_pb2.CheckRuleResponse(faults=map(fault_message, faults), revision=state.revision)
        found = effects(state, rule, self._looks(state, rule.scope), self._plane.now())
        faulty = [
            rules_pb2.RuleFault(message=f"{effect.record.model_id}: {effect.found}")
            for effect in found
            if isinstance(effect.found, str)
        ]
        unseen = sum(not record.retired for record in models_in(state, rule.scope)) - len(found)
        return rules_pb2.CheckRuleResponse(
            faults=faulty[:FAULTS_MAX],
            model_ids=[effect.record.model_id for effect in found if effect.found is True],
            effects=self._effects(found),
            sentence=acts_on(found, unseen),
            revision=state.revision,
        )

    async def DescribeRuleContext(  # noqa: N802
        self, request: rules_pb2.DescribeRuleContextRequest, context: Context
    ) -> rules_pb2.DescribeRuleContextResponse:
        """The names that rules may use."""
        return rules_pb2.DescribeRuleContextResponse(fields=map(context_field, described()))

    def _looks(self, state: State, scope: str) -> dict[ModelId, Evaluation]:
        """The newest looks at the models a scope speaks to."""
        ids = (record.model_id for record in models_in(state, scope))
        return {model_id: self._latest[model_id] for model_id in ids if model_id in self._latest}

    def _effects(self, found: list[Effect]) -> list[rules_pb2.RuleEffect]:
        """Of models for which something changes, what happens now and what would."""
        now = self._plane.now()
        told = (
            rules_pb2.RuleEffect(
                model_id=effect.record.model_id,
                now=consequence(effect.record, effect.record.rule_outcome, now),
                then=consequence(effect.record, effect.after, now),
            )
            for effect in found
        )
        return [effect for effect in told if effect.now != effect.then]
