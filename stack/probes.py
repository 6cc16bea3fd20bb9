"""How to know that something answers. A probe returns False for "not yet" and never raises for it."""

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable

import grpc
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stack.family import port_holder
from stack.settings import Address, StackError

PROBE_TIMEOUT_S = 2.0
DATABASE_TIMEOUT_S = 10
Probe = Callable[[], Awaitable[bool]]


def grpc_serving(target: str, service: str = "") -> Probe:
    """Whether a gRPC server reports SERVING for `service`; `target` is host:port or unix:/path."""

    async def probe() -> bool:
        async with grpc.aio.insecure_channel(target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=service)
            try:
                reply = await health.Check(request, timeout=PROBE_TIMEOUT_S)
            except grpc.aio.AioRpcError:
                return False
            return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    return probe


def http_ok(url: str) -> Probe:
    """Whether an address answers with 200."""

    def ask() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S) as reply:
                return bool(reply.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    async def probe() -> bool:
        return await asyncio.to_thread(ask)

    return probe


def dagster_daemons_healthy(web_url: str) -> Probe:
    """Whether every daemon that Dagster requires has given a heartbeat lately."""
    query = json.dumps({"query": "{instance{daemonHealth{allDaemonStatuses{required healthy}}}}"}).encode()

    def ask() -> bool:
        request = urllib.request.Request(f"{web_url}/graphql", data=query, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PROBE_TIMEOUT_S) as reply:
                answer = json.load(reply)
            daemons = answer["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
        except (OSError, urllib.error.URLError, ValueError, KeyError, TypeError):
            return False
        return all(daemon["healthy"] for daemon in daemons if daemon["required"])

    async def probe() -> bool:
        return await asyncio.to_thread(ask)

    return probe


def require_free(address: Address, what: str, variable: str) -> None:
    """Check that we can listen on an address.

    Raises:
        StackError: somebody else does, or it is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((address.host, address.port))
        except OSError as error:
            taken = error.errno in {98, 48}
            why = f"taken by {port_holder(address.port)}" if taken else f"not usable ({error.strerror or error})"
            other = Address(address.host, address.port + 100 if address.port < 65_000 else address.port - 100)
            raise StackError(
                f"{address}, where {what} should listen, is {why}. Stop that, or choose another address: "
                f"{variable}={other} make up"
            ) from error


def require_database(url: str) -> None:
    """Check that a given Postgres answers, and make room for Dagster's tables beside ours.

    Raises:
        StackError: it does not, with what it said.
    """
    try:
        with psycopg.connect(url, connect_timeout=DATABASE_TIMEOUT_S, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA IF NOT EXISTS dagster")
    except psycopg.Error as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StackError(
            f"The Postgres of RUNWAY_DATABASE_URL cannot be used: {said}. Start it or correct the address; without "
            "RUNWAY_DATABASE_URL, `make up` brings a Postgres of its own."
        ) from error
