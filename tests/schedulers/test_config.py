"""Schedulers as they are configured: in the file, or in a variable; slips are said with what to write."""

from pathlib import Path

import pytest

from control_plane.adapters.schedulers.airflow import AirflowScheduler
from control_plane.adapters.schedulers.maestro import MaestroScheduler
from control_plane.adapters.schedulers.metaflow import MetaflowScheduler
from control_plane.adapters.schedulers.systems import schedulers_of
from control_plane.config import ConfigError, load

BASE = {"RUNWAY_DATABASE_URL": "postgresql://somebody@host/name", "AIRFLOW_PASSWORD": "pw of airflow"}
AIRFLOW = '[air]\nkind = "airflow"\nurl = "https://air.example"\n'


async def test_schedulers_come_from_the_file_with_their_secrets_from_the_environment(tmp_path: Path) -> None:
    flow, file = tmp_path / "train.py", tmp_path / "runway.toml"
    flow.touch()
    file.write_text(
        f"""
        [schedulers.air]
        kind = "airflow"
        url = "https://air.example/base"
        dag = "retrain_{{model}}"
        username = "runway"
        secret_variable = "AIRFLOW_PASSWORD"
        timeout_s = 3
        [schedulers.mae]
        kind = "maestro"
        url = "http://mae.example:8080"
        [schedulers.met]
        kind = "metaflow"
        flow = "{flow}"
        """
    )
    config = load({**BASE, "RUNWAY_CONFIG": str(file)})
    assert "pw of airflow" not in str(config.masked())
    assert [(one.name, one.secret, one.timeout_s) for one in config.schedulers] == [
        ("air", "pw of airflow", 3.0),
        ("mae", "", 10.0),
        ("met", "", 10.0),
    ]
    found = schedulers_of(config.schedulers)
    assert isinstance(found["air"], AirflowScheduler)
    assert isinstance(found["mae"], MaestroScheduler)
    assert isinstance(found["met"], MetaflowScheduler)
    assert [one.address for one in found.values()] == ["https://air.example/base", "http://mae.example:8080", str(flow)]
    for one in found.values():
        await one.close()


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ('[air]\nkind = "luigi"\n', "kind='luigi' is none of airflow, maestro, metaflow"),
        ('[air]\nkind = "airflow"\n', "lacks url"),
        ('[Air]\nkind = "airflow"\n', "small letters"),
        (f'{AIRFLOW}dags = "x"\n', "did you mean dag"),
        (f"{AIRFLOW}timeout_s = 0\n", "above 0"),
        (f"{AIRFLOW}dag = 1\n", "must be text"),
        (f'{AIRFLOW}secret_variable = "NOBODY"\n', "NOBODY that holds its secret is not set"),
        (f'{AIRFLOW}username = "runway"\n', "no secret_variable"),
        ('[air]\nkind = "airflow"\nurl = "https://me:pw@air.example"\n', "holds a password"),
        ('[air]\nkind = "airflow"\nurl = "air.example"\n', "write http://host:port"),
        ('[met]\nkind = "metaflow"\nflow = "/nowhere/train.py"\n', "there is no file /nowhere/train.py"),
        ("air = 1\n", "must be a table"),
    ],
)
def test_a_slip_is_said_with_what_to_write(tables: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load({**BASE, "RUNWAY_SCHEDULERS": tables})
