"""Apply, export, policies and lifecycles against a real control plane, through gRPC and the command line."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from runway.v1 import fleet_pb2
from runway_cli.main import run
from runway_client import InvalidRequest, Refused, Runway, Why, connect, messages

from assets.flights import bootstrap
from tests.api.served_plane import ServedPlane
from tests.fleet.fleets import small


@pytest.fixture
def runway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runway]:
    served = ServedPlane(tmp_path / "home", monkeypatch)
    served.start()
    monkeypatch.setenv("RUNWAY_ADDRESS", served.address)
    with connect(served.address, "anna") as one:
        yield one
    served.stop()
    served.close()


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


class Shell:
    """Runs `runway`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ran:
        self._capsys.readouterr()
        code = 0
        try:
            code = run(list(arguments))
        except SystemExit as done:
            code = int(done.code or 0)
        found = self._capsys.readouterr()
        return Ran(code, found.out, found.err)


@pytest.fixture
def shell(runway: Runway, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_the_flights_are_applied_and_given_back_exactly(shell: Shell, tmp_path: Path) -> None:
    files = str(bootstrap.FILES)
    planned = shell("apply", files, "--plan")
    assert planned.code == 5
    assert "+ model:air_time" in planned.out
    assert shell("apply", files, "--yes", "--reason", "first").out.rstrip().endswith("0 changed, 0 removed.")
    again = shell("apply", files, "--plan", "--prune")
    assert (again.code, again.out.partition(":")[0]) == (0, "No change")

    exported = tmp_path / "exported"
    assert "14 models" in shell("export", str(exported), "--schema", "../../../docs/fleet.schema.json").out
    for path in sorted(exported.rglob("*.yaml")):
        if path.name not in ("policies.yaml", "rules.yaml"):  # they are written by hand, with comments
            assert path.read_bytes() == (bootstrap.FILES / path.relative_to(exported)).read_bytes(), path.name
    assert shell("apply", str(exported), "--plan", "--prune").code == 0


def test_a_diff_reads_like_an_answer(shell: Shell, tmp_path: Path) -> None:
    shell("apply", str(bootstrap.FILES), "--yes")
    files = tmp_path / "fleet"
    shutil.copytree(bootstrap.FILES, files)
    model = files / "models" / "air_time.yaml"
    model.write_text(model.read_text().replace("tier: 3", "tier: 2"))
    (files / "models" / "crew_overtime.yaml").unlink()
    out = shell("apply", str(files), "--plan").out
    assert "  ~ model:air_time\n      tier 3 -> 2\n" in out
    assert "      (staleness.cadence 8h -> 6h, from tier 2's default)\n" in out
    assert "1 model of the fleet is not in these files and stays: crew_overtime." in out
    assert (
        "- model:air_time -> model:crew_overtime (consumes_output)"
        in shell("apply", str(files), "--plan", "--prune").out
    )


def test_what_the_control_plane_refuses_is_told_with_its_place(shell: Shell, tmp_path: Path) -> None:
    files = tmp_path / "fleet"
    shutil.copytree(bootstrap.FILES, files)
    model = files / "models" / "air_time.yaml"
    model.write_text(
        model.read_text().replace("owner: team:network", "owner: network").replace("feature:temp", "feature:tmp")
    )
    ran = shell("apply", str(files))
    assert ran.code == 2
    assert "models/air_time.yaml:4:12: owner: air_time: 'network' is neither an e-mail nor team:name" in ran.err
    assert "there is no node feature:tmp; declare it first" in ran.err
    assert "2 things are wrong" in ran.err
    model.write_text(model.read_text().replace("task_type: regression", "task_type: regresion"))
    ran = shell("apply", str(files))
    assert "did you mean regression?" in ran.err
    assert "there is no node feature:tmp; declare it first" in ran.err
    assert "2 things are wrong" in ran.err
    assert "no models yet" in shell("models", "list").out


def test_nothing_of_a_manifest_with_a_mistake_is_applied(runway: Runway) -> None:
    manifest = small()
    manifest.models[0].owner = "x"
    manifest.models.add(model_id="Bad Id", tier=messages.TIER_1)
    with pytest.raises(InvalidRequest) as refused:
        runway.fleet.apply(manifest)
    fields = {violation.field for violation in refused.value.violations}
    assert {"models[2].model_id", "models[2].team", "models[2].task_type", "models[0].owner"} <= fields
    plan = runway.fleet.plan(manifest)
    assert fields <= {problem.field for problem in plan.problems}
    assert not plan.changes
    assert list(runway.registry.list_models()) == []


def test_thousands_of_mistakes_are_all_in_the_plan(runway: Runway) -> None:
    manifest = fleet_pb2.Manifest()
    for number in range(2_000):
        manifest.dependencies.add(upstream_id=f"feature:f{number}", downstream_id=f"model:m{number}")
    assert len(runway.fleet.plan(manifest).problems) == 4_000
    with pytest.raises(InvalidRequest) as refused:
        runway.fleet.apply(manifest)
    assert refused.value.metadata["violations"] == "4000"


def test_a_repeated_request_is_answered_and_applied_once(runway: Runway) -> None:
    why = Why(request_id="once", reason="the small fleet")
    first = runway.fleet.apply(small(), why=why)
    assert len(first.changes) == 8
    runway.fleet.apply(small("nodes: [{node_id: feature:temp, title: warmth}]"))
    assert runway.fleet.apply(small(), why=why) == first
    assert {node.node_id: node.title for node in runway.fleet.export().nodes}["feature:temp"] == "warmth"


def test_a_plan_is_not_applied_when_the_fleet_has_changed(runway: Runway) -> None:
    plan = runway.fleet.plan(small())
    runway.fleet.apply(small("nodes: [{node_id: feature:temp, title: warmth}]"))
    with pytest.raises(Refused, match="plan again"):
        runway.fleet.apply(small(), plan_etag=plan.plan_etag)


def test_what_is_not_declared_any_more_goes_with_prune_but_for_models(runway: Runway) -> None:
    runway.fleet.apply(small())
    assert len(runway.fleet.export().dependencies) == 3
    applied = runway.fleet.apply(small("nodes: [{node_id: dataset:weather, owner: team:data, team: data}]"), prune=True)
    assert {change.subject for change in applied.changes} >= {"feature:temp", "policy:tier:1"}
    assert [model.model_id for model in runway.registry.list_models()] == ["air_time", "route"]


def test_policies_from_the_command_line(shell: Shell, runway: Runway) -> None:
    runway.fleet.apply(small())
    assert (
        "staleness.cadence 15m -> 30m for 1 model: air_time"
        in shell("policies", "set", "tier:1", "staleness.cadence=30m", "--plan").out
    )
    assert (
        "tier:1 is at version 2" in shell("policies", "set", "tier:1", "staleness.cadence=30m", "--reason", "calm").out
    )
    assert "cadence" in shell("policies", "show", "tier:1").out
    shown = shell("policies", "show", "air_time").out
    assert "  cadence                   30m               from tier 1's default" in shown
    assert "  cooldown                  2d                set on the model itself" in shown
    assert "staleness.cadence 15m -> 30m" in shell("policies", "history", "tier:1").out
    assert shell("policies", "set", "tier:1", "staleness.cadence=").code == 0
    assert "It says nothing any more" in shell("policies", "show", "tier:1").out
    assert "did you mean cadence?" in shell("policies", "set", "tier:1", "staleness.cadense=1h").err


def test_the_life_of_a_model_from_the_command_line(shell: Shell, runway: Runway) -> None:
    runway.fleet.apply(small())
    assert "is deprecated" in shell("models", "deprecate", "route").out
    refused = shell("models", "retire", "route")
    assert refused.code == 1
    assert "model:air_time" in refused.err
    assert shell("models", "retire", "route", "--force").code == 2
    assert "is retired" in shell("models", "retire", "route", "--force", "--reason", "replaced").out
    assert "retired" in shell("models", "list", "--state", "retired").out
    assert "air_time" not in shell("models", "list", "--state", "retired").out
    assert "is registered again" in shell("models", "activate", "route").out
    assert shell("models", "list", "--feature", "temp", "--tier", "1", "--sort", "tier desc").out.splitlines()[1:]
    runway.registry.register_version(
        messages.ModelVersion(
            model_id="route", artifact_uri="s3://route/1", artifact_sha256="a" * 64, trained_until=Timestamp(seconds=1)
        )
    )
    unsaid = shell("models", "load-check", "route", "v1")
    assert (unsaid.code, "Say --passed or --failed" in unsaid.err) == (2, True)
    assert "does not load" in shell("models", "load-check", "route", "v1", "--failed", "--detail", "no torch").out
    assert "no torch" in shell("models", "show", "route").out
    assert "points at v1" in shell("aliases", "move", "route", "blue", "v1").out
    assert "blue" in shell("aliases", "list", "--alias", "blue").out
    assert "is gone" in shell("aliases", "remove", "route", "blue").out


def test_rules_are_applied_from_files_and_a_fault_has_its_place(shell: Shell, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    rules = files / "rules.yaml"
    rules.write_text("rules:\n  - name: wake_up\n    scope: fleet\n    when: verdict == STALEE\n    action: page\n")
    wrong = shell("apply", str(files), "--yes")
    assert wrong.code == 2
    assert "rules.yaml:4:11: " in wrong.out + wrong.err
    assert "1:12: there is no STALEE: did you mean STALE?" in wrong.out + wrong.err
    rules.write_text(rules.read_text().replace("STALEE", "STALE && !season.expected"))
    planned = shell("apply", str(files), "--plan")
    assert (planned.code, "+ wake_up (fleet)" in planned.out) == (5, True)
    assert shell("apply", str(files), "--yes").code == 0
    assert "verdict == STALE && !season.expected" in shell("rules", "list").out
    exported = tmp_path / "exported"
    assert "1 rule" in shell("export", str(exported)).out
    assert "action: page" in (exported / "rules.yaml").read_text()
    assert "No change" in shell("apply", str(exported), "--plan").out
