"""What a watcher must get, said as plainly as can be: the log, filtered."""

from collections.abc import Sequence

from control_plane.core.subjects import Subject


def filtered(log: Sequence[Subject], kinds: set[str], models: set[str], teams: set[str]) -> list[int]:
    """Revisions (counted from 1) of the events in a log that a filter lets through."""
    found = []
    for place, subject in enumerate(log):
        if kinds and subject.kind not in kinds:
            continue
        if models or teams:
            named = any(model in models for model in subject.models)
            owned = any(team in teams for team in subject.teams)
            if not named and not owned:
                continue
        found.append(place + 1)
    return found
