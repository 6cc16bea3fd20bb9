"""What a destination may be, and whom an alert is told to when."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from control_plane.core.alerts.types import Alert, Destination, DestinationKind, Severity, Silence
from control_plane.core.errors import Violation

NAME = re.compile(r"[a-z][a-z0-9_-]{0,99}")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,99}")
URL_CHARS_MAX = 2_000
TEAMS_MAX = 1_000
KINDS_MAX = 100
DESTINATIONS_MAX = 100
"""In force at once: each reads the whole log."""
SILENCES_MAX = 10_000
"""Kept at once; those that are over do not count."""
SILENCE_MAX = timedelta(days=90)
"""Nobody remembers a longer one."""
KEY_CHARS_MAX = 300

FOREIGN_SECRETS = (
    *("RUNWAY_DATABASE", "RUNWAY_APPROVAL", "RUNWAY_SERVING", "RUNWAY_SCHEDULER", "RUNWAY_METRICS", "RUNWAY_KAFKA"),
    *("RUNWAY_TABLES", "RUNWAY_CONFIG", "AWS_", "AZURE_", "GOOGLE_", "PG", "KUBERNETES_"),
)
"""Beginnings of variables that hold secrets of others: an address of anybody's choice must never be given them.
Those that the configuration names for schedulers and serving systems are kept from it where they are read."""

LABEL_CHARS_MAX = 63
HOST_CHARS_MAX = 253
"""Of a name and of its parts, by the rules of DNS; whatever is longer is no name that can be looked up."""

SEVERITIES = (Severity.INFO, Severity.WARNING, Severity.PAGE)
"""From the quietest to the loudest."""

LOUDNESS = {severity: rank for rank, severity in enumerate(SEVERITIES)}


def loudest(severities: Iterable[Severity]) -> Severity:
    """The loudest of some."""
    return max(severities, key=LOUDNESS.__getitem__)


def destination_violations(destination: Destination, kinds_known: Iterable[str]) -> list[Violation]:
    """All that is wrong with a destination. `kinds_known` are the kinds of events that there are."""
    found: list[Violation] = []

    def wrong(field: str, rule: str, message: str) -> None:
        found.append(Violation(field=f"destination.{field}", rule=rule, message=message))

    if not NAME.fullmatch(destination.name):
        wrong(
            "name", "name", f"{destination.name[:60]!a} is no name: a lower-case letter, then up to 99 of a-z 0-9 _ -"
        )
    fault = url_fault(destination.url)
    if fault:
        wrong("url", "url", fault)
    variable = destination.secret_variable
    if variable and not VARIABLE.fullmatch(variable):
        wrong("secret_variable", "variable", f"{variable[:60]!a} names no environment variable: use A-Z 0-9 _")
    elif variable.startswith(FOREIGN_SECRETS):
        wrong("secret_variable", "foreign", f"{variable} holds a secret of something else: use a variable of its own")
    elif not variable and destination.kind in (DestinationKind.WEBHOOK, DestinationKind.PAGERDUTY):
        what = "signing secret" if destination.kind is DestinationKind.WEBHOOK else "routing key"
        wrong(
            "secret_variable", "required", f"name the environment variable of the control plane that holds the {what}"
        )
    if len(destination.teams) > TEAMS_MAX:
        wrong("teams", "count", f"name at most {TEAMS_MAX:,} teams, or none for all")
    if len(destination.kinds) > KINDS_MAX:
        wrong("kinds", "count", f"name at most {KINDS_MAX} kinds, or none for all")
    known = frozenset(kinds_known)
    for kind in destination.kinds[:KINDS_MAX]:
        if kind not in known:
            wrong("kinds", "kind", f"there is no event {kind[:60]!a}: `runway events` shows kinds, like RolloutEnded")
    if destination.kinds and destination.kind is not DestinationKind.WEBHOOK:
        wrong("kinds", "kind", "kinds choose events, and only a webhook is sent events: leave it empty")
    for field, hour in (
        ("quiet_start_hour", destination.quiet_start_hour),
        ("quiet_end_hour", destination.quiet_end_hour),
    ):
        if not 0 <= hour <= 23:
            wrong(field, "range", "an hour of the day, 0 to 23")
    return found


def url_fault(url: str) -> str:
    """What is wrong with an address; empty if nothing is.

    >>> url_fault("https://example.com/hook"), url_fault("ftp://example.com")[:31]
    ('', "'ftp://example.com' is no addre")
    """
    shown = ascii(url[:100])
    if len(url) > URL_CHARS_MAX:
        return f"use at most {URL_CHARS_MAX:,} characters"
    if not url.isascii() or any(char <= " " or char in ("\x7f", "\\") for char in url):
        return f"{shown} holds characters that no address has: write others as %.. (a name of a host as xn--...)"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"{shown} is no address: {error}"
    if parts.scheme not in ("http", "https"):
        return f"{shown} is no address of the web: it begins with http:// or https://"
    if not parts.hostname or port == 0:
        return f"{shown} names no host" if not parts.hostname else f"{shown} has no port to connect to"
    labels = parts.hostname.removesuffix(".").split(".")
    if ":" not in parts.hostname and (
        len(parts.hostname) > HOST_CHARS_MAX or any(not 0 < len(label) <= LABEL_CHARS_MAX for label in labels)
    ):
        return f"{shown} names no host that there can be: its parts have 1 to {LABEL_CHARS_MAX} characters"
    if parts.username is not None or parts.password is not None:
        return "a user or a password in the address would be shown to everybody: name a variable for the secret"
    if parts.fragment:
        return f"{shown} has a part behind #, which is never sent"
    return ""


def silence_violations(silence: Silence, now: datetime) -> list[Violation]:
    """All that is wrong with a silence."""
    found = []
    if not silence.key or len(silence.key) > KEY_CHARS_MAX:
        found.append(Violation(field="key", rule="key", message="name an alert: `runway alerts` shows their keys"))
    if silence.until > now + SILENCE_MAX:
        found.append(
            Violation(field="until", rule="range", message=f"at most {SILENCE_MAX.days} days: silence it again then")
        )
    return found


def silenced(alert: Alert, silences: Mapping[str, Silence], now: datetime) -> bool:
    """Is nobody to be told about it now?"""
    silence = silences.get(alert.key)
    return silence is not None and now < silence.until


def routed(alert: Alert, destination: Destination) -> bool:
    """Does a destination want to hear of an alert at all?

    An alert that is about no team (a scheduler, the fleet) goes to everybody.
    """
    if LOUDNESS[alert.severity] < LOUDNESS[destination.severity_min]:
        return False
    return not destination.teams or not alert.teams or any(team in destination.teams for team in alert.teams)


def quiet(destination: Destination, now: datetime) -> bool:
    """Is it one of the hours, [start, end) in UTC, in which nothing below a page is told?"""
    start, end, hour = destination.quiet_start_hour, destination.quiet_end_hour, now.hour
    if start == end:
        return False
    return start <= hour < end if start < end else hour >= start or hour < end


def tellable(alert: Alert, destination: Destination, silences: Mapping[str, Silence], now: datetime) -> bool:
    """May an alert that was not told yet be told now? What is held back is told later, if it still stands."""
    if not routed(alert, destination) or silenced(alert, silences, now):
        return False
    return alert.severity is Severity.PAGE or not quiet(destination, now)
