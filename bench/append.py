"""[append_events_per_s] Committed events per second, 64 clients, synchronous commit.

64 clients update the descriptions of 500 models, each waiting for its durable answer before the next request;
every update is one event of about a kilobyte, decided, hash-chained, fenced and idempotent by its request id.
The value is measured at `Node.submit`. Peers in the same run, in turns, on the same Postgres: the same rows
written the naive way, 64 connections with one INSERT and one commit per event, no order, chain or fence; and
the same updates through gRPC from this process to a control plane in another, where both cores are also busy
with the wire.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np
import psycopg
import structlog
import uvloop
from google.protobuf import field_mask_pb2
from runway.v1 import common_pb2, registry_pb2

from bench.fleet import make_fleet
from bench.plane import CHANNEL_OPTIONS, load_fleet, running_plane
from bench.table import Row
from control_plane.adapters.clock import WallClock
from control_plane.adapters.postgres.embedded import EmbeddedPostgres
from control_plane.adapters.postgres.event_log import PostgresEventLog
from control_plane.adapters.postgres.leadership import PostgresLeadership
from control_plane.adapters.postgres.snapshots import PostgresSnapshotStore
from control_plane.app.machine import FleetMachine
from control_plane.app.node import Node, Submission
from control_plane.core.commands import Command, RegisterModel, UpdateModel
from control_plane.core.ids import ModelId, TeamId
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.state import State

IDS = ("append_events_per_s",)

CLIENTS = 64
MODELS = 500
ROUNDS = 5
ROUND_S = 3.0

FleetNode = Node[State, Command]
Update = grpc.aio.UnaryUnaryMultiCallable[registry_pb2.UpdateModelRequest, registry_pb2.UpdateModelResponse]

NAIVE_TABLE = (
    "CREATE TABLE naive (seq bigserial PRIMARY KEY, kind text, at timestamptz, actor text, reason text, "
    "request_id text, payload json)"
)
NAIVE_INSERT = (
    b"INSERT INTO naive (kind, at, actor, reason, request_id, payload) VALUES (%s, clock_timestamp(), %s, %s, %s, %s)"
)


def run() -> list[Row]:
    """Measure all three."""
    structlog.configure(processors=[], logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory(prefix="runway-bench-") as directory:
        postgres = EmbeddedPostgres(Path(directory) / "postgres")
        postgres.start()
        try:
            ours, naive = uvloop.run(_rounds(postgres.url()))
        finally:
            postgres.destroy()
    with running_plane() as plane:
        load_fleet(plane.address, make_fleet(models=MODELS, others=10, dependencies=10))
        over_grpc = uvloop.run(_grpc_rounds(plane.address, sorted(_model_ids())))
    return [
        Row(
            id="append_events_per_s",
            value=float(np.median(ours)),
            unit="events/s",
            peers={
                "one INSERT and commit per event": float(np.median(naive)),
                "ours through gRPC, client on the same cores": float(np.median(over_grpc)),
            },
            note=f"target >= 5,000; {CLIENTS} clients, synchronous commit, median of {ROUNDS} rounds",
        )
    ]


def _model_ids() -> list[ModelId]:
    fleet = make_fleet(models=MODELS, others=10, dependencies=10)
    return [ModelId(node_id.removeprefix("model:")) for node_id in fleet.models]


def _facts(model_id: ModelId, description: str) -> ModelFacts:
    return ModelFacts(
        model_id=model_id,
        owner="team_1@example.com",
        team=TeamId("team_1"),
        tier=2,
        task_type=TaskType.BINARY,
        description=description,
    )


async def _rounds(url: str) -> tuple[list[float], list[float]]:
    """Events per second of each round, ours and the naive way."""
    node: FleetNode = Node(
        machine=FleetMachine(),
        event_log=PostgresEventLog(url),
        snapshots=PostgresSnapshotStore(url),
        leadership=PostgresLeadership(url),
        clock=WallClock(),
    )
    await node.start()
    models = _model_ids()
    for model_id in models:
        await node.submit(Submission(command=RegisterModel(facts=_facts(model_id, "")), actor="bench", reason="bench"))
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(NAIVE_TABLE)
    payload = (await _payload(url))[:4096]
    ours, naive = [], []
    for number in range(ROUNDS):
        ours.append(await _our_round(node, models, number))
        naive.append(await _naive_round(url, payload))
    await node.stop()
    return ours, naive


async def _payload(url: str) -> str:
    """A payload as ours are, for the peer."""
    log = PostgresEventLog(url)
    payload = (await log.read(0, 1))[0].payload
    await log.close()
    return payload


async def _our_round(node: FleetNode, models: list[ModelId], number: int) -> float:
    begun, before = time.perf_counter(), node.counters.events

    async def client(client_number: int) -> None:
        turn = 0
        while time.perf_counter() - begun < ROUND_S:
            turn += 1
            request_id = f"{number}-{client_number}-{turn}"
            facts = _facts(models[(client_number + turn * CLIENTS) % MODELS], request_id)
            command = UpdateModel(model_id=facts.model_id, facts=facts)
            await node.submit(Submission(command=command, request_id=request_id, actor="bench", reason="bench"))

    await asyncio.gather(*(client(client_number) for client_number in range(CLIENTS)))
    return (node.counters.events - before) / (time.perf_counter() - begun)


async def _naive_round(url: str, payload: str) -> float:
    connections = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(CLIENTS)]
    begun, written = time.perf_counter(), 0

    async def client(client_number: int) -> None:
        nonlocal written
        while time.perf_counter() - begun < ROUND_S:
            values = ("ModelUpdated", "bench", "bench", f"{client_number}-{written}", payload)
            await connections[client_number].execute(NAIVE_INSERT, values, prepare=True)
            written += 1

    await asyncio.gather(*(client(client_number) for client_number in range(CLIENTS)))
    elapsed_s = time.perf_counter() - begun
    for connection in connections:
        await connection.close()
    return written / elapsed_s


async def _grpc_rounds(address: str, models: list[ModelId]) -> list[float]:
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        update = channel.unary_unary(
            "/runway.v1.RegistryService/UpdateModel",
            request_serializer=registry_pb2.UpdateModelRequest.SerializeToString,
            response_deserializer=registry_pb2.UpdateModelResponse.FromString,
        )
        return [await _grpc_round(update, models, number) for number in range(ROUNDS)]


async def _grpc_round(update: Update, models: list[ModelId], number: int) -> float:
    begun, written = time.perf_counter(), 0
    mask = field_mask_pb2.FieldMask(paths=["description"])

    async def client(client_number: int) -> None:
        nonlocal written
        turn = 0
        while time.perf_counter() - begun < ROUND_S:
            turn += 1
            request_id = f"{number}-{client_number}-{turn}"
            model_id = models[(client_number + turn * CLIENTS) % MODELS]
            await update(
                registry_pb2.UpdateModelRequest(
                    mutation=common_pb2.Mutation(request_id=request_id, actor="bench", reason="bench"),
                    model=registry_pb2.Model(model_id=model_id, description=request_id),
                    update_mask=mask,
                ),
                timeout=30,
            )
            written += 1

    await asyncio.gather(*(client(client_number) for client_number in range(CLIENTS)))
    return written / (time.perf_counter() - begun)
