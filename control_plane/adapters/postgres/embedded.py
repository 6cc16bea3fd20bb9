"""A Postgres of our own: the server that comes as a wheel, so that `make up` needs Python and nothing else.

Theory of operation
    `data_dir/cluster` is the Postgres cluster, `data_dir/socket` its Unix socket, `data_dir/postgres.log`
    what the server says, `data_dir/ready.json` the marker written last by a successful creation. A directory
    without its marker never held data: it is created again. A directory with a marker and without its
    cluster is damaged: we stop and say so, because an empty database in its place would look like a fleet
    that lost everything.

Access
    Only a Unix socket, in a directory with mode 0700, and `peer` authentication: the kernel tells the server
    who is calling, so there is no password to leak through a command line or a config file, and no port that
    could be taken. libpq (psycopg 3, psycopg2 behind SQLAlchemy) connects with `host=<socket directory>`.

As root
    Postgres refuses to run as root, so the server runs as `nobody` and owns its directory; root is the
    account that may connect. `nobody` must be able to walk to the directory. Where a parent is closed to
    others (`/root/...`, pytest's temporary directories) we do not open it: the files go to a private
    directory under `/var/lib/runway` (or `/var/tmp/runway`) and `data_dir` becomes a symbolic link to it;
    binaries that `nobody` cannot reach are copied next to it, once per version. `destroy()` removes link and
    target; a target whose link is gone (somebody removed the state directory by hand) is swept at the next
    creation.
"""

import fcntl
import hashlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from control_plane.adapters.postgres.placement import (
    POSTGRES_MAJOR,
    START_S_MAX,
    EmbeddedPostgresError,
    account,
    as_account,
    binaries,
    environment,
    fallback_base,
    is_postmaster_of,
    own_private_directory,
    read_postmaster_pid,
    run,
    server_account,
    sweep_orphans,
    walkable,
    write_as,
)

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]

SUPERUSER = "runway"
DATABASES = ("runway", "dagster")
"""Created with the cluster: ours, and one for Dagster's storage so that its migrations never meet "
"our tables."""

SOCKET_PORT = 5432
"""Only part of the socket's file name (`.s.PGSQL.5432`); nothing listens on TCP."""

SOCKET_DIRECTORY_CHARS_MAX = 88
"""A Unix socket path holds 107 bytes on Linux, 103 on macOS; the file name takes 15."""

STOP_S_MAX = 20.0
"""A fast shutdown writes one checkpoint; beyond this we ask for an immediate one (recovery at the "
"next start)."""

CONNECTIONS_MAX = 300
"""50 concurrent Dagster runs hold up to 4 connections each; the rest is ours."""

POLL_S = 0.02
READY_LINE = 8
"""Line of `postmaster.pid` that holds the server's state."""

LOG_BYTES_MAX = 16 * 2**20
"""The server logs warnings only; a log beyond this is cut at the next start."""

MARKER = "ready.json"
LAYOUT = 1
OUR_NAMES = {"cluster", "socket", "postgres.log", MARKER, MARKER + ".new", "lock"}

POSTGRESQL_CONF = """\
# Written by Runway at every start; edits are lost.
listen_addresses = ''
port = {port}
unix_socket_directories = '{socket}'
unix_socket_permissions = 0700
max_connections = {connections}
shared_buffers = 128MB
wal_level = minimal
max_wal_senders = 0
max_wal_size = 1GB
synchronous_commit = on
fsync = on
full_page_writes = on
io_method = sync
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = warning
log_checkpoints = off
log_destination = stderr
logging_collector = off
"""


class EmbeddedPostgres:
    """One Postgres server on one directory. Every method may be called from any process of the owner."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = Path(os.path.abspath(data_dir))  # noqa: PTH100 - resolve() would follow our own link
        self._child: subprocess.Popen[bytes] | None = None

    # --- what others ask ---

    @property
    def cluster_dir(self) -> Path:
        """Postgres' own data directory, links followed."""
        return self.data_dir.resolve() / "cluster"

    @property
    def log_path(self) -> Path:
        """What the server wrote to its standard error."""
        return self.data_dir / "postgres.log"

    @property
    def socket_dir(self) -> Path:
        """Where the Unix socket lies: inside the data directory, or under the temporary one if that "
        "is too deep."""
        inside = self.data_dir.resolve() / "socket"
        if len(os.fsencode(inside)) <= SOCKET_DIRECTORY_CHARS_MAX:
            return inside
        digest = hashlib.sha256(os.fsencode(self.data_dir.resolve())).hexdigest()[:12]
        return Path("/tmp") / f"runway-{os.geteuid()}-{digest}"  # noqa: S108 - owner and mode are checked

    @property
    def pid(self) -> int | None:
        """Process id of the running server, whoever started it; None when it is not running."""
        pid = read_postmaster_pid(self.cluster_dir)
        if pid is None or not is_postmaster_of(pid, self.cluster_dir):
            return None
        if self._child is not None and self._child.pid == pid and self._child.poll() is not None:
            return None
        return pid

    def url(self, database: str = "runway") -> str:
        """Connection address for libpq and psycopg 3; holds no secret."""
        return _url("postgresql", self.socket_dir, database)

    def sqlalchemy_url(self, database: str = "dagster") -> str:
        """The same for SQLAlchemy with psycopg2, which is what dagster-postgres installs; holds no secret."""
        return _url("postgresql+psycopg2", self.socket_dir, database)

    # --- life ---

    def start(self, timeout_s: float = START_S_MAX) -> None:
        """Create the cluster if there is none, start the server if it is not running, return when it accepts.

        Raises:
            EmbeddedPostgresError: with what to do, when directory, binaries or server do not play along.
        """
        server = server_account()
        try:
            self._start(server, time.monotonic() + timeout_s)
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedPostgresError(
                f"Postgres cannot be run as {server.pw_name} in {self.data_dir}: {error}. Give that directory to an "
                "ordinary user and run as that one, or set RUNWAY_DATABASE_URL to a Postgres of yours."
            ) from error

    def _start(self, server: pwd.struct_passwd, deadline: float) -> None:
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.data_dir.parent / f".{self.data_dir.name}.lock"):
            self._ensure_cluster(server)
            if self._adopt(deadline):
                return
            self._reap()
            self._configure(server)
            while not self._spawn(server, deadline):
                time.sleep(POLL_S)

    def stop(self, timeout_s: float = STOP_S_MAX) -> bool:
        """Stop the server, whoever started it: fast, then immediate, then killed. True if one was running."""
        pid = self.pid
        if pid is None:
            self._reap()
            return False
        for order, wait_s in ((signal.SIGINT, timeout_s), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
            try:
                os.kill(pid, order)
            except ProcessLookupError:
                break
            if self._await_gone(pid, wait_s):
                break
        self._reap()
        return True

    def destroy(self) -> None:
        """Stop the server and remove everything it stored, the fallback directory behind a link included."""
        self.stop()
        socket_dir, target = self.socket_dir, self.data_dir.resolve()
        if socket_dir.parent != target and socket_dir.is_dir():
            shutil.rmtree(socket_dir)
        if target.is_dir():
            shutil.rmtree(target)
        if self.data_dir.is_symlink():  # only now: a target without its link is swept by whoever comes along
            self.data_dir.unlink()
            target.with_suffix(".origin").unlink(missing_ok=True)
        (self.data_dir.parent / f".{self.data_dir.name}.lock").unlink(missing_ok=True)

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of the server's log, for error messages."""
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    # --- creation ---

    def _ensure_cluster(self, server: pwd.struct_passwd) -> None:
        marker = self.data_dir / MARKER
        if marker.is_file():
            self._check_marker(marker)
            return
        self._clear_half_written()
        root = self._place(server)
        cluster = root / "cluster"
        initdb = [
            str(binaries(server) / "initdb"),
            f"--pgdata={cluster}",
            f"--username={SUPERUSER}",
            "--auth-local=peer",
            "--auth-host=reject",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--no-instructions",
            "--no-sync",
        ]
        run(initdb, server)
        single = [str(binaries(server) / "postgres"), "--single", "-F", "-D", str(cluster), "postgres"]
        run(single, server, "".join(f"CREATE DATABASE {name};\n" for name in DATABASES))
        # Written without waiting for the disk, then brought to it once, before the marker says so.
        run([str(binaries(server) / "initdb"), "--sync-only", f"--pgdata={cluster}"], server)
        fresh = marker.with_name(MARKER + ".new")
        with fresh.open("w") as file:
            json.dump({"layout": LAYOUT, "postgres": (cluster / "PG_VERSION").read_text().strip()}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(marker)

    def _check_marker(self, marker: Path) -> None:
        version_file = self.cluster_dir / "PG_VERSION"
        if not version_file.is_file():
            raise EmbeddedPostgresError(
                f"The Postgres directory {self.data_dir} is damaged: {version_file} is missing. "
                f"Restore it from a "
                "copy, or start over with `make reset` (this removes Runway's state)."
            )
        try:
            layout = json.loads(marker.read_text())["layout"]
        except (ValueError, KeyError, TypeError):
            layout = None
        version, ours = version_file.read_text().strip(), POSTGRES_MAJOR
        if layout != LAYOUT or version != ours:
            raise EmbeddedPostgresError(
                f"The Postgres directory {self.data_dir} was made by Postgres {version} (layout "
                f"{layout}); this "
                f"Runway brings Postgres {ours} (layout {LAYOUT}). Use the Runway that made it, or "
                f"`make reset`."
            )

    def _clear_half_written(self) -> None:
        """Remove what a creation that did not finish left behind; refuse to touch anything else."""
        if not self.data_dir.exists():
            if self.data_dir.is_symlink():
                self.data_dir.unlink()
            return
        strangers = sorted({path.name for path in self.data_dir.iterdir()} - OUR_NAMES)
        if strangers:
            raise EmbeddedPostgresError(
                f"{self.data_dir} is not a Runway Postgres directory: it holds {', '.join(strangers[:3])}. "
                "Move it away, or choose another RUNWAY_HOME."
            )
        if self.pid is not None:
            self.stop()
        target = self.data_dir.resolve()
        if self.data_dir.is_symlink():
            self.data_dir.unlink()
        shutil.rmtree(target)

    def _place(self, server: pwd.struct_passwd) -> Path:
        """Make the directory, owned by the account the server runs as; a private fallback if it "
        "cannot walk there."""
        if os.geteuid() != 0:
            self.data_dir.mkdir(mode=0o700, parents=True)
            return self.data_dir.resolve()
        if walkable(self.data_dir.parent, server):
            self.data_dir.mkdir(mode=0o700)
            os.chown(self.data_dir, server.pw_uid, server.pw_gid)
            return self.data_dir.resolve()
        base = fallback_base()
        sweep_orphans(base)
        target = Path(tempfile.mkdtemp(prefix="postgres-", dir=base))
        os.chown(target, server.pw_uid, server.pw_gid)
        self.data_dir.symlink_to(target)  # before its origin is known: a sweep spares what has none
        target.with_suffix(".origin").write_text(str(self.data_dir))
        return target

    # --- start and stop ---

    def _configure(self, server: pwd.struct_passwd) -> None:
        socket_dir = self.socket_dir
        own_private_directory(socket_dir, server)
        conf = POSTGRESQL_CONF.format(port=SOCKET_PORT, socket=socket_dir, connections=CONNECTIONS_MAX)
        caller = account(os.geteuid()).pw_name
        write_as(self.cluster_dir / "postgresql.conf", conf, server)
        write_as(self.cluster_dir / "pg_hba.conf", f"local all {SUPERUSER} peer map=owner\n", server)
        write_as(self.cluster_dir / "pg_ident.conf", f'owner "{caller}" {SUPERUSER}\n', server)
        # The server is not running (we hold the lock and looked), so what these files claim is stale; a
        # reused process id would make Postgres refuse to start.
        (self.cluster_dir / "postmaster.pid").unlink(missing_ok=True)
        (socket_dir / f".s.PGSQL.{SOCKET_PORT}.lock").unlink(missing_ok=True)
        if self.log_path.is_file() and self.log_path.stat().st_size > LOG_BYTES_MAX:
            self.log_path.unlink()

    def _spawn(self, server: pwd.struct_passwd, deadline: float) -> bool:
        """Start the server once. False if orphans of a killed server still hold its memory: try "
        "again soon."""
        log_from = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - our own binary and paths
                as_account([str(binaries(server) / "postgres"), "-D", str(self.cluster_dir)], server),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C goes to the supervisor, which stops us in the right order.
                env=environment(),
            )
        try:
            self._await_ready(self._child, deadline)
        except EmbeddedPostgresError:
            with self.log_path.open("rb") as log:
                log.seek(log_from)
                said = log.read()
            self._reap()
            if b"shared memory block" in said and b"still in use" in said and time.monotonic() < deadline:
                return False
            raise
        return True

    def _adopt(self, deadline: float) -> bool:
        """Wait for a server that runs already. False if there is none, or it was just going away."""
        while self.pid is not None:
            if self._accepts():
                return True
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"A Postgres runs on {self.data_dir} (process {self.pid}) but does not answer. "
                    f"`make down` "
                    f"stops it; the log is {self.log_path}."
                )
            time.sleep(POLL_S)
        return False

    def _accepts(self) -> bool:
        """Whether the server says `ready` in its pid file (8th line, what pg_ctl reads) and its "
        "socket answers."""
        try:
            lines = (self.cluster_dir / "postmaster.pid").read_text().splitlines()
            if len(lines) < READY_LINE or lines[READY_LINE - 1].strip() != "ready":
                return False
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(str(self.socket_dir / f".s.PGSQL.{SOCKET_PORT}"))
        except OSError:
            return False
        return True

    def _await_ready(self, child: subprocess.Popen[bytes], deadline: float) -> None:
        while not self._accepts():
            if child.poll() is not None:
                raise EmbeddedPostgresError(
                    f"Postgres ended while starting (code {child.returncode}). It said:\n{self.log_tail()}\n"
                    f"The whole log is {self.log_path}."
                )
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"Postgres did not become ready in time. It said:\n{self.log_tail()}\nThe whole log is "
                    f"{self.log_path}; `make down`, then `make up` tries again."
                )
            time.sleep(POLL_S)

    def _await_gone(self, pid: int, wait_s: float) -> bool:
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if self._child is not None and self._child.pid == pid:
                if self._child.poll() is not None:
                    return True
            elif not is_postmaster_of(pid, self.cluster_dir):
                return True
            time.sleep(POLL_S)
        return False

    def _reap(self) -> None:
        if self._child is not None:
            try:
                self._child.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            self._child = None


def _url(scheme: str, socket_dir: Path, database: str) -> str:
    # Slashes stay as they are: alembic's config parser trips over percent signs.
    return f"{scheme}://{SUPERUSER}@/{database}?host={quote(str(socket_dir), safe='/')}&port={SOCKET_PORT}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One start at a time; the kernel drops the lock with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
