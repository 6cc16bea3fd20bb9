"""Rules of the registry, by example and by property."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.core.commands import MoveAlias, RegisterModel, RegisterVersion, UpdateModel
from control_plane.core.errors import Invalid, Reason
from control_plane.core.ids import ModelId, TeamId, parse_model_id, parse_node_id
from control_plane.core.registry.rules import alias_as_of, facts_violations
from control_plane.core.registry.types import MANAGED_ALIASES, AliasMove, Metric, ModelFacts, TaskType
from control_plane.core.staleness.policy import default_policy
from tests.core.fleets import START, Fleet, a_version, reason_of

FACTS = ModelFacts(
    model_id=ModelId("m"), owner="team:flights", team=TeamId("flights"), tier=2, task_type=TaskType.BINARY
)


@pytest.mark.parametrize("tier", [1, 2, 3, 4])
def test_what_an_owner_does_not_say_follows_from_the_tier(tier: int) -> None:
    fleet = Fleet()
    model_id = fleet.model("m", tier=tier)
    assert fleet.state.models[model_id].staleness_policy == default_policy(tier)


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        (replace(FACTS, owner="nobody"), "model.owner"),
        (replace(FACTS, owner="team:No"), "model.owner"),
        (replace(FACTS, team=TeamId("A b")), "model.team"),
        (replace(FACTS, tier=5), "model.tier"),
        (replace(FACTS, consumers=("a", "b", "a")), "model.consumers"),
        (replace(FACTS, model_id=ModelId("1m")), "model.model_id"),
    ],
)
def test_each_fact_is_checked(facts: ModelFacts, field: str) -> None:
    assert [violation.field for violation in facts_violations(facts)] == [field]


@pytest.mark.parametrize("owner", ["team:flights", "a@b", "someone@example.org", "имя@пример.рф"])
def test_owners_are_people_or_teams(owner: str) -> None:
    assert facts_violations(replace(FACTS, owner=owner)) == []


@given(st.text(max_size=120))
def test_an_id_is_a_slug_or_is_refused(text: str) -> None:
    if re.fullmatch(r"[a-z][a-z0-9_]{0,99}", text.removeprefix("model:"), re.ASCII):
        assert parse_model_id(text) == text.removeprefix("model:")
    else:
        with pytest.raises(Invalid) as caught:
            parse_model_id(text)
        assert caught.value.reason is Reason.INVALID_ID


@given(st.from_regex(r"(dataset|feature|model|consumer|table):[a-z0-9_]{0,5}\n?", fullmatch=True))
def test_a_node_id_says_its_kind(text: str) -> None:
    kind, _, slug = text.partition(":")
    good = kind != "table" and re.fullmatch(r"[a-z][a-z0-9_]*", slug)
    if good and "\n" not in text:
        assert parse_node_id(text) == text
    else:
        assert reason_of(lambda: parse_node_id(text)) is Reason.INVALID_ID


def test_registering_twice_is_refused_though_nothing_differs() -> None:
    fleet = Fleet()
    fleet.do(RegisterModel(facts=FACTS))
    assert reason_of(lambda: fleet.do(RegisterModel(facts=FACTS))) is Reason.MODEL_ALREADY_EXISTS


def test_an_update_that_changes_nothing_is_no_event() -> None:
    fleet = Fleet()
    fleet.do(RegisterModel(facts=FACTS))
    assert fleet.new_events(UpdateModel(model_id=FACTS.model_id, facts=FACTS)) == []
    changed = UpdateModel(model_id=FACTS.model_id, facts=replace(FACTS, description="x"))
    assert fleet.new_events(changed) == ["ModelUpdated"]


def test_the_etag_follows_every_change_and_old_ones_are_refused() -> None:
    fleet = Fleet()
    fleet.do(RegisterModel(facts=FACTS))
    record = fleet.state.models[FACTS.model_id]
    first = record.etag
    fleet.do(UpdateModel(model_id=FACTS.model_id, facts=replace(FACTS, tier=1), etag=first))
    assert record.etag != first
    late = UpdateModel(model_id=FACTS.model_id, facts=FACTS, etag=first)
    assert reason_of(lambda: fleet.do(late)) is Reason.ETAG_MISMATCH
    fleet.do(UpdateModel(model_id=FACTS.model_id, facts=FACTS))


def test_consumers_are_nodes_and_follow_updates() -> None:
    fleet = Fleet()
    fleet.do(RegisterModel(facts=replace(FACTS, consumers=("desk", "app"))))
    fleet.do(UpdateModel(model_id=FACTS.model_id, facts=replace(FACTS, consumers=("app", "mail"))))
    assert [d.downstream for d in fleet.state.graph.dependencies()] == ["consumer:app", "consumer:mail"]


def test_versions_count_from_one_per_model() -> None:
    fleet = Fleet()
    for name in ("a", "b"):
        fleet.model(name)
    numbers = [
        fleet.do(RegisterVersion(model_id=ModelId(name), facts=a_version(START))).version for name in ("a", "a", "b")
    ]
    assert numbers == [1, 2, 1]


def test_a_version_is_checked_whole() -> None:
    fleet = Fleet()
    fleet.model("m")
    broken = replace(
        a_version(START),
        artifact_sha256="A" * 64,
        trained_from=START,
        metrics=(Metric(name="auc", value=1.0), Metric(name="auc", value=1.0)),
    )
    with pytest.raises(Invalid) as caught:
        fleet.do(RegisterVersion(model_id=ModelId("m"), facts=broken))
    assert [violation.field for violation in caught.value.violations] == [
        "version.artifact_sha256",
        "version.trained_from",
        "version.metrics",
    ]


def test_aliases_of_rollouts_are_not_moved_by_hand() -> None:
    fleet = Fleet()
    fleet.model("m", serving=True)
    for alias in MANAGED_ALIASES:
        move = MoveAlias(model_id=ModelId("m"), alias=alias, version=1)
        assert reason_of(lambda move=move: fleet.do(move)) is Reason.VALIDATION_REQUIRED  # type: ignore[misc]
    own = MoveAlias(model_id=ModelId("m"), alias="shadow", version=1)
    assert fleet.new_events(own) == ["AliasMoved"]
    assert fleet.new_events(own) == []
    stale = MoveAlias(model_id=ModelId("m"), alias="shadow", version=1, expected_version=0)
    assert reason_of(lambda: fleet.do(stale)) is Reason.ETAG_MISMATCH


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 100), st.integers(0, 3)), max_size=20),
    st.integers(-10, 110),
)
def test_what_was_in_force_is_what_was_moved_last(moves: list[tuple[str, int, int]], when: int) -> None:
    moves.sort(key=lambda move: move[1])
    history = [
        AliasMove(
            model_id=ModelId("m"),
            alias=alias,
            from_version=0,
            to_version=version,
            moved_at=START + timedelta(seconds=at),
            actor="",
            reason="",
            revision=number,
        )
        for number, (alias, at, version) in enumerate(moves)
    ]
    found = alias_as_of(history, (START + timedelta(seconds=when)).timestamp())
    for alias in "ab":
        by_hand = [move for move in history if move.alias == alias and move.moved_at <= START + timedelta(seconds=when)]
        assert found.get(alias) == (by_hand[-1] if by_hand else None)
