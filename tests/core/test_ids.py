"""Ids are parsed in one place, and what is wrong with one is told so that it can be seen."""

import pytest

from control_plane.core.errors import Invalid
from control_plane.core.ids import parse_node_id


@pytest.mark.parametrize(
    ("name", "blamed"),
    [
        ("d\u0430ta", "its 2nd character is CYRILLIC SMALL LETTER A, which only looks like 'a'"),
        ("\u03bfrders", "its 1st character is GREEK SMALL LETTER OMICRON, which only looks like 'o'"),
        ("caf\u00e9", "its 4th character is LATIN SMALL LETTER E WITH ACUTE, which only looks like 'e'"),
        ("\uff57eather", "its 1st character is FULLWIDTH LATIN SMALL LETTER W, which only looks like 'w'"),
        ("a\u200bb", "its 2nd character is ZERO WIDTH SPACE"),
        ("a\x00b", r"its 2nd character is '\x00'"),
        ("Weather", "its 1st character is 'W', which is upper case"),
        ("1st", "its 1st character is '1'"),
        ("abcdefghijk-m", "its 12th character is '-'"),
        ("", "it is empty"),
        ("a" * 101, "it has 101 characters"),
        ("\u65e5\u672c", "its 1st character is CJK UNIFIED IDEOGRAPH-65E5"),
    ],
)
def test_the_character_to_blame_is_named(name: str, blamed: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_node_id(f"dataset:{name}")
    assert blamed in caught.value.message
    assert caught.value.message.isascii()
