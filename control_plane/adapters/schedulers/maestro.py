"""Netflix Maestro by its REST API v3: one workflow, or one per model, is started with the job as its run parameters.

Maestro knows a start by its `request_id`, a UUID, which is made from the attempt's id. It answers

    CREATED      a new instance, named by workflow, instance and run
    DUPLICATED   there is one with this UUID already, but not which: it is looked for among the newest
    STOPPED      the workflow's run strategy (FIRST_ONLY, LAST_ONLY) ended it before it began

Maestro calls nobody back, so runs are asked after. It takes the caller from the header `user`.
"""

import uuid
from typing import Any
from urllib.parse import quote

from control_plane.adapters.schedulers.http import Answer, HttpClient
from control_plane.app.schedulers import (
    Job,
    Run,
    RunState,
    RunStatus,
    SchedulerRefused,
    SchedulerUnavailable,
    Started,
)
from control_plane.core.ids import AttemptId, ModelId
from control_plane.core.retraining.types import FailureClass

WORKFLOW = "runway_retrain"
ATTEMPTS = uuid.UUID("6b2f7f0e-9f0e-5d0a-8a3c-0c2d6a1f7e51")
"""The namespace of our request ids; it must never change, or retried starts would be started twice."""
PAGE_MAX = 200
"""As many as Maestro gives at once."""
LOOKED_BACK_MAX = 2_000
"""Instances looked through for a UUID: a start is asked for again within minutes, not weeks."""
STATES = {
    "CREATED": RunState.QUEUED,
    "IN_PROGRESS": RunState.RUNNING,
    "PAUSED": RunState.RUNNING,
    "SUCCEEDED": RunState.SUCCEEDED,
    "FAILED": RunState.FAILED,
    "TIMED_OUT": RunState.FAILED,
    "STOPPED": RunState.STOPPED,
}
ENDED = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED})
BY_STRATEGY = "run strategy"
"""Words in the timeline of a run that LAST_ONLY or SERIAL_LATEST_ONLY stopped for a later one."""


def request_id(attempt_id: AttemptId) -> str:
    """The UUID that Maestro knows an attempt's start by.

    >>> request_id(AttemptId("rt_000001_a1")) == request_id(AttemptId("rt_000001_a1"))
    True
    """
    return str(uuid.uuid5(ATTEMPTS, attempt_id))


class MaestroScheduler:
    """One Maestro. `workflow` may contain `{model}`; `version` is a number, `active`, `latest` or `default`."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        workflow: str = WORKFLOW,
        version: str = "active",
        user: str = "runway",
        secret: str = "",
        ca_file: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        self._url = url.rstrip("/")
        self._http = HttpClient(self._url, name, ca_file=ca_file, timeout_s=timeout_s)
        self._workflow, self._version = workflow, version
        self._headers = {"user": user} | ({"Authorization": f"Bearer {secret}"} if secret else {})

    @property
    def address(self) -> str:
        """Its base URL."""
        return self._url

    async def start(self, job: Job) -> Started:
        """Start the workflow under the attempt's UUID."""
        workflow = self._workflow_of(job.model_id)
        body = {
            "initiator": {"type": "manual"},
            "request_id": request_id(job.attempt_id),
            "run_params": {
                name: {"value": value, "type": "STRING", "mode": "mutable"}
                for name, value in job.parameters().items()
                if value
            },
            "runtime_tags": [{"name": f"runway_{job.model_id}"}],
        }
        answer = await self._call("POST", f"{_path(workflow)}/versions/{quote(self._version)}/actions/start", body)
        if answer.status == 404:
            sentence = f"there is no workflow {workflow} ({self._version}) in {self._http.who}"
            raise SchedulerRefused(sentence, whole=self._of_all)
        told = answer.checked().fields()
        match told.get("status"):
            case "CREATED":
                return Started(run=_run(workflow, told))
            case "DUPLICATED":
                found = await self._found(workflow, job.attempt_id)
                if found is None:
                    raise SchedulerUnavailable(
                        f"{self._http.who} says that the run is there already, but does not show it"
                    )
                return Started(run=_run(workflow, found))
            case "STOPPED":
                raise SchedulerRefused(
                    f"the run strategy of workflow {workflow} let nothing more run: use SEQUENTIAL or PARALLEL",
                    whole=self._of_all,
                )
            case other:
                raise SchedulerUnavailable(f"{self._http.who} answered a start with {other!r}")

    async def status(self, run: Run) -> RunStatus:
        """How its workflow instance stands."""
        found = await self._instance(run)
        if found is None:
            return RunStatus(state=RunState.MISSING)
        workflow, told = found
        status = str(told.get("status"))
        state = STATES.get("FAILED" if status.startswith("FAILED") else status)
        if state is None:
            sentence = f"{self._http.who} tells a status that nobody knows: {status!r}"
            raise SchedulerUnavailable(sentence, counts=False)
        named, failure, failure_class = _run(workflow, told), "", None
        if state is RunState.FAILED:
            failure = _last_words(told) or f"the workflow instance {status.lower().replace('_', ' ')}"
            failure_class = FailureClass.TIMEOUT if status == "TIMED_OUT" else None
        elif state is RunState.STOPPED:
            failure = _last_words(told)
            # Not by a hand: a later start ended it, and would again.
            failure_class = FailureClass.UNKNOWN if BY_STRATEGY in failure else None
        return RunStatus(
            state=state,
            run=named,
            log_url=f"{self._url}/api/v3/workflows/{quote(workflow, safe='')}/instances/{_part(named, 1)}"
            f"/runs/{_part(named, 2)}",
            failure=failure,
            failure_class=failure_class,
            note="the instance is paused in Maestro" if status == "PAUSED" else "",
        )

    async def stop(self, run: Run) -> bool:
        """Stop the instance's run; one that has ended stays as it is."""
        status = await self.status(run)
        if status.state is RunState.MISSING:
            return False
        if status.state in ENDED:
            return True
        workflow, instance, number = status.run.rsplit("/", 2)
        path = f"{_path(workflow)}/instances/{instance}/runs/{number}/actions/stop"
        answer = await self._call("PUT", path)
        if not answer.ok and (await self.status(run)).state in ENDED:
            return True  # it ended between our question and our order
        answer.checked()
        return True

    async def close(self) -> None:
        """Let go of its threads."""
        await self._http.close()

    async def _instance(self, run: Run) -> tuple[str, dict[str, Any]] | None:
        """Its workflow and the instance; by its UUID while only that is known."""
        if not run.run:
            workflow = self._workflow_of(run.model_id)
            found = await self._found(workflow, run.attempt_id)
            return None if found is None else (workflow, found)
        workflow, instance, number = run.run.rsplit("/", 2)
        answer = await self._call("GET", f"{_path(workflow)}/instances/{instance}/runs/{number}?enriched=false")
        return None if answer.status == 404 else (workflow, answer.checked().fields())

    async def _found(self, workflow: str, attempt_id: AttemptId) -> dict[str, Any] | None:
        """The instance with an attempt's UUID, among the newest; Maestro lists the newest first."""
        wanted, cursor, seen = request_id(attempt_id), "", 0
        while seen < LOOKED_BACK_MAX:
            path = f"{_path(workflow)}/instances?first={PAGE_MAX}&aggregated=false"
            answer = await self._call("GET", path + (f"&cursor={quote(cursor)}" if cursor else ""))
            if answer.status == 404:
                return None
            told = answer.checked().fields()
            elements = [one for one in told.get("elements") or [] if isinstance(one, dict)]
            for one in elements:
                if one.get("workflow_uuid") == wanted:
                    return one
            page = told.get("page_info") or {}
            seen, before = seen + len(elements), cursor
            cursor = str(page.get("end_cursor") or "")
            if not elements or not page.get("has_next_page") or cursor == before:
                return None
        return None

    async def _call(self, method: str, path: str, body: object = None) -> Answer:
        return await self._http.request(method, f"/api/v3/workflows{path}", body=body, headers=self._headers)

    @property
    def _of_all(self) -> bool:
        """Does one workflow run all models? What is wrong with it is wrong for all of them."""
        return "{model}" not in self._workflow

    def _workflow_of(self, model_id: ModelId) -> str:
        return self._workflow.replace("{model}", model_id)


def _path(workflow: str) -> str:
    return f"/{quote(workflow, safe='')}"


def _run(workflow: str, told: dict[str, Any]) -> str:
    return f"{workflow}/{told.get('workflow_instance_id')}/{told.get('workflow_run_id') or 1}"


def _part(run: str, index: int) -> str:
    return run.rsplit("/", 2)[index]


def _last_words(told: dict[str, Any]) -> str:
    """What Maestro says of an instance that ended: the newest entry of its timeline that is a sentence."""
    timeline = told.get("timeline")
    events = timeline.get("timeline_events") if isinstance(timeline, dict) else timeline
    for event in reversed(events or []):
        message = event.get("message") if isinstance(event, dict) else None
        if isinstance(message, str) and message:
            return message
    return ""
