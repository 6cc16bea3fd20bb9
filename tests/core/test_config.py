"""Configuration: read once, unknown keys refused, secrets masked."""

from pathlib import Path

import pytest

from control_plane.config import ConfigError, load

URL = "postgresql://runway:secret@db.example.org/runway?sslmode=require"
REQUIRED = {"RUNWAY_DATABASE_URL": URL}


def test_defaults_then_file_then_environment(tmp_path: Path) -> None:
    file = tmp_path / "runway.toml"
    file.write_text('address = "0.0.0.0:1"\nsnapshot_every = 7\nreflection = false\n')
    config = load({**REQUIRED, "RUNWAY_CONFIG": str(file), "RUNWAY_ADDRESS": "127.0.0.1:2", "RUNWAY_HOME": "/srv"})
    assert (config.address, config.snapshot_every, config.reflection) == ("127.0.0.1:2", 7, False)
    assert config.home == Path("/srv")
    assert load(REQUIRED).address == "127.0.0.1:7433"


def test_the_password_is_never_shown() -> None:
    shown = load(REQUIRED).masked()
    assert "secret" not in str(shown)
    assert shown["database_url"] == "postgresql://runway:***@db.example.org/runway?sslmode=require"
    socket = "postgresql://root@/runway?host=/run"
    assert load({"RUNWAY_DATABASE_URL": socket}).masked()["database_url"] == socket


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "no database: set RUNWAY_DATABASE_URL"),
        ({**REQUIRED, "RUNWAY_CLOCK": "sundial"}, "use wall or driven"),
        ({**REQUIRED, "RUNWAY_ADDRESS": "7433"}, "write host:port"),
        ({**REQUIRED, "RUNWAY_ADDRESS": "host:port"}, "write host:port"),
        ({**REQUIRED, "RUNWAY_SNAPSHOT_EVERY": "often"}, "RUNWAY_SNAPSHOT_EVERY='often' is not a int"),
        ({**REQUIRED, "RUNWAY_REFLECTION": "perhaps"}, "is not a bool"),
        ({**REQUIRED, "RUNWAY_MESSAGE_BYTES_MAX": "10"}, "at least 1024"),
        ({**REQUIRED, "RUNWAY_CONFIG": "/nowhere.toml"}, "cannot be read"),
        ({**REQUIRED, "RUNWAY_ADRESS": "127.0.0.1:1"}, "RUNWAY_ADRESS is not a setting"),
        ({**REQUIRED, "RUNWAY_LOG_LEVEL": "loud"}, "log_level"),
        ({**REQUIRED, "RUNWAY_SNAPSHOT_EVERY": "0"}, "snapshot_every"),
        ({**REQUIRED, "RUNWAY_DRAIN_S": "nan"}, "drain_s"),
        ({**REQUIRED, "RUNWAY_DRAIN_S": "-1"}, "drain_s"),
        ({**REQUIRED, "RUNWAY_ADDRESS": "127.0.0.1:99999"}, "write host:port"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(environment: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environment)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ['adress = "x"', "no toml at all", "[table]\naddress = 1"])
def test_an_unknown_key_in_the_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "runway.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load({**REQUIRED, "RUNWAY_CONFIG": str(file)})


def test_variables_of_other_programs_are_left_alone() -> None:
    load({**REQUIRED, "RUNWAY_ACTOR": "me", "PATH": "/bin"})
