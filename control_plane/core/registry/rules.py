"""Rules of the registry: what makes a model, a version or an alias move acceptable."""

import re
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.ids import SLUG
from control_plane.core.registry.types import MANAGED_ALIASES, AliasMove, ModelFacts, VersionFacts

SHA256 = re.compile(r"[0-9a-f]{64}")
OWNER = re.compile(r"team:[a-z][a-z0-9_]{0,99}|[^@\s]+@[^@\s]+")
"""What Dagster accepts as an asset owner."""


T = TypeVar("T", bound=Hashable)


def repeated(values: Iterable[T]) -> list[T]:
    """What is there more than once, in the order in which it appears again.

    >>> repeated("abcab")
    ['a', 'b']
    """
    seen: set[T] = set()
    twice: dict[T, None] = {}
    for value in values:
        if value in seen:
            twice[value] = None
        seen.add(value)
    return list(twice)


def facts_violations(facts: ModelFacts) -> list[Violation]:
    """All broken rules of a model's facts."""
    found = []
    if not SLUG.fullmatch(facts.model_id):
        found.append(Violation(field="model.model_id", rule="slug", message="use a lower-case letter, then a-z 0-9 _"))
    if facts.owner and not OWNER.fullmatch(facts.owner):
        found.append(
            Violation(
                field="model.owner",
                rule="owner",
                message=f"{facts.owner!r} is neither an e-mail nor team:name; leave it empty if nobody owns it yet",
            )
        )
    if not SLUG.fullmatch(facts.team):
        found.append(Violation(field="model.team", rule="slug", message="use a lower-case letter, then a-z 0-9 _"))
    if facts.tier not in (1, 2, 3, 4):
        found.append(Violation(field="model.tier", rule="tier", message=f"{facts.tier} is not one of 1, 2, 3, 4"))
    if len(set(facts.consumers)) != len(facts.consumers):
        found.append(Violation(field="model.consumers", rule="unique", message="a consumer is named twice"))
    return found


def check_facts(facts: ModelFacts, *more: Violation) -> None:
    """Raise `Invalid` with every violation of the facts, and `more` found by the caller."""
    found = [*facts_violations(facts), *more]
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)


def check_version(facts: VersionFacts) -> None:
    """Raise `Invalid` with every violation of a version's facts."""
    found = []
    if not SHA256.fullmatch(facts.artifact_sha256):
        found.append(
            Violation(
                field="version.artifact_sha256",
                rule="sha256",
                message="64 lower-case hex digits: sha256sum of the artifact",
            )
        )
    if facts.trained_from is not None and facts.trained_from >= facts.trained_until:
        found.append(
            Violation(
                field="version.trained_from",
                rule="window",
                message="the training window ends before it starts",
            )
        )
    twice = repeated((metric.name, metric.slice) for metric in facts.metrics)
    if twice:
        names = ", ".join(f"{name} of {part}" if part else name for name, part in twice)
        message = f"named twice: {names}; tell metrics of one name apart by their slice"
        found.append(Violation(field="version.metrics", rule="unique", message=message))
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)


def check_own_alias(alias: str) -> None:
    """Raise `Refused` for an alias that only rollouts move."""
    if alias in MANAGED_ALIASES:
        raise Refused(
            Reason.VALIDATION_REQUIRED,
            f"alias {alias!r} is moved by rollouts only: use PromoteVersion or RollBack "
            "(`runway rollouts promote`, `runway rollouts roll-back`)",
            alias=alias,
        )


def check_alias_move(alias: str, current: int, version: int, versions: int, expected: int | None) -> None:
    """May `alias` move from `current` (0 if nowhere) to `version`, of `versions` registered?"""
    check_own_alias(alias)
    if not 1 <= version <= versions:
        raise Refused(Reason.VERSION_NOT_FOUND, f"version {version} does not exist; versions are 1 to {versions}")
    if expected is not None and expected != current:
        raise Refused(
            Reason.ETAG_MISMATCH,
            f"alias {alias!r} points at version {current}, not {expected}: read it again",
            alias=alias,
            current=str(current),
        )


def alias_as_of(moves: list[AliasMove], when: float) -> Mapping[str, AliasMove]:
    """The move in force for each alias at `when` (seconds since the epoch); `moves` oldest first."""
    force: dict[str, AliasMove] = {}
    for move in moves:
        if move.moved_at.timestamp() <= when:
            force[move.alias] = move
    return force
