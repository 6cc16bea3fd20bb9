"""One process at a time has a store's directory."""

import fcntl
import os
from pathlib import Path

from control_plane.core.errors import Reason, Unavailable


def lock_directory(root: Path) -> int:
    """Hold the directory for this process; the kernel lets go of it however the process ends."""
    file = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise Unavailable(
            Reason.STORE_UNAVAILABLE, f"another process uses the fact store in {root}: stop it first"
        ) from error
    return file
