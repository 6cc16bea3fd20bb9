"""Files to and from a manifest: exact both ways; what is wrong is told with its place, all at once."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runway_client import messages
from runway_client.fleet_files import StrayFiles, read_fleet, read_texts, render, write_fleet
from runway_client.fleet_files.yaml_text import dump

from tests.fleet.manifests import TEXT, manifests

SLOW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@SLOW
@given(manifests())
def test_files_say_exactly_what_the_manifest_says(manifest: messages.Manifest) -> None:
    files = render(manifest)
    found = read_texts(files)
    assert found.problems == []
    assert found.manifest.SerializeToString(deterministic=True) == manifest.SerializeToString(deterministic=True)
    assert render(found.manifest) == files


@settings(deadline=None)
@given(st.recursive(TEXT, lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXT, inside, max_size=3)))
def test_any_yaml_reader_gets_the_texts_that_were_written(value: object) -> None:
    assert yaml.safe_load(dump({"top": value})) == {"top": value}


def _problems(text: str) -> list[str]:
    return [str(problem) for problem in read_texts({"a.yaml": text}).problems]


MODEL = "models: [{model_id: m, team: t, tier: 1, task_type: binary, "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models:\n  - a: 1\n\t- b", "a.yaml:3:1: a tab indents this line: YAML wants spaces"),
        ("modles: []", "a.yaml:1:1: modles: there is no 'modles' here: did you mean models"),
        ("models: {}", "a.yaml:1:9: models: models is a list: begin each entry with `- `"),
        ("a: &x [*x]", "a.yaml:1:4: &x is an anchor: write the value where it is needed"),
        ("nodes: !!python/object:os.system []", "a.yaml:1:8: tag:yaml.org,2002:python/object:os.system is a tag"),
        ("[" * 10_000, "a.yaml:1:51: nested more than 50 deep: nothing here goes that deep"),
        ("nodes: [{node_id: feature:a, node_id: feature:a}]", "a.yaml:1:30: nodes[0].node_id: node_id is at line 1"),
        ("nodes: [{node_id: feature:a}, {node_id: feature:a}]", "feature:a is at a.yaml:1:9 already: keep one of them"),
        (MODEL + "training_window: 7 days}]", "'7 days' is not a span of time: write a number and a unit, as 900s"),
        (MODEL + "retrain_gpu_hours: -1}]", "models[0].retrain_gpu_hours: must be at least 0"),
        (MODEL + "etag: x}]", "models[0].etag: etag is set by the control plane: leave it out"),
        (MODEL.replace("tier: 1", "tier: 5") + "}]", "models[0].tier: '5' is no tier: it is one of 1, 2, 3, 4"),
        ("models: [{model_id: M, team: t, tier: 1, task_type: binary}]", "a lower-case letter, then up to 99 of a-z"),
        ("models: [{}]", "a.yaml:1:10: models[0].model_id: model_id is missing"),
        ("nodes: [{node_id: 'feature:\u0430'}]", "('\u0430' is U+0430, not ASCII): write kind:name"),
        ("policies: [{scope: 'tier:9'}]", "write fleet, tier:1 to tier:4, team:<team> or model:<model id>"),
        (MODEL + "depends_on: [temp]}]", "write kind:name with kind one of dataset, feature, model, consumer"),
        ('nodes: ["\x07"]', "a.yaml:1:10: a control character"),
        ("just words", "a.yaml:1:1: names with values belong here (`policies: ...`), not 'just words'"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_a_place_and_a_remedy(text: str, expected: str) -> None:
    assert any(expected in problem for problem in _problems(text)), _problems(text)


def test_everything_wrong_is_told_at_once() -> None:
    found = read_texts({"a.yaml": "models: [{model_id: A, tier: 7}]", "b.yaml": "x: 1\ny: [", "c.yaml": "nodes: 3"})
    assert {problem.place.file for problem in found.problems} == {"a.yaml", "b.yaml", "c.yaml"}
    assert len([problem for problem in found.problems if problem.place.file == "a.yaml"]) == 4


def test_a_word_where_text_belongs_stays_the_word() -> None:
    found = read_texts({"a.yaml": "nodes: [{node_id: feature:a, description: no, title: 2013-03-01, owner: ~}]"})
    [node] = found.manifest.nodes
    assert (node.description, node.title, node.owner) == ("no", "2013-03-01", "")


def test_an_error_of_the_control_plane_is_led_back_to_its_place() -> None:
    text = "models:\n  - {model_id: b, team: t, tier: 1, task_type: binary, depends_on: [feature:x]}\n  - model_id: a\n"
    found = read_texts({"a.yaml": text})
    assert str(found.place_of("models[1].team")) == "a.yaml:2:25"
    assert str(found.place_of("dependencies[0].upstream_id")) == "a.yaml:2:69"
    assert found.place_of("models[9].team") is None
    assert found.place_of("prune") is None


def test_directories_are_read_whole_and_links_do_not_loop(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.yml").write_text("nodes: [{node_id: feature:a}]")
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / ".hidden.yaml").write_text("[")
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    (tmp_path / "broken.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "latin.yaml").write_bytes(b"nodes:\n  - caf\xe9")
    found = read_fleet(tmp_path)
    assert [node.node_id for node in found.manifest.nodes] == ["feature:a"]
    assert [str(problem) for problem in found.problems] == [
        "broken.yaml:1:1: not a file, or a link that leads nowhere: remove it or mend it",
        "latin.yaml:2:8: byte 0xe9 is not UTF-8: save the file as UTF-8",
    ]


def test_an_empty_directory_is_a_mistake_and_no_empty_fleet(tmp_path: Path) -> None:
    assert "there is no .yaml file here" in str(read_fleet(tmp_path).problems[0])
    assert "there is no such directory" in str(read_fleet(tmp_path / "not").problems[0])


def test_an_export_does_not_leave_old_files_behind(tmp_path: Path) -> None:
    before = messages.Manifest(nodes=[messages.Node(node_id="feature:a"), messages.Node(node_id="dataset:b")])
    after = messages.Manifest(nodes=[messages.Node(node_id="feature:a")])
    assert write_fleet(before, tmp_path) == ["datasets.yaml", "features.yaml"]
    with pytest.raises(StrayFiles, match=r"datasets\.yaml"):
        write_fleet(after, tmp_path)
    write_fleet(after, tmp_path, clean=True)
    assert read_fleet(tmp_path).manifest == after


def test_json_is_yaml() -> None:
    text = json.dumps({"nodes": [{"node_id": "feature:a", "description": "a: b # c"}]})
    assert read_texts({"a.yaml": text}).manifest.nodes[0].description == "a: b # c"


def test_what_the_control_plane_sets_is_no_remedy() -> None:
    (problem,) = read_texts({"a.yaml": MODEL + "zzz: 1}]"}).problems
    assert "there are model_id, owner, " in problem.message
    assert "etag" not in problem.message
