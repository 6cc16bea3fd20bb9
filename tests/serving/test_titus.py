"""Capacity split between Titus jobs: exact, never lost when a split is broken off, and the same on the wire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

import pytest
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.serving import titus_pb2 as pb
from control_plane.adapters.serving.titus import ServiceJob, TitusServing, resizes, tasks_to_split
from control_plane.app.serving import ServingRefused, ServingUnavailable
from tests.serving.servers import Titus
from tests.serving.worlds import M, a_target


def job(version: int, desired: int, *, control: bool = False, most: int = 1_000, tasks: int = 0) -> ServiceJob:
    name = f"v{version}{'-control' if control else ''}"
    return ServiceJob(job_id=name, version=version, control=control, least=0, most=most, desired=desired, tasks=tasks)


@given(st.integers(1, 2_000), st.floats(0.001, 0.5), st.booleans())
def test_every_task_goes_to_somebody(tasks: int, weight: float, control: bool) -> None:
    jobs = [job(1, tasks, most=5_000), job(2, 0, most=5_000)] + (
        [job(1, 0, control=True, most=5_000)] if control else []
    )
    desired = {one.job_id: one.desired for one in jobs}
    for one in resizes(jobs, a_target(1, 2, weight), tasks_to_split(jobs)):
        assert one.least <= one.desired <= one.most
        desired[one.job_id] = one.desired
    assert sum(desired.values()) == tasks
    assert all(count >= 0 for count in desired.values())
    assert desired["v2"] >= 1
    assert abs(desired["v2"] - tasks * weight) <= max(0.5, 1.0 - tasks * weight)
    if tasks > 1:
        assert desired["v1"] + desired.get("v1-control", 0) >= 1
    assert desired.get("v1-control", 0) <= desired["v2"]


@asynccontextmanager
async def served(titus: Titus) -> AsyncIterator[TitusServing]:
    server, port = await titus.serve()
    serving = TitusServing(f"127.0.0.1:{port}", "titus", timeout_s=5)
    try:
        yield serving
    finally:
        await serving.close()
        await server.stop(None)


def fleet() -> Titus:
    """Version 1 with 40 tasks between 20 and 60, version 2 deployed at none, beside another model's job."""
    titus = Titus()
    titus.add("one", 40, 60, 20, model=M, version=1)
    titus.add("two", 0, 100, 0, model=M, version=2)
    titus.add("other", 7, 10, 0, model="other", version=1)
    return titus


async def test_a_split_that_was_broken_off_is_finished_with_the_same_number_of_tasks() -> None:
    titus = fleet()
    async with served(titus) as serving:
        titus.fail_after = 1
        with pytest.raises(ServingUnavailable):
            await serving.set_weights(a_target(1, 2, 0.5))
        assert sum(titus.desired().values()) - 7 == 60, "the candidate has its tasks, production still all of its own"
        titus.fail_after = None
        await serving.set_weights(a_target(1, 2, 0.5))
        assert titus.desired() == {"one": 20, "two": 20, "other": 7}
        await serving.set_weights(a_target(2))
        assert titus.desired() == {"one": 0, "two": 40, "other": 7}


async def test_production_keeps_the_range_it_may_be_scaled_in() -> None:
    titus = fleet()
    async with served(titus) as serving:
        await serving.set_weights(a_target(1, 2, 0.2))
        one = titus.jobs["one"].job_descriptor.service.capacity
        assert (one.min, one.desired, one.max) == (20, 32, 60)
        await serving.set_weights(a_target(2))
        two = titus.jobs["two"].job_descriptor.service.capacity
        assert (two.min, two.desired, two.max) == (20, 40, 100)
        assert titus.jobs["one"].job_descriptor.service.capacity.min == 0


async def test_a_candidate_that_may_do_harm_goes_first() -> None:
    titus = fleet()
    async with served(titus) as serving:
        await serving.set_weights(a_target(1, 2, 0.2))
        titus.calls.clear()
        await serving.set_weights(a_target(1))
        assert titus.calls == ["two=0", "one=40"]


async def test_a_version_without_a_job_is_refused_with_what_to_deploy() -> None:
    async with served(fleet()) as serving:
        with pytest.raises(ServingRefused, match=f"runway.model={M} and runway.version=3"):
            await serving.set_weights(a_target(1, 3, 0.05))


async def test_jobs_that_are_being_killed_are_no_jobs() -> None:
    titus = fleet()
    titus.jobs["two"].status.state = pb.JobStatus.KILL_INITIATED
    async with served(titus) as serving:
        with pytest.raises(ServingRefused, match="deploy it"):
            await serving.set_weights(a_target(1, 2, 0.05))


def test_messages_are_on_the_wire_as_the_public_api_numbers_them() -> None:
    """Bytes by hand: field number and wire type, as Titus' published definitions have them."""
    update = pb.JobCapacityUpdate(job_id="j", capacity=pb.Capacity(min=1, max=3, desired=2))
    assert update.SerializeToString() == b"\x0a\x01j" + b"\x12\x06" + b"\x08\x01" + b"\x10\x03" + b"\x18\x02"
    query = pb.JobQuery(page=pb.Page(page_size=5, cursor="c"), filtering_criteria={"k": "v"})
    assert query.SerializeToString() == b"\x0a\x05" + b"\x10\x05" + b"\x1a\x01c" + b"\x12\x06" + b"\x0a\x01k\x12\x01v"
    attributes = pb.JobAttributesUpdate(job_id="j", attributes={"k": "v"})
    assert attributes.SerializeToString() == b"\x0a\x01j" + b"\x12\x06" + b"\x0a\x01k\x12\x01v"
    # A job with fields that we do not know: owner (1) in its descriptor, statusHistory (4) beside it.
    capacity = b"\x08\x01\x10\x03\x18\x02"
    service = b"\x0a" + bytes([len(capacity)]) + capacity
    descriptor = (
        b"\x0a\x03\x0a\x01o"
        + b"\x1a\x03app"
        + b"\x32\x06\x0a\x01k\x12\x01v"
        + b"\x4a"
        + bytes([len(service)])
        + service
    )
    status = b"\x08\x02"
    wire = b"\x0a\x01j" + b"\x12" + bytes([len(descriptor)]) + descriptor + b"\x1a" + bytes([len(status)]) + status
    found = pb.Job.FromString(wire + b"\x22\x02\x08\x00")
    assert (found.id, found.job_descriptor.application_name, found.status.state) == ("j", "app", pb.JobStatus.FINISHED)
    assert dict(found.job_descriptor.attributes) == {"k": "v"}
    assert found.job_descriptor.service.capacity == pb.Capacity(min=1, max=3, desired=2)
    # A page of a result: hasMore (2) and cursor (5) of its pagination (2).
    result = pb.JobQueryResult.FromString(b"\x12\x05" + b"\x10\x01" + b"\x2a\x01c")
    assert (result.pagination.has_more, result.pagination.cursor) == (True, "c")


def test_the_stubs_are_made_from_the_definitions(tmp_path: Path) -> None:
    root, folder = Path(__file__).resolve().parents[2], Path("control_plane/adapters/serving")
    well_known = resources.files("grpc_tools") / "_proto"
    command = ["protoc", f"-I{root}", f"-I{well_known}", f"--python_out={tmp_path}", str(folder / "titus.proto")]
    assert protoc.main(command) == 0
    assert (tmp_path / folder / "titus_pb2.py").read_text() == (root / folder / "titus_pb2.py").read_text()
