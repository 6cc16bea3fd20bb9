"""Locks and Dagster's configuration: pinned, without addresses or secrets, and accepted by who reads them."""

import sys
from pathlib import Path

import msgspec
import pytest
from sqlalchemy.engine import make_url

from stack.dagster_home import DATABASE_VARIABLE, code_socket, dagster_database_url, storage_stamp, write_dagster_home
from tools import environment
from tools.contract import stale


@pytest.mark.parametrize("lock", [environment.LOCK, environment.UV_LOCK], ids=lambda lock: lock.name)
def test_locks_pin_everything_with_hashes_and_name_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    packages = [line for line in text.splitlines() if line[:1].isalnum()]
    assert packages
    for line in packages:
        assert "==" in line
        assert line.endswith("\\")
    assert text.count("--hash=sha256:") >= len(packages)


def test_uv_of_both_locks_is_one() -> None:
    def pin(lock: Path) -> str:
        return next(line.split()[0] for line in lock.read_text().splitlines() if line.startswith("uv=="))

    assert pin(environment.LOCK) == pin(environment.UV_LOCK)


def test_pips_index_is_told_to_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_FIND_LINKS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere/at/all https://wheels.example/")
    told = environment.uv_environment([sys.executable, "-m", "pip"])
    assert told["UV_DEFAULT_INDEX"] == "https://index.example/simple"
    # uv refuses a folder that is not there; pip passes it over.
    assert told["UV_FIND_LINKS"] == "https://wheels.example/"


def test_what_uv_was_told_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.setenv("UV_INDEX_URL", "https://mine.example/simple")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    assert "UV_DEFAULT_INDEX" not in environment.uv_environment([sys.executable, "-m", "pip"])


def test_committed_stubs_are_what_the_contract_says() -> None:
    assert stale() == []


def test_dagster_home_is_valid_and_holds_no_secret(tmp_path: Path) -> None:
    workspace, socket_path = write_dagster_home(tmp_path / "dagster")
    config = msgspec.yaml.decode((tmp_path / "dagster" / "dagster.yaml").read_bytes())
    assert config["storage"] == {"postgres": {"postgres_url": {"env": DATABASE_VARIABLE}}}
    assert config["telemetry"] == {"enabled": False}
    location = msgspec.yaml.decode(workspace.read_bytes())["load_from"][0]["grpc_server"]
    assert location["socket"] == str(socket_path)
    assert (tmp_path / "dagster").stat().st_mode & 0o077 == 0


def test_deep_state_directory_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-rather-long-name-of-a-folder"] * 4)
    assert len(str(code_socket(deep))) < 104
    assert code_socket(tmp_path / "d") == tmp_path / "d" / "code.sock" or len(str(tmp_path)) > 80


def test_given_database_gets_a_schema_for_dagster() -> None:
    url = dagster_database_url("postgresql://me:pw@db.example:5433/fleet?sslmode=require")
    parsed = make_url(url)
    assert parsed.drivername == "postgresql+psycopg2"
    assert parsed.query == {"sslmode": "require", "options": "-csearch_path=dagster"}
    assert (parsed.host, parsed.port, parsed.database) == ("db.example", 5433, "fleet")
    # alembic's configuration parser trips over percent signs.
    assert "%" not in url


def test_another_database_has_no_tables_yet() -> None:
    assert storage_stamp("postgresql://a/b") != storage_stamp("postgresql://a/c")
