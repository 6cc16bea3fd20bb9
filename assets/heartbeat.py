"""Keeps a lease alive while its work runs, and stops the work when the lease is gone.

A thread renews every `RENEW_EVERY_S`. When the control plane says that the attempt is over (expired, cancelled, timed
out), the thread interrupts the main thread, which then raises; work that does not come back to Python within
`STOP_S_MAX` is killed with its process. While the control plane is away nothing happens: the work goes on, and whether
the lease still held is decided when the result is registered under it.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from runway_client import RunwayRpcError

from assets.plane import ControlPlane, Lease, lease_is_gone

RENEW_EVERY_S = 5.0
"""Far below any sensible lease time, and 50 workers together are 10 changes a second."""

STOP_S_MAX = 30.0
"""Longer than any step of a fit that does come back; a native call that hangs is not waited for."""


class LeaseLostError(Exception):
    """The attempt is over for the control plane: nothing this run makes will count."""


def interrupt_main_thread() -> None:
    """As Ctrl-C would: a real signal, because a flag alone does not end a main thread that waits."""
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)


def kill_this_process() -> None:
    """The end of a worker that does not listen."""
    os.kill(os.getpid(), signal.SIGKILL)


class Heartbeat:
    """Renews one lease for as long as the block runs. Leaving the block raises LeaseLostError if it was lost."""

    def __init__(
        self,
        plane: ControlPlane,
        lease: Lease,
        run: str,
        *,
        every_s: float = RENEW_EVERY_S,
        stop_s_max: float = STOP_S_MAX,
        interrupt: Callable[[], None] = interrupt_main_thread,
        kill: Callable[[], None] = kill_this_process,
    ) -> None:
        self._plane, self._lease, self._run = plane, lease, run
        self._every_s, self._stop_s_max = every_s, stop_s_max
        self._interrupt, self._kill = interrupt, kill
        self._ended = threading.Event()
        self._lost_because = ""
        # A daemon thread only so that a bug in it cannot keep a finished worker alive; the block joins it.
        self._thread = threading.Thread(target=self._renew, name=f"lease {lease.attempt_id}", daemon=True)

    @property
    def lost_because(self) -> str:
        """Why the lease is gone; empty while it is held."""
        return self._lost_because

    def __enter__(self) -> Self:
        try:
            self._plane.renew(self._lease.attempt_id, self._lease.lease_token, self._run)
        except RunwayRpcError as error:
            if lease_is_gone(error):
                raise LeaseLostError(error.message) from error
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        try:
            self._thread.join()
        except BaseException:
            # The interruption of a lease lost at the very end.
            if not self._lost_because:
                raise
        if self._lost_because and not isinstance(error, LeaseLostError):
            raise LeaseLostError(self._lost_because) from error

    def _renew(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._plane.renew(self._lease.attempt_id, self._lease.lease_token, self._run)
            except RunwayRpcError as error:
                if lease_is_gone(error):
                    self._stop(error.message)
                    return

    def _stop(self, because: str) -> None:
        self._lost_because = because
        if self._ended.is_set():
            return
        self._interrupt()
        if not self._ended.wait(self._stop_s_max):
            self._kill()
