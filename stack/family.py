"""Which processes belong to a stack, and how all of them end.

Every program is started with `RUNWAY_STACK=<stack id>` in its environment, which its own children inherit;
so whatever a crashed run left is found by asking the kernel, and a reused process id is never mistaken for
one of ours. While a stack runs it is also the reaper of its grandchildren (Linux), so that a training whose
parent was killed becomes its child instead of nobody's.
"""

import ctypes
import os
import sys

import psutil

from stack.settings import StackError

STACK_VARIABLE = "RUNWAY_STACK"
PR_SET_CHILD_SUBREAPER = 36
ROUNDS_MAX = 5
"""A process may start another while it is asked to end; then there is one more round."""
KILLED_S_MAX = 5.0
"""After SIGKILL a process is gone as soon as the kernel gets to it; longer means it hangs in a system call."""


def become_reaper() -> None:
    """Adopt orphaned descendants from now on. Elsewhere than on Linux they are found by environment only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def belonging_to(stack_id: str) -> list[psutil.Process]:
    """Every process started for this stack, by whichever run of it; the caller not among them."""
    found = []
    for runs in psutil.process_iter():
        try:
            if runs.pid != os.getpid() and runs.environ().get(STACK_VARIABLE) == stack_id:
                found.append(runs)
        except (psutil.Error, OSError):
            continue
    return found


def end_family(stack_id: str, patience_s: float, spared: frozenset[int] = frozenset()) -> list[psutil.Process]:
    """End every process of a stack but the `spared`; returns all that were ended.

    Raises:
        StackError: one does not end, not even when killed.
    """
    ended: list[psutil.Process] = []
    for _ in range(ROUNDS_MAX):
        members = [runs for runs in belonging_to(stack_id) if runs.pid not in spared]
        alive = end_all(members, patience_s)
        if alive:
            raise StackError(
                f"Processes {', '.join(str(runs.pid) for runs in alive)} do not end, not even when killed: they hang "
                "in the kernel (a disk that does not answer?)."
            )
        if not members:
            break
        ended += members
    return ended


def end_all(members: list[psutil.Process], patience_s: float) -> list[psutil.Process]:
    """Ask these processes to end, kill those that have not after `patience_s`; returns any that still live."""
    for runs in members:
        _signal(runs, kill=False)
    _, alive = psutil.wait_procs(members, timeout=patience_s)
    for runs in alive:
        _signal(runs, kill=True)
    _, alive = psutil.wait_procs(alive, timeout=KILLED_S_MAX)
    return alive


def _signal(runs: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            runs.kill()
        else:
            runs.terminate()
    except psutil.Error:
        pass


def reap_orphans(known: set[int], seen: set[int]) -> set[int]:
    """Collect adopted processes that have ended.

    `known` are waited for by somebody else. An unknown one is collected when it is met a second time
    (`seen` is what the last call returned): whoever started it had time to do so themselves.
    """
    ended = set()
    for child in psutil.Process().children():
        try:
            if child.pid not in known and child.status() == psutil.STATUS_ZOMBIE:
                ended.add(child.pid)
        except psutil.Error:
            continue
    for pid in ended & seen:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
    return ended


def port_holder(port: int) -> str:
    """Who listens on a TCP port, as far as this user may know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                if connection.pid is None:
                    break
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        pass
    return "another process"
