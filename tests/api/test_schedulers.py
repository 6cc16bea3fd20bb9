"""Schedulers by RPC and by `runway`, against a whole control plane."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from runway_client import InvalidRequest, NotFound, Runway, Why, connect, messages

from tests.api.served_plane import ServedPlane
from tests.api.test_alerts import Shell

FAILED = (messages.CALL_OUTCOME_FAILED, "503 busy")


@pytest.fixture
def runway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runway]:
    one = ServedPlane(tmp_path / "home", monkeypatch)
    one.start()
    monkeypatch.setenv("RUNWAY_ADDRESS", one.address)
    monkeypatch.setenv("RUNWAY_ACTOR", "anna")
    monkeypatch.setenv("COLUMNS", "160")
    with connect(one.address, "anna") as client:
        for name in ("eta", "fare"):
            client.registry.register_model(
                messages.Model(
                    model_id=name,
                    team="crew",
                    owner="team:crew",
                    tier=messages.TIER_2,
                    task_type=messages.TASK_TYPE_BINARY,
                    policies=messages.Policies(
                        retraining=messages.RetrainingPolicy(scheduler="airflow" if name == "fare" else "")
                    ),
                )
            )
            client.retraining.request_retrain(name, ignore_cooldown=True)
        yield client
    one.stop()
    one.close()


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def named(runway: Runway) -> dict[str, messages.Scheduler]:
    return {one.scheduler: one for one in runway.schedulers.list_schedulers(min_revision=runway.revision)}


def test_schedulers_are_those_that_lease_or_are_named(runway: Runway) -> None:
    runway.retraining.lease_retrains("dagster", 10)
    found = named(runway)
    assert list(found) == ["airflow", "dagster"]
    assert (found["dagster"].running, found["dagster"].waiting) == (1, 0)
    assert found["dagster"].HasField("last_lease_at")
    assert (found["airflow"].running, found["airflow"].waiting) == (0, 1)
    assert not found["airflow"].HasField("last_lease_at")
    assert found["dagster"].how == "leases by itself"
    assert found["dagster"].breaker == messages.BREAKER_STATE_CLOSED


def test_five_reported_failures_open_it_and_nothing_is_leased(runway: Runway) -> None:
    assert runway.schedulers.report_calls("dagster", [FAILED] * 4).breaker == messages.BREAKER_STATE_CLOSED
    refused = (messages.CALL_OUTCOME_REFUSED, "404")
    after = runway.schedulers.report_calls("dagster", [refused, FAILED])
    assert after.breaker == messages.BREAKER_STATE_OPEN
    assert "5 calls failed one after the other, the last: 503 busy" in after.reason
    assert after.HasField("open_until")
    assert runway.retraining.lease_retrains("dagster", 10) == []
    assert runway.schedulers.reset("dagster").breaker == messages.BREAKER_STATE_CLOSED
    assert runway.schedulers.report_calls("dagster", [FAILED] * 4).breaker == messages.BREAKER_STATE_CLOSED
    assert len(runway.retraining.lease_retrains("dagster", 10)) == 1


def test_a_bypass_says_why_and_only_of_what_is_known(runway: Runway) -> None:
    with pytest.raises(InvalidRequest, match="say why"):
        runway.schedulers.bypass("dagster", why=Why(reason=" "))
    with pytest.raises(NotFound):
        runway.schedulers.bypass("dagster", why=Why(reason="we must"))
    with pytest.raises(NotFound):
        runway.schedulers.reset("dagster")


def test_the_command_line_tells_the_story(runway: Runway, shell: Shell) -> None:
    assert shell("schedulers", "trip", "dagster", "--dry-run").out == (
        "the breaker of dagster would be open until it is reset\n"
    )
    ran = shell("schedulers", "trip", "dagster", "--reason", "upgrade")
    assert ran.code == 0
    assert "the breaker of dagster is open" in ran.out
    assert "tripped by anna: upgrade; it waits for a reset. Its retrains wait, none is lost." in ran.out
    listed = shell("schedulers").out
    assert "SCHEDULER" in listed
    assert "OPEN" in listed
    assert "tripped by anna" in listed
    assert shell("schedulers", "bypass", "dagster").code == 2
    ran = shell("schedulers", "bypass", "dagster", "--reason", "the demo must go on")
    assert "anna lets retrains go there in spite of its breaker" in ran.out
    assert len(runway.retraining.lease_retrains("dagster", 10)) == 1
    assert shell("schedulers", "reset", "dagster").out.startswith("the breaker of dagster is closed")
    [_, dagster] = json.loads(shell("schedulers", "--json").out)["schedulers"]
    assert dagster["breaker"] == "BREAKER_STATE_CLOSED"
    assert shell("schedulers", "reset", "nobody").code == 1
