"""Listens for OpenLineage events over HTTP, beside gRPC and on the same loop.

Drain, in order: health and new requests are told 503, requests under way are answered or run out of time, then the
port closes.
"""

import asyncio
import contextlib
import socket
from collections.abc import Generator, Sequence

import structlog
import uvicorn
from starlette.routing import Route

from control_plane.api.openlineage import limits
from control_plane.api.openlineage.endpoint import Endpoint, LineagePlane
from control_plane.telemetry import Metrics

log = structlog.get_logger()


class _Uvicorn(uvicorn.Server):
    """Signals belong to whoever started the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them alone."""
        yield


class LineageServer:
    """Listens on `address`; `port` is known after `start`. With an empty address it does nothing."""

    def __init__(
        self, *, plane: LineagePlane, metrics: Metrics, address: str, drain_s: float, more: Sequence[Route] = ()
    ) -> None:
        """`more` are further addresses that are served here."""
        self._address = address
        self._endpoint = Endpoint(plane, metrics, more)
        self._server = _Uvicorn(
            uvicorn.Config(
                self._endpoint.application,
                # h11, because it bounds what it takes before a request is whole.
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=limits.BACKLOG,
                timeout_keep_alive=limits.IDLE_S_MAX,
                timeout_graceful_shutdown=max(1, round(drain_s)),
                h11_max_incomplete_event_size=limits.HEADER_BYTES_MAX,
            )
        )
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        if not self._address:
            return
        host, _, port = self._address.rpartition(":")
        bound = _bound(host.strip("[]"), int(port), self._address)
        self.port = bound.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[bound]), name="openlineage server")
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0)
        log.info("lineage.serving", address=f"{host}:{self.port}")

    async def stop(self) -> None:
        """Drain, then stop. Safe to call twice."""
        self._endpoint.stopping = True
        if self._task is None:
            return
        self._server.should_exit = True
        await self._task
        self._task = None
        log.info("lineage.stopped")


def _bound(host: str, port: int, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, because asyncio switches Nagle's algorithm off only for what is: answers would wait 40 ms otherwise.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(
            f"cannot listen for lineage on {address}: {error.strerror}. Stop what holds the port, set "
            "RUNWAY_LINEAGE_ADDRESS, or set it empty to do without"
        ) from error
    bound.setblocking(False)
    return bound
