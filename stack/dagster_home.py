"""Dagster's configuration, written at every start: storage, daemons, limits, and where the code is.

Dagster writes its storage configuration on the command lines of its workers, so the database's address stands
in an environment variable and only that variable's name in the file.
"""

import hashlib
import os
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

DATABASE_VARIABLE = "RUNWAY_DAGSTER_DATABASE_URL"
LOCATION = "runway"
DRILL_FILE = "no-launches"
"""While it is in Dagster's home, the launcher of `assets` starts nothing: an outage, to be ridden out."""
SOCKET_PATH_CHARS_MAX = 100
"""The kernel takes 107 bytes (Linux) or 103 (macOS)."""

# The Dagster side's own parts (assets/), used when they are there.
RUN_LAUNCHER = ("assets.launcher", "LeanRunLauncher")
RUN_COORDINATOR = ("assets.coordinator", "RunwayRunCoordinator")

DAGSTER_YAML = """\
# Written by Runway at every start; edits are lost.
storage:
  postgres:
    postgres_url:
      env: {database_variable}
telemetry:
  enabled: false
nux:
  enabled: false
run_monitoring:
  enabled: true
  start_timeout_seconds: 180
  poll_interval_seconds: 10
# Retries are Runway's: it counts attempts and waits between them.
run_retries:
  enabled: false
  max_retries: 0
# One for each sensor: the one that leases lingers.
sensors:
  use_threads: true
  num_workers: 10
schedules:
  use_threads: true
  num_workers: 2
retention:
  schedule:
    purge_after_days: {{skipped: 1, success: 30, failure: 30, started: 1}}
  sensor:
    purge_after_days: {{skipped: 1, success: 30, failure: 30, started: 1}}
"""


def dagster_database_url(url: str) -> str:
    """A libpq address as dagster-postgres wants it: the psycopg2 driver, tables in the schema `dagster`."""
    parts = urlsplit(url)
    # No percent signs may come in here: alembic's parser trips over them.
    query = "&".join(part for part in (parts.query, "options=-csearch_path=dagster") if part)
    return urlunsplit(parts._replace(scheme="postgresql+psycopg2", query=query))


def storage_stamp(database_url: str) -> str:
    """What Dagster's storage was made by and in; while it is the same, its tables are there."""
    return f"dagster {version('dagster')} in {hashlib.sha256(database_url.encode()).hexdigest()[:16]}"


def code_socket(folder: Path) -> Path:
    """Unix socket of the code server: in Dagster's folder, or a private one when that path is too long."""
    inside = folder / "code.sock"
    if len(os.fsencode(inside)) <= SOCKET_PATH_CHARS_MAX:
        return inside
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    private = Path(tempfile.gettempdir()) / f"runway-code-{os.geteuid()}-{digest}"
    private.mkdir(mode=0o700, exist_ok=True)
    if private.stat().st_uid != os.geteuid() or private.is_symlink():
        raise PermissionError(f"{private} belongs to somebody else")
    return private / "code.sock"


def write_dagster_home(folder: Path) -> tuple[Path, Path]:
    """Write `dagster.yaml` and `workspace.yaml`; returns the paths of the workspace and of the code's socket."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = DAGSTER_YAML.format(database_variable=DATABASE_VARIABLE)
    (folder / "dagster.yaml").write_text(text + _launcher() + _coordinator(), encoding="utf-8")
    workspace, socket_path = folder / "workspace.yaml", code_socket(folder)
    workspace.write_text(
        "# Written by Runway at every start; edits are lost.\nload_from:\n  - grpc_server:\n"
        f'      socket: "{socket_path}"\n      location_name: "{LOCATION}"\n',
        encoding="utf-8",
    )
    return workspace, socket_path


def _launcher() -> str:
    module, name = RUN_LAUNCHER
    return f"run_launcher:\n  module: {module}\n  class: {name}\n" if find_spec(module) else ""


def _coordinator() -> str:
    module, name = RUN_COORDINATOR
    if not find_spec(module):
        module, name = "dagster._core.run_coordinator", "QueuedRunCoordinator"
    return (
        f"run_coordinator:\n  module: {module}\n  class: {name}\n"
        "  config:\n    max_concurrent_runs: 50\n    dequeue_interval_seconds: 1\n"
    )
