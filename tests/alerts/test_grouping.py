"""Troubles grouped by cause: nothing lost, nothing twice, nothing merged that names no common cause."""

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.alerts.grouping import Trouble, grouped
from control_plane.core.alerts.types import Severity
from control_plane.core.ids import ModelId

AT = datetime(2013, 3, 1, tzinfo=UTC)

suspects = st.lists(st.sampled_from([f"dataset:d{n}" for n in range(6)]), min_size=1, max_size=4, unique=True)


def trouble(model: str, *behind: str, kind: str = "data_fault", signature: str = "") -> Trouble:
    """A trouble of a model."""
    return Trouble(
        kind=kind,
        signature=signature,
        model_id=ModelId(model),
        severity=Severity.WARNING,
        since=AT,
        sentence="its data is odd",
        suspects=behind or (f"model:{model}",),
    )


@st.composite
def troubles(draw: st.DrawFn) -> list[Trouble]:
    """Some kinds of trouble of some models, each once per kind."""
    found = []
    for kind in ("data_fault", "rule"):
        for number in range(draw(st.integers(0, 12))):
            found.append(trouble(f"m{number}", *draw(suspects), kind=kind))
    return draw(st.permutations(found))


@given(troubles())
def test_each_trouble_is_in_one_group_whose_cause_it_names(given_troubles: list[Trouble]) -> None:
    groups = grouped(given_troubles)
    told = Counter(trouble for group in groups for trouble in group.troubles)
    assert told == Counter(given_troubles)
    for group in groups:
        assert group.troubles
        assert all(group.cause in trouble.suspects for trouble in group.troubles)
        assert len({(trouble.kind, trouble.signature) for trouble in group.troubles}) == 1
    assert len({group.key for group in groups}) == len(groups)


@given(troubles())
def test_the_order_in_which_troubles_come_changes_nothing(given_troubles: list[Trouble]) -> None:
    assert grouped(given_troubles) == grouped(sorted(given_troubles, key=lambda one: (one.model_id, one.kind)))


@given(troubles())
def test_no_two_groups_of_a_kind_could_be_one(given_troubles: list[Trouble]) -> None:
    groups = grouped(given_troubles)
    for one in groups:
        for other in groups:
            alike = one.troubles[0].kind == other.troubles[0].kind
            if one is not other and alike:
                assert not all(one.cause in trouble.suspects for trouble in other.troubles) or not all(
                    other.cause in trouble.suspects for trouble in one.troubles
                )


@given(st.integers(1, 40), st.integers(1, 40))
def test_the_key_stays_while_models_with_the_same_cause_come_and_go(before: int, after: int) -> None:
    def key(count: int) -> list[str]:
        return [g.key for g in grouped(trouble(f"m{n}", "dataset:weather") for n in range(count))]

    assert key(before) == key(after) == ["data_fault/dataset:weather"]


def test_forty_models_on_one_dataset_are_one_alert_and_another_dataset_is_another() -> None:
    some = [trouble(f"m{n:02}", "dataset:weather") for n in range(40)] + [trouble("other", "dataset:planes")]
    groups = grouped(some)
    assert [(group.cause, len(group.troubles)) for group in groups] == [("dataset:planes", 1), ("dataset:weather", 40)]


def test_what_most_share_explains_them_and_the_nearer_one_among_equals() -> None:
    some = [trouble("a", "dataset:x", "dataset:y"), trouble("b", "dataset:z", "dataset:y"), trouble("c", "dataset:y")]
    assert [group.cause for group in grouped(some)] == ["dataset:y"]
    assert [group.cause for group in grouped([trouble("a", "dataset:near", "dataset:far")])] == ["dataset:near"]


def test_rules_of_different_names_are_different_alerts() -> None:
    some = [trouble("a", "dataset:x", kind="rule", signature=name) for name in ("fleet/one", "fleet/two")]
    assert len(grouped(some)) == 2
