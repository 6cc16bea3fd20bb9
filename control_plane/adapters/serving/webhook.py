"""A serving system behind two addresses: one takes weights, the other tells metrics. See docs/serving.md.

Requests are signed as Standard Webhooks does it: `webhook-signature` is `v1,` and the HMAC-SHA256 of
`id.timestamp.body` in base64, so that whoever serves knows that it was Runway who asked, and when.
"""

import base64
import hashlib
import hmac
import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from control_plane.adapters.serving.http import HttpClient, raise_for
from control_plane.app.serving import ServingUnavailable, Target, Weights, arm_of
from control_plane.core.ids import ModelId
from control_plane.core.rollout.types import Arm, Look, Rollout

KNOWS_NOT = frozenset({404, 405, 501})
"""A GET answered so: the system does not know the model, or never tells."""


def signed(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature of a message, as its header says it.

    >>> signed("whsec_c2VjcmV0", "m_1", 1_700_000_000, b"{}")
    'v1,B3kEq6K7vwraOFOoirRDvkv2bC7uVJh3GttaO1QaBMo='
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(_key(secret), content, hashlib.sha256).digest()).decode()


def _key(secret: str) -> bytes:
    if secret.startswith("whsec_"):
        return base64.b64decode(secret.removeprefix("whsec_"))
    return secret.encode()


class _Caller:
    """Signed requests to one address."""

    def __init__(self, url: str, who: str, secret: str, timeout_s: float, clock: Callable[[], float]) -> None:
        parts = urlsplit(url)
        self._http = HttpClient(f"{parts.scheme}://{parts.netloc}", who, timeout_s=timeout_s)
        self._path, self._query = parts.path or "/", parts.query
        self._secret, self._clock = secret, clock
        self.http = self._http

    def headers(self, message_id: str, body: bytes) -> dict[str, str]:
        """Of a request that says `body`."""
        headers = {"User-Agent": "runway"}
        if body:
            headers["Content-Type"] = "application/json"
        if self._secret:
            at = int(self._clock())
            headers |= {
                "webhook-id": message_id,
                "webhook-timestamp": str(at),
                "webhook-signature": signed(self._secret, message_id, at, body),
            }
        return headers

    def path(self, query: Mapping[str, str]) -> str:
        """The address's path with these fields added to its query."""
        joined = "&".join(filter(None, (self._query, urlencode(query))))
        return self._path + (f"?{joined}" if joined else "")


class WebhookServing:
    """POSTs a target as JSON; GETs what is served now, where the system tells."""

    def __init__(
        self, url: str, name: str, *, secret: str = "", timeout_s: float = 10.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._caller = _Caller(url, name, secret, timeout_s, clock)

    async def set_weights(self, target: Target) -> None:
        """Send the target. The id is the same for the same wish, so that receivers can drop what they know."""
        body = msgspec.json.encode(target)
        headers = self._caller.headers(f"weights_{target.rollout_id}_{target.epoch}_{target.revision}", body)
        await self._caller.http.accepted("POST", self._caller.path({}), body=body, headers=headers)

    async def weights(self, model_id: ModelId) -> Weights | None:
        """Ask for the target in force."""
        path = self._caller.path({"model_id": model_id})
        headers = self._caller.headers(f"ask_{model_id}", b"")
        answer = await self._caller.http.request("GET", path, headers=headers)
        if answer.status in KNOWS_NOT or answer.status == 204:
            return None
        raise_for(self._caller.http.who, answer)
        try:
            shown = msgspec.json.decode(answer.body, type=_Shown)
        except msgspec.MsgspecError as error:
            raise ServingUnavailable(f"{self._caller.http.who} tells weights that cannot be read ({error})") from error
        return Weights(
            production=shown.production.version if shown.production is not None else None,
            candidate=shown.candidate.version if shown.candidate is not None else None,
            candidate_weight=shown.candidate_weight,
            control_weight=shown.control_weight,
            shadow=shown.shadow,
        )

    async def close(self) -> None:
        """Let go of its threads."""
        await self._caller.http.close()


class _ShownVersion(msgspec.Struct, frozen=True):
    version: int


class _Shown(msgspec.Struct, frozen=True):
    production: _ShownVersion | None = None
    candidate: _ShownVersion | None = None
    candidate_weight: float = 0.0
    control_weight: float = 0.0
    shadow: bool = False


class WebhookMetrics:
    """GETs cumulative numbers of both arms as JSON:

    {"candidate": {"requests": 950, "metrics": {"engagement": {"count": 950, "mean": 0.41, "m2": 229.8}}},
     "control": ...}

    `sum` and `sum_squares` may stand in place of `mean` and `m2`.
    """

    def __init__(
        self, url: str, name: str, *, secret: str = "", timeout_s: float = 10.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._caller = _Caller(url, name, secret, timeout_s, clock)

    async def read(self, rollout: Rollout, now: datetime) -> Look:
        """Ask for the numbers of one canary."""
        asked = {
            "model_id": rollout.model_id,
            "rollout_id": rollout.rollout_id,
            "candidate": str(rollout.version),
            "control": str(rollout.production_before),
            "since": (rollout.canary_since or rollout.started_at).isoformat(),
            "now": now.isoformat(),
        }
        headers = self._caller.headers(f"metrics_{rollout.rollout_id}", b"")
        answer = await self._caller.http.accepted("GET", self._caller.path(asked), headers=headers)
        told = answer.json(self._caller.http.who)
        names = [metric.name for metric in rollout.plan.metrics]
        who = self._caller.http.who
        candidate, candidate_requests = _arm(told, "candidate", names, who)
        control, control_requests = _arm(told, "control", names, who)
        return Look(
            at=now,
            candidate=candidate,
            control=control,
            candidate_requests=candidate_requests,
            control_requests=control_requests,
        )

    async def close(self) -> None:
        """Let go of its threads."""
        await self._caller.http.close()


def _arm(told: Any, name: str, metrics: list[str], who: str) -> tuple[dict[str, Arm], int]:
    """Metrics and requests of one arm; raises ServingUnavailable for anything that cannot be told from a number."""
    arm = told.get(name, {}) if isinstance(told, dict) else None
    of = arm.get("metrics", {}) if isinstance(arm, dict) else None
    if not isinstance(arm, dict) or not isinstance(of, dict):
        raise ServingUnavailable(f"{who} tells metrics of another shape: give candidate and control, each with metrics")
    found = {metric: _numbers(of[metric], f"{metric} of the {name}", who) for metric in metrics if metric in of}
    return {metric: one for metric, one in found.items() if one.count}, _whole(arm.get("requests", 0), name, who)


def _numbers(told: Any, what: str, who: str) -> Arm:
    if not isinstance(told, dict):
        raise ServingUnavailable(f"{who} tells {what} as something else than count, mean and m2")
    try:
        count = float(told["count"])
        if "sum" in told:
            return arm_of(count, float(told["sum"]), float(told["sum_squares"]))
        whole = round(count) if math.isfinite(count) else 0
        return Arm(count=whole, mean=float(told["mean"]), m2=float(told["m2"]))
    except (KeyError, TypeError, ValueError) as error:
        missing = f"without {error}" if isinstance(error, KeyError) else "with something that is no number"
        raise ServingUnavailable(f"{who} tells {what} {missing}") from error


def _whole(told: Any, name: str, who: str) -> int:
    if isinstance(told, bool) or not isinstance(told, int | float) or not math.isfinite(told):
        raise ServingUnavailable(f"{who} tells requests of the {name} that are no number")
    return round(told)
