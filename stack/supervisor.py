"""Brings the stack up in order, keeps it up, and takes it down in the opposite order.

Order: Postgres; then the control plane; then the fleet is registered while Dagster starts; then the replay.
What can start at once does. Whatever ends by itself is started again (`children`); whatever cannot run ends
the whole stack with a sentence. Taking down: the replay first, so that nothing new arrives; Dagster and its
runs; the control plane, which drains; Postgres last.
"""

import asyncio
import time
from collections.abc import Coroutine

from control_plane.adapters.postgres.embedded import STOP_S_MAX, EmbeddedPostgres
from control_plane.adapters.postgres.placement import EmbeddedPostgresError
from stack.children import RESTARTS_MAX, RESTARTS_WINDOW_S, Child, GaveUpError, Program, Say
from stack.family import end_family, reap_orphans
from stack.home import Home
from stack.settings import StackError

WATCH_POSTGRES_EVERY_S = 0.5
REAP_EVERY_S = 2.0
RUNS_END_S_MAX = 5.0
"""A training that is cut off is tried again by the next `up`; there is nothing in it to save."""


class Supervisor:
    """The running stack. `start_*` bring parts up, `keep` watches them, `stop` ends all of them."""

    def __init__(self, home: Home, say: Say) -> None:
        self.home = home
        self.children: list[Child] = []
        self._say = say
        self._postgres: EmbeddedPostgres | None = None
        self._postgres_start: asyncio.Future[None] | None = None
        self._kept: set[asyncio.Task[None]] = set()

    async def start_postgres(self, postgres: EmbeddedPostgres) -> None:
        """Start our own Postgres and keep it running.

        Raises:
            StackError: it does not start; with what it said.
        """
        self._postgres = postgres
        started_s = time.monotonic()
        await self._run_postgres(postgres)
        self._say(f"Postgres is ready ({time.monotonic() - started_s:.1f} s)")
        self._keep(self._keep_postgres(postgres), "postgres")

    async def start(self, program: Program) -> Child:
        """Start a program, wait until it is ready, keep it running.

        Raises:
            GaveUpError: it does not start.
        """
        started_s = time.monotonic()
        child = Child(program, self.home.logs, self._say)
        self.children.append(child)
        await child.start()
        if program.probe is not None:
            self._say(f"{program.name} is ready ({time.monotonic() - started_s:.1f} s)")
        self._keep(child.keep(), program.name)
        return child

    async def run_once(self, program: Program, timeout_s: float) -> None:
        """Start a program that ends by itself and wait for that.

        Raises:
            GaveUpError: it fails again and again, or takes longer than `timeout_s`.
        """
        started_s = time.monotonic()
        child = Child(program, self.home.logs, self._say)
        self.children.append(child)
        await child.start()
        try:
            await asyncio.wait_for(child.keep(), timeout_s)
        except TimeoutError:
            raise GaveUpError(
                f"{program.name} took longer than {timeout_s:.0f} s. Its log {child.log_path} ends with:\n"
                f"{child.log_tail()}"
            ) from None
        if not child.finished:
            raise GaveUpError(f"{program.name} was stopped before it was done.")
        self._say(f"{program.name} is ready ({time.monotonic() - started_s:.1f} s)")

    async def keep(self) -> None:
        """Watch over everything that was started; returns only by raising.

        Raises:
            StackError: something cannot be kept running.
        """
        seen: set[int] = set()
        while True:
            waker = asyncio.create_task(asyncio.sleep(REAP_EVERY_S))
            ended, _ = await asyncio.wait({waker, *self._kept}, return_when=asyncio.FIRST_COMPLETED)
            waker.cancel()
            for task in ended - {waker}:
                self._kept.discard(task)
                task.result()
            seen = reap_orphans(self._known(), seen)

    async def stop(self) -> None:
        """End everything in order; when it returns, no process of the stack is left."""
        for task in self._kept:
            task.cancel()
        await asyncio.gather(*self._kept, return_exceptions=True)
        self._kept.clear()
        by_name = {child.program.name: child for child in self.children}
        for names in STOP_ORDER:
            stage = [by_name.pop(name) for name in names if name in by_name]
            await asyncio.gather(*(child.stop() for child in stage))
            if names is STOP_ORDER[-1]:
                await asyncio.gather(*(child.stop() for child in by_name.values()))
            if DAGSTER_DAEMON in names:
                await self._end_runs({child.pid for child in by_name.values() if child.pid is not None})
        await self._end_runs(set())
        await self._stop_postgres(STOP_S_MAX)
        reap_orphans(set(), seen=reap_orphans(set(), set()))

    async def kill(self) -> None:
        """End everything at once, Postgres in its quickest safe way. For a second Ctrl-C."""
        await asyncio.to_thread(end_family, self.home.stack_id, 0.0)
        await self._stop_postgres(1.0)

    async def _end_runs(self, spared: set[int]) -> None:
        """End what children of ours left: trainings, mostly."""
        await asyncio.to_thread(end_family, self.home.stack_id, RUNS_END_S_MAX, frozenset(spared))

    def _known(self) -> set[int]:
        known = {child.pid for child in self.children} | {self._postgres.pid if self._postgres else None}
        return {pid for pid in known if pid is not None}

    def _keep(self, work: Coroutine[None, None, None], name: str) -> None:
        self._kept.add(asyncio.create_task(work, name=name))

    async def _run_postgres(self, postgres: EmbeddedPostgres) -> None:
        # A thread cannot be cancelled: `stop` waits for it, else it would start what was just stopped.
        self._postgres_start = asyncio.ensure_future(asyncio.to_thread(postgres.start))
        try:
            await asyncio.shield(self._postgres_start)
        except EmbeddedPostgresError as error:
            raise StackError(str(error)) from error

    async def _stop_postgres(self, patience_s: float) -> None:
        if self._postgres is None:
            return
        if self._postgres_start is not None:
            await asyncio.wait({self._postgres_start})
        await asyncio.to_thread(self._postgres.stop, patience_s)

    async def _keep_postgres(self, postgres: EmbeddedPostgres) -> None:
        ends_s: list[float] = []
        while True:
            await asyncio.sleep(WATCH_POSTGRES_EVERY_S)
            if postgres.pid is not None:
                continue
            now_s = time.monotonic()
            ends_s = [end_s for end_s in ends_s if now_s - end_s <= RESTARTS_WINDOW_S] + [now_s]
            if len(ends_s) > RESTARTS_MAX:
                raise GaveUpError(
                    f"Postgres ended {len(ends_s)} times in {RESTARTS_WINDOW_S:.0f} s. Its log {postgres.log_path} "
                    f"ends with:\n{postgres.log_tail()}"
                )
            self._say("Postgres ended; starting it again")
            await self._run_postgres(postgres)
            self._say(f"Postgres is back ({time.monotonic() - now_s:.1f} s)")


DAGSTER_DAEMON = "dagster daemon"
STOP_ORDER = (
    ("replay", "flights fleet"),
    (DAGSTER_DAEMON, "dagster webserver", "dagster code server"),
    ("control plane",),
)
"""Names of programs by stage; what is named nowhere ends with the last stage."""


def stop_leftovers(home: Home) -> list[str]:
    """End what a crashed run left; returns a line for each thing that was ended.

    Raises:
        StackError: something does not end.
    """
    ended = [f"process {runs.pid}" for runs in end_family(home.stack_id, RUNS_END_S_MAX)]
    if home.postgres.stop():
        ended.append("Postgres")
    return ended
