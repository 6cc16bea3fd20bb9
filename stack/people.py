"""The people of the demo, for a viewer who only watches: they do by the same RPCs what anybody can do.

Somebody approves what has waited for a while, one training is given the wrong outcomes, the first canary is hurt, and
once Dagster cannot start anything for a while. Each act is told before it happens, with the command that does it; with
`--no-people` nobody acts.
"""

import asyncio
import http.client
import json
from collections.abc import Callable
from pathlib import Path

from runway_client import Refused, Runway, RunwayRpcError, Why, connect, from_timestamp, messages

LOOK_EVERY_S = 1.0
PATIENCE_S = 20.0
"""How long a viewer has for it before somebody approves in their place."""
OUTAGE_AFTER_RETRAINS = 4
"""The outage comes once so many retrains have run: by then a viewer has seen it go well."""
OUTAGE_S_MAX = 180.0
OPEN_S = 10.0
"""How long the breaker keeps retrains waiting before the launcher works again."""
ASKED_FOR = ("air_time", "plane_reliability", "crew_overtime")
"""During the outage: enough to open the breaker, and to close it by three tries."""
MIX_UP_AFTER_RETRAINS = 1
"""The mistake in a training comes once so many retrains have run."""
HARM = 0.3
"""Share of the engagement that the first canary loses."""
APPROVER = "maria"
MIX_UP_FILE = Path("flights") / "mix-up-next-training"
"""Below the state directory; see assets/flights/mishap.py."""


class People:
    """Acts on one control plane."""

    def __init__(self, address: str, serving: str, drill: Path, mix_up: Path, line: Callable[[str], None]) -> None:
        self._address = address
        self._serving = serving
        self._drill = drill
        self._mix_up = mix_up
        self._mixed_up = False
        self._line = line
        self._waited_s: dict[str, float] = {}
        self._hurt = ""
        self._outage_s: float | None = None
        self._to_ask: list[str] = []
        """What is still to be asked for in the outage: a control plane that is away is asked again."""
        self._open_s = 0.0

    async def act(self) -> None:
        """Look around and act until cancelled. A control plane that is away is waited for."""
        self._drill.unlink(missing_ok=True)
        self._mix_up.unlink(missing_ok=True)
        runway = connect(self._address, actor=APPROVER)
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                try:
                    await asyncio.to_thread(self.look, runway)
                except RunwayRpcError:
                    continue  # the supervisor says that it is away, and brings it back
        finally:
            self._drill.unlink(missing_ok=True)
            self._mix_up.unlink(missing_ok=True)
            runway.close()

    def look(self, runway: Runway) -> None:
        """Do what is due: one look around, LOOK_EVERY_S after the last."""
        now = f"{from_timestamp(runway.operations.get_status().now):%b %d %H:%M}"
        waiting = messages.ROLLOUT_STATE_AWAITING_APPROVAL
        for rollout in runway.rollouts.list_rollouts(states=[waiting, messages.ROLLOUT_STATE_CANARY]):
            if rollout.state == waiting:
                self._approve(runway, rollout, now)
            else:
                self._hurt_once(rollout, now)
        ended = [messages.RETRAIN_STATE_PROMOTED, messages.RETRAIN_STATE_REFUSED, messages.RETRAIN_STATE_VALIDATING]
        ran = sum(1 for _ in runway.retraining.list_retrains(states=ended))
        self._mix_up_once(ran, now)
        self._outage(runway, ran, now)

    def _approve(self, runway: Runway, rollout: messages.Rollout, now: str) -> None:
        waited_s = self._waited_s.get(rollout.rollout_id, 0.0) + LOOK_EVERY_S
        self._waited_s[rollout.rollout_id] = waited_s
        if waited_s < PATIENCE_S:
            return
        self._line(
            f"{now}  {APPROVER} approves {rollout.model_id} version {rollout.version} "
            f"(`runway --actor {APPROVER} rollouts approve {rollout.rollout_id}`): nobody else did"
        )
        why = Why(reason=f"looked at it: {rollout.validation.explanation or 'it passed'}"[:200])
        self._waited_s[rollout.rollout_id] = 0.0  # if it is refused, the next try is as far away as this one was
        try:
            runway.rollouts.approve_rollout(rollout.rollout_id, why=why)
        except Refused as refused:
            self._line(f"{now}  {APPROVER} could not: {refused.message}")

    def _hurt_once(self, rollout: messages.Rollout, now: str) -> None:
        """The first canary loses engagement, so that one is seen to go back."""
        if self._hurt or not rollout.serving:
            return
        self._hurt = rollout.rollout_id
        self._line(
            f"{now}  the demo hurts {rollout.model_id} version {rollout.version}: its travellers lose {HARM:.0%} of "
            f"their engagement (`python -m assets.flights.harm {rollout.model_id} --engagement {HARM}`)"
        )
        ask = {"model_id": rollout.model_id, "version": rollout.version, "engagement": HARM, "latency_ms": 0.0}
        connection = http.client.HTTPConnection(self._serving, timeout=10)
        try:
            connection.request("POST", "/harm", json.dumps(ask))
            answer = connection.getresponse()
            answer.read()
            if answer.status >= 400:
                self._hurt = ""
        except (OSError, http.client.HTTPException):
            self._hurt = ""  # its server is not there yet: the next look tries again
        finally:
            connection.close()

    def _mix_up_once(self, ran: int, now: str) -> None:
        """One training learns from the outcomes of other flights, so that a bad candidate is seen to be refused."""
        if self._mixed_up or ran < MIX_UP_AFTER_RETRAINS:
            return
        self._mixed_up = True
        self._mix_up.parent.mkdir(parents=True, exist_ok=True)
        self._mix_up.touch()
        self._line(
            f"{now}  the demo makes a mistake: the next training gets the outcomes of other flights "
            "(assets/flights/mishap.py)"
        )

    def _outage(self, runway: Runway, ran: int, now: str) -> None:
        """Nothing can be started until the breaker has been open for a while; what is asked for meanwhile waits."""
        if self._outage_s is None:
            if ran >= OUTAGE_AFTER_RETRAINS:
                self._outage_s = 0.0
                self._drill.touch()
                self._line(f"{now}  the demo breaks Dagster's launcher: no run can be started")
                self._to_ask = list(ASKED_FOR)
                self._ask(runway, now)
        elif self._drill.exists():
            self._ask(runway, now)
            self._outage_s += LOOK_EVERY_S
            breakers = runway.schedulers.list_schedulers()
            if any(one.breaker != messages.BREAKER_STATE_CLOSED for one in breakers):
                self._open_s += LOOK_EVERY_S
            if self._open_s >= OPEN_S or self._outage_s >= OUTAGE_S_MAX:
                self._drill.unlink(missing_ok=True)
                self._line(f"{now}  Dagster's launcher works again")

    def _ask(self, runway: Runway, now: str) -> None:
        """Ask for retrains while none can be started."""
        while self._to_ask:
            model_id = self._to_ask[0]
            why = Why(reason="the schedule changed", request_id=f"outage-{model_id}")
            try:
                runway.retraining.request_retrain(model_id, ignore_cooldown=True, why=why)
            except Refused as refused:
                self._line(f"{now}  {APPROVER} could not ask for {model_id}: {refused.message}")
            else:
                self._line(
                    f"{now}  {APPROVER} asks for {model_id} "
                    f"(`runway --actor {APPROVER} retrains request {model_id} --ignore-cooldown`)"
                )
            self._to_ask.pop(0)
