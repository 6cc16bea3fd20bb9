"""How an alert is said to Alertmanager, PagerDuty and Slack.

Alertmanager and PagerDuty know an alert by what never changes of it (labels, deduplication key), so saying it twice
says it once. Slack knows nothing: what was told there is only what we remember.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from control_plane.adapters.alerts.saying import plain, said
from control_plane.app.delivery import Channel, Post, Told, Undelivered
from control_plane.core.alerts.types import Alert, Destination, DestinationKind, Severity

JSON = {"content-type": "application/json"}

ALERTMANAGER_REPEAT_S = 60.0
ALERTMANAGER_LASTS = timedelta(minutes=5)
"""An alert that is not said again for so long is over for Alertmanager: four repetitions may get lost."""

SECRET_PLACE = "{secret}"  # noqa: S105 - a place, not a secret
MODELS_MAX = 50
"""Named in one message; more are counted."""
TEXT_CHARS_MAX = 2_800
"""Slack cuts a longer text in pieces."""
SUMMARY_CHARS_MAX = 1_000
"""PagerDuty takes 1,024."""
HEADLINE_CHARS_MAX = 600
"""Of a message in Slack."""
DEDUP_KEY_CHARS_MAX = 255
"""PagerDuty takes no longer ones."""


def labels_of(alert: Alert) -> dict[str, str]:
    """What Alertmanager knows an alert by, and what its routes look at."""
    labels = {
        "alertname": f"Runway_{alert.kind}",
        "key": alert.key,
        "kind": alert.kind,
        "cause": alert.cause,
        "severity": alert.severity.value.lower(),
        "service": "runway",
    }
    if len(alert.teams) == 1:
        labels["team"] = alert.teams[0]
    return labels


def named(models: Sequence[str]) -> str:
    """Models, some by name."""
    more = len(models) - MODELS_MAX
    return ", ".join(models[:MODELS_MAX]) + (f" and {more:,} more" if more > 0 else "")


class PrometheusAlerts:
    """`POST /api/v2/alerts`: fire, say again while active, end."""

    batch_max = 100
    repeat_s = ALERTMANAGER_REPEAT_S
    tells_changes = True

    def __init__(self, post: Post) -> None:
        self._post = post

    def known_by(self, alert: Alert) -> tuple[str, ...]:
        """Its labels: with another one it would be active twice."""
        return tuple(f"{name}={value}" for name, value in sorted(labels_of(alert).items()))

    async def tell(
        self, destination: Destination, secret: str, active: Sequence[Told], over: Sequence[Told], wall: datetime
    ) -> str:
        """All of them in one call."""
        body = msgspec.json.encode(
            [_posted(one, wall + ALERTMANAGER_LASTS) for one in active] + [_posted(one, wall) for one in over]
        )
        url = destination.url.rstrip("/")
        if not url.endswith("/api/v2/alerts"):
            url += "/api/v2/alerts"
        headers = JSON | ({"authorization": f"Bearer {plain(destination, secret)}"} if secret else {})
        return await said(self._post, destination, secret, body, headers, url=url)


def _posted(told: Told, ends_at: datetime) -> dict[str, object]:
    alert = told.alert
    annotations = {"summary": alert.summary, "description": alert.detail, "models": named(alert.model_ids)}
    if alert.owners:
        annotations["owners"] = ", ".join(alert.owners)
    if alert.teams:
        annotations["teams"] = ", ".join(alert.teams)
    # A driven clock may be ahead of the wall clock; an alert ends after it began.
    starts_at = min(alert.since, told.at, ends_at - timedelta(milliseconds=1))
    return {
        "labels": labels_of(alert),
        "annotations": {name: text for name, text in annotations.items() if text},
        "startsAt": starts_at,
        "endsAt": ends_at,
    }


class PagerDuty:
    """Events API v2: trigger and resolve under one deduplication key."""

    batch_max = 1
    repeat_s = 0.0
    tells_changes = True

    def __init__(self, post: Post) -> None:
        self._post = post

    def known_by(self, alert: Alert) -> tuple[str, ...]:
        """Its key; and how loud it is, for an incident that is open stays as loud as it was."""
        return (dedup_key(alert), alert.severity.value)

    async def tell(
        self, destination: Destination, secret: str, active: Sequence[Told], over: Sequence[Told], wall: datetime
    ) -> str:
        """One event each."""
        if not secret:
            raise Undelivered(
                f"the environment variable {destination.secret_variable} of the control plane, which holds the routing "
                "key, is not set"
            )
        came_back = ""
        for told, action in [*((one, "trigger") for one in active), *((one, "resolve") for one in over)]:
            alert = told.alert
            event: dict[str, object] = {
                "routing_key": secret,
                "event_action": action,
                "dedup_key": dedup_key(alert),
            }
            if action == "trigger":
                event["payload"] = {
                    "summary": alert.summary[:SUMMARY_CHARS_MAX],
                    "source": "runway",
                    "severity": _PAGERDUTY[alert.severity],
                    "timestamp": min(alert.since, told.at),
                    "component": alert.cause,
                    "group": ", ".join(alert.teams),
                    "class": alert.kind,
                    "custom_details": {
                        "detail": alert.detail,
                        "models": list(alert.model_ids[:MODELS_MAX]),
                        "models_count": len(alert.model_ids),
                        "owners": list(alert.owners),
                    },
                }
            came_back = await said(self._post, destination, secret, msgspec.json.encode(event), JSON)
        return came_back


def dedup_key(alert: Alert) -> str:
    """What PagerDuty knows an alert by; a long key ends in what tells it from others that begin alike."""
    key = f"runway/{alert.key}"
    if len(key) <= DEDUP_KEY_CHARS_MAX:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return f"{key[: DEDUP_KEY_CHARS_MAX - 33]}#{digest}"


_PAGERDUTY = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.PAGE: "critical"}


class Slack:
    """An incoming webhook: one text when an alert begins, one when it is over. Its address is itself a secret."""

    batch_max = 1
    repeat_s = 0.0
    tells_changes = False

    def __init__(self, post: Post) -> None:
        self._post = post

    def known_by(self, alert: Alert) -> tuple[str, ...]:
        """Its key; one that grows louder is told anew."""
        return (alert.key, alert.severity.value)

    async def tell(
        self, destination: Destination, secret: str, active: Sequence[Told], over: Sequence[Told], wall: datetime
    ) -> str:
        """One message each."""
        came_back = ""
        url = with_secret(destination, secret)
        for text in [*(_fired(one.alert) for one in active), *(_over(one.alert) for one in over)]:
            body = msgspec.json.encode({"text": text})
            came_back = await said(self._post, destination, secret, body, JSON, url=url)
        return came_back


def with_secret(destination: Destination, secret: str) -> str:
    """The address, its secret part put in: whoever knows such an address may write there."""
    if SECRET_PLACE not in destination.url:
        return destination.url
    if not secret:
        raise Undelivered(
            f"the environment variable {destination.secret_variable or '(none is named)'} of the control plane, which "
            "holds the secret part of the address, is not set"
        )
    return destination.url.replace(SECRET_PLACE, plain(destination, secret))


HALF_ESCAPED = re.compile(r"&[a-z]{0,3}$")

_SIGNS = {
    Severity.INFO: ":information_source:",
    Severity.WARNING: ":warning:",
    Severity.PAGE: ":rotating_light:",
}


def _fired(alert: Alert) -> str:
    head = f"{_SIGNS[alert.severity]} *{cut(escaped(alert.summary), HEADLINE_CHARS_MAX)}*"
    quiet = f"`runway alerts silence {escaped(alert.key)} --for 2h` keeps it quiet."
    lines = [escaped(alert.detail)]
    if len(alert.model_ids) > 1:
        lines.append(f"Models: {escaped(named(alert.model_ids))}")
    if alert.owners:
        lines.append(f"Owner: {escaped(', '.join(alert.owners))}")
    # What to do about it is said however long the rest is.
    rest = cut("\n".join(line for line in lines if line), TEXT_CHARS_MAX - len(head) - len(quiet) - 2)
    return "\n".join(line for line in (head, rest, quiet) if line)


def cut(text: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    """At most what Slack shows as one message, and no half of an escaped character.

    >>> cut("a &amp; b", 6), cut("a &amp; b", 9)
    ('a …', 'a &amp; b')
    """
    if len(text) <= chars_max:
        return text
    return HALF_ESCAPED.sub("", text[: max(chars_max - 1, 0)]) + "…"


def _over(alert: Alert) -> str:
    return cut(f":white_check_mark: over: {escaped(alert.summary)}")


def escaped(text: str) -> str:
    """The three characters that Slack reads as markup; without it a reason could mention everybody.

    >>> escaped("<!channel> a & b")
    '&lt;!channel&gt; a &amp; b'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def channels(post: Post) -> dict[DestinationKind, Channel]:
    """What is spoken at each kind of destination that is told alerts."""
    return {
        DestinationKind.ALERTMANAGER: PrometheusAlerts(post),
        DestinationKind.PAGERDUTY: PagerDuty(post),
        DestinationKind.SLACK: Slack(post),
    }
