"""Rules as text: what compiles, what is wrong and where, and what nobody can make them cost."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core.decide.rule_context import VALUES
from control_plane.core.rules.cel import Compiled, Content, activation, compiled, faults_of, holds, needed
from control_plane.core.rules.context import CONSTANTS, FIELDS, TYPES, ContextField, described
from control_plane.core.rules.tokens import index, place, tokens

ISSUE = "verdict == STALE && confidence >= MEDIUM && tier <= 2 && !season.expected"


def told(text: str) -> list[str]:
    return [str(fault) for fault in faults_of(text)]


def rule(text: str) -> Compiled:
    found = compiled(text)
    assert isinstance(found, Compiled), found
    return found


# The language


def test_the_example_of_the_issue_is_a_rule_word_for_word() -> None:
    one = rule(ISSUE)
    assert needed([one]) == {"verdict", "confidence", "tier", "season.expected"}
    stale = {"verdict": 3, "confidence": 2, "tier": 2, "season.expected": False}
    assert holds(one, activation(stale)) is True
    for name, value in (("verdict", 2), ("confidence", 1), ("tier", 3), ("season.expected", True)):
        assert holds(one, activation({**stale, name: value})) is False, name


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_example_of_the_table_is_a_rule_that_uses_its_name(field: ContextField) -> None:
    assert field.name in rule(field.example).names


def test_every_name_of_the_table_can_be_found_out_and_is_described() -> None:
    assert set(VALUES) == {field.name for field in FIELDS}
    assert [one.name for one in described()] == [*(field.name for field in FIELDS), *CONSTANTS]
    assert all(one.description and one.example for one in described())
    assert len(TYPES) == len(FIELDS) + len(CONSTANTS)


def test_the_page_has_every_name_of_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
    for one in described():
        assert f"`{one.name}`" in page, one.name


def test_a_whole_number_may_be_compared_with_a_fraction() -> None:
    assert holds(rule("score > 1 || age_days >= 30"), activation({"score": 0.5, "age_days": 30.0})) is True
    assert holds(rule("tier > 1.5"), activation({"tier": 1})) is False
    assert holds(rule("score == 1 && 1 != score"), activation({"score": 1.0})) is False
    assert holds(rule("score == 0 && size(psi) == 0 && psi == {}"), activation({"score": 0.0, "psi": {}})) is True


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("psi.temp > 0.3", "there is no 'temp' in the map: ask first, `'temp' in ... && ...`"),
        ("drifted_features[7] == 'a'", "there is no item 7 in a list of 1"),
        ("tier / (tier - 2) == 1", "divide by zero"),
        ("team.matches('(')", "invalid regular expression: missing ): ("),
    ],
)
def test_what_goes_wrong_while_asking_is_told_in_words(text: str, fault: str) -> None:
    over = activation({"psi": {"dew": 0.1}, "drifted_features": ["dew"], "tier": 2, "team": "a"})
    assert holds(rule(text), over) == fault


def test_asking_first_keeps_a_rule_from_going_wrong() -> None:
    assert holds(rule("'temp' in psi && psi.temp > 0.3"), activation({"psi": {}})) is False
    assert holds(rule("has(psi.temp) && psi.temp > 0.3"), activation({"psi": {"temp": 0.4}})) is True


def test_time_is_time() -> None:
    at = datetime(2013, 3, 2, 5, 30, tzinfo=UTC)
    assert (
        holds(rule("now > timestamp('2013-03-01T00:00:00Z') && now.getHours() == 5"), activation({"now": at})) is True
    )


# What is wrong, and where


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("verdict == STALEE && tier < 2", ["1:12: there is no STALEE: did you mean STALE?"]),
        ("verdict == stale", ["1:12: there is no stale: did you mean STALE?"]),
        ("!season", ["1:2: there is no season by itself: there is season.expected and season.known"]),
        (
            "season.expectd && tierr < 2 && 1",
            [
                "1:1: there is no season.expectd: did you mean season.expected?",
                "1:19: there is no tierr: did you mean tier?",
                "1:29: && joins what is true or false, and this is int: compare it with something",
            ],
        ),
        ("age.days > 3", ["1:1: there is no age.days: did you mean age_days?"]),
        ("tier", ["1:1: this is an int, and a rule says yes or no: compare it with something"]),
        ("[true][0] ? 1.0 : score", ["1:1: this is a double, and a rule says yes or no: compare it with something"]),
        ("verdict = STALE", ["1:9: `=` is not expected here: write == to compare"]),
        ("verdict == STALE and tier == 1", ["1:18: `and` is not expected here: write &&"]),
        ("not hard_trigger", ["1:1: write ! instead of `not`"]),
        ("tier == 1 &\n  tier == 2", ["1:11: `&` is not expected here: write && for and"]),
        ("tier ==", ["1:8: something is missing at the end"]),
        ("", ["1:1: a rule says something: it is empty"]),
        ("(tier == 1", ["1:11: `)` is missing here"]),
        ("score * 2 > 1", ["1:7: * cannot join a whole number and a fraction: write 2.0 instead of 2"]),
        ("team + 'x' == 'y'", ["1:6: + adds numbers only: a rule makes no new texts or lists"]),
        (
            "tags.map(x, x) == []",
            ["1:6: map is not there, since a rule makes no new lists: ask with exists or all"],
        ),
        ("owner.startswith('a')", ["1:7: there is no function startswith: did you mean startsWith?"]),
        ("tier == 1 &&\n  '日本' == team && tierr == 1", ["2:19: there is no tierr: did you mean tier?"]),
        ("true\0", ["1:5: the character U+0000 cannot be here"]),
        ("true || '\ud800' == team", ["1:10: the character U+D800 cannot be here"]),
    ],
)
def test_a_fault_has_a_place_and_a_remedy(text: str, faults: list[str]) -> None:
    assert told(text) == faults


def test_a_word_in_quotes_is_told_to_have_none() -> None:
    assert told("verdict == 'STALE'") == [
        "1:9: == cannot join a whole number and a text: write words with an order without quotes (verdict == STALE)"
    ]


# What it may cost


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x" * 2_001, "a rule has at most 2,000 characters, this one has 2,001"),
        ("(" * 25 + "true" + ")" * 25, "brackets nest at most 24 deep"),
        ("[" * 900 + "]" * 900 + " == []", "brackets nest at most 24 deep"),
        ("1" + "+1" * 900 + " > 0", "this nests or chains too deep: say it in two rules"),
        ("true ? true : " * 100 + "true", "this nests or chains too deep: say it in two rules"),
        ("[owner]" + ".map(x, x + x)" * 25 + " == []", "map is not there"),
        ("[1].exists(a, [1].exists(b, [1].exists(c, c == a)))", "loops nest at most 2 deep"),
        ("[" + "1," * 400 + "1].all(a, [2].all(b, a == b))", "this may take"),
        ("drifted_features.all(f, " + " || ".join(["f.matches('a')"] * 4) + ")", "this may take"),
        ("owner.matches('((a{1,30}){1,30}){1,30}')", "this may take"),
        ("drifted_features.filter(f, true) == []", "filter is not there"),
    ],
)
def test_what_costs_too_much_is_refused_before_anybody_pays(text: str, fault: str) -> None:
    assert fault in " ".join(told(text))


@pytest.mark.parametrize(
    "text",
    [
        "!" * 1_996 + "true",
        "true" + " && true" * 240,
        "team.matches('" + "(x+x+)+" * 100 + "y')",
        "team.matches('((a{30}){30})')",
        "drifted_features.exists(a, drifted_features.exists(b, a != b && a.startsWith(b)))",
        "[" + "1," * 90 + "1].all(a, [1].exists(b, a == b))",
    ],
    ids=lambda text: text[:20],
)
def test_what_is_allowed_comes_to_an_end(text: str) -> None:
    found = compiled(text)
    if isinstance(found, Compiled):
        over = activation({"team": "x" * 100, "drifted_features": [f"feature_{n}" * 10 for n in range(20)]})
        assert isinstance(holds(found, over), bool | str)
    else:
        assert all(fault.line >= 1 and fault.column >= 1 for fault in found)


PIECES = st.sampled_from(
    [
        *("verdict", "STALE", "tier", "score", "psi", "temp", "season.expected", "drifted_features", "owner", "now"),
        *(
            "==",
            "!=",
            "<",
            ">=",
            "&&",
            "||",
            "!",
            "+",
            "*",
            "/",
            "-",
            "%",
            "?",
            ":",
            "in",
            ".",
            ",",
            "(",
            ")",
            "[",
            "]",
        ),
        *("1", "0.5", "'x'", "true", "null", "exists(f, ", "all(f, ", "matches(", "size(", "has(", "{", "}", "]"),
        *("\n", "f", "é", "😀", "\\", "'", '"', "//", "0x", "u", "b'\\xff'", "r'\\'", '"""'),
    ]
)


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=25).map(" ".join) | st.text(max_size=60))
def test_any_text_is_a_rule_or_is_told_what_is_wrong_with_it(text: str) -> None:
    found = compiled(text)
    if isinstance(found, Compiled):
        values: dict[str, Content] = {
            "verdict": 3,
            "tier": 2,
            "score": 0.5,
            "psi": {"temp": 0.5},
            "season.expected": False,
            "drifted_features": ["temp"],
            "owner": "x",
            "now": datetime(2013, 3, 1, tzinfo=UTC),
        }
        assert isinstance(holds(found, activation(values)), bool | str)
        return
    assert found
    for fault in found:
        lines = text.split("\n")
        assert 1 <= fault.line <= len(lines)
        assert 1 <= fault.column <= len(lines[fault.line - 1]) + 1
        assert fault.message


@given(st.text(alphabet="ab\n\u00e9", max_size=30), st.integers(0, 30))
def test_a_place_leads_back_to_its_index(text: str, at: int) -> None:
    at = min(at, len(text))
    assert index(text, *place(text, at)) == at


def test_a_text_in_quotes_is_one_token_whatever_it_holds() -> None:
    assert [one.text for one in tokens("a == '(map(' // map(")] == ["a", "==", "'(map('"]
