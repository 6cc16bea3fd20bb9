"""Policies as layers: what each scope says, and what that comes to for a model.

A scope says some fields and is silent about the rest. What is in force for a model is read layer by layer, the later
wins, field by field:

    built-in < fleet < tier:<n> < team:<team> < model:<model_id>

What a scope says is a flat map from the path of a field to a scalar (`staleness.stale_threshold` -> 0.6). The paths are
those of the contract's `Policies`; the table of all of them (`FIELDS`) is derived from the full policies below, so that
a field that is added there is a field here. Spans are text, `900s` or `0.25s`, exact to the microsecond.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from types import NoneType
from typing import Any, Literal, cast, get_args

import msgspec

from control_plane.core.errors import Violation
from control_plane.core.ground_truth.labels import METRICS, LabelSpec, Task, label_violations
from control_plane.core.ground_truth.policy import GroundTruthPolicy
from control_plane.core.ground_truth.policy import policy_violations as ground_truth_violations
from control_plane.core.ids import ModelId, TeamId
from control_plane.core.registry.types import TaskType
from control_plane.core.retraining.rules import policy_violations as retraining_violations
from control_plane.core.retraining.types import RetrainingPolicy
from control_plane.core.rollout.plan import plan_violations
from control_plane.core.rollout.rules import policy_violations as validation_violations
from control_plane.core.rollout.types import RolloutPolicy, ValidationPolicy
from control_plane.core.staleness.policy import StalenessPolicy, Weights, default_policy
from control_plane.core.staleness.policy import policy_violations as staleness_violations

Scalar = bool | int | float | str
Overrides = dict[str, Scalar]
"""Path of a field -> what a scope says about it."""

BUILT_IN = "built-in"
FLEET = "fleet"
SCOPE = re.compile(r"fleet|tier:[1-4]|(team|model):[a-z][a-z0-9_]{0,99}")
SPAN = re.compile(r"(-?)(\d{1,15})(?:\.(\d{1,6}))?s")


class EffectivePolicies(msgspec.Struct, frozen=True, kw_only=True):
    """All policies in force for a model, every field filled in."""

    staleness: StalenessPolicy
    retraining: RetrainingPolicy = RetrainingPolicy()
    validation: ValidationPolicy = ValidationPolicy()
    rollout: RolloutPolicy = RolloutPolicy()
    label: LabelSpec
    ground_truth: GroundTruthPolicy = GroundTruthPolicy()


class PolicyVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What one scope said from a moment on. Versions of a scope count from 1; without overrides it says nothing."""

    scope: str
    version: int
    overrides: Overrides
    set_at: datetime
    set_by: str
    reason: str
    revision: int


Kind = Literal["number", "whole", "flag", "span", "word"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyField:
    """One field of the policies: `names` lead to it inside its group."""

    path: str
    group: str
    names: tuple[str, ...]
    kind: Kind
    word: type[StrEnum] | None = None
    """What the words of a closed choice are; None for any other field."""


_KINDS: dict[type, Kind] = {float: "number", int: "whole", bool: "flag", timedelta: "span", str: "word"}
_SILENT = {"label.task"}
"""Follows from the model's task type; nobody sets it."""


def _fields_of(struct: type[msgspec.Struct], group: str, names: tuple[str, ...] = ()) -> Iterable[PolicyField]:
    for field in msgspec.structs.fields(struct):
        path = ".".join((group, *names, field.name))
        if path in _SILENT:
            continue
        [of] = [one for one in get_args(field.type) or (field.type,) if one is not NoneType]
        inside = (*names, field.name)
        if issubclass(of, msgspec.Struct):
            yield from _fields_of(of, group, inside)
        elif issubclass(of, StrEnum):
            yield PolicyField(path=path, group=group, names=inside, kind="word", word=of)
        else:
            yield PolicyField(path=path, group=group, names=inside, kind=_KINDS[of])


GROUPS: dict[str, type[msgspec.Struct]] = {
    "staleness": StalenessPolicy,
    "retraining": RetrainingPolicy,
    "validation": ValidationPolicy,
    "rollout": RolloutPolicy,
    "label": LabelSpec,
    "ground_truth": GroundTruthPolicy,
}
FIELDS: dict[str, PolicyField] = {
    field.path: field for group, struct in GROUPS.items() for field in _fields_of(struct, group)
}
"""Every field of the policies by its path, in the order of the contract's groups."""


# Scalars


def span_text(span: timedelta) -> str:
    """A span as text, exact to the microsecond.

    >>> span_text(timedelta(minutes=15)), span_text(timedelta(microseconds=-2_500_000))
    ('900s', '-2.5s')
    """
    microseconds = span // timedelta(microseconds=1)
    seconds, rest = divmod(abs(microseconds), 1_000_000)
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{'-' if microseconds < 0 else ''}{seconds}{fraction}s"


@lru_cache(maxsize=4096)
def span_of(text: str) -> timedelta:
    """Inverse of `span_text`. Raises ValueError on anything else.

    >>> span_of("0.25s")
    datetime.timedelta(microseconds=250000)
    """
    found = SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:100]!r} is not a span: write seconds, as 900s or 0.25s")
    sign, seconds, fraction = found.groups()
    microseconds = int(seconds) * 1_000_000 + int((fraction or "").ljust(6, "0"))
    try:
        return timedelta(microseconds=-microseconds if sign else microseconds)
    except OverflowError as error:
        raise ValueError(f"{text} is longer than any span can be") from error


def _scalar(field: PolicyField, value: object) -> Scalar | None:
    """A value of a full policy as an override has it; None where there is none."""
    if isinstance(value, timedelta):
        return span_text(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, int) and field.kind == "number":
        return float(value)
    return cast("Scalar | None", value)


def _value(field: PolicyField, scalar: Scalar) -> object:
    """An override as a value of a full policy."""
    if field.kind == "span":
        return span_of(str(scalar))
    if field.word is not None:
        return field.word(str(scalar))
    return scalar


def value_text(scalar: Scalar | None) -> str:
    """A value for people, as in YAML.

    >>> [value_text(value) for value in (True, 0.6, 3, "900s", None)]
    ['true', '0.6', '3', '900s', 'none']
    """
    if scalar is None:
        return "none"
    if isinstance(scalar, bool):
        return "true" if scalar else "false"
    if isinstance(scalar, float):
        return f"{scalar:.17g}" if float(f"{scalar:.15g}") != scalar else f"{scalar:.15g}"
    return str(scalar)


def overrides_violations(overrides: Mapping[str, Scalar], prefix: str = "policies") -> list[Violation]:
    """Everything that no field could be: unknown paths, values of another type, words that are none."""
    found = []
    for path, scalar in sorted(overrides.items()):
        fault = _fault(path, scalar)
        if fault:
            found.append(Violation(field=f"{prefix}.{path[:200]}", rule="policy_field", message=fault))
    return found


def _fault(path: str, scalar: Scalar) -> str:
    field = FIELDS.get(path)
    if field is None:
        return f"there is no such policy: the paths are {', '.join(list(FIELDS)[:5])} and so on"
    wanted = {"number": (float, int), "whole": (int,), "flag": (bool,), "span": (str,), "word": (str,)}[field.kind]
    if not isinstance(scalar, wanted) or (isinstance(scalar, bool) and field.kind != "flag"):
        return f"{value_text(scalar)[:100]} is not a {field.kind}"
    try:
        _value(field, scalar)
    except ValueError as error:
        words = f"; it is one of {', '.join(field.word)}" if field.word is not None else ""
        return f"{error}{words}"
    return ""


# From layers to what is in force


def default_task(task_type: TaskType) -> Task:
    """How outcomes of a model are scored: as yes or no for a binary model, as numbers otherwise."""
    return "binary" if task_type is TaskType.BINARY else "regression"


def built_in(tier: int, task_type: TaskType) -> EffectivePolicies:
    """What is in force where no scope says anything."""
    return EffectivePolicies(
        staleness=default_policy(tier),
        rollout=RolloutPolicy(approvals=1 if tier == 1 else 0),
        label=LabelSpec(task=default_task(task_type)),
    )


def applied(policies: EffectivePolicies, overrides: Mapping[str, Scalar]) -> EffectivePolicies:
    """The policies with a layer upon them."""
    by_group: dict[str, dict[str, Any]] = {}
    weights: dict[str, Any] = {}
    for path, scalar in overrides.items():
        field = FIELDS[path]
        if len(field.names) == 1:
            by_group.setdefault(field.group, {})[field.names[0]] = _value(field, scalar)
        else:
            weights[field.names[1]] = _value(field, scalar)
    if weights:
        changed = msgspec.structs.replace(policies.staleness.weights, **weights)
        by_group.setdefault("staleness", {})["weights"] = changed
    if not by_group:
        return policies
    groups: dict[str, Any] = {
        group: msgspec.structs.replace(getattr(policies, group), **values) for group, values in by_group.items()
    }
    return msgspec.structs.replace(policies, **groups)


Layer = tuple[str, Mapping[str, Scalar]]
"""A scope and what it says."""


def resolve(base: EffectivePolicies, layers: Sequence[Layer]) -> tuple[EffectivePolicies, dict[str, str]]:
    """What layers come to, and the scope that each field comes from; layers in their order, the later wins."""
    sources = dict.fromkeys(FIELDS, BUILT_IN)
    for scope, overrides in layers:
        base = applied(base, overrides)
        sources.update(dict.fromkeys(overrides, scope))
    return base, sources


def scalars(policies: EffectivePolicies) -> dict[str, Scalar | None]:
    """Every field in force; None for one that has no value. The primary metric is the one that is used."""
    found: dict[str, Scalar | None] = {}
    for path, field in FIELDS.items():
        value: object = getattr(policies, field.group)
        for name in field.names:
            value = getattr(value, name)
        found[path] = _scalar(field, value)
    found["label.metric"] = policies.label.primary_metric
    return found


def overrides_of(group: str, policy: msgspec.Struct) -> Overrides:
    """All that a full policy says, as overrides: for whoever wants to set a whole group."""
    found: Overrides = {}
    for path, field in FIELDS.items():
        if field.group == group:
            value: object = policy
            for name in field.names:
                value = getattr(value, name)
            scalar = _scalar(field, value)
            if scalar is not None:
                found[path] = scalar
    return found


def normal(overrides: Mapping[str, Scalar]) -> Overrides:
    """The same overrides in one form: paths in the order of the table, whole numbers as what their field is."""
    return {
        path: float(overrides[path]) if field.kind == "number" else overrides[path]
        for path, field in FIELDS.items()
        if path in overrides
    }


# Rules

RELATED: dict[str, tuple[str, ...]] = {
    "staleness.at_risk_threshold": ("staleness.stale_threshold",),
    "staleness.psi_moderate": ("staleness.psi_significant",),
    "staleness.hysteresis_k": ("staleness.hysteresis_n",),
    "staleness.weights": ("staleness.fusion", *(f"staleness.weights.{one}" for one in Weights.__struct_fields__)),
    "retraining.attempt_timeout": ("retraining.lease_ttl",),
}
"""Which other fields a rule about a field looks at: what may collide with it."""


def policies_violations(policies: EffectivePolicies) -> list[Violation]:
    """All broken rules of policies in force; fields are paths."""
    return [
        *staleness_violations(policies.staleness, metrics=METRICS, primary=policies.label.primary_metric),
        *retraining_violations(policies.retraining),
        *validation_violations(policies.validation),
        *plan_violations(policies.rollout),
        *label_violations(policies.label),
        *ground_truth_violations(policies.ground_truth),
    ]


def sourced(violation: Violation, sources: Mapping[str, str]) -> Violation:
    """The violation, saying from which scopes the values come that collide."""
    paths = [path for path in (violation.field, *RELATED.get(violation.field, ())) if path in sources]
    scopes = {path: sources[path] for path in paths}
    if len(set(scopes.values())) <= 1 and violation.field in scopes:
        return violation
    whence = ", ".join(f"{path} is from {scope}" for path, scope in scopes.items())
    return replace(violation, message=f"{violation.message} ({whence})" if whence else violation.message)


OF_TIER = frozenset({"staleness.cadence", "rollout.approvals"})
"""Fields whose built-in default depends on the tier."""


def explanation(path: str, source: str, tier: int) -> str:
    """Where a value comes from, in words.

    >>> explanation("staleness.stale_threshold", "tier:1", 1)
    "from tier 1's default"
    """
    kind, _, name = source.partition(":")
    match kind:
        case "fleet":
            return "from the fleet's default"
        case "tier":
            return f"from tier {name}'s default"
        case "team":
            return f"from team {name}'s default"
        case "model":
            return "set on the model itself"
        case _:
            return f"the built-in default of tier {tier}" if path in OF_TIER else "the built-in default"


# All scopes


class PolicyBook:
    """Every version of every scope, and what they come to. Only `evolve` writes it.

    What is in force is remembered by tier, team, task and the model's own words, so that models that say the same
    share one object and a change for the whole fleet costs one resolution for each kind of model.
    """

    def __init__(self, versions: Iterable[PolicyVersion] = ()) -> None:
        self._versions: dict[str, list[PolicyVersion]] = {}
        self._in_force: dict[tuple[object, ...], EffectivePolicies] = {}
        for version in versions:
            self.put(version)

    def put(self, version: PolicyVersion) -> None:
        """A scope says something new from now on."""
        self._versions.setdefault(version.scope, []).append(version)
        if not version.scope.startswith("model:"):
            self._in_force.clear()  # a model's own words are part of the key

    def newest(self, scope: str) -> PolicyVersion | None:
        """What a scope says now; None if it never said anything."""
        versions = self._versions.get(scope)
        return versions[-1] if versions else None

    def overrides(self, scope: str) -> Overrides:
        """What a scope says now; not to be changed."""
        newest = self.newest(scope)
        return newest.overrides if newest is not None else {}

    def versions(self, scope: str) -> Sequence[PolicyVersion]:
        """All that a scope ever said, oldest first."""
        return self._versions.get(scope, ())

    def scopes(self) -> list[str]:
        """Scopes that say anything now: the fleet, tiers, teams, models, each by name."""
        order = {FLEET: 0, "tier": 1, "team": 2, "model": 3}
        speaking = (scope for scope, versions in self._versions.items() if versions[-1].overrides)
        return sorted(speaking, key=lambda scope: (order[scope.partition(":")[0]], scope))

    def all_versions(self) -> list[PolicyVersion]:
        """Everything, in the order in which it was said."""
        return sorted((one for of in self._versions.values() for one in of), key=lambda one: one.revision)

    def layers(
        self, tier: int, team: TeamId, model_id: ModelId, instead: Mapping[str, Mapping[str, Scalar]] = {}
    ) -> list[Layer]:
        """The layers of a model from the widest to its own; `instead` takes the place of what a scope says."""
        return [
            (scope, instead[scope] if scope in instead else self.overrides(scope))
            for scope in (FLEET, f"tier:{tier}", f"team:{team}", f"model:{model_id}")
        ]

    def in_force(self, tier: int, team: TeamId, model_id: ModelId, task_type: TaskType) -> EffectivePolicies:
        """What is in force for a model; one object for all models for which it is the same."""
        own = self.overrides(f"model:{model_id}")
        key = (tier, team, task_type, *own.items())
        found = self._in_force.get(key)
        if found is None:
            layers = self.layers(tier, team, model_id)
            found, _ = resolve(built_in(tier, task_type), layers[:3])
            found = self._in_force[key] = applied(found, own)
        return found


def is_scope(text: str) -> bool:
    """Is this the name of a scope?

    >>> is_scope("tier:1"), is_scope("team:Flights")
    (True, False)
    """
    return SCOPE.fullmatch(text) is not None
