"""Airflow 3 by its REST API v2: one DAG, or one DAG per model, is triggered with the job as its `conf`.

The run is named by the attempt (`dag_run_id`), so Airflow itself refuses a second one: 409 says that it is there.
Airflow takes runs of a paused DAG with a friendly 200 and lets them lie; so it is asked first, and told. What is wrong
with a DAG that runs all models is wrong with all of them: their retrains go back and wait, and none of them fails.

Needs a user who may trigger, read and end runs of the DAG. With a user name the secret is the password, exchanged for a
token that is renewed when Airflow takes it no more; without one the secret is the token itself.
"""

import asyncio
from dataclasses import dataclass
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
from control_plane.core.ids import ModelId

DAG = "runway_retrain"
STATES = {
    "queued": RunState.QUEUED,
    "running": RunState.RUNNING,
    "success": RunState.SUCCEEDED,
    "failed": RunState.FAILED,
}
ENDED = frozenset({RunState.SUCCEEDED, RunState.FAILED})
TASKS_MAX = 100


class AirflowScheduler:
    """One Airflow. `dag` may contain `{model}`."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        dag: str = DAG,
        username: str = "",
        secret: str = "",
        ca_file: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        self._url = url.rstrip("/")
        self._http = HttpClient(self._url, name, ca_file=ca_file, timeout_s=timeout_s)
        self._dag = dag
        self._username, self._secret = username, secret
        self._token = "" if username else secret
        self._signing_in = asyncio.Lock()

    @property
    def address(self) -> str:
        """Its base URL."""
        return self._url

    async def start(self, job: Job) -> Started:
        """Trigger the DAG under the attempt's id."""
        dag = self._dag_of(job.model_id)
        standing = await self._standing(dag)
        if standing.paused and self._of_all:
            raise SchedulerUnavailable(standing.fault, sure=True)
        if standing.fault:
            raise SchedulerRefused(standing.fault, whole=self._of_all)
        body = {"dag_run_id": job.attempt_id, "logical_date": None, "conf": job.parameters()}
        answer = await self._call("POST", f"{_path(dag)}/dagRuns", body)
        if answer.status == 409:
            # Only a run that is there is there already: any other conflict is told as what it is.
            found = await self._call("GET", f"{_path(dag)}/dagRuns/{quote(job.attempt_id, safe='')}")
            if found.status == 404:
                answer.checked()
            answer = found
        if answer.status == 404:  # it went just then
            raise SchedulerRefused(self._missing(dag), whole=self._of_all)
        told = answer.checked().fields()
        queued = STATES.get(str(told.get("state"))) is RunState.QUEUED
        return Started(run=f"{dag}/{job.attempt_id}", note=(await self._standing(dag)).fault if queued else "")

    async def status(self, run: Run) -> RunStatus:
        """How its DAG run stands, with the link to its page; of a failed one, to the task that failed."""
        dag = self._dag_in(run)
        answer = await self._call("GET", f"{_path(dag)}/dagRuns/{quote(run.attempt_id, safe='')}")
        if answer.status == 404:
            return RunStatus(state=RunState.MISSING)
        told = answer.checked().fields()
        state = STATES.get(str(told.get("state")))
        if state is None:
            sentence = f"{self._http.who} tells a state that nobody knows: {told.get('state')!r}"
            raise SchedulerUnavailable(sentence, counts=False)
        link = f"{self._url}/dags/{quote(dag, safe='')}/runs/{quote(run.attempt_id, safe='')}"
        status = RunStatus(state=state, run=f"{dag}/{run.attempt_id}", log_url=link)
        if state is RunState.FAILED:
            return await self._failed(dag, run, link)
        if state is RunState.QUEUED:
            return RunStatus(state=state, run=status.run, log_url=link, note=(await self._standing(dag)).fault)
        return status

    async def stop(self, run: Run) -> bool:
        """Mark the DAG run failed, which ends its tasks; one that has ended stays as it is."""
        dag = self._dag_in(run)
        before = await self.status(run)
        if before.state is RunState.MISSING:
            return False
        if before.state not in ENDED:
            path = f"{_path(dag)}/dagRuns/{quote(run.attempt_id, safe='')}?update_mask=state"
            (await self._call("PATCH", path, {"state": "failed"})).checked()
        return True

    async def close(self) -> None:
        """Let go of its threads."""
        await self._http.close()

    async def _failed(self, dag: str, run: Run, link: str) -> RunStatus:
        """Which task failed, and the link to its log."""
        path = f"{_path(dag)}/dagRuns/{quote(run.attempt_id, safe='')}/taskInstances?state=failed&limit={TASKS_MAX}"
        told = (await self._call("GET", path)).checked().fields()
        tasks: list[Any] = told.get("task_instances") or []
        names = [str(task.get("task_id")) for task in tasks if isinstance(task, dict)]
        if not names:
            return RunStatus(state=RunState.FAILED, run=run.run, log_url=link, failure="the DAG run failed")
        failure = f"task {', '.join(names)} of DAG {dag} failed"
        return RunStatus(
            state=RunState.FAILED, run=run.run, failure=failure, log_url=f"{link}/tasks/{quote(names[0], safe='')}"
        )

    async def _standing(self, dag: str) -> "_Standing":
        """What keeps runs of a DAG from running, if anything does."""
        answer = await self._call("GET", _path(dag))
        if answer.status == 404:
            return _Standing(fault=self._missing(dag))
        told = answer.checked().fields()
        if told.get("is_stale"):
            return _Standing(fault=self._missing(dag))
        if told.get("has_import_errors"):
            return _Standing(fault=f"DAG {dag} has import errors: Airflow shows them")
        if told.get("is_paused"):
            return _Standing(fault=f"DAG {dag} is paused: unpause it in Airflow", paused=True)
        return _Standing()

    def _missing(self, dag: str) -> str:
        return f"there is no DAG {dag} in {self._http.who}"

    @property
    def _of_all(self) -> bool:
        """Does one DAG run all models?"""
        return "{model}" not in self._dag

    async def _call(self, method: str, path: str, body: object = None) -> Answer:
        """With a token; when Airflow takes it no more, with a new one."""
        token = self._token or await self._signed_in("")
        answer = await self._http.request(method, f"/api/v2{path}", body=body, headers=_bearer(token))
        if answer.status == 401 and self._username:
            token = await self._signed_in(token)
            answer = await self._http.request(method, f"/api/v2{path}", body=body, headers=_bearer(token))
        return answer

    async def _signed_in(self, stale: str) -> str:
        """A token that is not the stale one; one sign-in for all who wait."""
        if not self._username:
            return self._token
        async with self._signing_in:
            if self._token == stale:
                body = {"username": self._username, "password": self._secret}
                try:
                    answer = (await self._http.request("POST", "/auth/token", body=body)).checked()
                except SchedulerRefused as error:
                    raise SchedulerRefused(f"signing in as {self._username}: {error}", whole=True) from error
                except SchedulerUnavailable as error:
                    # Whatever was to be done after it was not.
                    raise SchedulerUnavailable(str(error), sure=True, counts=error.counts) from error
                self._token = str(answer.fields().get("access_token", ""))
            return self._token

    def _dag_of(self, model_id: ModelId) -> str:
        return self._dag.replace("{model}", model_id)

    def _dag_in(self, run: Run) -> str:
        return run.run.rpartition("/")[0] or self._dag_of(run.model_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """What keeps a DAG's runs from running, in words; empty if nothing does."""

    fault: str = ""
    paused: bool = False


def _path(dag: str) -> str:
    return f"/dags/{quote(dag, safe='')}"


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
