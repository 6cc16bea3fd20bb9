"""Real servers on free ports that behave as what they stand for: HTTP with whatever answers a test wants, the part of
the Kubernetes API server that serving uses, and Titus' job service."""

import copy
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import grpc
from google.protobuf.empty_pb2 import Empty

from control_plane.adapters.serving import titus_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a server was asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


Reply = tuple[int, Any]
"""Status and what becomes JSON; text and bytes stay as they are."""


class HttpServer:
    """Answers by a function, in threads; all requests are kept."""

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self.requests: list[Request] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                parts = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                request = Request(
                    method=self.command,
                    path=parts.path,
                    query={name: values[0] for name, values in parse_qs(parts.query).items()},
                    headers={name.lower(): value for name, value in self.headers.items()},
                    body=self.rfile.read(length),
                )
                outer.requests.append(request)
                status, told = answer(request)
                body = (
                    told if isinstance(told, bytes) else (told if isinstance(told, str) else json.dumps(told)).encode()
                )
                with suppress(BrokenPipeError, ConnectionResetError):  # who asked has given up
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            do_GET = do_POST = do_PATCH = _answer  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
                """Silence."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


Object = dict[str, Any]


class KubernetesApi:
    """Objects with a resourceVersion that every change moves on. Knows what is valid of the two kinds it keeps."""

    def __init__(self, token: str = "let-me-in") -> None:
        self.token = token
        self.objects: dict[str, Object] = {}
        self.down = False
        self.meddle: Callable[[Object], None] | None = None
        """Somebody else who changes an object between our read and our write, once."""
        self._version = 100
        self.server = HttpServer(self._answer)

    def put(self, path: str, found: Object) -> None:
        """Create an object."""
        self._version += 1
        found = copy.deepcopy(found)
        found.setdefault("metadata", {}).update(name=path.rsplit("/", 1)[-1], resourceVersion=str(self._version))
        self.objects[path] = found

    def _answer(self, request: Request) -> Reply:
        if self.down:
            return 503, _status(503, "etcdserver: leader changed")
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return 401, _status(401, "Unauthorized")
        found = self.objects.get(request.path)
        if found is None:
            return 404, _status(404, f"{request.path} not found")
        if request.method == "GET":
            return 200, found
        if request.headers.get("content-type") != "application/merge-patch+json":
            return 415, _status(415, "the body of the request was in an unknown format")
        if self.meddle is not None:
            meddle, self.meddle = self.meddle, None
            meddle(found)
            self.put(request.path, found)
            found = self.objects[request.path]
        patch = json.loads(request.body)
        stated = patch.get("metadata", {}).get("resourceVersion")
        if stated is not None and stated != found["metadata"]["resourceVersion"]:
            return 409, _status(409, "the object has been modified; please apply your changes to the latest version")
        after = merged(copy.deepcopy(found), patch)
        fault = _fault(after)
        if fault:
            return 422, _status(422, fault)
        self.put(request.path, after)
        return 200, self.objects[request.path]


def merged(into: Any, patch: Any) -> Any:
    """A JSON merge patch: objects are merged, null removes, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    base = into if isinstance(into, dict) else {}
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = merged(base.get(key), value)
    return base


def _status(code: int, message: str) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}


def _fault(found: Object) -> str:
    """What a route or an InferenceService may not say."""
    for rule in found.get("spec", {}).get("rules", []):
        refs = rule.get("backendRefs", [])
        if len(refs) > 16:
            return "spec.rules[0].backendRefs: Too many: must have at most 16 items"
        for ref in refs:
            if not isinstance(ref.get("weight", 1), int) or not 0 <= ref.get("weight", 1) <= 1_000_000:
                return f"spec.rules[0].backendRefs.weight: Invalid value: {ref.get('weight')}"
            if "port" not in ref:
                return "spec.rules[0].backendRefs.port: Must have port for Service reference"
    percent = found.get("spec", {}).get("predictor", {}).get("canaryTrafficPercent")
    if percent is not None and (not isinstance(percent, int) or not 0 <= percent <= 100):
        return f"spec.predictor.canaryTrafficPercent: Invalid value: {percent}"
    return ""


@dataclass(slots=True)
class Titus:
    """Titus' job service as its public API describes it: pages by cursor, criteria, min <= desired <= max."""

    jobs: dict[str, pb.Job] = field(default_factory=dict)
    down: bool = False
    page_size_max: int = 2
    calls: list[str] = field(default_factory=list)
    fail_after: int | None = None
    """Calls that change something which still work; None: all."""

    def add(
        self,
        job_id: str,
        desired: int,
        most: int = 100,
        least: int = 0,
        *,
        model: str,
        version: int,
        control: bool = False,
    ) -> None:
        """A service job."""
        self.jobs[job_id] = pb.Job(
            id=job_id,
            job_descriptor=pb.JobDescriptor(
                application_name="models",
                attributes={
                    "runway.model": model,
                    "runway.version": str(version),
                    **({"runway.arm": "control"} if control else {}),
                },
                service=pb.ServiceJobSpec(capacity=pb.Capacity(min=least, max=most, desired=desired)),
            ),
            status=pb.JobStatus(state=pb.JobStatus.ACCEPTED),
        )

    def desired(self) -> dict[str, int]:
        """Tasks that each job wants."""
        return {name: job.job_descriptor.service.capacity.desired for name, job in self.jobs.items()}

    async def find(self, request: pb.JobQuery, context: "Context") -> pb.JobQueryResult:
        await self._check(context)
        wanted = dict(
            one.split(":", 1) for one in request.filtering_criteria.get("attributes", "").split(",") if ":" in one
        )
        found = [
            job
            for job in self.jobs.values()
            if all(job.job_descriptor.attributes.get(name) == value for name, value in wanted.items())
        ]
        begin = int(request.page.cursor or 0)
        size = min(request.page.page_size, self.page_size_max)
        page, more = found[begin : begin + size], begin + size < len(found)
        return pb.JobQueryResult(
            items=page, pagination=pb.Pagination(has_more=more, cursor=str(begin + size) if more else "")
        )

    async def resize(self, request: pb.JobCapacityUpdate, context: "Context") -> Empty:
        await self._check(context)
        await self._may_change(context)
        capacity = request.capacity
        if not capacity.min <= capacity.desired <= capacity.max:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "min <= desired <= max does not hold")
        self.calls.append(f"{request.job_id}={capacity.desired}")
        self.jobs[request.job_id].job_descriptor.service.capacity.CopyFrom(capacity)
        return Empty()

    async def annotate(self, request: pb.JobAttributesUpdate, context: "Context") -> Empty:
        await self._check(context)
        for name, value in request.attributes.items():
            self.jobs[request.job_id].job_descriptor.attributes[name] = value
        return Empty()

    async def _check(self, context: "Context") -> None:
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no leader")

    async def _may_change(self, context: "Context") -> None:
        if self.fail_after is not None:
            if self.fail_after == 0:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "lost its leader")
            self.fail_after -= 1

    async def serve(self) -> tuple[grpc.aio.Server, int]:
        """Listen on a free port under the public API's names."""
        server = grpc.aio.server()
        handlers = {
            "FindJobs": _handler(self.find, pb.JobQuery.FromString),
            "UpdateJobCapacity": _handler(self.resize, pb.JobCapacityUpdate.FromString),
            "UpdateJobAttributes": _handler(self.annotate, pb.JobAttributesUpdate.FromString),
        }
        generic = grpc.method_handlers_generic_handler("com.netflix.titus.JobManagementService", handlers)
        server.add_generic_rpc_handlers((generic,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port


Context = grpc.aio.ServicerContext[Any, Any]


def _handler(method: Callable[..., Any], parse: Callable[[bytes], Any]) -> "grpc.RpcMethodHandler[Any, Any]":
    return grpc.unary_unary_rpc_method_handler(
        method, request_deserializer=parse, response_serializer=lambda one: one.SerializeToString()
    )
