"""Tells what happens in plain sentences: one line per notable event of the control plane, and drift as it rises.

Events come with a sentence of their own (the contract's `Event.sentence`); the narrator chooses which are worth a
line, adds the second reason of a verdict, and says several first verdicts, or several unharmed models, at once. Drift
is not an event until it changes a verdict, so it is looked up every few seconds and told when it passes a step. When
nothing has been told for a while, one line says where the year stands.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runway_client import Runway, RunwayRpcError, connect, from_timestamp, messages

LOOK_EVERY_S = 2.0
QUIET_S = 20.0
"""After this long without a line, a viewer wonders whether anything still happens."""
DRIFT_STEPS = (0.1, 0.25, 0.5, 0.75)
"""Steps of the input-drift signal (0 good, 1 bad) worth a line; telling every change would drown the rest."""
NAMES_MAX = 5

TOLD = frozenset(
    {
        "VerdictChanged",
        "CoverageAlertRaised",
        "CoverageAlertCleared",
        "RetrainRequested",
        "RetrainLeased",
        "AttemptEnded",
        "ValidationReported",
        "CheckReported",
        "RolloutEnded",
        "CascadeCooldownStarted",
        "CascadeSettled",
        "ApprovalAsked",
        "RolloutApproved",
        "RolloutStepped",
        "RolloutHeld",
        "RolloutReleased",
        "BreakerChanged",
        "FreezeSet",
        "UpliftMeasured",
        "LimitsSet",
        "RetrainingHeld",
        "RetrainingReleased",
    }
)
"""Kinds that always get a line. RetrainEnded gets one when no RolloutEnded told the same."""


@dataclass(slots=True)
class Story:
    """What has been told so far, so that nothing is told twice."""

    first_verdicts: list[str] = field(default_factory=list)
    """Models whose first verdict is FRESH, waiting for the others to be told in one line."""
    unharmed: list[str] = field(default_factory=list)
    """Models that a promotion upstream did no harm, waiting to be told in one line."""
    plan_told: str = ""
    drift_steps: dict[str, int] = field(default_factory=dict)
    """The step of DRIFT_STEPS that was told last, by model."""

    def of_event(self, event: messages.Event) -> str | None:
        """The line for an event; None when it deserves none, or waits."""
        payload = json.loads(event.payload_json) if event.payload_json else {}
        if event.kind == "VerdictChanged":
            if payload.get("from_level") == "UNKNOWN" and payload.get("to_level") == "FRESH":
                self.first_verdicts.append(event.model_id)
                return None
            return event.sentence + _second_reason(payload)
        if event.kind == "CascadeSettled" and not payload.get("harmed"):
            self.unharmed.append(event.model_id)
            return None
        if event.kind == "RetrainEnded":
            return None if payload.get("state") in ("PROMOTED", "REFUSED") else event.sentence
        if event.kind == "ApprovalAsked":
            return f"{event.sentence}: `runway rollouts approve {payload.get('rollout_id', '')}`"
        if event.kind == "CanaryJudged":
            return event.sentence if payload.get("judgement", {}).get("verdict") == "FAIL" else None
        return event.sentence if event.kind in TOLD else None

    def of_plan(self, plan: messages.RetrainPlan) -> str | None:
        """The line for a plan; None if it was told already."""
        line = of_plan(plan)
        if line == self.plan_told:
            return None
        self.plan_told = line
        return line

    def of_first_verdicts(self) -> str | None:
        """One line for all models that got their first verdict since the last call."""
        names, self.first_verdicts = sorted(set(self.first_verdicts)), []
        if not names:
            return None
        return f"{_names(names)} {'is' if len(names) == 1 else 'are'} FRESH: enough data for a first verdict"

    def of_unharmed(self) -> str | None:
        """One line for all models that were found unharmed since the last call."""
        names, self.unharmed = sorted(set(self.unharmed)), []
        if not names:
            return None
        return (
            f"{_names(names)} {'is' if len(names) == 1 else 'are'} unharmed by what was promoted upstream: no retrain"
        )

    def of_drift(self, fleet: Iterable[messages.Staleness]) -> list[str]:
        """Lines for models whose inputs drift more than was told, grouped by the feature that drifts most."""
        risen: dict[str, list[str]] = defaultdict(list)
        largest: dict[str, float] = {}
        for standing in fleet:
            step = _drift_step(standing)
            if step <= self.drift_steps.get(standing.model_id, 0):
                # Told again after it has fallen, e.g. after a retrain on newer data.
                self.drift_steps[standing.model_id] = min(step, self.drift_steps.get(standing.model_id, 0))
                continue
            self.drift_steps[standing.model_id] = step
            if standing.evaluation.top_features:
                top = standing.evaluation.top_features[0]
                risen[top.name].append(standing.model_id)
                largest[top.name] = max(largest.get(top.name, 0.0), top.psi)
        return [
            f"drift rises in {_names(sorted(models))}: {name} most (PSI {largest[name]:.2f})"
            for name, models in sorted(risen.items())
        ]


def of_plan(plan: messages.RetrainPlan) -> str:
    """The cascade before it happens, in one line.

    >>> of_plan(messages.RetrainPlan())
    ''
    """
    if not plan.retrains:
        return ""
    asked = [one.model_id for one in plan.retrains if one.requested]
    follow = len(plan.retrains) - len(asked)
    ends = f", done about {from_timestamp(plan.ends_at):%b %d %H:%M}" if plan.HasField("ends_at") else ""
    return (
        f"the plan: {_names(asked)} in {plan.waves} wave{'s' * (plan.waves != 1)}{ends}; {follow} more may follow "
        f"downstream if the evidence says so, never more than {plan.running_max} at once (`runway retrains plan`)"
    )


def of_status(status: messages.GetStatusResponse) -> str:
    """Where the year stands."""
    verdicts = ", ".join(f"{count} {name}" for name, count in sorted(status.verdicts.items()) if count)
    running = sum(status.retrains.values())
    return (
        f"{verdicts or 'no verdicts yet'}; {status.predictions_ingested:,} predictions, "
        f"{status.outcomes_ingested:,} outcomes" + (f"; {running} retrains under way" if running else "")
    )


class Narrator:
    """Follows one control plane and tells its story line by line."""

    def __init__(self, address: str, line: Callable[[str], None]) -> None:
        self._address = address
        self._line = line
        self._story = Story()
        self._told_s = time.monotonic()

    def revision(self) -> int:
        """Where the log stands now."""
        runway = connect(self._address)
        try:
            return runway.operations.get_status().revision
        finally:
            runway.close()

    async def follow(self, after_revision: int) -> None:
        """Tell what happens after a revision, until cancelled. A control plane that is away is waited for."""
        runway = connect(self._address)
        try:
            events = asyncio.to_thread(self._tell_events, runway, after_revision)
            await asyncio.gather(events, self._look_around(runway))
        except RunwayRpcError as error:
            self._line(f"The story cannot be followed any longer: {error}")
        finally:
            runway.close()

    def _tell_events(self, runway: Runway, after_revision: int) -> None:
        for item in runway.watch(after_revision):
            if isinstance(item, messages.Event):
                self._tell(from_timestamp(item.at), self._story.of_event(item))
                if item.kind == "RetrainRequested":
                    self._tell(from_timestamp(item.at), self._story.of_plan(runway.retraining.plan_retrains()))

    async def _look_around(self, runway: Runway) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                status = await asyncio.to_thread(runway.operations.get_status)
                fleet = await asyncio.to_thread(lambda: list(runway.staleness.list_staleness()))
            except RunwayRpcError:
                # The supervisor says that the control plane is away, and brings it back.
                continue
            now = from_timestamp(status.now)
            self._tell(now, self._story.of_first_verdicts())
            self._tell(now, self._story.of_unharmed())
            for line in self._story.of_drift(fleet):
                self._tell(now, line)
            if time.monotonic() - self._told_s > QUIET_S:
                self._tell(now, of_status(status))

    def _tell(self, at: datetime, text: str | None) -> None:
        if text:
            self._told_s = time.monotonic()
            self._line(f"{at:%b %d %H:%M}  {text}")


def _second_reason(payload: dict[str, Any]) -> str:
    """The reason after the one that is in the sentence already."""
    reasons = payload.get("evaluation", {}).get("reasons", [])
    return f"; {reasons[1]}" if len(reasons) > 1 else ""


def _drift_step(standing: messages.Staleness) -> int:
    """How many of DRIFT_STEPS a model's input drift has passed."""
    for signal in standing.evaluation.signals:
        if signal.name == "input_drift" and not signal.missing:
            return sum(signal.value >= step for step in DRIFT_STEPS)
    return 0


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more
