"""A listening endpoint for tests, and a client as plain as can be: bytes out, status and JSON back."""

import asyncio
import http.client
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from runway.v1 import common_pb2

from control_plane.api.openlineage.server import LineageServer
from control_plane.api.plane import Outcome
from control_plane.core.commands import ReportLineage, Result
from control_plane.core.graph.lineage_facts import LineageRun
from control_plane.core.state import State
from control_plane.telemetry import Metrics

Event = dict[str, Any]

WHEN = "2026-03-01T12:00:00Z"


@dataclass
class KeptPlane:
    """A plane that keeps what it is told; `refuse` is raised instead, as often as it is there."""

    runs: list[LineageRun] = field(default_factory=list)
    mutations: list[common_pb2.Mutation] = field(default_factory=list)
    refuse: list[Exception] = field(default_factory=list)
    gate: asyncio.Event | None = None
    releases: int = 0
    waiting: int = 0

    async def submit(self, command: ReportLineage, mutation: common_pb2.Mutation) -> Outcome:
        """Keep it."""
        self.waiting += 1
        if self.gate is not None:
            await self.gate.wait()
        self.waiting -= 1
        if self.refuse:
            raise self.refuse.pop(0)
        self.runs.extend(command.runs)
        self.mutations.append(mutation)
        result = Result(changed=len(command.runs))
        return Outcome(state=State(), result=result, revision=len(self.mutations))

    async def release(self) -> None:
        """Count."""
        self.releases += 1


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def violations(self) -> dict[str, str]:
        """Rule by field."""
        return {found["field"]: found["rule"] for found in self.body["violations"]}


class Sender:
    """Sends to one endpoint; each request over a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        """For clients that want one."""
        return f"http://127.0.0.1:{self.port}"

    async def send(
        self, body: Any, *, path: str = "/api/v1/lineage", method: str = "POST", headers: dict[str, str] | None = None
    ) -> Answer:
        """Send bytes as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await asyncio.to_thread(
            self._send, method, path, raw, {"Content-Type": "application/json"} | (headers or {})
        )

    async def batch(self, body: Any, **headers: str) -> Answer:
        """Send a batch."""
        return await self.send(body, path="/api/v1/lineage/batch", headers=headers)

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read()
            told = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, told, json.loads(text) if text else None)
        finally:
            connection.close()


@asynccontextmanager
async def listening(plane: KeptPlane) -> AsyncIterator[Sender]:
    """An endpoint on a port of its own, in front of this plane."""
    server = LineageServer(plane=plane, metrics=Metrics(), address="127.0.0.1:0", drain_s=5.0)
    await server.start()
    try:
        yield Sender(server.port)
    finally:
        await server.stop()


def dataset(name: str, namespace: str = "postgres://db:5432", **facets: Any) -> Event:
    """A dataset; facets without the envelope that nobody reads."""
    return {"namespace": namespace, "name": name, "facets": facets}


def run_event(
    state: str | None = "COMPLETE",
    inputs: list[Any] | None = None,
    outputs: list[Event] | None = None,
    *,
    run_id: str = "01a20689-8a8c-7c83-9f2c-3c3b09b3086c",
    job: str = "train",
    **changes: Any,
) -> Event:
    """A RunEvent."""
    event: Event = {
        "eventTime": WHEN,
        "producer": "https://example.com/test",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": run_id, "facets": {}},
        "job": {"namespace": "shop", "name": job, "facets": {}},
        "inputs": inputs or [],
        "outputs": outputs or [],
    }
    return event | ({} if state is None else {"eventType": state}) | changes
