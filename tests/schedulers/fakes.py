"""A scheduler in memory that behaves as the real ones do."""

from dataclasses import dataclass, field

from control_plane.app.schedulers import Job, Run, RunState, RunStatus, SchedulerRefused, SchedulerUnavailable, Started

ENDED = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED})


@dataclass(slots=True)
class FakeScheduler:
    """`mood`: down (surely nothing done), lost (done, nobody says so), refusing, locked (nobody gets in)."""

    address: str = "memory"
    mood: str = ""
    waits: str = ""
    """Why what is started lies there and waits."""
    jobs: dict[str, Job] = field(default_factory=dict)
    runs: dict[str, RunStatus] = field(default_factory=dict)
    starts: list[str] = field(default_factory=list)

    async def start(self, job: Job) -> Started:
        self._check()
        self.starts.append(job.attempt_id)
        if job.attempt_id not in self.runs:
            self.jobs[job.attempt_id] = job
            self.set(job.attempt_id, RunState.QUEUED if self.waits else RunState.RUNNING)
        if self.mood == "lost":
            raise SchedulerUnavailable("no answer")
        return Started(run=f"fake/{job.attempt_id}", note=self.waits)

    async def status(self, run: Run) -> RunStatus:
        self._check()
        return self.runs.get(run.attempt_id, RunStatus(state=RunState.MISSING))

    async def stop(self, run: Run) -> bool:
        self._check()
        found = self.runs.get(run.attempt_id)
        if found is None:
            return False
        if found.state not in ENDED:
            self.set(run.attempt_id, RunState.STOPPED)
        return True

    async def close(self) -> None:
        pass

    def set(self, attempt_id: str, state: RunState, failure: str = "") -> None:
        """Let a run be so."""
        self.runs[attempt_id] = RunStatus(
            state=state,
            run=f"fake/{attempt_id}",
            log_url=f"http://fake/{attempt_id}",
            failure=failure,
            note=self.waits,
        )

    def _check(self) -> None:
        if self.mood == "down":
            raise SchedulerUnavailable("nobody listens there", sure=True)
        if self.mood == "refusing":
            raise SchedulerRefused("there is no such workflow")
        if self.mood == "locked":
            raise SchedulerRefused("answered 401", whole=True)
