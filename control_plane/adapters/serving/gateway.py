"""Traffic weights of a Gateway API HTTPRoute.

Each version of a model has a Service behind it; the route's rule sends requests to them by `backendRefs[].weight`. By
default the Services are named `<model>-v<version>`, and `<model>-v<version>-control` for the control, which runs
production's version under a name of its own so that its metrics can be told apart. Runway changes weights (and adds
and removes the Services that it names); everything else in the route stays as it is.

A mirror filter gives a candidate in the shadow a copy of the requests.
"""

import copy
from dataclasses import dataclass
from typing import Any

from control_plane.adapters.serving.http import HttpClient
from control_plane.adapters.serving.kubernetes import Object, Objects, Resource, noted_versions, object_name
from control_plane.app.serving import ServingRefused, Target, Weights
from control_plane.core.ids import ModelId

ROUTES = Resource(group="gateway.networking.k8s.io", version="v1", plural="httproutes")
WHOLE = 10_000
"""Weights are shares of this: hundredths of a percent. The API takes up to 1,000,000."""
MIRROR = "RequestMirror"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteNames:
    """Templates of names; without `control` production answers the control's share."""

    route: str = "{model}"
    version: str = "{model}-v{version}"
    control: str = "{model}-v{version}-control"
    rule: str = ""
    """`name` of the rule to split; empty takes the first."""


class GatewayServing:
    """One namespace of a cluster."""

    def __init__(self, http: HttpClient, namespace: str, names: RouteNames) -> None:
        self._objects = Objects(http, ROUTES, namespace)
        self._names = names

    async def set_weights(self, target: Target) -> None:
        """Patch the route's weights."""
        name = object_name(self._names.route, target.model_id)
        await self._objects.change(name, target, lambda found: split(found, target, self._names))

    async def weights(self, model_id: ModelId) -> Weights | None:
        """Read the route's weights."""
        found = await self._objects.read(object_name(self._names.route, model_id))
        if found is None:
            return None
        production, candidate = noted_versions(found)
        if production is None:
            return None
        rule = _rule(found.get("spec", {}), self._names)
        shares = _shares(rule.get("backendRefs") or [])
        whole = sum(shares.values()) or 1
        of_candidate = object_name(self._names.version, model_id, candidate) if candidate else ""
        of_control = object_name(self._names.control, model_id, production) if self._names.control else ""
        return Weights(
            production=production,
            candidate=candidate,
            candidate_weight=shares.get(of_candidate, 0) / whole,
            control_weight=shares.get(of_control, 0) / whole,
            shadow=any(one.get("type") == MIRROR for one in rule.get("filters") or []),
        )

    async def close(self) -> None:
        """Let go of connections."""
        await self._objects.close()


def split(found: Object, target: Target, names: RouteNames) -> Object:
    """The merge patch that makes a route serve a target; empty if it does. Raises ServingRefused."""
    if target.production is None:
        raise ServingRefused(f"{target.model_id} has nothing in production: there is nothing to split")
    spec = found.get("spec", {})
    rules: list[Object] = copy.deepcopy(spec.get("rules") or [])
    rule = _rule({"rules": rules}, names)
    before: list[Object] = rule.get("backendRefs") or []
    if not before:
        raise ServingRefused(f"the rule of HTTPRoute {found['metadata'].get('name')} has no backendRefs to split")
    wanted = _wanted(target, names)
    ours = {name for name in _shares(before) if name in wanted or _is_ours(name, target.model_id, names)}
    model = next((one for one in before if one.get("name") in wanted), before[0])
    others = [one for one in before if one.get("name") not in ours]
    if any(one.get("weight", 1) for one in others):
        other, example = ", ".join(str(one.get("name")) for one in others), next(iter(wanted))
        raise ServingRefused(
            f"the rule sends requests to {other}, which no version of {target.model_id} is: route to {example}, or "
            "change the configuration's version and control templates"
        )
    by_name = {one.get("name"): one for one in before}
    rule["backendRefs"] = [
        {**by_name.get(name, model), "name": name, "weight": weight} for name, weight in wanted.items()
    ]
    _set_mirror(rule, model, target, names)
    return {} if rules == spec.get("rules") else {"spec": {"rules": rules}}


def _wanted(target: Target, names: RouteNames) -> dict[str, int]:
    """Weight by Service; they sum to `WHOLE`."""
    assert target.production is not None
    production = object_name(names.version, target.model_id, target.production.version)
    share = round(WHOLE * target.candidate_weight) if target.candidate is not None else 0
    control = round(WHOLE * target.control_weight) if target.candidate is not None and names.control else 0
    control = min(control, WHOLE - share)
    wanted = {production: WHOLE - share - control}
    if target.candidate is not None and not target.shadow:
        wanted[object_name(names.version, target.model_id, target.candidate.version)] = share
    if control:
        name = object_name(names.control, target.model_id, target.production.version)
        wanted[name] = wanted.get(name, 0) + control
    return wanted


def _set_mirror(rule: Object, model: Object, target: Target, names: RouteNames) -> None:
    """Copy requests to a candidate in the shadow; to nobody otherwise."""
    ours = [one for one in rule.get("filters") or [] if not _mirrors_ours(one, target.model_id, names)]
    if target.shadow and target.candidate is not None:
        name = object_name(names.version, target.model_id, target.candidate.version)
        kept = {key: value for key, value in model.items() if key in {"group", "kind", "namespace", "port"}}
        mirror: dict[str, Any] = {"backendRef": {**kept, "name": name}}
        ours.append({"type": MIRROR, "requestMirror": mirror})
    if ours or "filters" in rule:
        rule["filters"] = ours
    if not rule.get("filters"):
        rule.pop("filters", None)


def _mirrors_ours(one: Object, model_id: ModelId, names: RouteNames) -> bool:
    name = one.get("requestMirror", {}).get("backendRef", {}).get("name", "")
    return one.get("type") == MIRROR and _is_ours(name, model_id, names)


def _is_ours(name: str, model_id: ModelId, names: RouteNames) -> bool:
    """Is it the Service of some version of the model?"""
    for template in filter(None, (names.version, names.control)):
        before, _, after = object_name(template.replace("{version}", "\0"), model_id).partition("\0")
        number = name.removeprefix(before).removesuffix(after)
        if name.startswith(before) and name.endswith(after) and (number.isdecimal() or "{version}" not in template):
            return True
    return False


def _shares(refs: list[Object]) -> dict[str, int]:
    shares: dict[str, int] = {}
    for one in refs:
        name = str(one.get("name"))
        shares[name] = shares.get(name, 0) + int(one.get("weight", 1))
    return shares


def _rule(spec: Object, names: RouteNames) -> Object:
    rules: list[Object] = spec.get("rules") or []
    for rule in rules:
        if not names.rule or rule.get("name") == names.rule:
            return rule
    missing = f"no rule named {names.rule!r}" if names.rule else "no rules"
    raise ServingRefused(f"the HTTPRoute has {missing}: write the rule whose requests are to be split")
