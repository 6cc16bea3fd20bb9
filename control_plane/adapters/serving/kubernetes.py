"""The Kubernetes API, as far as serving needs it: read an object, change it, and try again when somebody else did.

Every change is a merge patch that carries the `resourceVersion` it was made from, so that two writers never undo one
another: the API server answers 409, the object is read again and the change made anew. Who wrote last is an annotation
with (epoch, revision): a control plane that has been deposed meanwhile does not overwrite its successor.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from control_plane.adapters.serving.http import HttpClient, raise_for
from control_plane.app.serving import ServingRefused, ServingUnavailable, Target
from control_plane.core.ids import ModelId

TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - where it is, not what it is
CONFLICTS_MAX = 5
"""Other writers that come in between before this counts as not available."""
MERGE_PATCH = "application/merge-patch+json"
FENCE = "runway.dev/revision"
TARGET = "runway.dev/target"
NAME_CHARS_MAX = 63

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Where objects of a kind are: group, version, plural."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str, name: str) -> str:
        """Of one object."""
        return f"/apis/{self.group}/{self.version}/namespaces/{quote(namespace)}/{self.plural}/{quote(name)}"


class Objects:
    """Objects of one kind in one namespace."""

    def __init__(self, http: HttpClient, resource: Resource, namespace: str) -> None:
        self._http, self._resource, self._namespace = http, resource, namespace

    async def read(self, name: str) -> Object | None:
        """An object, None when it does not exist. Raises ServingUnavailable, ServingRefused."""
        path = self._resource.path(self._namespace, name)
        answer = await self._http.request("GET", path, headers={"Accept": "application/json"})
        if answer.status == 404:
            return None
        raise_for(self._http.who, answer)
        found = answer.json(self._http.who)
        if not isinstance(found, dict):
            raise ServingUnavailable(f"{self._http.who} answered something that is no object")
        return found

    async def change(self, name: str, target: Target, changed: Callable[[Object], Object]) -> None:
        """Give an object the `spec` (or more) that `changed` makes of it, unless it is so already.

        Raises:
            ServingRefused: it does not exist, the change is not valid, or a newer control plane wrote it.
            ServingUnavailable: the API server is not there, or others keep writing.
        """
        path = self._resource.path(self._namespace, name)
        for _ in range(CONFLICTS_MAX):
            found = await self.read(name)
            if found is None:
                raise ServingRefused(
                    f"there is no {self._resource.plural}/{name} in namespace {self._namespace}: create it first"
                )
            metadata = found.get("metadata", {})
            annotations = metadata.get("annotations") or {}
            check_fence(annotations.get(FENCE, ""), target, name)
            patch = changed(found)
            if not patch:
                return
            notes = {FENCE: fence(target), TARGET: noted(target)}
            patch["metadata"] = {"resourceVersion": metadata.get("resourceVersion"), "annotations": notes}
            answer = await self._http.request(
                "PATCH", path, body=json.dumps(patch).encode(), headers={"Content-Type": MERGE_PATCH}
            )
            if answer.status == 409:
                continue
            raise_for(self._http.who, answer)
            return
        raise ServingUnavailable(f"{self._resource.plural}/{name} keeps being changed by others")

    async def close(self) -> None:
        """Let go of threads."""
        await self._http.close()


def fence(target: Target) -> str:
    """Which decision wrote an object.

    >>> from control_plane.core.ids import RolloutId
    >>> fence(Target(model_id=ModelId("m"), rollout_id=RolloutId("r"), production=None, epoch=3, revision=1042))
    '3.1042'
    """
    return f"{target.epoch}.{target.revision}"


def check_fence(written: str, target: Target, name: str) -> None:
    """Raise `ServingRefused` when a newer decision wrote the object."""
    epoch, _, revision = written.partition(".")
    if epoch.isdecimal() and revision.isdecimal() and (int(epoch), int(revision)) > (target.epoch, target.revision):
        raise ServingRefused(f"{name} was written by a newer control plane (revision {written})")


def noted(target: Target) -> str:
    """A target as an annotation, for people and for `weights`."""
    return json.dumps(
        {
            "production": target.production.version if target.production is not None else None,
            "candidate": target.candidate.version if target.candidate is not None else None,
        }
    )


def noted_versions(found: Object) -> tuple[int | None, int | None]:
    """Production and candidate, as the annotation says."""
    try:
        told = json.loads((found.get("metadata", {}).get("annotations") or {}).get(TARGET, "{}"))
        return told.get("production"), told.get("candidate")
    except (ValueError, AttributeError):
        return None, None


def object_name(template: str, model_id: ModelId, version: int | None = None) -> str:
    """A Kubernetes name from a template with `{model}` and `{version}`; what names cannot hold becomes a hyphen.

    >>> object_name("{model}-v{version}", ModelId("arrival_delay.ewr"), 7)
    'arrival-delay-ewr-v7'
    """
    plain = model_id.lower().replace("_", "-").replace(".", "-").replace("/", "-")
    name = template.replace("{model}", plain).replace("{version}", "" if version is None else str(version))
    if len(name) > NAME_CHARS_MAX:
        raise ServingRefused(f"{name} is longer than the {NAME_CHARS_MAX} characters that a Kubernetes name may have")
    return name
