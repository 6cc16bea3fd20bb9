"""What is wrong with a rule, in words: CEL's messages with a place, a remedy, and the name that was meant."""

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from control_plane.core.rules.context import CONSTANTS, TYPES
from control_plane.core.rules.tokens import LOOPS, Chain, Token, chains, index, place

FUNCTIONS = (
    *("size", "startsWith", "endsWith", "contains", "matches"),
    *("has", "all", "exists", "exists_one"),
    *("int", "double", "string", "duration", "timestamp", "type", "bool", "uint", "bytes"),
    *("getHours", "getMinutes", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getMonth", "getFullYear"),
)
"""Functions and macros of rules; of the standard's, those that make sense here."""

NEAR = 0.6
"""Likeness from which on a name may have been meant, as difflib measures it."""


class Fault(NamedTuple):
    """Where a text is wrong, line and column from 1, and how."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message}"


def fault_at(text: str, at: int, message: str) -> Fault:
    """A fault at an index of a text."""
    return Fault(*place(text, at), message)


_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*?)(?=\n \| |\nERROR: |\Z)", re.DOTALL)
_STATUS = re.compile(r" \[[A-Z_]+\]$")
_UNDECLARED = re.compile(r"undeclared reference to '(.*?)' \(in container")
_OVERLOAD = re.compile(r"found no matching overload for '(.*?)' applied to '\((.*)\)'")
_TOKEN = re.compile(r"token recognition error at: '(.*)'$", re.DOTALL)
_UNEXPECTED = re.compile(r"(?:mismatched|extraneous) input '(.*?)' expecting", re.DOTALL)
_MISSING = re.compile(r"missing '(.*?)' at '(.*)'$", re.DOTALL)


def told(error: str, text: str, found: Sequence[Token]) -> tuple[Fault, ...]:
    """CEL's errors as faults, in the order of the text; what only follows from another is left out."""
    faults: list[Fault] = []
    unreadable = False
    for line, column, raw in _ERROR.findall(error):
        message = _STATUS.sub("", raw)
        if int(line) < 1:
            if not faults:
                faults.append(_unplaced(message, text, found))
            continue
        at = index(text, int(line), int(column))
        if message.startswith("Syntax error: "):
            if unreadable:  # after a character that is none, the parser only guesses
                continue
            unreadable = "token recognition" in message
            faults.append(_syntax(message.removeprefix("Syntax error: "), text, at, found))
        else:
            faults.append(_typed(message, text, at, found))
    if not faults:
        faults.append(_unplaced(_STATUS.sub("", error), text, found))
    return tuple(sorted(dict.fromkeys(faults)))


def _unplaced(message: str, text: str, found: Sequence[Token]) -> Fault:
    at = found[0].at if found else 0
    if "recursion" in message:
        return fault_at(text, at, "this nests or chains too deep: say it in two rules")
    return fault_at(text, at, message.partition(": ")[2] or message)


# Syntax

_WORDS = {"and": "&&", "or": "||", "not": "!", "is": "==", "AND": "&&", "OR": "||", "NOT": "!", "IS": "=="}
_SIGNS = {"=": "write == to compare", "&": "write && for and", "|": "write || for or", ";": "leave it out"}


def _syntax(message: str, text: str, at: int, found: Sequence[Token]) -> Fault:
    before = next((token for token in reversed(found) if token.at < at), None)
    if unreadable := _TOKEN.match(message):
        piece = unreadable[1].replace("\\n", " ").strip() or unreadable[1]
        if piece[:1] in ("'", '"'):
            return fault_at(text, at, "this text has no end, or a backslash before a letter that needs none")
        remedy = _SIGNS.get(piece[:1])
        return fault_at(text, at, f"`{piece[:20]}` is not expected here{f': {remedy}' if remedy else ''}")
    if missing := _MISSING.match(message):
        return fault_at(text, at, f"`{missing[1]}` is missing here")
    if unexpected := _UNEXPECTED.match(message):
        piece = unexpected[1]
        if piece == "<EOF>":
            return fault_at(
                text, at, "something is missing at the end" if found else "a rule says something: it is empty"
            )
        if before is not None and before.text in _WORDS and piece not in _WORDS:
            return fault_at(text, before.at, f"write {_WORDS[before.text]} instead of `{before.text}`")
        if piece == ">" and before is not None and before.text == "<":
            return fault_at(text, before.at, "write != instead of `<>`")
        remedy = f": write {_WORDS[piece]}" if piece in _WORDS else ""
        return fault_at(text, at, f"`{piece[:40]}` is not expected here{remedy}")
    return fault_at(text, at, message[:200])


# Names and types


def _typed(message: str, text: str, at: int, found: Sequence[Token]) -> Fault:
    if undeclared := _UNDECLARED.match(message):
        return _unknown(undeclared[1], text, at, found)
    if overload := _OVERLOAD.match(message):
        return fault_at(text, at, _mismatch(overload[1], overload[2]))
    if "select operation" in message:
        chain = _around(at, found)
        if chain is not None:
            return fault_at(text, chain.at, f"there is no {chain.text}{_meant(chain.text)}")
    if "range of a comprehension" in message:
        return fault_at(text, at, "this is no list and no map: only through those a loop can go")
    return fault_at(text, at, message[:200])


def _around(at: int, found: Sequence[Token]) -> Chain | None:
    """The chain of names that an index stands in, or right after."""
    return next((chain for chain in chains(found) if chain.at <= at <= chain.end), None)


def _unknown(name: str, text: str, at: int, found: Sequence[Token]) -> Fault:
    chain = _around(at, found)
    if chain is None:
        return fault_at(text, at, f"there is no {name[:60]}{_meant(name)}")
    if chain.called and chain.names[-1] == name:
        near = difflib.get_close_matches(name, FUNCTIONS, n=1, cutoff=NEAR)
        remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(FUNCTIONS[:9])} and others"
        if name in LOOPS:
            remedy = f"write {name}(one, ... one ...), a name and what is asked of it"
        return fault_at(text, chain.end - len(name), f"there is no function {name[:60]}: {remedy}")
    whole = name if chain.called or chain.after_dot else chain.text
    return fault_at(text, chain.at, f"there is no {whole[:60]}{_meant(whole)}")


def _meant(name: str) -> str:
    """`: did you mean STALE?`, or what there is."""
    inside = [one for one in TYPES if one.startswith(f"{name}.")]
    if inside:
        return f" by itself: there is {' and '.join(inside)}"
    known = {one.lower(): one for one in sorted(TYPES, key=lambda one: one in CONSTANTS)}
    exact = next((one for one in TYPES if one.lower() == name.lower()), None)
    near = (
        [exact] if exact else [known[one] for one in difflib.get_close_matches(name.lower(), known, n=2, cutoff=NEAR)]
    )
    if name.upper() in CONSTANTS and name.upper() not in near:
        near.insert(0, name.upper())
    tail = [one for one in TYPES if one.rpartition(".")[2] == name.lower() and "." in one]
    near = [*tail, *near]
    if near:
        return f": did you mean {' or '.join(near[:2])}?"
    return ": `runway rules context` lists the names"


_LOGIC = {"_&&_": "&&", "_||_": "||", "!_": "!"}


def _mismatch(function: str, types: str) -> str:
    """An operator or function that does not take these types."""
    sign = "in" if function == "@in" else function.replace("_", "") if not function.isidentifier() else function
    given = _split(types)
    if function in _LOGIC:
        wrong = [one for one in given if one != "bool"]
        return f"{sign} joins what is true or false, and this is {' and '.join(wrong)}: compare it with something"
    if function == "_?_:_":
        return f"`? :` chooses by a bool between two of one type, not ({types})"
    if function == "_+_" and ("string" in given or any(one.startswith("list") for one in given)):
        return "+ adds numbers only: a rule makes no new texts or lists"
    if len(given) == 2 and set(given) == {"int", "string"}:
        return (
            f"{sign} cannot join a whole number and a text: write words with an order without quotes (verdict == STALE)"
        )
    if len(given) == 2 and set(given) == {"int", "double"}:
        return f"{sign} cannot join a whole number and a fraction: write 2.0 instead of 2"
    if len(given) == 2 and not function.isidentifier():
        return f"{sign} cannot join {given[0]} and {given[1]}"
    return f"{sign} does not take ({types})"


def _split(types: str) -> list[str]:
    """Types that are parted by commas, of which maps have some of their own.

    >>> _split("map(string, double), int")
    ['map(string, double)', 'int']
    """
    return [one.strip() for one in re.split(r",(?![^(]*\))", types)]
