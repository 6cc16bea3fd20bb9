"""Metaflow's finished runs as lineage, read through its Client API.

What a run says of itself, in any of its tasks (all are looked at: a join drops what its branches had):

    artifact                   | content                                   | written by
    ---------------------------+-------------------------------------------+---------------------------
    runway_reads               | names: node ids or names of your own      | the flow's author
    runway_produces            | names, or {artifact: name}                | the flow's author
    _runway_recorded_reads     | pathspecs of other runs' artifacts        | `@runway_lineage` (steps.py)

A recorded read `Other/12/end/7/model` is looked up in the run it names: if Other/12 says what it produces, that is what
was read (the entry of the artifact if it gave a dict, else all it names), with `Other/12` as the version; else the flow
as such, `metaflow://Other`.

Only runs whose end step succeeded are reported. A run that is still running, failed, or was given up is left out now
and looked at again next time: runs are listed by when they began, so the next look begins at the oldest that had not
ended. A run of which a lineage artifact cannot be read is left out too, because half of its reads would count against
the other half. Resumed runs stand for themselves; Metaflow clones the artifacts of the steps they skip.

Loading an artifact unpickles it, which runs code of whoever wrote it. Only the three above are loaded, and none larger
than `ARTIFACT_BYTES_MAX`; and what Metaflow itself loads to know whether a run succeeded (`_success`, `_task_ok`). Read
only datastores of people you trust, as anybody does who uses the Client API.
"""

import contextlib
import importlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from runway.v1 import lineage_pb2
from runway_client.times import to_timestamp

from runway_lineage.naming import name_problem, named_node
from runway_lineage.reading import Reading, SourceError, utc
from runway_lineage.steps import RECORDED_ARTIFACT

SOURCE = "metaflow"
READS_ARTIFACT = "runway_reads"
PRODUCES_ARTIFACT = "runway_produces"

OVERLAP = timedelta(hours=1)
"""Each look begins so long before the last one ended: clocks of schedulers differ by minutes, reading twice is free."""

UNFINISHED_AGE_MAX = timedelta(days=7)
"""A run that has not ended after this is given up: it would hold the cursor for ever. An earlier `since` finds it."""

ARTIFACT_BYTES_MAX = 1_000_000
"""A list of ten thousand names is half of it; a larger artifact is something else under the name."""

TASKS_PER_RUN_MAX = 10_000
"""Tasks of one run that are looked at; a wider foreach says what it reads before it splits."""

EARLIER_RUNS_MAX = 20
"""Runs of a flow that are asked what it produces, when the one that was read is gone."""


@dataclass(slots=True, kw_only=True)
class Told:
    """What one run says of itself."""

    reads: set[str] = field(default_factory=set)
    produces: set[tuple[str, str]] = field(default_factory=set)
    """(name, artifact); the artifact is empty if the run did not say which."""
    recorded: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.reads or self.produces or self.recorded)


class _UnusableArtifactError(Exception):
    """A lineage artifact is not what it should be."""


def read_metaflow(
    *,
    since: datetime | None = None,
    flows: Sequence[str] = (),
    tags: Sequence[str] = (),
    metadata: str = "",
) -> Reading:
    """Look at the runs that began after `since`.

    Args:
        since: UTC; None looks at everything.
        flows: only these; empty means all that the metadata service knows.
        tags: only runs that carry all of these; `user:anna` is what Metaflow calls a namespace.
        metadata: as `metaflow.metadata()` takes it (`local@/path`, `service@https://...`); empty as configured.
    Raises:
        SourceError: Metaflow is not installed, or its metadata cannot be read at all.
    """
    with _client(metadata) as client:
        reader = _Reader(client, tags)
        for flow in reader.flows(flows):
            reader.look_at(flow, since)
        return reader.reading


@contextlib.contextmanager
def _client(metadata: str) -> Iterator[Any]:
    """Metaflow, looking at all namespaces; both are global in Metaflow, so both are put back."""
    try:
        # Not at the top: Metaflow reads its configuration from the environment when it is imported.
        metaflow: Any = importlib.import_module("metaflow")
    except ImportError as error:
        raise SourceError("Metaflow is not installed here: install the package `metaflow`") from error
    core: Any = importlib.import_module("metaflow.client.core")
    # Not `get_namespace()`: without one it looks for the user, and cron and root have none that Metaflow accepts.
    namespace_before, metadata_before = core.current_namespace, metaflow.get_metadata()
    try:
        if metadata:
            try:
                metaflow.metadata(metadata)
            except ValueError as error:
                raise SourceError(
                    f"{error}: write local@PATH of the folder that holds .metaflow, or service@URL"
                ) from error
        metaflow.namespace(None)
        yield metaflow
    finally:
        core.current_namespace = namespace_before
        if metadata:
            # Where there was none (no .metaflow from here up), there is none to go back to.
            with contextlib.suppress(ValueError):
                metaflow.metadata(metadata_before)


class _Reader:
    """One look: what was found so far, and what runs said of themselves, so that each is asked once."""

    def __init__(self, client: Any, tags: Sequence[str]) -> None:
        self.reading = Reading(source=str(client.get_metadata()))
        self._client = client
        self._tags = frozenset(tags)
        self._told: dict[str, Told | None] = {}
        self._oldest_unfinished = self._began = datetime.now(UTC)
        self.reading.next_since = self._began - OVERLAP

    def flows(self, names: Sequence[str]) -> Iterator[Any]:
        """The flows to look at, by name."""
        if not names:
            try:
                found = list(self._client.Metaflow().flows)
            except Exception as error:
                raise SourceError(
                    f"Metaflow's metadata ({self._client.get_metadata()}) cannot be read: {error}"
                ) from error
            yield from sorted(found, key=lambda flow: str(flow.id))
            return
        for name in names:
            try:
                yield self._client.Flow(name)
            except Exception as error:
                self.reading.cannot(name, error)

    def look_at(self, flow: Any, since: datetime | None) -> None:
        """All runs of a flow that began after `since`, oldest first."""
        try:
            runs = [run for run in flow if since is None or utc(run.created_at) >= since]
        except Exception as error:
            self.reading.cannot(str(flow.id), error)
            return
        for run in reversed(runs):
            if not self._tags <= run.tags:
                continue
            try:
                self._look_at_run(run)
            except Exception as error:
                self.reading.cannot(str(run.pathspec), error)

    def _look_at_run(self, run: Any) -> None:
        if not run.finished:
            began = utc(run.created_at)
            if began > self._began - UNFINISHED_AGE_MAX and began < self._oldest_unfinished:
                self._oldest_unfinished = began
                self.reading.next_since = began - OVERLAP
            self.reading.note("running or given up")
        elif not run.successful:
            self.reading.note("failed")
        elif told := self._told_by(run):
            if found := self._run_of(run, told):
                self.reading.runs.append(found)
        else:
            self.reading.note("without lineage")

    def _told_by(self, run: Any) -> Told:
        pathspec = str(run.pathspec)
        known = self._told.get(pathspec)
        if known is None:
            known = self._told[pathspec] = told_by(run)
        return known

    def _run_of(self, run: Any, told: Told) -> lineage_pb2.LineageRun | None:
        pathspec, flow = str(run.pathspec), str(run.pathspec).partition("/")[0]
        problems = [
            problem for name in (*told.reads, *(name for name, _ in told.produces)) if (problem := name_problem(name))
        ]
        if problems:
            self.reading.cannot(pathspec, "; ".join(sorted(problems)))
            return None
        outputs = [named_node(name, pathspec) for name in sorted({name for name, _ in told.produces})] or [
            flow_node(flow, pathspec)
        ]
        inputs = {(node.node_id, node.external_id): node for node in map(named_node, sorted(told.reads))}
        for node in self._recorded_nodes(told.recorded):
            inputs[node.node_id, node.external_id] = node
        # A run that reads what an earlier run of its own made does not depend on itself.
        for node in outputs:
            inputs.pop((node.node_id, node.external_id), None)
        return lineage_pb2.LineageRun(
            source=SOURCE,
            job=flow,
            run_id=pathspec,
            state=lineage_pb2.RUN_STATE_COMPLETE,
            event_time=to_timestamp(utc(run.finished_at)),
            inputs=[inputs[key] for key in sorted(inputs)],
            outputs=outputs,
        )

    def _recorded_nodes(self, recorded: set[str]) -> Iterator[lineage_pb2.LineageNode]:
        """What was read of other runs, oldest run first: of several versions of a node the newest stands."""
        for read in sorted(recorded, key=_run_order):
            flow, run_id, *_, artifact = read.split("/")
            version = f"{flow}/{run_id}"
            produces = self._produced_by(flow, version)
            exact = {name for name, of in produces if of == artifact}
            names = exact or {name for name, of in produces if not of}
            for name in sorted(names):
                yield named_node(name, version)
            if not names:
                yield flow_node(flow, version)

    def _produced_by(self, flow: str, version: str) -> Set[tuple[str, str]]:
        """What a run that was read says it produces; if it is gone, what the flow's newest run says."""
        if version not in self._told:
            try:
                self._told[version] = told_by(self._client.Run(version))
            except Exception as error:
                self.reading.cannot(version, error)
                self._told[version] = self._newest_of(flow)
        told = self._told[version]
        return {one for one in told.produces if not name_problem(one[0])} if told is not None else set()

    def _newest_of(self, flow: str) -> Told | None:
        with contextlib.suppress(Exception):
            for _, run in zip(range(EARLIER_RUNS_MAX), self._client.Flow(flow), strict=False):
                if run.successful and (told := self._told_by(run)).produces:
                    return told
        return None


def told_by(run: Any) -> Told:
    """What a run says of itself, from all its tasks.

    Raises:
        Exception: whatever Metaflow raises for an artifact that is gone, or `_UnusableArtifactError`.
    """
    told = Told()
    seen: set[tuple[str, str]] = set()
    tasks = 0
    for step in run:
        for task in step:
            tasks += 1
            if tasks > TASKS_PER_RUN_MAX:
                raise _UnusableArtifactError(
                    f"it has more than {TASKS_PER_RUN_MAX:,} tasks: set {READS_ARTIFACT} and {PRODUCES_ARTIFACT} "
                    "in a run of its own, before the foreach"
                )
            for name in (READS_ARTIFACT, PRODUCES_ARTIFACT, RECORDED_ARTIFACT):
                try:
                    artifact = task[name]
                except KeyError:
                    continue
                # Artifacts that a step did not change keep their content; in a wide foreach nearly all are the same.
                if (name, artifact.sha) not in seen:
                    seen.add((name, artifact.sha))
                    _add(told, name, artifact)
    return told


def flow_node(flow: str, version: str) -> lineage_pb2.LineageNode:
    """A flow that does not say what it makes, as one thing."""
    return lineage_pb2.LineageNode(
        external_id=f"metaflow://{flow}",
        title=flow,
        description=f"What the Metaflow flow {flow} makes",
        version=version,
    )


def _add(told: Told, name: str, artifact: Any) -> None:
    where = str(artifact.pathspec)
    if artifact.size > ARTIFACT_BYTES_MAX:
        raise _UnusableArtifactError(f"{where} has {artifact.size:,} bytes and is no list of names")
    value = artifact.data
    if name == PRODUCES_ARTIFACT and isinstance(value, dict):
        told.produces |= {(text, of) for of, text in _strings(value.items(), where, of_pairs=True)}
        return
    names = [text for text, _ in _strings(((one, "") for one in _listed(value, where)), where, of_pairs=False)]
    if name == PRODUCES_ARTIFACT:
        told.produces |= {(text, "") for text in names}
    elif name == READS_ARTIFACT:
        told.reads |= set(names)
    else:
        told.recorded |= {text for text in names if text.count("/") == 4}


def _listed(value: Any, where: str) -> list[Any]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    raise _UnusableArtifactError(f"{where} is a {type(value).__name__}: write a list of node ids or names")


def _strings(pairs: Any, where: str, *, of_pairs: bool) -> Iterator[tuple[str, str]]:
    for one, other in pairs:
        if not (isinstance(one, str) and isinstance(other, str)):
            wanted = "names of artifacts with the node each is" if of_pairs else "node ids or names"
            raise _UnusableArtifactError(f"{where} holds a {type(one).__name__}: write {wanted}, as text")
        yield one, other


def _run_order(pathspec: str) -> tuple[str, int, str]:
    flow, run_id, *_ = pathspec.split("/")
    return flow, int(run_id) if run_id.isdigit() else 0, pathspec
