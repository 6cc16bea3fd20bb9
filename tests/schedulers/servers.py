"""Real servers on free ports: Maestro as its public API describes it, and a wire that cannot be trusted."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np

Reply = tuple[int, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a server was asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(slots=True)
class Wire:
    """How a server treats what it hears: each request meets one of these moods.

    `lost`: not done, no answer; `mute`: done, no answer; `broken`: done, 500; `busy`: not done, 503; `hang`: done, and
    the answer comes too late; `` : done and answered.
    """

    moods: Callable[[], str] = field(default=lambda: "")
    hang: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def flaky(cls, seed: int, weights: dict[str, int]) -> Self:
        """Moods by chance."""
        chance, names = np.random.default_rng(seed), [name for name, count in weights.items() for _ in range(count)]
        lock = threading.Lock()

        def mood() -> str:
            with lock:
                return str(chance.choice(names))

        return cls(moods=mood)


class HttpServer:
    """Answers by a function, in threads, over a wire."""

    def __init__(self, answer: Callable[[Request], Reply], wire: Wire | None = None) -> None:
        self.wire = wire or Wire()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                parts = urlsplit(self.path)
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(
                    method=self.command,
                    path=parts.path,
                    query={name: values[0] for name, values in parse_qs(parts.query).items()},
                    headers={name.lower(): value for name, value in self.headers.items()},
                    body=json.loads(content) if content else {},
                )
                mood = outer.wire.moods()
                if mood == "lost":
                    self._cut()
                    return
                if mood == "busy":
                    self._send(503, {"detail": "busy"})
                    return
                reply = answer(request)
                if mood == "mute":
                    self._cut()
                    return
                if mood == "hang":
                    outer.wire.hang.wait(5)
                    self._cut()
                    return
                self._send(*((500, {"detail": "no idea"}) if mood == "broken" else reply))

            do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815

            def _cut(self) -> None:
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

            def _send(self, status: int, told: Any) -> None:
                body = json.dumps(told).encode()
                with suppress(BrokenPipeError, ConnectionResetError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Listen no more."""
        self.wire.hang.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Maestro:
    """The part of Maestro's REST API that runs workflows, written from its public controllers and models.

    A start whose `request_id` it knows answers DUPLICATED with instance 0, as the real one does, since it finds the
    duplicate before it counts instances up. Instances are listed the newest first.
    """

    def __init__(self, wire: Wire | None = None, before: int = 0) -> None:
        """`before`: so many instances ran before and are gone."""
        self.before = before
        self.workflows = {"runway_retrain": "PARALLEL"}
        self.instances: list[dict[str, Any]] = []
        self.down = False
        self._lock = threading.Lock()
        self.wire = wire or Wire()
        self._server = HttpServer(self._answer, self.wire)
        self.url = self._server.url

    def close(self) -> None:
        """Listen no more."""
        self._server.close()

    def of(self, attempt_id: str) -> list[dict[str, Any]]:
        """Instances that run an attempt."""
        return [one for one in self.instances if one["run_params"]["attempt_id"]["value"] == attempt_id]

    def _answer(self, request: Request) -> Reply:
        if self.down:
            return 503, {"message": "Service Unavailable"}
        if not request.headers.get("user"):
            return 400, {"status": "BAD_REQUEST", "message": "the user header is missing"}
        match request.method, request.path.removeprefix("/api/v3/workflows/").split("/"):
            case "POST", [workflow, "versions", _version, "actions", "start"]:
                return self._start(workflow, request.body)
            case "GET", [workflow, "instances"]:
                return self._list(workflow, request.query)
            case "GET", [workflow, "instances", number, "runs", _run]:
                found = self._instance(workflow, int(number))
                return (200, found) if found else (404, {"status": "NOT_FOUND", "message": "no such instance"})
            case "PUT", [workflow, "instances", number, "runs", _run, "actions", "stop"]:
                return self._stop(workflow, int(number))
            case _:
                return 404, {"status": "NOT_FOUND", "message": "no such path"}

    def _start(self, workflow: str, body: dict[str, Any]) -> Reply:
        strategy = self.workflows.get(workflow)
        if strategy is None:
            return 404, {"status": "NOT_FOUND", "message": f"Cannot find workflow [{workflow}]"}
        if body["initiator"]["type"].upper() != "MANUAL" or len(body["request_id"]) != 36:
            return 400, {"status": "BAD_REQUEST", "message": "invalid start request"}
        if any(not one["value"] or one["type"] != "STRING" for one in body["run_params"].values()):
            return 400, {"status": "BAD_REQUEST", "message": "invalid param"}
        with self._lock:
            told = {"workflow_id": workflow, "workflow_version_id": 1, "workflow_uuid": body["request_id"]}
            if any(one["workflow_uuid"] == body["request_id"] for one in self.instances):
                return 200, told | {"workflow_instance_id": 0, "workflow_run_id": 0, "status": "DUPLICATED"}
            number = self.before + 1 + sum(one["workflow_id"] == workflow for one in self.instances)
            alive = any(one["status"] in {"CREATED", "IN_PROGRESS"} for one in self.instances)
            stopped = strategy == "FIRST_ONLY" and alive
            named = told | {"workflow_instance_id": number, "workflow_run_id": 1}
            status = "STOPPED" if stopped else "CREATED"
            self.instances.append(named | {"run_params": body["run_params"], "status": status, "timeline": []})
            return 200, named | {"status": status}

    def _list(self, workflow: str, query: dict[str, str]) -> Reply:
        if ("first" in query) == ("last" in query) or not 1 <= int(query.get("first", query.get("last", 0))) <= 200:
            return 400, {"status": "BAD_REQUEST", "message": "Either first or last need to be provided"}
        newest_first = [one for one in reversed(self.instances) if one["workflow_id"] == workflow]
        below = int(query.get("cursor") or self.before + len(newest_first) + 1)
        page = [one for one in newest_first if one["workflow_instance_id"] < below][: int(query["first"])]
        ids = [one["workflow_instance_id"] for one in page]
        info = (
            {"start_cursor": str(ids[0]), "end_cursor": str(ids[-1]), "has_next_page": ids[-1] > self.before + 1}
            if ids
            else {}
        )
        return 200, {"page_info": {"has_next_page": False} | info, "elements": page, "total_count": len(newest_first)}

    def _stop(self, workflow: str, number: int) -> Reply:
        found = self._instance(workflow, number)
        if found is None:
            return 404, {"status": "NOT_FOUND", "message": "no such instance"}
        if found["status"] not in {"CREATED", "IN_PROGRESS", "PAUSED"}:
            return 409, {"status": "CONFLICT", "message": "it is in a terminal state"}
        found["status"] = "STOPPED"
        return 200, {"workflow_id": workflow, "workflow_instance_status": "STOPPED", "completed": True}

    def _instance(self, workflow: str, number: int) -> dict[str, Any] | None:
        mine = [one for one in self.instances if one["workflow_id"] == workflow]
        place = number - self.before
        return mine[place - 1] if 0 < place <= len(mine) else None
