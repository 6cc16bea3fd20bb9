"""Whose secrets a destination can name."""

from pathlib import Path

import pytest

from control_plane import config as configuration
from control_plane.bootstrap import _secrets

TABLES = """
[schedulers.maestro]
kind = "maestro"
url = "https://maestro.example"
secret_variable = "MAESTRO_TOKEN"
"""


def test_a_destination_reads_its_own_variable_and_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLACK_HOOK", "MAESTRO_TOKEN", "RUNWAY_APPROVAL_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"of {name}\n")
    (tmp_path / "runway.toml").write_text(TABLES)
    environment = {"RUNWAY_CONFIG": str(tmp_path / "runway.toml"), "RUNWAY_DATABASE_URL": "postgresql://u@h/n"}
    config = configuration.load(environment | {"MAESTRO_TOKEN": "x"})
    secret = _secrets(config)
    assert secret("SLACK_HOOK") == "of SLACK_HOOK"  # without the line break that a file ends with
    assert [secret(name) for name in ("", "NOBODY", "MAESTRO_TOKEN", "RUNWAY_APPROVAL_KEY")] == ["", "", "", ""]
    assert secret("AWS_SECRET_ACCESS_KEY") == ""
