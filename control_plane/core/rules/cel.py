"""Rules compiled and evaluated by CEL (cel-expr-python: Google's C++ implementation), within bounds.

A rule is type-checked against the table of `context` when it is saved; its faults have places. What it may cost is
bounded before it is compiled and by the language it is written in:

1. at most `TEXT_CHARS_MAX` characters and `NESTING_MAX` open brackets: what CEL's recursion is sure to bear;
2. nothing makes texts or lists (no `map`, no `filter`, no `+` of them): 25 doublings would take a minute;
3. loops nest at most `LOOPS_NESTED_MAX` deep, and the estimated steps are at most `STEPS_MAX`;
4. `dyn` is not there, so that all types are known when the rule is saved;
5. CEL itself stops at 10,000 turns of loops, and matches patterns in linear time (RE2).

A whole number may be compared with a fraction (`score > 1`), which the standard's checker refuses: people write that.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import pairwise

from cel_expr_python import cel

from control_plane.core.rules.context import CONSTANTS, ITEMS_MAX, TYPES, Value
from control_plane.core.rules.faults import Fault, fault_at, told
from control_plane.core.rules.tokens import LOOPS, Token, chains, tokens

TEXT_CHARS_MAX = 2_000
"""As in the contract; the longest rule anybody has shown us had 400."""

NESTING_MAX = 24
"""Open brackets. CEL gives up at 32 levels, which are not brackets alone, and says so without a place."""

LOOPS_NESTED_MAX = 2
"""A loop in a loop compares features with features; a third level only costs."""

STEPS_MAX = 20_000
"""Estimated: each token one step, times `ITEMS_MAX` (or the longest list in the text) for each loop around it.
Measured, the dearest rule allowed takes some milliseconds; the usual one 4 us."""

PATTERN_STEPS = 300
"""What `matches` counts at least. It is compiled each time, at a cost in proportion to its characters times all of its
counted repetitions: `(.{1,100}){9}` alone would take 30 ms."""

COMPILED_KEPT_MAX = 4_096
"""Texts remembered: all rules of a fleet, all their versions that a backtest compares, and what people try."""

_NUMBERS = {"int64": "int", "double": "double", "uint64": "uint"}
_ORDERED = {**_NUMBERS, **{name: name for name in ("string", "bool", "timestamp", "duration", "bytes")}}
_EQUALITIES = {"_==_": "equals", "_!=_": "not_equals"}
_COMPARISONS = {"_<_": "less", "_<=_": "less_equals", "_>_": "greater", "_>=_": "greater_equals"}


def _config() -> str:
    """The environment as CEL's own YAML: the standard library without what grows, and with mixed comparisons."""
    mixed = [("double", "int64"), ("int64", "double")]
    overloads = {
        sign: "".join(
            _overload(f"{name}_{left if left == right else f'{left}_{right}'}", _ORDERED[left], _ORDERED[right])
            for left, right in [*((one, one) for one in _ORDERED), *mixed]
        )
        for sign, name in _COMPARISONS.items()
    }
    for sign, name in _EQUALITIES.items():
        overloads[sign] = _overload(name, "A, is_type_param: true", "A, is_type_param: true")
        overloads[sign] += "".join(
            _overload(f"{name}_{left}_{right}", _ORDERED[left], _ORDERED[right]) for left, right in mixed
        )
    return (
        "name: rules\n"
        "stdlib:\n"
        "  exclude_macros: [map, filter]\n"
        "  exclude_functions:\n" + "".join(f'    - name: "{sign}"\n' for sign in overloads) + '    - name: "dyn"\n'
        '    - name: "_+_"\n'
        "      overloads: [{id: add_string}, {id: add_list}, {id: add_bytes}]\n"
        "functions:\n" + "".join(f'  - name: "{sign}"\n    overloads:\n{text}' for sign, text in overloads.items())
    )


def _overload(name: str, left: str, right: str) -> str:
    return (
        f"      - id: {name}\n        args: [{{type_name: {left}}}, {{type_name: {right}}}]\n"
        "        return: {type_name: bool}\n"
    )


_CEL_TYPES = {
    "bool": cel.Type.BOOL,
    "int": cel.Type.INT,
    "double": cel.Type.DOUBLE,
    "string": cel.Type.STRING,
    "timestamp": cel.Type.TIMESTAMP,
    "list(string)": cel.Type.List(cel.Type.STRING),
    "map(string, double)": cel.Type.Map(cel.Type.STRING, cel.Type.DOUBLE),
    "map(string, string)": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
}
_ENVIRONMENT = cel.NewEnv(
    config=cel.NewEnvConfigFromYaml(_config()), variables={name: _CEL_TYPES[of] for name, of in TYPES.items()}
)
_ENVIRONMENT.compile("true")  # what is wrong with the environment is told here, and is no fault of a rule

Content = bool | int | float | str | datetime | list[str] | dict[str, float] | dict[str, str]
"""What a name of the context can hold."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A rule's text that passed all checks."""

    expression: cel.Expression
    names: frozenset[str]
    """Names of the context that it looks at."""


@lru_cache(maxsize=COMPILED_KEPT_MAX)
def compiled(text: str) -> Compiled | tuple[Fault, ...]:
    """The text compiled, or all that is wrong with it."""
    found = tokens(text)
    faults = _bounds(text, found)
    if faults:
        return tuple(faults)
    try:
        expression = _ENVIRONMENT.compile(text)
    except RuntimeError as error:
        return told(str(error), text, found)
    if expression.return_type() != cel.Type.BOOL:
        kind = expression.return_type().name().lower()
        article = "an" if kind[0] in "aeiou" else "a"
        message = f"this is {article} {kind}, and a rule says yes or no: compare it with something"
        return (fault_at(text, found[0].at if found else 0, message),)
    return Compiled(expression, _names(found))


def faults_of(text: str) -> tuple[Fault, ...]:
    """All that is wrong with a text; empty if it is a rule."""
    found = compiled(text)
    return () if isinstance(found, Compiled) else found


def _names(found: Sequence[Token]) -> frozenset[str]:
    prefixes = (".".join(chain.names[:count]) for chain in chains(found) for count in range(1, len(chain.names) + 1))
    return frozenset(name for name in prefixes if name in TYPES)


_CONTROL = re.compile(r"[^\S\t\n\r ]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that nobody sees, or that are none: CEL ends its messages at the first NUL."""


def _bounds(text: str, found: Sequence[Token]) -> list[Fault]:
    """What is wrong before CEL may look."""
    if len(text) > TEXT_CHARS_MAX:
        message = f"a rule has at most {TEXT_CHARS_MAX:,} characters, this one has {len(text):,}"
        return [fault_at(text, 0, message)]
    faults = [
        fault_at(text, one.start(), f"the character U+{ord(one.group()):04X} cannot be here")
        for one in _CONTROL.finditer(text)
    ]
    if faults:
        return faults
    return [*_shape(text, found), *_missing_functions(text, found)]


def _shape(text: str, found: Sequence[Token]) -> list[Fault]:
    """Depth of brackets and loops, and the estimated steps."""
    longest = max(ITEMS_MAX, sum(token.text == "," for token in found) + 1)
    open_loops: list[bool] = []
    steps = 0
    for at, token in enumerate(found):
        loops = sum(open_loops)
        steps += (_pattern_steps(found, at) if token.text == "matches" else 1) * longest**loops
        if token.text in ("(", "[", "{"):
            loop = token.text == "(" and at > 1 and found[at - 1].text in LOOPS and found[at - 2].text == "."
            if loop and loops == LOOPS_NESTED_MAX:
                message = f"loops nest at most {LOOPS_NESTED_MAX} deep"
                return [fault_at(text, found[at - 1].at, message)]
            open_loops.append(loop)
            if len(open_loops) > NESTING_MAX:
                return [fault_at(text, token.at, f"brackets nest at most {NESTING_MAX} deep")]
        elif token.text in (")", "]", "}") and open_loops:
            open_loops.pop()
    if steps > STEPS_MAX:
        message = (
            f"this may take {steps:,} steps at every look, {STEPS_MAX:,} are allowed: a list counts for {longest}, a "
            f"loop in a loop for {longest**2:,}, `matches` for {PATTERN_STEPS} and more"
        )
        return [fault_at(text, 0, message)]
    return []


_REPEATED = re.compile(r"\{(\d{1,6})?(?:,(\d{1,6})?)?\}")


def _pattern_steps(found: Sequence[Token], at: int) -> int:
    """What the pattern after `matches` costs; one that stands in no text is not known, and short as names are."""
    pattern = found[at + 2].text if at + 2 < len(found) and found[at + 2].kind == "string" else ""
    repeated = 1
    for one in _REPEATED.finditer(pattern):
        repeated = min(repeated * max(int(one[1] or 0), int(one[2] or 0), 1), STEPS_MAX)
    return PATTERN_STEPS + len(pattern) * repeated


def _missing_functions(text: str, found: Sequence[Token]) -> list[Fault]:
    return [
        fault_at(text, token.at, _MISSING[token.text])
        for token, after in pairwise(found)
        if token.text in _MISSING and after.text == "("
    ]


_MISSING = {
    "map": "map is not there, since a rule makes no new lists: ask with exists or all",
    "filter": "filter is not there, since a rule makes no new lists: ask with exists or all",
    "dyn": "dyn is not there, since all types are checked when the rule is saved: leave it out",
}


# Evaluation


def needed(rules: Iterable[Compiled]) -> frozenset[str]:
    """Names that some of them look at, constants left out: nothing else has to be found out about a model."""
    return frozenset(name for one in rules for name in one.names if name not in CONSTANTS)


def words(rules: Iterable[Compiled]) -> dict[str, Value]:
    """Constants that some of them name."""
    return {name: CONSTANTS[name] for one in rules for name in one.names if name in CONSTANTS}


def activation(values: Mapping[str, Content], constants: Mapping[str, Value] = CONSTANTS) -> cel.Activation:
    """A context to evaluate rules over: 5 us for ten names, however many rules are asked of it.

    Args:
        constants: those that the rules name; each costs as much as a value.
    """
    return _ENVIRONMENT.Activation(data={**constants, **values})


def holds(rule: Compiled, over: cel.Activation) -> bool | str:
    """Does the rule hold? A text says why that cannot be found out."""
    try:
        value = rule.expression.eval(activation=over)
    except RuntimeError as error:
        if "budget" in str(error):
            return "it goes through its loops more than 10,000 times"
        return _plain(str(error))
    found = value.value()
    return found if isinstance(found, bool) else _plain(str(found))


_NO_KEY = re.compile(r'Key not found in map : "?(.*?)"?$')
_NO_ITEM = re.compile(r"Index error: index=(-?\d+) size=(\d+)")


def _plain(error: str) -> str:
    """A runtime error of CEL for people."""
    text = error.partition(": ")[2] or error
    if key := _NO_KEY.search(text):
        return f"there is no {key[1]!r} in the map: ask first, `{key[1]!r} in ... && ...`"
    if item := _NO_ITEM.search(text):
        return f"there is no item {item[1]} in a list of {item[2]}"
    return text.removesuffix(" [INTERNAL]").removesuffix(" [INVALID_ARGUMENT]")
