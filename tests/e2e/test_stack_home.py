"""The state directory and the sentences that say what stands in the way."""

import json
import os
import socket
import subprocess
import sys
from datetime import date
from pathlib import Path

import psutil
import pytest

from stack.__main__ import down, reset
from stack.home import MARKER, RUN_FILE, Home, find_home, open_home
from stack.probes import require_database, require_free
from stack.settings import Address, Replay, StackError, parse_address

HOLDER = """
import sys
from pathlib import Path
from stack.home import open_home
home = open_home(Path(sys.argv[1]))
with home.alone():
    print("alone", flush=True)
    sys.stdin.read()
"""


def test_home_is_made_and_found_again(tmp_path: Path) -> None:
    made = open_home(tmp_path / "a" / "state")
    assert find_home(made.path) == made
    assert open_home(made.path) == made
    assert made.logs.is_dir()


def test_somebody_elses_directory_is_refused_and_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StackError, match=r"thesis\.tex.*RUNWAY_HOME"):
        open_home(tmp_path)
    with pytest.raises(StackError, match="nothing is removed"):
        reset(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_half_written_marker_says_reset_and_reset_works(tmp_path: Path) -> None:
    home = open_home(tmp_path / "state")
    (home.path / MARKER).write_text('{"lay')
    with pytest.raises(StackError, match="make reset"):
        open_home(home.path)
    assert reset(home.path) == 0
    assert not home.path.exists()


def test_home_of_another_layout_is_refused(tmp_path: Path) -> None:
    home = open_home(tmp_path / "state")
    (home.path / MARKER).write_text('{"layout": 99}')
    with pytest.raises(StackError, match="another layout"):
        open_home(home.path)


def test_file_in_place_of_the_directory_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StackError, match="cannot be used"):
        open_home(tmp_path / "state")


def test_second_run_is_told_which_process_runs(tmp_path: Path) -> None:
    path = tmp_path / "state"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "alone\n"
        home = open_home(path)
        assert home.running() == holder.pid
        with pytest.raises(StackError, match=f"already up .*process {holder.pid}"), home.alone():
            pass
        holder.kill()
        holder.wait()
        # The kernel released the lock, and the record it left names nobody.
        assert home.running() is None
        with home.alone():
            assert home.running() == os.getpid()
    assert home.running() is None


def test_recycled_process_id_is_not_mistaken_for_a_run(tmp_path: Path) -> None:
    home = open_home(tmp_path / "state")
    record = {"pid": os.getpid(), "started_at_s": psutil.Process().create_time() - 3600}
    (home.path / RUN_FILE).write_text(json.dumps(record))
    assert home.running() is None


def test_down_and_reset_of_nothing_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert down(tmp_path / "none") == 0
    assert reset(tmp_path / "none") == 0
    said = capsys.readouterr().out
    assert "Nothing to stop" in said
    assert "Nothing to reset" in said


def test_taken_port_names_its_holder_and_the_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        with pytest.raises(StackError, match=f"process {os.getpid()} .*RUNWAY_ADDRESS=127"):
            require_free(address, "the control plane", "RUNWAY_ADDRESS")
    require_free(address, "the control plane", "RUNWAY_ADDRESS")


def test_address_that_is_not_ours_is_a_sentence() -> None:
    with pytest.raises(StackError, match="not usable"):
        require_free(Address("203.0.113.1", 7433), "the control plane", "RUNWAY_ADDRESS")


@pytest.mark.parametrize("text", ["7433", "localhost:", ":7433", "a:b", "h:0", "h:70000"])
def test_bad_address_names_its_variable(text: str) -> None:
    with pytest.raises(StackError, match="RUNWAY_ADDRESS"):
        parse_address(text, "RUNWAY_ADDRESS")


def test_dead_database_is_a_sentence_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(StackError, match="RUNWAY_DATABASE_URL cannot be used") as caught:
        require_database(f"postgresql://somebody:geheim@127.0.0.1:{port}/runway")
    assert "geheim" not in str(caught.value)


def test_replay_arguments() -> None:
    replay = Replay(first_day=date(2013, 3, 1), days=60, seconds_per_day=3.0)
    assert replay.arguments() == ("--seconds-per-day", "3", "--from", "2013-03-01", "--days", "60")


def test_home_of_a_given_path_marks_its_processes_by_the_resolved_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Home(tmp_path / "link").stack_id == Home(tmp_path / "real").stack_id
