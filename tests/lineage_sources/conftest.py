"""Real Metaflow flows in a datastore of the test's own."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

with warnings.catch_warnings():
    # Metaflow's own vendored packages warn when they are imported.
    warnings.simplefilter("ignore")
    import metaflow  # noqa: F401

from tests.api.served_plane import ServedPlane

FLOWS = Path(__file__).parent / "flows"


class Datastore:
    """A folder with Metaflow's metadata and artifacts; flows run in processes of their own, as they do for people."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @property
    def metadata(self) -> str:
        """As `metaflow.metadata` takes it."""
        return f"local@{self.folder}"

    def run(self, flow: str, *arguments: str, user: str = "anna", **environment: str) -> str:
        """Run a flow; its run id."""
        run_id_file = self.folder / "run_id"
        run_id_file.unlink(missing_ok=True)
        command = [sys.executable, str(FLOWS / f"{flow}.py"), "--quiet", *(arguments or ("run",))]
        subprocess.run(
            [*command, "--run-id-file", str(run_id_file)],
            env=os.environ
            | {
                "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(self.folder),
                "METAFLOW_HOME": str(self.folder / "home"),
                "METAFLOW_DEFAULT_METADATA": "local",
                "METAFLOW_DEFAULT_DATASTORE": "local",
                "METAFLOW_USER": user,
                "PYTHONPATH": str(FLOWS.parents[2] / "clients" / "python"),
            }
            | environment,
            capture_output=True,
            check=False,
            timeout=120,
        )
        return run_id_file.read_text(encoding="utf-8").strip()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedPlane]:
    """A control plane."""
    one = ServedPlane(tmp_path / "home", monkeypatch)
    one.start()
    monkeypatch.setenv("RUNWAY_ADDRESS", one.address)
    yield one
    one.stop()
    one.close()
