"""Serving systems under test behind the same few verbs: the fake, and each adapter before a server of its kind."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from control_plane.adapters.serving.gateway import GatewayServing, RouteNames
from control_plane.adapters.serving.http import HttpClient
from control_plane.adapters.serving.kserve import KServeServing, ServiceNames
from control_plane.adapters.serving.titus import TitusServing
from control_plane.adapters.serving.webhook import WebhookServing, signed
from control_plane.app.serving import ServedVersion, Serving, Target
from control_plane.core.ids import ModelId, RolloutId
from tests.serving.fakes import FakeServing
from tests.serving.servers import HttpServer, KubernetesApi, Reply, Request, Titus

M = ModelId("arrival_delay")
SECRET = "whsec_c2VjcmV0"
VERSIONS = (1, 2, 3)


def a_target(
    production: int = 1,
    candidate: int | None = None,
    weight: float = 0.0,
    *,
    revision: int = 1,
    epoch: int = 1,
    control: bool = True,
) -> Target:
    """A target of the model under test."""
    return Target(
        model_id=M,
        rollout_id=RolloutId("ro_000001"),
        production=_version(production),
        candidate=_version(candidate) if candidate is not None else None,
        candidate_weight=weight,
        control_weight=min(weight, 1 - weight) if control and candidate is not None else 0.0,
        epoch=epoch,
        revision=revision,
    )


def _version(number: int) -> ServedVersion:
    return ServedVersion(version=number, uri=f"s3://models/arrival_delay/{number}", sha256="a" * 64)


class World(Protocol):
    """A serving system where version 1 of the model serves, and 2 and 3 could."""

    serving: Serving
    controls: bool
    """It has a control arm of its own."""
    shadows: bool
    fences: bool
    """It refuses old news."""
    grain: float
    """The smallest share it can split by."""

    def down(self, down: bool) -> None:
        """Switch it off, or on again."""
        ...

    def forget(self) -> None:
        """As if the model had never been deployed."""
        ...

    def writes(self) -> int:
        """Changes so far."""
        ...


class FakeWorld:
    controls, shadows, fences, grain = True, True, True, 1e-9

    def __init__(self) -> None:
        self.fake = FakeServing()
        self.serving: Serving = self.fake

    def down(self, down: bool) -> None:
        self.fake.mood = "down" if down else ""

    def forget(self) -> None:
        self.fake.mood = "refusing"

    def writes(self) -> int:
        return len(self.fake.targets)


class WebhookWorld:
    """A receiver as docs/serving.md describes one: it checks signatures and drops old news."""

    controls, shadows, fences, grain = True, True, True, 1e-9

    def __init__(self) -> None:
        self.targets: dict[str, Target] = {}
        self._down = self._forgotten = False
        self.server = HttpServer(self._answer)
        self.serving: Serving = WebhookServing(f"{self.server.url}/weights?fleet=x", "hook", secret=SECRET, timeout_s=5)

    def _answer(self, request: Request) -> Reply:
        if self._down:
            return 503, "starting"
        at = int(request.headers["webhook-timestamp"])
        expected = signed(SECRET, request.headers["webhook-id"], at, request.body)
        if request.headers["webhook-signature"] != expected or request.query["fleet"] != "x":
            return 401, "wrong signature"
        if request.method == "GET":
            found = self.targets.get(request.query["model_id"])
            return (200, msgspec.json.encode(found)) if found is not None else (404, "unknown")
        if self._forgotten:
            return 422, "no such model"
        target = msgspec.json.decode(request.body, type=Target)
        before = self.targets.get(target.model_id)
        if before is not None and (before.epoch, before.revision) > (target.epoch, target.revision):
            return 409, "old news"
        self.targets[target.model_id] = target
        return 204, ""

    def down(self, down: bool) -> None:
        self._down = down

    def forget(self) -> None:
        self._forgotten = True

    def writes(self) -> int:
        return len(self.targets)


class TitusWorld:
    controls, shadows, fences, grain = True, False, False, 0.01

    def __init__(self) -> None:
        self.titus = Titus()
        for version in VERSIONS:
            self.titus.add(f"v{version}", 100 if version == 1 else 0, 150, model=M, version=version)
            self.titus.add(f"v{version}-control", 0, 100, model=M, version=version, control=True)
        self.serving: Serving

    def down(self, down: bool) -> None:
        self.titus.down = down

    def forget(self) -> None:
        self.titus.jobs.clear()

    def writes(self) -> int:
        return len(self.titus.calls)


class ClusterWorld:
    """Either kind of object in one API server."""

    shadows, fences = False, True

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.api = folder, KubernetesApi()
        token = folder / "token"
        token.write_text(self.api.token + "\n")
        http = HttpClient(self.api.server.url, kind, token_file=str(token), timeout_s=5)
        self.serving: Serving
        if kind == "gateway":
            self.controls, self.shadows, self.grain = True, True, 0.0001
            self.serving = GatewayServing(http, "ml", RouteNames(rule="predict"))
            self.path = "/apis/gateway.networking.k8s.io/v1/namespaces/ml/httproutes/arrival-delay"
            ref = {"name": "arrival-delay-v1", "port": 8080, "weight": 1, "filters": [{"type": "Mark"}]}
            rules = [
                {"name": "health", "backendRefs": [{"name": "probe", "port": 80}]},
                {"name": "predict", "timeouts": {"request": "2s"}, "backendRefs": [ref]},
            ]
            self.api.put(self.path, {"spec": {"hostnames": ["models"], "rules": rules}})
        else:
            self.controls, self.grain = False, 0.01
            self.serving = KServeServing(http, "ml", ServiceNames())
            self.path = "/apis/serving.kserve.io/v1beta1/namespaces/ml/inferenceservices/arrival-delay"
            model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/arrival_delay/1"}
            self.api.put(self.path, {"spec": {"predictor": {"minReplicas": 2, "model": model}}})

    def down(self, down: bool) -> None:
        self.api.down = down

    def forget(self) -> None:
        self.api.objects.clear()

    def writes(self) -> int:
        return sum(1 for request in self.api.server.requests if request.method == "PATCH")

    def spec(self) -> dict[str, object]:
        """The object's spec now."""
        found: dict[str, object] = json.loads(json.dumps(self.api.objects[self.path]["spec"]))
        return found


@asynccontextmanager
async def world_of(kind: str, folder: Path) -> AsyncIterator[World]:
    """A world, running."""
    match kind:
        case "fake":
            yield FakeWorld()
        case "webhook":
            webhook = WebhookWorld()
            with webhook.server:
                yield webhook
                await webhook.serving.close()
        case "titus":
            titus = TitusWorld()
            server, port = await titus.titus.serve()
            titus.serving = TitusServing(f"127.0.0.1:{port}", "titus", timeout_s=5)
            try:
                yield titus
            finally:
                await titus.serving.close()
                await server.stop(None)
        case _:
            cluster = ClusterWorld(folder, kind)
            with cluster.api.server:
                yield cluster
                await cluster.serving.close()
