"""Rules of the core that a request breaks beside those of the contract, so that one answer tells them all.

A request that breaks the contract never reaches the core. What the core would say about its other fields is asked here,
of a copy in which whatever cannot even be read is replaced by something harmless. Only rules that look at nothing but
the request are asked: a policy is judged by its own words, not by those of scopes that it would meet.
"""

from collections.abc import Callable, Mapping

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from runway.v1 import common_pb2, policies_pb2, registry_pb2, rules_pb2

from control_plane.api.convert.policies import overrides_from
from control_plane.api.convert.registry import LINKS_FROM, facts_from, version_facts_from
from control_plane.core.decide.rules import when_violations
from control_plane.core.errors import Invalid, Violation
from control_plane.core.ids import SLUG, parse_model_id
from control_plane.core.policies import RELATED, Scalar, applied, built_in, normal, policies_violations
from control_plane.core.registry.rules import facts_violations, version_violations
from control_plane.core.registry.types import TaskType

HARMLESS_ID = "a"


def also_broken(message: Message, known: list[Violation]) -> list[Violation]:
    """Rules of the core that a request breaks, in fields of which the contract has not complained already."""
    rules = RULES.get(type(message))
    if rules is None:
        return []
    complained = {violation.field.partition("[")[0] for violation in known}
    return [violation for violation in rules(message) if violation.field.partition("[")[0] not in complained]


def model_violations(message: registry_pb2.Model) -> list[Violation]:
    """What the core says about a model, its own policies included; fields begin with `model.`."""
    copy = registry_pb2.Model()
    copy.CopyFrom(message)
    if not SLUG.fullmatch(copy.model_id):
        copy.model_id = HARMLESS_ID
    if not SLUG.fullmatch(copy.team):
        copy.team = HARMLESS_ID
    if copy.tier not in (1, 2, 3, 4):
        copy.tier = common_pb2.TIER_4
    if copy.task_type not in common_pb2.TaskType.values() or not copy.task_type:
        copy.task_type = common_pb2.TASK_TYPE_BINARY
    for link in copy.links:
        if link.kind not in LINKS_FROM:
            link.kind = registry_pb2.LINK_KIND_SOURCE
    try:
        found = facts_violations(facts_from(copy))
    except Invalid as error:
        found = list(error.violations)
    return [*found, *_policies_violations(message.policies, "model.policies")]


def _policies_violations(message: policies_pb2.Policies, prefix: str) -> list[Violation]:
    try:
        overrides = normal(overrides_from(message, prefix))
    except Invalid as error:
        return list(error.violations)
    return [
        Violation(field=f"{prefix}.{violation.field}", rule=violation.rule, message=violation.message)
        for violation in policies_violations(applied(built_in(4, TaskType.BINARY), overrides))
        if _its_own(violation.field, overrides)
    ]


def _its_own(field: str, overrides: Mapping[str, Scalar]) -> bool:
    """Is it these overrides alone that break the rule, whatever else is said?"""
    related = [path for path in RELATED.get(field, ()) if path != "staleness.fusion"]
    said = [path for path in (field, *related) if path in overrides]
    return len(said) == len(related) + (field in overrides) and bool(said)


def _version_violations(message: registry_pb2.ModelVersion) -> list[Violation]:
    copy = registry_pb2.ModelVersion()
    copy.CopyFrom(message)
    if not copy.HasField("trained_until"):
        copy.ClearField("trained_from")
        copy.trained_until.CopyFrom(Timestamp(seconds=1))
    found: list[Violation] = []
    for name in sorted(copy.upstream_versions):
        try:
            parse_model_id(name, "version.upstream_versions")
        except Invalid as error:
            found += error.violations
    copy.ClearField("upstream_versions")
    try:
        return [*found, *version_violations(version_facts_from(copy, ""))]
    except Invalid as error:
        return [*found, *error.violations]


RULES: dict[type[Message], Callable[..., list[Violation]]] = {
    registry_pb2.RegisterModelRequest: lambda request: model_violations(request.model),
    registry_pb2.Model: model_violations,
    registry_pb2.RegisterVersionRequest: lambda request: _version_violations(request.version),
    policies_pb2.SetPoliciesRequest: lambda request: _policies_violations(request.policies, "policies"),
    rules_pb2.SetRuleRequest: lambda request: when_violations(request.rule.when, "rule.when"),
}
"""What is asked of which message."""
