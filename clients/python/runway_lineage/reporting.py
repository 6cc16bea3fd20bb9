"""Tell the control plane what a source gave, so that one bad run does not keep back the others."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from runway.v1 import lineage_pb2
from runway_client import InvalidRequest, Runway, Why

from runway_lineage.reading import Unreadable

RUNS_AT_ONCE = 200
"""Runs in one report; the contract takes 1,000, but a wide run may have ten thousand inputs."""


@dataclass(slots=True, kw_only=True)
class Reported:
    """What became of the runs.

    Attributes:
        runs: how many the control plane took.
        changed: how many of them told anything new.
        quarantined: edges that would close a cycle, with the cycle; not applied.
        refused: runs the control plane calls invalid, and why.
    """

    runs: int = 0
    changed: int = 0
    quarantined: list[lineage_pb2.QuarantinedEdge] = field(default_factory=list)
    refused: list[Unreadable] = field(default_factory=list)


def report(runway: Runway, runs: Sequence[lineage_pb2.LineageRun], *, why: Why) -> Reported:
    """Report all runs; a batch with an invalid run in it is reported run by run.

    Raises:
        RunwayRpcError: the control plane is away, or refuses for a reason that is no run's.
    """
    found = Reported()
    for start in range(0, len(runs), RUNS_AT_ONCE):
        batch = runs[start : start + RUNS_AT_ONCE]
        try:
            _report(runway, batch, why, found)
        except InvalidRequest:
            for run in batch:
                try:
                    _report(runway, [run], why, found)
                except InvalidRequest as error:
                    said = "; ".join(violation.message for violation in error.violations) or error.message
                    found.refused.append(Unreadable(what=run.run_id or run.job, why=said))
    return found


def _report(runway: Runway, runs: Sequence[lineage_pb2.LineageRun], why: Why, found: Reported) -> None:
    response = runway.lineage.report_lineage(runs, why=why)
    found.runs += len(runs)
    found.changed += response.changed
    found.quarantined.extend(response.quarantined)
