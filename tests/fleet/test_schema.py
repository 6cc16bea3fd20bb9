"""The JSON Schema of fleet files: what is committed is what the contract says, and it accepts what an export writes."""

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from runway_client import messages
from runway_client.fleet_files import render
from runway_client.fleet_files.yaml_text import Mapping, Scalar, Sequence, Value, parse

from tests.fleet.manifests import manifests
from tools import fleet_schema

SCHEMA = json.loads(fleet_schema.TARGETS[0].read_text(encoding="utf-8"))
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def _as_an_editor_reads(value: Value) -> Any:
    """YAML 1.2, core schema."""
    match value:
        case Mapping():
            return {name.text: _as_an_editor_reads(inside) for name, inside in value.pairs}
        case Sequence():
            return [_as_an_editor_reads(inside) for inside in value.items]
        case Scalar() if value.plain and value.text in ("true", "false"):
            return value.text == "true"
        case Scalar() if value.plain and re.fullmatch(r"[-+]?[0-9]+", value.text):
            return int(value.text)
        case Scalar() if value.plain and re.fullmatch(
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", value.text
        ):
            return float(value.text)
        case Scalar():
            return None if value.empty else value.text


def _complaints(text: str) -> list[str]:
    [document] = parse(text, "a.yaml")
    return [error.message for error in VALIDATOR.iter_errors(_as_an_editor_reads(document))]


def test_the_committed_schema_is_what_the_contract_says() -> None:
    fresh = fleet_schema.schema()
    stale = [target.name for target in fleet_schema.TARGETS if target.read_text(encoding="utf-8") != fresh]
    assert not stale, "run `python -m tools.fleet_schema`"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@settings(max_examples=40, deadline=None, suppress_health_check=[*HealthCheck])
@given(manifests())
def test_an_editor_accepts_what_an_export_writes(manifest: messages.Manifest) -> None:
    for text in render(manifest).values():
        assert _complaints(text) == []


@pytest.mark.parametrize(
    "entry",
    [
        "{model_id: Air, team: t, tier: 1, task_type: binary}",
        "{model_id: a, team: t, tier: 5, task_type: binary}",
        "{model_id: a, team: t, tier: 1, task_type: binari}",
        "{model_id: a, team: t, tier: 1}",
        "{model_id: a, team: t, tier: 1, task_type: binary, ownr: x}",
        "{model_id: a, team: t, tier: 1, task_type: binary, training_window: 7}",
        "{model_id: a, team: t, tier: 1, task_type: binary, depends_on: [temp]}",
    ],
)
def test_an_editor_marks_what_is_wrong(entry: str) -> None:
    assert _complaints(f"models: [{entry}]")


def test_every_field_says_what_it_is_for() -> None:
    model = SCHEMA["$defs"]["Model"]["properties"]
    assert model["tier"] == {"enum": [1, 2, 3, 4]}
    assert model["retrain_gpu_hours"]["description"] == "What one retrain costs."
