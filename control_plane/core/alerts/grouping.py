"""Groups troubles by cause: one upstream and forty models downstream of it with the same trouble are one alert.

Theory of operation. A trouble names what may be behind it (`suspects`), nearest first; a model that stands on nothing
is its own suspect. Troubles of one kind and one signature are told together if they share a suspect: the one that most
of them share comes first, then the nearer one, then the one with the smaller id; what it does not explain is grouped
further in the same way. So a group has one cause that everyone in it names, no trouble is in two groups, and none is
lost. The key is made of the kind, the signature and the cause: more models with the same cause change nothing about it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from control_plane.core.alerts.types import Severity
from control_plane.core.ids import ModelId

SUSPECTS_MAX = 20
"""Of one trouble: whoever stands on more datasets at the same distance is explained by the first of them."""


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with one model. `suspects`: node ids (or `scheduler:...`, `fleet`), nearest first, never empty."""

    kind: str
    signature: str = ""
    model_id: ModelId
    severity: Severity
    since: datetime
    sentence: str
    suspects: tuple[str, ...]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Troubles with one cause, by model."""

    cause: str
    troubles: tuple[Trouble, ...]

    @property
    def key(self) -> str:
        """The same while the cause lasts."""
        first = self.troubles[0]
        return alert_key(first.kind, self.cause, first.signature)


def alert_key(kind: str, cause: str, signature: str = "") -> str:
    """`kind/cause`, with what tells alerts of one kind apart between them.

    >>> alert_key("data_fault", "dataset:weather"), alert_key("rule", "model:eta", "fleet/drift")
    ('data_fault/dataset:weather', 'rule/fleet/drift/model:eta')
    """
    return f"{kind}/{signature}/{cause}" if signature else f"{kind}/{cause}"


def grouped(troubles: Iterable[Trouble]) -> list[Group]:
    """Every trouble in exactly one group; groups in the order of their keys."""
    alike: dict[tuple[str, str], list[Trouble]] = defaultdict(list)
    for trouble in troubles:
        alike[trouble.kind, trouble.signature].append(trouble)
    found = [group for some in alike.values() for group in _explained(some)]
    return sorted(found, key=lambda group: group.key)


def _explained(troubles: Sequence[Trouble]) -> list[Group]:
    behind: dict[str, list[Trouble]] = defaultdict(list)
    rank: dict[str, int] = {}
    for trouble in troubles:
        for place, suspect in enumerate(trouble.suspects[:SUSPECTS_MAX]):
            behind[suspect].append(trouble)
            rank[suspect] = min(rank.get(suspect, place), place)
    counts = {suspect: len(some) for suspect, some in behind.items()}
    left = set(troubles)
    found = []
    while left:
        cause = min(counts, key=lambda suspect: (-counts[suspect], rank[suspect], suspect))
        explained = [trouble for trouble in behind[cause] if trouble in left]
        found.append(Group(cause=cause, troubles=tuple(sorted(explained, key=lambda one: one.model_id))))
        for trouble in explained:
            left.discard(trouble)
            for suspect in trouble.suspects[:SUSPECTS_MAX]:
                counts[suspect] -= 1
                if not counts[suspect]:
                    del counts[suspect]
    return found
