"""The programs of the stack: their command lines, environments and probes."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from stack.children import Program
from stack.dagster_home import DATABASE_VARIABLE, LOCATION, dagster_database_url, write_dagster_home
from stack.family import STACK_VARIABLE
from stack.home import Home
from stack.probes import dagster_daemons_healthy, grpc_serving, http_ok
from stack.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CODE_MODULE = "assets.definitions"
CODE_HEALTH_SERVICE = "DagsterApi"
REPLAYED = ("2013-03-01", "2014-01-01")
"""First day, and the day after the last, that the flights' replay predicts for."""
SECRET_VARIABLE = "RUNWAY_SERVING_SECRET"  # noqa: S105 - its name, not what it holds
"""What the control plane signs with when it tells the fleet's server how to split; made anew at each start."""
BOOTSTRAP_S_MAX = 900.0
"""The first time it trains the whole fleet once; on a slow machine that is minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Everything the stack runs besides Postgres, in the order in which it is needed."""

    control_plane: Program
    bootstrap: Program
    storage: Program
    """Makes Dagster's tables. Its servers would each make them, at once, and trip over one another."""
    code_server: Program
    webserver: Program
    daemon: Program
    serving: Program
    """The fleet's server; it needs the fleet's first versions."""
    replay: Program


def demo_serving(url: str) -> str:
    """The fleet's server as the control plane's configuration has it.

    >>> demo_serving("http://127.0.0.1:7435").partition(",")[0]
    'demo = {kind = "webhook"'
    """
    return (
        f'demo = {{kind = "webhook", url = "{url}/weights", metrics_url = "{url}/metrics", '
        f'secret_variable = "{SECRET_VARIABLE}"}}'
    )


def programs(settings: Settings, home: Home, database_url: str, dagster_url: str | None = None) -> Programs:
    """Describe the programs and write the configuration they read.

    `dagster_url` is Dagster's own database where there is one; otherwise its tables go to a schema of theirs
    in `database_url`.
    """
    workspace, socket_path = write_dagster_home(home.dagster)
    web_url = f"http://{settings.web_address}"
    everybody = {
        **os.environ,
        STACK_VARIABLE: home.stack_id,
        "RUNWAY_HOME": str(home.path),
        "RUNWAY_ADDRESS": str(settings.address),
        "RUNWAY_DAGSTER_URL": f"http://{settings.web_address}",
        "RUNWAY_WEB_ADDRESS": str(settings.web_address),
        "PYTHONUNBUFFERED": "1",
    }
    # Only who needs the database learns its address.
    everybody.pop("RUNWAY_DATABASE_URL", None)
    serving_url, secret = f"http://{settings.serving_address}", token_hex(32)
    plane = {
        **everybody,
        "RUNWAY_DATABASE_URL": database_url,
        "RUNWAY_CLOCK": "driven",
        "RUNWAY_SERVING": os.environ.get("RUNWAY_SERVING") or demo_serving(serving_url),
        SECRET_VARIABLE: secret,
    }
    dagster = {
        **everybody,
        "DAGSTER_HOME": str(home.dagster),
        DATABASE_VARIABLE: dagster_url or dagster_database_url(database_url),
        # Joins are shown by day and hour of the year that is replayed, whatever year it is on the wall.
        "RUNWAY_PARTITIONS_FROM": os.environ.get("RUNWAY_PARTITIONS_FROM") or REPLAYED[0],
        "RUNWAY_PARTITIONS_UNTIL": os.environ.get("RUNWAY_PARTITIONS_UNTIL") or REPLAYED[1],
        # Training runs several at a time on few cores.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        # A run's command finds the project however Dagster chooses its working directory.
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    return Programs(
        control_plane=Program(
            name="control plane",
            command=(sys.executable, "-m", "control_plane"),
            environment=plane,
            probe=grpc_serving(str(settings.address)),
            stop_s_max=20.0,
            cwd=ROOT,
        ),
        bootstrap=Program(
            name="flights fleet",
            command=(sys.executable, "-m", "assets.flights.bootstrap"),
            environment=everybody,
            once=True,
            restarts_max=2,
            cwd=ROOT,
        ),
        storage=Program(
            name="dagster storage",
            command=(str(BIN / "dagster"), "instance", "migrate"),
            environment=dagster,
            once=True,
            restarts_max=2,
            cwd=ROOT,
        ),
        code_server=Program(
            name="dagster code server",
            command=(
                *(str(BIN / "dagster"), "code-server", "start", "--module-name", CODE_MODULE),
                *("--socket", str(socket_path), "--location-name", LOCATION),
                *("--use-python-environment-entry-point", "--working-directory", str(ROOT)),
            ),
            environment=dagster,
            probe=grpc_serving(f"unix:{socket_path}", CODE_HEALTH_SERVICE),
            ready_s_max=120.0,
            cwd=ROOT,
        ),
        webserver=Program(
            name="dagster webserver",
            command=(
                *(str(BIN / "dagster-webserver"), "--workspace", str(workspace)),
                *("--host", settings.web_address.host, "--port", str(settings.web_address.port)),
            ),
            environment=dagster,
            probe=http_ok(f"{web_url}/server_info"),
            ready_s_max=120.0,
            cwd=ROOT,
        ),
        daemon=Program(
            name="dagster daemon",
            command=(str(BIN / "dagster-daemon"), "run", "--workspace", str(workspace)),
            environment=dagster,
            probe=dagster_daemons_healthy(web_url),
            ready_s_max=120.0,
            cwd=ROOT,
        ),
        serving=Program(
            name="flights serving",
            command=(sys.executable, "-m", "assets.flights.serving", "--address", str(settings.serving_address)),
            environment={**everybody, SECRET_VARIABLE: secret},
            probe=http_ok(f"{serving_url}/"),
            ready_s_max=120.0,
            cwd=ROOT,
        ),
        replay=Program(
            name="replay",
            command=(sys.executable, "-m", "assets.flights.replay", *settings.replay.arguments()),
            environment={**everybody, "RUNWAY_SERVING_URL": serving_url},
            once=True,
            said_at_end="the replay has reached its last day; everything stays up, Ctrl-C ends it",
            cwd=ROOT,
        ),
    )
