"""What every source gives: runs for ReportLineage, and whatever could not be read, as data."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from runway.v1 import lineage_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Something of the source that could not be read, and why, in a sentence. The rest was read."""

    what: str
    why: str


@dataclass(slots=True, kw_only=True)
class Reading:
    """What one look at a source found.

    Attributes:
        source: where it looked, for people.
        runs: what to report.
        unreadable: what could not be read; runs it belongs to are left out, so that no edge counts as not seen.
        notes: what was left out on purpose, by how often: `running or given up`, `failed`, `without lineage`.
        next_since: where the next look should begin, so that nothing that was not finished yet is missed.
    """

    source: str
    runs: list[lineage_pb2.LineageRun] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    next_since: datetime | None = None

    def note(self, what: str) -> None:
        """Count one that is left out on purpose."""
        self.notes[what] = self.notes.get(what, 0) + 1

    def cannot(self, what: str, why: BaseException | str) -> None:
        """Write down what could not be read."""
        sentence = why if isinstance(why, str) else sentence_of(why)
        self.unreadable.append(Unreadable(what=what, why=sentence))


class SourceError(Exception):
    """A source cannot be read at all; the message says what to do."""


def sentence_of(error: BaseException) -> str:
    """The first line of what an exception says, with its type."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__


def utc(instant: datetime) -> datetime:
    """An instant in UTC; Metaflow's are naive and local (`datetime.fromtimestamp`)."""
    return instant.astimezone(UTC)
