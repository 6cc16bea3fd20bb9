"""Every version of every rule, and which rules apply to a model."""

from collections.abc import Iterable, Sequence

from control_plane.core.rules.outcome import rule_rank
from control_plane.core.rules.types import Rule, RuleVersion


def scopes_of(tier: int, team: str, model_id: str) -> tuple[str, str, str, str]:
    """The scopes a model belongs to, the widest first."""
    return "fleet", f"tier:{tier}", f"team:{team}", f"model:{model_id}"


class RuleBook:
    """What all scopes say in rules. Only `evolve` writes it.

    Which rules apply is remembered by scope, so that a look at a model in a fleet without rules costs four look-ups.
    """

    def __init__(self, versions: Iterable[RuleVersion] = ()) -> None:
        self._versions: dict[tuple[str, str], list[RuleVersion]] = {}
        self._by_scope: dict[str, tuple[Rule, ...]] = {}
        for version in versions:
            self.put(version)

    def put(self, version: RuleVersion) -> None:
        """A rule says something else from now on, or nothing any more."""
        self._versions.setdefault((version.scope, version.name), []).append(version)
        kept = [rule for rule in self._by_scope.get(version.scope, ()) if rule.name != version.name]
        if version.rule is not None:
            kept.append(version.rule)
        if kept:
            self._by_scope[version.scope] = tuple(sorted(kept, key=rule_rank))
        else:
            self._by_scope.pop(version.scope, None)

    def __len__(self) -> int:
        """Rules in force, disabled ones too."""
        return sum(len(rules) for rules in self._by_scope.values())

    def newest(self, scope: str, name: str) -> RuleVersion | None:
        """What a rule said last; None if it never was. Its `rule` is None if it was removed."""
        versions = self._versions.get((scope, name))
        return versions[-1] if versions else None

    def rule(self, scope: str, name: str) -> Rule | None:
        """A rule in force; None if there is none."""
        newest = self.newest(scope, name)
        return newest.rule if newest is not None else None

    def version(self, scope: str, name: str, number: int) -> RuleVersion:
        """A version of a rule; they count from 1."""
        return self._versions[scope, name][number - 1]

    def rules(self) -> list[Rule]:
        """All rules in force, disabled ones too, highest first."""
        return sorted((rule for rules in self._by_scope.values() for rule in rules), key=rule_rank)

    def of(self, tier: int, team: str, model_id: str) -> list[Rule]:
        """Rules in force for a model, disabled ones too, highest first."""
        if not self._by_scope:
            return []
        found = [rule for scope in scopes_of(tier, team, model_id) for rule in self._by_scope.get(scope, ())]
        return sorted(found, key=rule_rank)

    def all_versions(self) -> list[RuleVersion]:
        """Everything, in the order in which it was said."""
        return sorted((one for of in self._versions.values() for one in of), key=lambda one: one.revision)

    def versions(self, scope: str, name: str) -> Sequence[RuleVersion]:
        """All that a rule ever said, oldest first."""
        return self._versions.get((scope, name), ())
