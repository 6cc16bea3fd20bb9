"""Makes serving systems follow rollouts, and brings the judge the numbers of their canaries.

Theory of operation. Each turn compares what the state wants with what is known of the world:

1. A model whose live canary, or whose ended rollout, has a weight that its serving system has not confirmed is
   followed: the target is made from the newest durable state, set, and reported (`ReportWeight`). The log's event came
   first, so an alias has moved back before its traffic does.
2. A canary that serves is looked at: its metrics are read and recorded (`RecordLook`). If the look ended it, or took it
   a step further, its traffic follows at once, in the same turn.
3. Now and then a serving system is asked whether it still does as it was told; if not, it is told again.

Nothing needs to be remembered: after a restart or a failover every target is simply set again, which changes nothing.
What is kept in memory (pauses after failures, what a system answered last) only saves work.

Models go on their own: a system that hangs holds up nobody but its own models, and of those at most
`CALLS_AT_ONCE_MAX`. Setting weights never waits for metrics.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog
from msgspec.structs import replace

from control_plane.app.node import Node
from control_plane.app.replica import Submission
from control_plane.app.serving import (
    NoServing,
    Serving,
    ServingRefused,
    ServingSystem,
    ServingUnavailable,
    Target,
    Weights,
    target_of,
    usable,
)
from control_plane.core.commands import Command, RecordLook, ReportWeight
from control_plane.core.errors import NotFound, Refused, RunwayError
from control_plane.core.ids import ModelId, RolloutId
from control_plane.core.rollout.types import SERVING, Look, Rollout, RolloutState
from control_plane.core.state import State

log = structlog.get_logger("runway.rollouts")

ACTOR = "runway"

CALL_S_MAX = 15.0
"""A serving system that says nothing for so long has failed; nobody knows whether it did what it was told."""
CALLS_AT_ONCE_MAX = 8
"""Calls under way to one serving system: enough for a fleet's canaries, few enough not to storm a system that has just
come back."""
PAUSE_S_MIN, PAUSE_S_MAX = 1.0, 60.0
"""Between tries after a failure, doubled each time."""
REFUSED_PAUSE_S = 300.0
"""After a refusal: somebody has to change something first, and may have."""
CHECK_EVERY_S = 10.0
"""How often a serving system is asked whether it still serves a canary as it was told."""
FAILURE_CHARS_MAX = 500


@dataclass(slots=True)
class Pause:
    """When something may be tried again, by the monotonic clock."""

    until_s: float = 0.0
    length_s: float = 0.0

    def over(self, at_s: float) -> bool:
        """May it be tried?"""
        return at_s >= self.until_s

    def failed(self, at_s: float, *, refused: bool) -> None:
        """Wait twice as long as before; long at once where trying is of no use."""
        self.length_s = min(max(PAUSE_S_MIN, 2 * self.length_s), PAUSE_S_MAX)
        self.until_s = at_s + (REFUSED_PAUSE_S if refused else self.length_s)

    def worked(self) -> None:
        """Half of what was, so that what works every other time is not asked all the time."""
        self.length_s = self.length_s / 2 if self.length_s > PAUSE_S_MIN else 0.0
        self.until_s = 0.0


@dataclass(slots=True)
class _Followed:
    """What was last asked of a serving system for a model, and what it showed afterwards."""

    wish: Target | None = None
    shown: Weights | None = None
    checked_s: float = -math.inf
    pause: Pause = field(default_factory=Pause)


@dataclass(slots=True)
class _Looked:
    pause: Pause = field(default_factory=Pause)
    trouble: str = ""


class RolloutDriver:
    """Owns the loop. `systems` by the name that `rollout.serving` says."""

    def __init__(
        self,
        *,
        node: Node[State, Command],
        systems: Mapping[str, ServingSystem],
        tick_s: float,
        call_s_max: float = CALL_S_MAX,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._systems = dict(systems)
        self._tick_s = tick_s
        self._call_s_max = call_s_max
        self._monotonic = monotonic
        self._gates = {name: asyncio.Semaphore(CALLS_AT_ONCE_MAX) for name in systems}
        self._metric_gates = {name: asyncio.Semaphore(CALLS_AT_ONCE_MAX) for name in systems}
        self._followed: dict[str, _Followed] = {}
        """By model and serving system, as the tasks that follow are."""
        self._following: dict[str, asyncio.Task[None]] = {}
        self._checking: dict[str, asyncio.Task[None]] = {}
        self._looked: dict[str, _Looked] = {}
        """By rollout, as the tasks that look are."""
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._run(), name="rollout driver")

    async def stop(self) -> None:
        """End; calls under way are given up, for they will be made again."""
        self._stopping.set()
        if self._task is not None:
            await self._task
        under_way = [*self._following.values(), *self._checking.values(), *self._looking.values()]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        for system in self._systems.values():
            await system.serving.close()
            if system.metrics is not None:
                await system.metrics.close()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.begin_turn()
            except RunwayError as error:
                log.debug("rollouts.not_leading", message=error.message)
            except Exception:
                log.exception("rollouts.turn_failed")
            try:
                await asyncio.wait_for(self._stopping.wait(), self._tick_s)
            except TimeoutError:
                continue

    async def turn(self) -> None:
        """One whole turn, to the end of everything it began. The loop does not wait for slow systems; tests do."""
        self.begin_turn()
        await self.settled()

    async def settled(self) -> None:
        """Everything under way has ended."""
        while under_way := [*self._following.values(), *self._checking.values(), *self._looking.values()]:
            await asyncio.gather(*under_way, return_exceptions=True)

    def begin_turn(self) -> None:
        """Begin whatever is due and not under way: those that go back first. Raises Unavailable(NOT_LEADER)."""
        state, at_s = self._node.state, self._monotonic()
        serving = [one for one in state.rolling() if one.state in SERVING and one.plan.serving]
        ended = [state.rollouts[rollout_id] for rollout_id in state.unconfirmed_rollouts]
        self._forget(serving, ended)
        for rollout in sorted([*ended, *serving], key=_goes_up):
            self._begin_following(state, rollout, at_s)
        for rollout in serving:
            system = self._systems.get(rollout.plan.serving)
            looked = self._looked.setdefault(rollout.rollout_id, _Looked())
            measured = system is None or (system.metrics is not None and _splits(rollout))
            if measured and rollout.rollout_id not in self._looking and looked.pause.over(at_s):
                self._spawn(self._looking, rollout.rollout_id, partial(self._look, rollout, looked))

    def _begin_following(self, state: State, rollout: Rollout, at_s: float) -> None:
        """Follow a model's rollout unless that is under way, done, or has failed a moment ago."""
        key = _key(rollout)
        if key in self._following:
            return
        followed = self._followed.setdefault(key, _Followed())
        target = target_of(state, rollout)
        new = followed.wish is None or not _alike(followed.wish, target)
        behind = rollout.weight_applied != rollout.weight or bool(rollout.weight_failure)
        if new or (behind and followed.pause.over(at_s)):
            self._spawn(self._following, key, partial(self._follow, rollout.rollout_id, followed))
            return
        due = at_s - followed.checked_s >= CHECK_EVERY_S
        if rollout.live and due and followed.pause.over(at_s) and key not in self._checking:
            followed.checked_s = at_s
            self._spawn(self._checking, key, partial(self._check, rollout, followed))

    def _spawn(self, where: dict[str, asyncio.Task[None]], key: str, work: Callable[[], Awaitable[None]]) -> None:
        async def guarded() -> None:
            try:
                await work()
            except RunwayError as error:
                log.debug("rollouts.put_off", of=key, message=error.message)
            except Exception:
                log.exception("rollouts.failed", of=key)
            finally:
                del where[key]

        where[key] = asyncio.create_task(guarded(), name=f"rollout {key}")

    def _forget(self, serving: list[Rollout], ended: list[Rollout]) -> None:
        """What was kept of rollouts that are over."""
        wanted = {_key(one) for one in (*serving, *ended)}
        for key in [one for one in self._followed if one not in wanted and one not in self._following]:
            del self._followed[key]
        live: set[str] = {one.rollout_id for one in serving}
        for rollout_id in [one for one in self._looked if one not in live and one not in self._looking]:
            del self._looked[rollout_id]

    # --- weights ---

    async def _follow(self, rollout_id: RolloutId, followed: _Followed) -> None:
        """Set what the newest durable state wants, until it wants nothing else, and report how that went."""
        async with self._gate(self._gates, self._node.state.rollout(rollout_id)):
            while True:
                (target, rollout), _ = await self._node.read(lambda state: _wanted(state, rollout_id))
                target = replace(target, epoch=self._node.epoch)
                followed.wish = target
                serving = self._serving(rollout.plan.serving)
                failure, refused = await self._set(serving, target, rollout.plan.serving)
                if failure:
                    followed.pause.failed(self._monotonic(), refused=refused)
                    await self._report_failure(target, rollout, failure)
                    return
                followed.pause.worked()
                await self._report(target, rollout)
                if _alike(target_of(self._node.state, rollout), target):
                    break
            followed.shown, followed.checked_s = None, -math.inf  # the next turn sees what it shows now

    async def _set(self, serving: Serving, target: Target, name: str) -> tuple[str, bool]:
        """Why it failed, and whether trying again is of no use; ("", False) if it did not."""
        try:
            async with asyncio.timeout(self._call_s_max):
                await serving.set_weights(target)
        except TimeoutError:
            return f"{name} did not answer within {self._call_s_max:g} s", False
        except ServingUnavailable as error:
            return str(error)[:FAILURE_CHARS_MAX], False
        except ServingRefused as error:
            return str(error)[:FAILURE_CHARS_MAX], True
        return "", False

    async def _report(self, target: Target, followed: Rollout) -> None:
        """The system serves a model as told: confirm that to its rollouts which this concerns, once each."""
        state = self._node.state
        for rollout in self._concerned(target, followed):
            if not rollout.live and not _alike(target_of(state, rollout), target):
                continue  # it ended while this was set: what its end means comes next
            told = target.candidate_weight if rollout.live else rollout.weight
            if rollout.weight_applied != told or rollout.weight_failure:
                await self._submit(ReportWeight(rollout_id=rollout.rollout_id, weight=told))
                log.info("rollout.weight_set", model=rollout.model_id, version=rollout.version, weight=told)

    async def _report_failure(self, target: Target, followed: Rollout, failure: str) -> None:
        for rollout in self._concerned(target, followed):
            if rollout.weight_failure != failure:
                log.warning("rollout.weight_not_set", model=rollout.model_id, weight=rollout.weight, message=failure)
                await self._submit(ReportWeight(rollout_id=rollout.rollout_id, failure=failure))

    def _concerned(self, target: Target, followed: Rollout) -> list[Rollout]:
        """The rollout of a target, and ended ones of the model in the same system that are still to be confirmed."""
        state = self._node.state
        ids = dict.fromkeys((target.rollout_id, *state.unconfirmed_rollouts))
        return [one for rollout_id in ids if _key(one := state.rollout(rollout_id)) == _key(followed)]

    async def _check(self, rollout: Rollout, followed: _Followed) -> None:
        """Ask whether the model is still served as it was right after the weights were set; if not, set them again."""
        wish = followed.wish
        async with self._gate(self._gates, rollout):
            shown = await self._shown(self._serving(rollout.plan.serving), rollout.model_id)
        if followed.wish is not wish:
            return  # something else was set meanwhile
        if shown is not None and followed.shown is not None and shown != followed.shown:
            log.warning("rollout.weight_changed_elsewhere", model=rollout.model_id, version=rollout.version)
            followed.wish = None  # so that the next turn sets it again
        elif followed.shown is None:
            followed.shown = shown

    async def _shown(self, serving: Serving, model_id: ModelId) -> Weights | None:
        try:
            async with asyncio.timeout(self._call_s_max):
                return await serving.weights(model_id)
        except (TimeoutError, ServingUnavailable, ServingRefused):
            return None

    # --- looks ---

    async def _look(self, rollout: Rollout, looked: _Looked) -> None:
        """Read the metrics of a canary and have them judged; then follow what came of it without waiting a turn."""
        async with self._gate(self._metric_gates, rollout):
            now, refused = self._node.now(), False
            system = self._systems.get(rollout.plan.serving)
            source = system.metrics if system is not None else None
            reading = source if source is not None else self._missing(rollout.plan.serving)
            try:
                async with asyncio.timeout(self._call_s_max):
                    look, trouble = usable(await reading.read(rollout, now))
                    look = replace(look, at=now, trouble=look.trouble or trouble)
            except TimeoutError:
                look = Look(at=now, trouble=f"the metrics did not come within {self._call_s_max:g} s")
            except (ServingUnavailable, ServingRefused) as error:
                look, refused = Look(at=now, trouble=str(error)[:FAILURE_CHARS_MAX]), isinstance(error, ServingRefused)
            failed = bool(look.trouble) and not look.candidate
        self._say_trouble(rollout, looked, look.trouble)
        if failed:
            looked.pause.failed(self._monotonic(), refused=refused)
        else:
            looked.pause.worked()
        await self._submit(RecordLook(rollout_id=rollout.rollout_id, look=look))
        self.begin_following_of(rollout.rollout_id)

    def begin_following_of(self, rollout_id: RolloutId) -> None:
        """Follow a rollout, and those that move with it, that may have changed just now."""
        state, at_s = self._node.state, self._monotonic()
        rollout = state.rollout(rollout_id)
        group = state.groups.get(rollout.group_id)
        for one_id in group.rollout_ids if group is not None else (rollout_id,):
            one = state.rollout(one_id)
            if one.plan.serving and (one.unconfirmed or one.state in SERVING):
                self._begin_following(state, one, at_s)

    def _say_trouble(self, rollout: Rollout, looked: _Looked, trouble: str) -> None:
        if trouble and trouble != looked.trouble:
            log.warning("rollout.metrics_missing", model=rollout.model_id, version=rollout.version, message=trouble)
        elif looked.trouble and not trouble:
            log.info("rollout.metrics_back", model=rollout.model_id, version=rollout.version)
        looked.trouble = trouble

    # --- both ---

    def _serving(self, name: str) -> Serving:
        system = self._systems.get(name)
        return system.serving if system is not None else self._missing(name)

    def _missing(self, name: str) -> NoServing:
        return NoServing(name, tuple(sorted(self._systems)))

    def _gate(self, gates: dict[str, asyncio.Semaphore], rollout: Rollout) -> asyncio.Semaphore:
        return gates.setdefault(rollout.plan.serving, asyncio.Semaphore(CALLS_AT_ONCE_MAX))

    async def _submit(self, command: RecordLook | ReportWeight) -> None:
        try:
            await self._node.submit(Submission(command=command, actor=ACTOR, reason="the rollout's driver"))
        except (Refused, NotFound) as error:
            log.debug("rollout.report_refused", command=type(command).__name__, message=error.message)


def _key(rollout: Rollout) -> str:
    """A model in its serving system."""
    return f"{rollout.model_id} in {rollout.plan.serving}"


def _splits(rollout: Rollout) -> bool:
    """Has the system confirmed that it serves this very canary? Before that its numbers are of the one before, or of
    the shadow."""
    return rollout.weight_applied is not None and (rollout.state is RolloutState.SHADOW or rollout.weight_applied > 0)


def _goes_up(rollout: Rollout) -> bool:
    """Does it bring more traffic to a candidate? What takes traffic away comes first."""
    return rollout.weight > (rollout.weight_applied or 0.0)


def _wanted(state: State, rollout_id: RolloutId) -> tuple[Target, Rollout]:
    rollout = state.rollout(rollout_id)
    return target_of(state, rollout), rollout


def _alike(one: Target, other: Target) -> bool:
    """Do two targets ask for the same?"""
    return replace(one, epoch=0, revision=0, rollout_id=other.rollout_id) == replace(other, epoch=0, revision=0)
