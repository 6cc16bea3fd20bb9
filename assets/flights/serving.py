"""The demo fleet's own serving system: it answers predictions and really splits the traffic.

    python -m assets.flights.serving --address 127.0.0.1:7435

It speaks the webhook contract (docs/serving.md), so that to the control plane it is one system among others:

    POST /weights            how a model is to be served           GET /weights?model_id=   how it is served
    GET  /metrics?model_id=  what candidate and control measured   POST /predict            answers for flights
    POST /harm               {"model_id", "version", "engagement": 0.1}: hurt a version, to see it rolled back
    GET  /                   everything at once, for people

With RUNWAY_SERVING_SECRET only signed requests may change weights. Everything is kept in one file: a restart forgets
nothing, so what it says stays cumulative.
"""

import argparse
import base64
import hashlib
import hmac
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import uvicorn
from runway_client import Runway, RunwayRpcError, connect
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assets.flights.fleet_server import Ask, FleetServer, HarmAsk, NotTaken, Served, Wish
from assets.flights.training import in_production

SECRET_VARIABLE = "RUNWAY_SERVING_SECRET"  # noqa: S105 - its name, not what it holds
DEFAULT_ADDRESS = "127.0.0.1:7435"
AGE_S_MAX = 300.0
"""A signed request older than this is a replayed one."""


def application(server: FleetServer, secret: str = "") -> Starlette:
    """The routes of the module's docstring."""

    async def answered(work: Callable[[], Any]) -> Response:
        try:
            return _json(await run_in_threadpool(work))
        except NotTaken as error:
            return _json({"error": str(error)}, error.status)
        except msgspec.MsgspecError as error:
            return _json({"error": str(error)}, 400)

    async def weights(request: Request) -> Response:
        body = await request.body()
        if secret and not _is_signed(secret, request.headers, body):
            return _json({"error": "the signature is missing or wrong"}, 401)
        if request.method == "GET":
            found = server.weights(request.query_params.get("model_id", ""))
            return _json(found) if found is not None else _json({"error": "nobody has said how to serve it"}, 404)
        return await answered(lambda: server.set_weights(msgspec.json.decode(body, type=Wish)))

    async def metrics(request: Request) -> Response:
        asked = request.query_params
        return await answered(lambda: server.metrics(asked.get("model_id", ""), asked.get("rollout_id", "")))

    async def predict(request: Request) -> Response:
        body = await request.body()
        return await answered(lambda: server.predict(msgspec.json.decode(body, type=Ask)))

    async def harm(request: Request) -> Response:
        body = await request.body()
        return await answered(lambda: {"harm": server.harm(msgspec.json.decode(body, type=HarmAsk))})

    async def everything(_: Request) -> Response:
        return await answered(server.everything)

    return Starlette(
        routes=[
            Route("/weights", weights, methods=["GET", "POST"]),
            Route("/metrics", metrics),
            Route("/predict", predict, methods=["POST"]),
            Route("/harm", harm, methods=["POST"]),
            Route("/", everything),
        ]
    )


def _json(told: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(told), status_code=status, media_type="application/json")


def _is_signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Standard Webhooks: HMAC-SHA256 of `id.timestamp.body`, not long ago."""
    message_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not at.isdecimal() or abs(time.time() - int(at)) > AGE_S_MAX:
        return False
    content = f"{message_id}.{at}.".encode() + body
    digest = hmac.new(secret.encode(), content, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(digest).decode()
    return hmac.compare_digest(expected, headers.get("webhook-signature", ""))


def registry_of(runway: Runway) -> Callable[[], Mapping[str, Served]]:
    """What the registry says is in production; what it last said while it is away."""
    known: dict[str, Served] = {}

    def look_up() -> Mapping[str, Served]:
        try:
            for model_id, number in in_production(runway).items():
                if model_id not in known or known[model_id].version != number:
                    version = runway.registry.get_version(model_id, version=number)
                    known[model_id] = Served(version=number, uri=version.artifact_uri, sha256=version.artifact_sha256)
        except RunwayRpcError as error:
            print(f"flights serving: the registry does not answer ({error})", file=sys.stderr, flush=True)
        return dict(known)

    return look_up


def main() -> int:
    """Exit code: 0 after a signal, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m assets.flights.serving", description="Serve the fleet's models.")
    parser.add_argument("--address", default=os.environ.get("RUNWAY_SERVING_ADDRESS") or DEFAULT_ADDRESS)
    arguments = parser.parse_args()
    host, colon, port = arguments.address.rpartition(":")
    if not colon or not port.isdecimal():
        parser.error(f"--address {arguments.address}: write host:port, for example {DEFAULT_ADDRESS}")
    with connect(actor="flights serving") as runway:
        server = FleetServer(registry_of(runway))
        uvicorn.run(
            application(server, os.environ.get(SECRET_VARIABLE, "")),
            host=host,
            port=int(port),
            log_level="warning",
            access_log=False,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
