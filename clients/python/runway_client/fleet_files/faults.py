"""What is wrong with single values, in sentences that say what to write; no fault is empty text."""

import difflib
import math
import re

from google.protobuf.descriptor import FieldDescriptor

from runway_client.fleet_files.contract import Rules, enum_words


def word_of(text: str, field: FieldDescriptor) -> int:
    """The number of a word of an enum; ValueError if it is none."""
    words = enum_words(field.enum_type)
    plain = text.strip().lower()
    if plain not in words:
        near = difflib.get_close_matches(plain, words, n=1, cutoff=0.6)
        remedy = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(words)}"
        raise ValueError(f"{text[:60]!r} is no {field.name.replace('_', ' ')}: {remedy}")
    return words[plain]


def wanted(field: FieldDescriptor, rules: Rules) -> str:
    """What to write where something is missing."""
    if field.enum_type is not None:
        return f"one of {', '.join(enum_words(field.enum_type))}"
    return _shape(rules.pattern) if rules.pattern else "write it"


def text_fault(text: str, rules: Rules) -> str:
    """Why a text may not stand here."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "half of a surrogate pair is no character: write the character itself"
    if rules.words and text not in rules.words:
        near = difflib.get_close_matches(text, rules.words, n=1, cutoff=0.6)
        remedy = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(filter(None, rules.words))}"
        return f"{text[:60]!r} is not known: {remedy}"
    if rules.pattern is not None and re.search(rules.pattern.replace("$", r"\Z"), text) is None:
        return f"{text[:120]!r} cannot stand here{_look_alike(text)}: {_shape(rules.pattern)}"
    if rules.chars_max is not None and len(text) > rules.chars_max:
        return f"{len(text):,} characters; at most {rules.chars_max:,} fit"
    if rules.chars_min is not None and len(text) < rules.chars_min:
        return f"at least {rules.chars_min} character must be here"
    return ""


def _shape(pattern: str) -> str:
    if "dataset" in pattern:
        return "write kind:name with kind one of dataset, feature, model, consumer"
    if "fleet" in pattern:
        return "write fleet, tier:1 to tier:4, team:<team> or model:<model id>"
    if "v[1-9]" in pattern:
        return "write a version as v3, or an alias as production"
    return "write a lower-case letter, then up to 99 of a-z 0-9 _"


def _look_alike(text: str) -> str:
    """The first character that is no ASCII, which may look as if it were."""
    strange = next((character for character in text if not character.isascii()), "")
    return f" ({strange!r} is U+{ord(strange):04X}, not ASCII)" if strange else ""


def number_fault(value: float, field: FieldDescriptor, rules: Rules) -> str:
    """Why a number may not stand here."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return ""
    bits = {FieldDescriptor.TYPE_INT32: 31, FieldDescriptor.TYPE_INT64: 63}.get(field.type)
    if bits is not None and not -(2**bits) <= value < 2**bits:
        return f"{value} is too large to be said"
    bounds = []
    if rules.minimum is not None and not value >= rules.minimum:
        bounds.append(f"at least {rules.minimum:g}")
    if rules.above is not None and not value > rules.above:
        bounds.append(f"above {rules.above:g}")
    if rules.maximum is not None and not value <= rules.maximum:
        bounds.append(f"at most {rules.maximum:g}")
    if math.isnan(value) or (rules.finite and math.isinf(value)):
        bounds.append("a finite number")
    return f"must be {' and '.join(bounds)}" if bounds else ""
