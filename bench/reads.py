"""[read_vs_echo_ratio] GetModel at concurrency 16 against a bare grpc.aio echo server.

One grpc.aio client on uvloop keeps 16 calls in flight on one channel, on each server in turn, several rounds. The echo
answers with as many bytes as a GetModel reply has, and the client parses neither, so that both differ in the server
only. The value is time per read over time per echo; CPU seconds of the server processes are given too, because with
two cores the client is as busy as the server and hides part of the difference.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import numpy as np
import psutil
import uvloop
from runway.v1 import registry_pb2, registry_pb2_grpc

from bench.echo import METHOD
from bench.fleet import make_fleet
from bench.plane import load_fleet, running_plane
from bench.table import Row

IDS = ("read_vs_echo_ratio",)

CONCURRENCY = 16
CALLS = 10_000
ROUNDS = 7
GET_MODEL = "/runway.v1.RegistryService/GetModel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is called, where, with which requests in turn, and the process that answers."""

    address: str
    method: str
    requests: list[bytes]
    pid: int


def run() -> list[Row]:
    """Measure both, in turns."""
    fleet = make_fleet(models=500, others=500, dependencies=5_000)
    with running_plane() as plane:
        load_fleet(plane.address, fleet)
        with plane.channel() as channel:
            ids = [node_id.removeprefix("model:") for node_id in fleet.models]
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            reply = stub.GetModel(registry_pb2.GetModelRequest(model_id=ids[0]), timeout=10)
        requests = [registry_pb2.GetModelRequest(model_id=model_id).SerializeToString() for model_id in ids]
        with _echo(reply.ByteSize()) as (echo_address, echo_pid):
            reads = Target(address=plane.address, method=GET_MODEL, requests=requests, pid=plane.pid)
            echoes = Target(address=echo_address, method=METHOD, requests=requests, pid=echo_pid)
            rounds = uvloop.run(_rounds(reads, echoes))
    read_us, echo_us, read_cpu_us, echo_cpu_us = np.median(np.array(rounds) * 1e6 / CALLS, axis=0).tolist()
    ratio = float(np.median([read / echo for read, echo, _, _ in rounds]))
    return [
        Row(
            id="read_vs_echo_ratio",
            value=ratio,
            unit="x",
            peers={
                "echo reads/s": 1e6 / echo_us,
                "GetModel reads/s": 1e6 / read_us,
                "echo server CPU us/call": echo_cpu_us,
                "GetModel server CPU us/call": read_cpu_us,
            },
            note=f"target <= 1.3; {CONCURRENCY} in flight, {len(ids)} models, replies of {reply.ByteSize()} bytes",
        )
    ]


@contextmanager
def _echo(reply_bytes: int) -> Iterator[tuple[str, int]]:
    """The echo server in a process of its own: address and process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.echo", str(reply_bytes)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None  # it was asked for
        yield f"127.0.0.1:{int(process.stdout.readline())}", process.pid
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def _rounds(reads: Target, echoes: Target) -> list[tuple[float, float, float, float]]:
    """Per round: seconds of reads and of echoes, CPU seconds of the two servers."""
    rounds = []
    async with grpc.aio.insecure_channel(reads.address) as ours, grpc.aio.insecure_channel(echoes.address) as theirs:
        await _drive(ours, reads)
        await _drive(theirs, echoes)
        for _ in range(ROUNDS):
            read_s, read_cpu_s = await _drive(ours, reads)
            echo_s, echo_cpu_s = await _drive(theirs, echoes)
            rounds.append((read_s, echo_s, read_cpu_s, echo_cpu_s))
    return rounds


async def _drive(channel: grpc.aio.Channel, target: Target) -> tuple[float, float]:
    """Seconds and the server's CPU seconds for `CALLS` calls, `CONCURRENCY` in flight."""
    call = channel.unary_unary(target.method, request_serializer=bytes, response_deserializer=bytes)
    left = iter(range(CALLS))

    async def caller() -> None:
        for number in left:
            await call(target.requests[number % len(target.requests)], timeout=30)

    server = psutil.Process(target.pid)
    cpu_before = sum(server.cpu_times()[:2])
    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))
    return time.perf_counter() - begun, sum(server.cpu_times()[:2]) - cpu_before
