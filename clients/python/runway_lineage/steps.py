"""`@runway_lineage`: a Metaflow step writes down which artifacts of other runs it reads.

    class TrainArrival(FlowSpec):
        @step
        @runway_lineage
        def start(self):
            # Written down as TrainRoutes/1712/end/9/model:
            self.route = Flow("TrainRoutes").latest_successful_run.data.model
            self.runway_produces = {"model": "model:arrival_delay"}
            self.next(self.end)

Every artifact that is loaded through Metaflow's Client API while the step runs is noted with the exact run it came
from, however it was reached: `DataArtifact.data` is where all of them pass (Metaflow 2.19, `metaflow/client/core.py`).
Artifacts of the step's own run, and those that Metaflow keeps for itself (their names begin with `_`), are not noted.
What was noted becomes the artifact `_runway_recorded_reads` of the task; `runway discover metaflow` reads it when the
run has succeeded.

It works above and below `@step`. Nothing it does can fail the step.
"""

import contextlib
import functools
import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

RECORDED_ARTIFACT = "_runway_recorded_reads"
"""Metaflow keeps attributes that begin with one underscore, and leaves them out of `merge_artifacts`."""

READS_MAX = 10_000
"""As many inputs as the contract allows a run. A step that loads more artifacts than this is walking a datastore."""

StepFunction = TypeVar("StepFunction", bound=Callable[..., None])

_lock = threading.Lock()


def runway_lineage(step_function: StepFunction) -> StepFunction:
    """Decorate a step so that its reads of other runs' artifacts are written down."""

    @functools.wraps(step_function)
    def recorded(self: Any, *args: Any, **kwargs: Any) -> None:
        with recorded_reads() as reads:
            try:
                step_function(self, *args, **kwargs)
            finally:
                # Even when it fails: under @catch the run goes on, and what was read was read.
                setattr(self, RECORDED_ARTIFACT, sorted(reads - _own(reads)))

    return cast(StepFunction, recorded)


@contextlib.contextmanager
def recorded_reads() -> Iterator[set[str]]:
    """Pathspecs (`Flow/run/step/task/artifact`) of what is loaded meanwhile, by any thread."""
    # Any, because a property is replaced; not at the top, because Metaflow reads its configuration when it is imported.
    artifact_class: Any = importlib.import_module("metaflow.client.core").DataArtifact
    reads: set[str] = set()
    original: property = artifact_class.data
    load = original.fget
    assert load is not None

    def loaded(artifact: Any) -> Any:
        value = load(artifact)
        with contextlib.suppress(Exception):
            if not artifact.id.startswith("_"):
                with _lock:
                    if len(reads) < READS_MAX:
                        reads.add(str(artifact.pathspec))
        return value

    artifact_class.data = property(loaded, doc=original.__doc__)
    try:
        yield reads
    finally:
        artifact_class.data = original


def _own(reads: set[str]) -> set[str]:
    """Those of the run that is running: a run knows its own artifacts."""
    try:
        current = importlib.import_module("metaflow").current
        own = f"{current.flow_name}/{current.run_id}/"
    except Exception:
        return set()
    return {read for read in reads if read.startswith(own)}
