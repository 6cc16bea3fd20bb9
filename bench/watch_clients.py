"""Clients that want to hear of every event, three ways; each notes when it knew how much.

`python -m bench.watch_clients WAY WHERE COUNT FILE` with WAY one of watch, poll, listen. Prints `ready`, then goes on
until its input ends; then writes (client, revision, monotonic nanoseconds) of all arrivals to FILE. Messages are not
parsed on arrival: the clients share the machine with what is measured.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psycopg
import uvloop
from runway.v1 import operations_pb2

POLL_S = 0.1
"""Between two looks of a client that polls; the first looks are spread over this."""

TAIL_BYTES = 64
"""The progress of a batch is at its end and shorter than this."""

PROGRESS_KEY = operations_pb2.WatchResponse.PROGRESS_FIELD_NUMBER << 3 | 2

Arrival = tuple[int, bytes | int, int]

# Each client on a connection of its own, as clients of many machines are.
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


async def watch(number: int, address: str, arrivals: list[Arrival], ready: asyncio.Event) -> None:
    """The change stream."""
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        call = channel.unary_stream(
            "/runway.v1.OperationsService/Watch",
            request_serializer=operations_pb2.WatchRequest.SerializeToString,
            response_deserializer=bytes,
        )
        status = await operations_status(channel)
        async for data in call(operations_pb2.WatchRequest(after_revision=status)):
            arrivals.append((number, data[-TAIL_BYTES:], time.monotonic_ns()))
            ready.set()


async def poll(number: int, address: str, arrivals: list[Arrival], ready: asyncio.Event) -> None:
    """The audit log, again and again."""
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        ask = channel.unary_unary(
            "/runway.v1.OperationsService/ListEvents",
            request_serializer=operations_pb2.ListEventsRequest.SerializeToString,
            response_deserializer=operations_pb2.ListEventsResponse.FromString,
        )
        after = await operations_status(channel)
        ready.set()
        await asyncio.sleep(number % 100 / 100 * POLL_S)
        while True:
            reply = await ask(operations_pb2.ListEventsRequest(after_revision=after, events_max=1_000), timeout=60)
            if reply.scanned_revision > after:
                after = reply.scanned_revision
                arrivals.append((number, after, time.monotonic_ns()))
            if after == reply.revision:
                await asyncio.sleep(POLL_S)


async def listen(number: int, url: str, arrivals: list[Arrival], ready: asyncio.Event) -> None:
    """Postgres: NOTIFY says that there is something, SELECT gets it."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("LISTEN bench_event")
        after = 0
        ready.set()
        while True:
            async for _ in connection.notifies(timeout=POLL_S, stop_after=1):
                pass
            rows = await (
                await connection.execute(
                    "SELECT seq, payload FROM bench_event WHERE seq > %s ORDER BY seq", (after,), prepare=True
                )
            ).fetchall()
            if rows:
                after = rows[-1][0]
                arrivals.append((number, after, time.monotonic_ns()))


async def operations_status(channel: grpc.aio.Channel) -> int:
    """The newest revision."""
    ask = channel.unary_unary(
        "/runway.v1.OperationsService/GetStatus",
        request_serializer=operations_pb2.GetStatusRequest.SerializeToString,
        response_deserializer=operations_pb2.GetStatusResponse.FromString,
    )
    return int((await ask(operations_pb2.GetStatusRequest())).revision)


def revision_in(tail: bytes) -> int:
    """The revision of the progress at the end of an encoded response."""
    for length in range(2, min(TAIL_BYTES, len(tail)) - 1):
        if tail[-length - 2] == PROGRESS_KEY and tail[-length - 1] == length:
            return int(operations_pb2.WatchResponse.FromString(tail[-length - 2 :]).progress.revision)
    raise ValueError("a response without progress")


async def main(way: str, where: str, count: int, file: Path) -> None:
    """All clients, until the input ends."""
    arrivals: list[Arrival] = []
    ready = [asyncio.Event() for _ in range(count)]
    client = {"watch": watch, "poll": poll, "listen": listen}[way]
    tasks = [asyncio.create_task(client(number, where, arrivals, ready[number])) for number in range(count)]
    begun = asyncio.ensure_future(asyncio.gather(*(each.wait() for each in ready)))
    waited: set[asyncio.Future[Any]] = {begun, *tasks}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    failed = [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if failed:
        raise RuntimeError(f"{len(failed)} clients ended early: {failed[0]!r}")
    known = [(number, got if isinstance(got, int) else revision_in(got), at_ns) for number, got, at_ns in arrivals]
    np.save(file, np.array(known, dtype=np.int64).reshape(-1, 3))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
