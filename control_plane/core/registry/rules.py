"""Rules of the registry: what makes a model, a version or an alias move acceptable."""

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

from control_plane.core.errors import Invalid, Reason, Refused, Violation
from control_plane.core.ids import SLUG
from control_plane.core.registry.types import (
    MANAGED_ALIASES,
    AliasMove,
    Field,
    ModelFacts,
    Signature,
    ValueType,
    VersionFacts,
)

SHA256 = re.compile(r"[0-9a-f]{64}")
OWNER = re.compile(r"team:[a-z][a-z0-9_]{0,99}|[^@\s]+@[^@\s]+")
"""What Dagster accepts as an asset owner."""
DATASET = re.compile(r"dataset:[a-z][a-z0-9_]{0,99}")


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


TRAINING_WINDOW_MAX = timedelta(days=36_500)
"""A hundred years: longer than any data reaches back, short enough to be taken from any date."""

TAG_KEY = re.compile(r"[^=\s]{1,100}")
"""Filters write `key=value`."""

TAG_VALUE_CHARS_MAX = 1_000


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
    twice = repeated(facts.consumers)
    if twice:
        message = f"named twice: {', '.join(twice)}; name each once"
        found.append(Violation(field="model.consumers", rule="unique", message=message))
    return [*found, *_tag_violations(facts), *_training_violations(facts)]


def _tag_violations(facts: ModelFacts) -> list[Violation]:
    found = []
    for key, value in facts.tags.items():
        if not TAG_KEY.fullmatch(key):
            message = f"the key {key[:120]!r} must have 1 to 100 characters, no space and no `=`"
            found.append(Violation(field="model.tags", rule="tag", message=message))
        if len(value) > TAG_VALUE_CHARS_MAX:
            message = f"the value of {key[:120]!r} has {len(value)} characters; {TAG_VALUE_CHARS_MAX} are the most"
            found.append(Violation(field="model.tags", rule="tag", message=message))
    return found


def _training_violations(facts: ModelFacts) -> list[Violation]:
    """What is said about training: the window, the tainted windows, the inputs, the cost."""
    found = []
    window = facts.training_window
    if window is not None and not timedelta(0) < window <= TRAINING_WINDOW_MAX:
        message = f"must be longer than 0 and at most {TRAINING_WINDOW_MAX.days} days; leave it out if there is none"
        found.append(Violation(field="model.training_window", rule="range", message=message))
    for number, tainted in enumerate(facts.tainted_windows):
        if tainted.start >= tainted.until:
            message = f"it ends at {tainted.until:%Y-%m-%d %H:%M}, before it begins: from must be earlier than until"
            found.append(Violation(field=f"model.tainted_windows[{number}].until", rule="window", message=message))
    twice = repeated(one.name for one in facts.expected_inputs)
    if twice:
        message = f"named twice: {', '.join(twice)}; name each once"
        found.append(Violation(field="model.expected_inputs", rule="unique", message=message))
    if not (math.isfinite(facts.retrain_gpu_hours) and facts.retrain_gpu_hours >= 0):
        message = f"{facts.retrain_gpu_hours} is not a finite number of at least 0"
        found.append(Violation(field="model.retrain_gpu_hours", rule="range", message=message))
    return found


def check_facts(facts: ModelFacts, *more: Violation) -> None:
    """Raise `Invalid` with every violation of the facts, and `more` found by the caller."""
    found = [*facts_violations(facts), *more]
    if found:
        raise Invalid(Reason.INVALID_ARGUMENT, *found)


def version_violations(facts: VersionFacts) -> list[Violation]:
    """All broken rules of a version's facts, whatever model it is of."""
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
                message="the training window ends before it starts: trained_from must be earlier than trained_until",
            )
        )
    twice = repeated((metric.name, metric.slice) for metric in facts.metrics)
    if twice:
        names = ", ".join(f"{name} of {part}" if part else name for name, part in twice)
        message = f"named twice: {names}; tell metrics of one name apart by their slice"
        found.append(Violation(field="version.metrics", rule="unique", message=message))
    for name, fields in (("inputs", facts.signature.inputs), ("outputs", facts.signature.outputs)):
        again = repeated(one.name for one in fields)
        if again:
            message = f"named twice: {', '.join(again)}; name each once"
            found.append(Violation(field=f"version.signature.{name}", rule="unique", message=message))
    for number, data in enumerate(facts.training_data):
        if data.node_id and not DATASET.fullmatch(data.node_id):
            message = f"{data.node_id[:120]!r} is no dataset of the graph: write dataset:name, or only a uri"
            found.append(Violation(field=f"version.training_data[{number}].node_id", rule="dataset", message=message))
    return found


def signature_violations(signature: Signature, expected: Sequence[Field]) -> list[Violation]:
    """Where a version does not take what its model says goes in. A version that says nothing of its inputs may pass."""
    if not signature.inputs:
        return []
    takes = {one.name: one for one in signature.inputs}
    found = []
    for want in expected:
        have = takes.get(want.name)
        if have is None and not want.optional:
            message = (
                f"lacks {want.name}, which the model's expected_inputs require: train with it, or make it optional"
            )
            found.append(Violation(field="version.signature.inputs", rule="expected_input", message=message))
        elif have is not None and len({have.value_type, want.value_type} - {ValueType.UNKNOWN}) > 1:
            message = (
                f"{want.name} is a {have.value_type.value}; the model expects a {want.value_type.value}: train with "
                "that, or change the model's expected_inputs"
            )
            found.append(Violation(field="version.signature.inputs", rule="expected_type", message=message))
    return found


def check_version(facts: VersionFacts, expected: Sequence[Field] = (), *more: Violation) -> None:
    """Raise `Invalid` with every violation of a version's facts, and `more` found by the caller."""
    found = [*version_violations(facts), *signature_violations(facts.signature, expected), *more]
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
        have = f"versions are 1 to {versions}" if versions else "the model has no version yet"
        raise Refused(Reason.VERSION_NOT_FOUND, f"version {version} does not exist: {have}")
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
