"""Which files a directory of the fleet has, and their text; what cannot be read is a problem with a place."""

import os
from dataclasses import dataclass
from pathlib import Path

from runway_client.fleet_files.yaml_text import Place

FILE_BYTES_MAX = 32 * 1024 * 1024
"""As much as a whole manifest may have on the wire; a larger file is no fleet."""

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is wrong: where, in which field, which rule it breaks, what to write instead."""

    place: Place
    field: str
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.field + ': ' if self.field else ''}{self.message}"


def paths_below(root: Path, problems: list[Problem]) -> list[Path]:
    """Files in order; a directory that a link leads back to is entered once."""
    if root.is_file():
        return [root]
    if not root.is_dir():
        problems.append(Problem(place=Place(str(root)), field="", rule="exists", message="there is no such directory"))
        return []
    found: list[Path] = []
    seen: set[str] = set()
    for where, directories, names in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(where))
        directories[:] = sorted(
            name for name in directories if not name.startswith(".") and os.path.realpath(Path(where, name)) not in seen
        )
        found.extend(Path(where, name) for name in names if not name.startswith(".") and name.endswith(SUFFIXES))
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def text_of(path: Path, name: str, problems: list[Problem]) -> str | None:
    """The text of a file; None, and a problem, if it cannot be had."""

    def wrong(rule: str, message: str, place: Place | None = None) -> None:
        problems.append(Problem(place=place or Place(name), field="", rule=rule, message=message))

    try:
        if not path.is_file():
            wrong("file", "not a file, or a link that leads nowhere: remove it or mend it")
            return None
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            wrong("size", f"{size:,} bytes; a file may have {FILE_BYTES_MAX:,}: divide it")
            return None
        raw = path.read_bytes()
    except OSError as error:
        wrong("file", f"cannot be read: {error.strerror or error}")
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        place = Place(name, before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
        wrong("utf8", f"byte 0x{raw[error.start]:02x} is not UTF-8: save the file as UTF-8", place)
        return None
