"""Traffic split by capacity on Titus: each version of a model is a service job, and whatever balances load between
their tasks gives each job the share of the traffic that it has of the tasks.

Jobs are found by their attributes: `runway.model`, `runway.version`, and `runway.arm=control` on the job of
production's version that is the control (left out, there is no control of its own). Runway sets capacities, it deploys
nothing: a version without a job is refused, with what to deploy.

How many tasks there are to split is what the one serving job wanted before; it is kept as an attribute of that job
while more than one serves, so that a split begun and broken off is finished with the same number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from control_plane.adapters.serving import titus_pb2 as pb
from control_plane.app.serving import ServingRefused, ServingUnavailable, Target, Weights
from control_plane.core.ids import ModelId

M = TypeVar("M", bound=Message)

SERVICE = "/com.netflix.titus.JobManagementService/"
MODEL, VERSION, ARM, TASKS = "runway.model", "runway.version", "runway.arm", "runway.tasks"
CONTROL = "control"
PAGE_SIZE = 100
PAGES_MAX = 20
"""2,000 jobs of one model are a mistake, not a fleet."""
TRY_AGAIN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceJob:
    """A service job as far as a split is concerned."""

    job_id: str
    version: int
    control: bool
    least: int
    most: int
    desired: int
    tasks: int
    """What was kept of how many tasks there are to split; 0 if nothing was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """New capacity of a job."""

    job_id: str
    least: int
    most: int
    desired: int
    was: int


class TitusServing:
    """Talks to one Titus gateway. With `ca_file` over TLS."""

    def __init__(self, address: str, name: str, *, ca_file: str = "", timeout_s: float = 10.0) -> None:
        self._name, self._timeout_s = name, timeout_s
        if ca_file:
            credentials = grpc.ssl_channel_credentials(Path(ca_file).read_bytes())
            self._channel = grpc.aio.secure_channel(address, credentials)
        else:
            self._channel = grpc.aio.insecure_channel(address)

    async def set_weights(self, target: Target) -> None:
        """Give each job its share of the tasks; whatever takes tasks from the candidate comes first on a way back."""
        jobs = await self._jobs(target.model_id)
        tasks = tasks_to_split(jobs)
        wanted = resizes(jobs, target, tasks)
        serving = [job for job in jobs if job.desired]
        if target.candidate is not None and len(serving) == 1 and serving[0].tasks != tasks:
            kept = pb.JobAttributesUpdate(job_id=serving[0].job_id, attributes={TASKS: str(tasks)})
            await self._call("UpdateJobAttributes", kept, Empty.FromString)
        for one in in_order(wanted, target):
            capacity = pb.Capacity(min=one.least, max=one.most, desired=one.desired)
            update = pb.JobCapacityUpdate(job_id=one.job_id, capacity=capacity)
            await self._call("UpdateJobCapacity", update, Empty.FromString)

    async def weights(self, model_id: ModelId) -> Weights | None:
        """Shares of the tasks that are wanted now; production is the version with most of them."""
        jobs = [job for job in await self._jobs(model_id) if job.desired]
        total = sum(job.desired for job in jobs)
        if not total:
            return None
        control = [job for job in jobs if job.control]
        plain = sorted((job for job in jobs if not job.control), key=lambda job: (-job.desired, job.version))
        production = control[0].version if control else plain[0].version
        others = [job for job in plain if job.version != production]
        return Weights(
            production=production,
            candidate=others[0].version if others else None,
            candidate_weight=sum(job.desired for job in others) / total,
            control_weight=sum(job.desired for job in control) / total,
        )

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close(None)

    async def _jobs(self, model_id: ModelId) -> list[ServiceJob]:
        """All service jobs of a model that take tasks."""
        found, cursor = [], ""
        criteria = {"attributes": f"{MODEL}:{model_id}", "attributes.op": "and", "jobType": "service"}
        for _ in range(PAGES_MAX):
            page = pb.Page(page_size=PAGE_SIZE, cursor=cursor)
            query = pb.JobQuery(page=page, filtering_criteria=criteria)
            answer = await self._call("FindJobs", query, pb.JobQueryResult.FromString)
            found += [job for one in answer.items if (job := _read(one, model_id)) is not None]
            cursor = answer.pagination.cursor
            if not answer.pagination.has_more or not cursor:
                break
        # A cursor guarantees that every job comes, not that it comes once.
        once = {job.job_id: job for job in found}
        return sorted(once.values(), key=lambda job: (job.version, job.control, job.job_id))

    async def _call(self, method: str, request: Message, parse: Callable[[bytes], M]) -> M:
        call = self._channel.unary_unary(
            SERVICE + method, request_serializer=type(request).SerializeToString, response_deserializer=parse
        )
        try:
            answer: M = await call(request, timeout=self._timeout_s)
            return answer
        except grpc.aio.AioRpcError as error:
            said = f"{self._name} ({method}): {error.code().name} {error.details() or ''}".strip()[:300]
            if error.code() in TRY_AGAIN:
                raise ServingUnavailable(f"{self._name} ({method}) is {error.code().name.lower()}") from error
            raise ServingRefused(said) from error


def _read(job: pb.Job, model_id: ModelId) -> ServiceJob | None:
    attributes, capacity = job.job_descriptor.attributes, job.job_descriptor.service.capacity
    version = attributes.get(VERSION, "")
    if attributes.get(MODEL) != model_id or not version.isdecimal() or job.status.state != pb.JobStatus.ACCEPTED:
        return None
    tasks = attributes.get(TASKS, "")
    return ServiceJob(
        job_id=job.id,
        version=int(version),
        control=attributes.get(ARM) == CONTROL,
        least=capacity.min,
        most=capacity.max,
        desired=capacity.desired,
        tasks=int(tasks) if tasks.isdecimal() else 0,
    )


def tasks_to_split(jobs: list[ServiceJob]) -> int:
    """How many tasks there are in all: those of the one job that serves, or what was kept when the split began."""
    serving = [job for job in jobs if job.desired]
    if len(serving) == 1:
        return serving[0].desired
    kept = [job.tasks for job in serving if job.tasks]
    return max(kept) if kept else sum(job.desired for job in serving)


def resizes(jobs: list[ServiceJob], target: Target, tasks: int) -> list[Resize]:
    """What each job's capacity becomes; nothing for those that stay.

    The candidate gets `tasks` x weight, rounded, at least one if it is to have any and never all unless it is to have
    all; the control the same; production the rest; any other version none.

    Raises:
        ServingRefused: a version has no job, or there is nothing to split.
    """
    if target.production is None:
        raise ServingRefused(f"{target.model_id} has nothing in production: there is nothing to split")
    if target.shadow:
        raise ServingRefused("Titus splits capacity and copies no requests: set rollout.shadow to 0 for this model")
    production = _job_of(jobs, target, target.production.version)
    candidate = _job_of(jobs, target, target.candidate.version) if target.candidate is not None else None
    controls = [job for job in jobs if job.control and job.version == target.production.version][:1]
    if not tasks:
        raise ServingRefused(f"no job of {target.model_id} wants any task: scale production's up first")
    share = _share(tasks, target.candidate_weight) if candidate is not None else 0
    control = min(share, tasks - share) if controls and candidate is not None and target.control_weight else 0
    wanted = {job.job_id: 0 for job in jobs}
    wanted[production.job_id] = tasks - share - control
    if candidate is not None:
        wanted[candidate.job_id] = share
    for job in controls:
        wanted[job.job_id] = control
    floor = max(job.least for job in jobs) if candidate is None else 0
    ceiling = max(job.most for job in jobs)
    found = []
    for job in jobs:
        desired = wanted[job.job_id]
        serves_all = job is production and candidate is None
        least = min(max(job.least, floor), desired) if serves_all else min(job.least, desired)
        most = max(job.most, ceiling if serves_all else 0, desired)
        if (least, most, desired) != (job.least, job.most, job.desired):
            found.append(Resize(job_id=job.job_id, least=least, most=most, desired=desired, was=job.desired))
    return found


def in_order(wanted: list[Resize], target: Target) -> list[Resize]:
    """At the end of a canary what takes tasks away comes first, for the candidate may be doing harm; before that what
    adds some, so that a split broken off lacks no capacity."""
    ending = target.candidate is None
    return sorted(wanted, key=lambda one: ((one.desired < one.was) != ending, one.job_id))


def _job_of(jobs: list[ServiceJob], target: Target, version: int) -> ServiceJob:
    for job in jobs:
        if job.version == version and not job.control:
            return job
    raise ServingRefused(
        f"no Titus service job has the attributes {MODEL}={target.model_id} and {VERSION}={version}: deploy it first, "
        "with a desired capacity of 0"
    )


def _share(tasks: int, weight: float) -> int:
    if weight <= 0:
        return 0
    if weight >= 1:
        return tasks
    return min(max(1, round(tasks * weight)), max(1, tasks - 1))
