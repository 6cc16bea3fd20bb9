"""A rule, its versions, and what the rules make of a model.

Theory of operation. At every look the rules that apply to a model are evaluated over the look. Those that hold are its
matches. Of the four actions about retraining one holds, the one of the highest match; alerts and pages all hold. Only a
change of this outcome is an event, so a fleet at rest writes nothing.
"""

import re
from datetime import datetime
from enum import StrEnum

import msgspec

NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
"""What a rule may be called."""

PRIORITY_MAX = 1_000
REASON_CHARS_MAX = 500

RULES_MAX = 500
"""In force in one fleet. Each costs some 4 us of every look at a model it applies to, and people read all of them."""


class RuleAction(StrEnum):
    """What follows where a rule holds."""

    RETRAIN = "RETRAIN"
    RETRAIN_OFF_PEAK = "RETRAIN_OFF_PEAK"
    REQUIRE_APPROVAL = "REQUIRE_APPROVAL"
    IGNORE = "IGNORE"
    ALERT = "ALERT"
    PAGE = "PAGE"

    @property
    def about_retraining(self) -> bool:
        """One of the four of which only one holds?"""
        return self not in (RuleAction.ALERT, RuleAction.PAGE)

    @property
    def requests(self) -> bool:
        """Does it lead to a retrain by itself?"""
        return self in (RuleAction.RETRAIN, RuleAction.RETRAIN_OFF_PEAK)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """`when` (CEL, a bool) holds: then `action`."""

    name: str
    """Unique in its scope."""
    scope: str
    """fleet, tier:<n>, team:<team> or model:<model id>."""
    when: str
    action: RuleAction
    priority: int = 0
    reason: str = ""
    disabled: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What makes it this rule: scope and name."""
        return self.scope, self.name


class RuleVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule said from a moment on; None is a rule that was removed. Versions of a rule count from 1."""

    scope: str
    name: str
    version: int
    rule: Rule | None
    set_at: datetime
    set_by: str
    why: str
    revision: int


class RuleMatch(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that holds for a model, as it was when it began to."""

    name: str
    scope: str
    action: RuleAction
    priority: int = 0
    reason: str = ""
    since: datetime


class RuleFault(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that could not be evaluated for a model, and why."""

    name: str
    scope: str
    message: str


class RuleOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the rules make of a model: matches highest first, faults in the same order."""

    matches: tuple[RuleMatch, ...] = ()
    faults: tuple[RuleFault, ...] = ()

    @property
    def retraining(self) -> RuleMatch | None:
        """The match whose word on retraining holds."""
        return next((match for match in self.matches if match.action.about_retraining), None)

    def told(self, action: RuleAction) -> list[RuleMatch]:
        """Matches with this action."""
        return [match for match in self.matches if match.action is action]


NO_OUTCOME = RuleOutcome()
