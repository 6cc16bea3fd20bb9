"""OpenLineage events as facts of the core: pure, one decoded JSON event in, one `LineageRun` (or none) out.

| event        | what it is                                    | becomes                                              |
|--------------|-----------------------------------------------|------------------------------------------------------|
| RunEvent     | `run` and `job`; `eventType` says how it goes | the run's state, with what it reads and writes       |
| JobEvent     | `job`, no `run`                               | STATIC facts about the job                           |
| DatasetEvent | `dataset`, neither `run` nor `job`            | STATIC facts about a node; edges, if its `lineage`   |
|              |                                               | facet names inputs                                   |

An event type that we do not know, or none, is OTHER in OpenLineage: it adds to what is known of the run and confirms
nothing. What says nothing about edges or nodes becomes nothing: a START without inputs and outputs, a job's own words.

Datasets in the namespace `runway` are named by our ids. All others are named `namespace/name`, and the core looks up
which node that is. Facets that decide what a dataset *is* (`datasetType`, `symlinks`, `runway`) must be well formed;
those that only describe are read if they can be read; unknown ones are passed over, as the specification asks.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeGuard

from control_plane.api.openlineage import limits
from control_plane.api.openlineage.datasets import dataset_node, merged
from control_plane.api.openlineage.reading import Reading, facet, facets_of
from control_plane.core.errors import Invalid, Reason
from control_plane.core.graph.lineage_facts import LineageNode, LineageRun, RunState, run_violations

SOURCE = "openlineage"

STATES = {
    "START": RunState.START,
    "RUNNING": RunState.RUNNING,
    "COMPLETE": RunState.COMPLETE,
    "FAIL": RunState.FAIL,
    "ABORT": RunState.ABORT,
}
"""All others are OTHER, which is told like RUNNING: the run has not ended by it, nor is it confirmed."""

Event = Mapping[str, object]
Nodes = tuple[LineageNode, ...]


def translate(event: object, field: str = "") -> LineageRun | None:
    """What an event says, or None if it says nothing about nodes or edges.

    `field` is put before the names of fields in violations.

    Raises:
        Invalid: with everything that is wrong with the event.
    """
    reading = Reading(field)
    run = _translated(reading, event)
    if run is not None and not reading.found:
        for violation in run_violations(run, 0, ""):
            # The core counts runs; here there is one, and it is the whole event.
            reading.wrong(violation.field.removeprefix("[0]").lstrip("."), violation.rule, violation.message)
    if reading.found:
        raise Invalid(Reason.INVALID_LINEAGE, *reading.found)
    return run


def _translated(reading: Reading, event: object) -> LineageRun | None:
    if not isinstance(event, Mapping):
        reading.wrong("", "type", "send one JSON object: a RunEvent, JobEvent or DatasetEvent")
        return None
    when = _event_time(reading, event)
    if event.get("run") is not None or event.get("eventType") is not None:
        return _run_event(reading, event, when)
    if event.get("job") is not None:
        return _job_event(reading, event, when)
    if event.get("dataset") is not None:
        return _dataset_event(reading, event, when)
    reading.wrong("", "required", "send `run` and `job` (RunEvent), `job` (JobEvent) or `dataset` (DatasetEvent)")
    return None


def _run_event(reading: Reading, event: Event, when: datetime | None) -> LineageRun | None:
    told = reading.text(event, "eventType", "", chars_max=100)
    state = STATES.get(told.upper(), RunState.RUNNING)
    run = reading.part(event, "run", "")
    run_id = reading.text(run, "runId", "run", required=True, chars_max=limits.RUN_ID_CHARS_MAX) if run else ""
    job, job_name = _job(reading, event)
    inputs, outputs = _datasets(reading, event, "inputs"), _datasets(reading, event, "outputs")
    if state in {RunState.START, RunState.RUNNING} and not inputs and not outputs:
        return None
    return LineageRun(
        source=SOURCE,
        job=job_name,
        run_id=run_id,
        state=state,
        event_time=when,
        inputs=inputs,
        outputs=outputs,
        evidence_url=_evidence(run, job),
    )


def _job_event(reading: Reading, event: Event, when: datetime | None) -> LineageRun | None:
    job, job_name = _job(reading, event)
    inputs, outputs = _datasets(reading, event, "inputs"), _datasets(reading, event, "outputs")
    if not inputs and not outputs:
        return None
    return LineageRun(
        source=SOURCE,
        job=job_name,
        state=RunState.STATIC,
        event_time=when,
        inputs=inputs,
        outputs=outputs,
        evidence_url=_evidence({}, job),
    )


def _dataset_event(reading: Reading, event: Event, when: datetime | None) -> LineageRun | None:
    """A dataset alone is told as read, not as written: who reads it learns its name, and nobody is said to have written
    it without reading what others declared.
    """
    dataset = reading.part(event, "dataset", "")
    if not dataset:
        return None
    node = dataset_node(reading, dataset, "dataset")
    if node is None:
        return None
    inputs = _told_inputs(reading, dataset)
    name = node.external_id or node.node_id
    return LineageRun(
        source=SOURCE,
        job=name,
        state=RunState.STATIC,
        event_time=when,
        inputs=inputs or (node,),
        outputs=(node,) if inputs else (),
    )


def _told_inputs(reading: Reading, dataset: Event) -> Nodes:
    """Datasets that the `lineage` facet of a dataset says it is made from."""
    where = "dataset.facets.lineage.inputs"
    told = facet(facets_of(reading, dataset, "dataset"), "lineage").get("inputs")
    if told is None:
        return ()
    if not isinstance(told, list):
        reading.wrong(where, "type", f"is {reading.kind(told)}; send a list of datasets")
        return ()
    datasets = [entry for entry in told if not isinstance(entry, Mapping) or entry.get("type") != "JOB"]
    return _nodes(reading, datasets, where)


def _job(reading: Reading, event: Event) -> tuple[Event, str]:
    job = reading.part(event, "job", "")
    if not job:
        return {}, ""
    return job, reading.qualified(job, "job")


def _datasets(reading: Reading, event: Event, side: str) -> Nodes:
    told = event.get(side)
    if told is None:
        return ()
    if not isinstance(told, list):
        reading.wrong(side, "type", f"is {reading.kind(told)}; send a list of datasets")
        return ()
    return _nodes(reading, told, side)


def _nodes(reading: Reading, told: list[object], where: str) -> Nodes:
    if len(told) > limits.DATASETS_PER_SIDE_MAX:
        reading.wrong(
            where,
            "size",
            f"{len(told)} datasets; at most {limits.DATASETS_PER_SIDE_MAX}: report the steps of the job as jobs",
        )
        return ()
    nodes = []
    for place, dataset in enumerate(told):
        here = f"{where}[{place}]"
        if not isinstance(dataset, Mapping):
            reading.wrong(here, "type", f"is {reading.kind(dataset)}; send an object with namespace and name")
            continue
        node = dataset_node(reading, dataset, here)
        if node is not None:
            nodes.append(node)
    return merged(nodes)


def _event_time(reading: Reading, event: Event) -> datetime | None:
    """An instant. One without an offset is taken for UTC, as some emitters mean it."""
    text = reading.text(event, "eventTime", "", required=True, chars_max=100)
    if not text:
        return None
    try:
        if "T" not in text.upper() and " " not in text:
            raise ValueError(text)
        told = datetime.fromisoformat(text)
        return told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
    except (ValueError, OverflowError):
        reading.wrong(
            "eventTime",
            "date_time",
            f"{text[:60]!r} is not a time; write 2026-01-31T12:00:00Z, with date, time and offset",
        )
        return None


def _evidence(run: Event, job: Event) -> str:
    """Where a person can look the run up: its log, its application, its code, or the run that it is part of."""
    run_facets, job_facets = _plain(run.get("facets")), _plain(job.get("facets"))
    parent = _plain(run_facets.get("parent"))
    candidates = (
        _plain(_plain(run_facets.get("airflow")).get("taskInstance")).get("log_url"),
        _plain(run_facets.get("spark_applicationDetails")).get("uiWebUrl"),
        _plain(job_facets.get("sourceCodeLocation")).get("url"),
        _parent(_plain(parent.get("job")), _plain(parent.get("run"))),
    )
    return next((told for told in candidates if _is_evidence(told)), "")


def _is_evidence(told: object) -> TypeGuard[str]:
    """Whether it is an address that a page may link to."""
    if not isinstance(told, str) or not told.isprintable() or len(told) > limits.EVIDENCE_CHARS_MAX:
        return False
    return told.startswith(("http://", "https://", "openlineage:"))


def _parent(job: Event, run: Event) -> str:
    """The run that a run is part of, where nothing better is known."""
    names = (job.get("namespace"), job.get("name"), run.get("runId"))
    return "openlineage:{}/{}#{}".format(*names) if all(isinstance(name, str) and name for name in names) else ""


def _plain(value: object) -> Event:
    return value if isinstance(value, Mapping) else {}
