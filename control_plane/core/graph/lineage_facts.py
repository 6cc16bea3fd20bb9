"""What sources tell about runs, and what is kept of it: the facts of `proto/runway/v1/lineage.proto`.

All of it may appear in events, so the types are the codec.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import msgspec

from control_plane.core.errors import Invalid, Reason, Violation
from control_plane.core.graph.facts import Dependency, DependencyType, NodeKind
from control_plane.core.ids import NodeId, parse_node_id

EdgeKey = tuple[NodeId, NodeId, DependencyType]
"""What makes an edge this one: upstream, downstream, type; as `Dependency.key`."""

JOB_CHARS_MAX = 2_000
"""As in the contract; namespaces are addresses, names are paths."""

IDS_CHARS_MAX = 2_000
TITLE_CHARS_MAX = 500
RUN_ID_CHARS_MAX = 500

PAIRS_PER_RUN_MAX = 100_000
"""Inputs times outputs of one run. Ten thousand tables read into ten are so many; more is no run of one job, and would
hold up everybody else."""

PAIRS_PER_REPORT_MAX = 200_000
"""The same over all runs of one report: half a second of everybody's time, and some more on a slow machine."""


class RunState(StrEnum):
    """Where a run stands; STATIC are facts about a job that are no run of it."""

    START = "START"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    FAIL = "FAIL"
    ABORT = "ABORT"
    STATIC = "STATIC"


class EdgeState(StrEnum):
    """What became of an edge; see the theory of operation in `lineage.py`."""

    ACTIVE = "ACTIVE"
    SUSPECT = "SUSPECT"
    RETIRED = "RETIRED"
    QUARANTINED = "QUARANTINED"
    SUPPRESSED = "SUPPRESSED"

    @property
    def counts(self) -> bool:
        """Whether an edge in this state is part of the graph."""
        return self in {EdgeState.ACTIVE, EdgeState.SUSPECT}


class EdgeOrigin(StrEnum):
    """Who says that an edge is there."""

    DECLARED = "DECLARED"
    DISCOVERED = "DISCOVERED"
    OBSERVED = "OBSERVED"


class JobKey(NamedTuple):
    """A job in its source's words."""

    source: str
    job: str


class LineageNode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node as a source names it: by our id, or by a name of its own. `kind` None is not said (a dataset).

    `aliases` are other names of the same thing, in the form of `external_id`.
    """

    node_id: str = ""
    external_id: str = ""
    kind: NodeKind | None = None
    title: str = ""
    description: str = ""
    version: str = ""
    aliases: tuple[str, ...] = ()


class LineageRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a source knows of one run, or of a job as such (`STATIC`).

    `event_time` None is the time of the report. `confidence` is 0 to 1. `observed`: seen in traffic or queries rather
    than told by the run itself.
    """

    source: str
    job: str
    state: RunState
    run_id: str = ""
    event_time: datetime | None = None
    inputs: tuple[LineageNode, ...] = ()
    outputs: tuple[LineageNode, ...] = ()
    confidence: float = 1.0
    evidence_url: str = ""
    observed: bool = False


class EdgeChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One edge that changes its state. `before` None: nothing was known. `cycle`: first node repeated at the end."""

    upstream: NodeId
    downstream: NodeId
    edge_type: DependencyType
    before: EdgeState | None = None
    after: EdgeState
    reason: str
    cycle: tuple[NodeId, ...] = ()

    @property
    def key(self) -> EdgeKey:
        """The edge."""
        return self.upstream, self.downstream, self.edge_type


class NodeMove(msgspec.Struct, frozen=True, kw_only=True):
    """A node that becomes another one, which may be there already."""

    node_id: NodeId
    new_node_id: NodeId


class QuarantinedEdge(msgspec.Struct, frozen=True, kw_only=True):
    """An edge that a run confirmed but that would close a cycle."""

    dependency: Dependency
    cycle: tuple[NodeId, ...]


class LineagePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a discovered edge becomes suspect, and when it is retired. 0 switches a bound off."""

    suspect_after_runs: int = 3
    suspect_after: timedelta = timedelta(days=14)
    retire_after_runs: int = 10
    retire_after: timedelta = timedelta(days=45)
    confidence_min: float = 0.5


def run_violations(run: LineageRun, index: int, field: str = "runs") -> list[Violation]:
    """All that is wrong with what was told of one run."""
    where = f"{field}[{index}]"
    found: list[Violation] = []
    if not run.job.strip():
        found.append(Violation(field=f"{where}.job", rule="required", message="name the job: `namespace/name`"))
    if not run.run_id and run.state is not RunState.STATIC:
        found.append(
            Violation(
                field=f"{where}.run_id",
                rule="required",
                message=f"a run that is {run.state} has an id; only STATIC facts about a job have none",
            )
        )
    if not 0.0 <= run.confidence <= 1.0:
        found.append(
            Violation(field=f"{where}.confidence", rule="range", message=f"{run.confidence} is not between 0 and 1")
        )
    found += _length(f"{where}.job", run.job, JOB_CHARS_MAX)
    found += _length(f"{where}.run_id", run.run_id, RUN_ID_CHARS_MAX)
    if len(run.inputs) * len(run.outputs) > PAIRS_PER_RUN_MAX:
        found.append(
            Violation(
                field=where,
                rule="size",
                message=(
                    f"{len(run.inputs)} inputs and {len(run.outputs)} outputs are more than {PAIRS_PER_RUN_MAX} edges: "
                    "report the steps of the job as jobs of their own"
                ),
            )
        )
    for side, nodes in (("inputs", run.inputs), ("outputs", run.outputs)):
        for place, node in enumerate(nodes):
            found += node_violations(node, f"{where}.{side}[{place}]")
    return found


def node_violations(node: LineageNode, where: str) -> list[Violation]:
    """All that is wrong with one node as a source names it."""
    found: list[Violation] = []
    if node.node_id:
        try:
            parse_node_id(node.node_id, f"{where}.node_id")
        except Invalid as bad:
            found += bad.violations
    elif not node.external_id.strip():
        found.append(
            Violation(field=where, rule="required", message="name the node by node_id or by the source's external_id")
        )
    found += _length(f"{where}.external_id", node.external_id, IDS_CHARS_MAX)
    found += _length(f"{where}.title", node.title, TITLE_CHARS_MAX)
    for place, alias in enumerate(node.aliases):
        found += _length(f"{where}.aliases[{place}]", alias, IDS_CHARS_MAX)
    return found


def check_runs(runs: tuple[LineageRun, ...]) -> None:
    """Raise `Invalid` with every violation in a report."""
    found = [violation for index, run in enumerate(runs) for violation in run_violations(run, index)]
    pairs = sum(len(run.inputs) * len(run.outputs) for run in runs)
    if pairs > PAIRS_PER_REPORT_MAX and not found:
        message = f"{pairs} pairs of input and output; at most {PAIRS_PER_REPORT_MAX} in one report: send fewer runs"
        found.append(Violation(field="runs", rule="size", message=message))
    if found:
        raise Invalid(Reason.INVALID_LINEAGE, *found)


def _length(field: str, text: str, chars_max: int) -> list[Violation]:
    if len(text) <= chars_max:
        return []
    return [Violation(field=field, rule="length", message=f"{len(text)} characters; at most {chars_max}")]
