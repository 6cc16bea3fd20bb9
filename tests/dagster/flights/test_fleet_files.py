"""What people declare of the flights fleet (YAML) and what its trainers need (Python) are one truth."""

import re
from pathlib import Path

from runway_client import from_duration, messages
from runway_client.fleet_files import read_fleet, read_texts, render

from assets.flights import bootstrap
from assets.flights.features import DATASETS, FEATURE
from assets.flights.fleet import BY_ID, FLEET, HISTORY
from assets.flights.labels import WINDOW
from assets.flights.story import MARGINS

MANIFEST = bootstrap.declared()
MODELS = {model.model_id: model for model in MANIFEST.models}


def _upstream(node_id: str, kind: str) -> set[str]:
    edges = (edge.upstream_id for edge in MANIFEST.dependencies if edge.downstream_id == node_id)
    return {upstream.removeprefix(f"{kind}:") for upstream in edges if upstream.startswith(f"{kind}:")}


def test_the_models_of_the_files_are_those_that_are_trained() -> None:
    assert MODELS.keys() == BY_ID.keys()
    for model in FLEET:
        declared = MODELS[model.model_id]
        assert messages.TaskType.Name(declared.task_type) == f"TASK_TYPE_{model.task.upper()}"
        assert _upstream(f"model:{model.model_id}", "feature") == set(model.features)
        assert _upstream(f"model:{model.model_id}", "model") == set(model.upstream)
        assert declared.tags.get("origin", "") == model.origin
        assert from_duration(declared.training_window) == HISTORY


def test_a_model_expects_what_it_reads() -> None:
    for model in FLEET:
        kinds = {one.name: one.type for one in MODELS[model.model_id].expected_inputs}
        categories = {name for name in model.features if FEATURE[name].categorical}
        assert kinds.keys() == set(model.features)
        assert {name for name, kind in kinds.items() if kind == messages.VALUE_TYPE_CATEGORY} == categories


def test_embeddings_are_read_as_embeddings() -> None:
    for edge in MANIFEST.dependencies:
        if edge.upstream_id.startswith("model:"):
            embeds = BY_ID[edge.upstream_id.removeprefix("model:")].task == "embedding"
            assert (edge.type == messages.DEPENDENCY_TYPE_EMBEDS) == embeds


def test_the_features_of_the_files_are_those_that_are_computed() -> None:
    nodes = {node.node_id: node for node in MANIFEST.nodes}
    assert {f"dataset:{name}" for name in DATASETS} | {f"feature:{name}" for name in FEATURE} <= nodes.keys()
    for name, text in DATASETS.items():
        assert nodes[f"dataset:{name}"].description == text
    for name, feature in FEATURE.items():
        assert nodes[f"feature:{name}"].description == feature.description
        assert _upstream(f"feature:{name}", "dataset") == {feature.dataset}


def test_margins_and_windows_are_those_that_comparisons_use() -> None:
    [fleet] = [layer.policies for layer in MANIFEST.policies if layer.scope == "fleet"]
    assert from_duration(fleet.label.window) == WINDOW
    for model in FLEET:
        own = MODELS[model.model_id].policies
        margin = own.validation.margin if own.validation.HasField("margin") else fleet.validation.margin
        assert margin == MARGINS[model.task]
        assert own.label.metric in ("", model.metric)


def test_several_teams_and_tiers_and_an_owner_for_everything() -> None:
    assert len({model.team for model in MODELS.values()}) == 4
    assert {layer.scope for layer in MANIFEST.policies} == {"fleet", "tier:1", "tier:2", "tier:3", "tier:4"}
    assert {model.tier for model in MODELS.values()} == {1, 2, 3, 4}
    assert all(model.owner for model in MODELS.values())
    assert all(node.owner for node in MANIFEST.nodes)


def test_the_files_are_in_the_form_in_which_they_are_exported() -> None:
    written = render(MANIFEST, "../../../docs/fleet.schema.json")
    for path, text in written.items():
        assert _without_comments(bootstrap.FILES / path) == _bare(text), path
    assert read_texts(written).manifest == MANIFEST
    assert sorted(written) == read_fleet(bootstrap.FILES).files


def _without_comments(path: Path) -> str:
    return _bare(path.read_text(encoding="utf-8"))


def _bare(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not re.match(r"\s*# (?!yaml)|\s*#$", line))
