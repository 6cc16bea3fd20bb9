"""[list_models_p99_ms] First pages of ListModels at 5,000 models, through gRPC.

One client, one page of 100 whole models at a time, over questions people ask: everything, one team, a tier by another
order, a tag, words. From the call to the parsed answer. Postgres answers the same questions from a table with an index
for each of them, the models as the same encoded messages, with the count of all that match, as Runway gives it. Every
answer of both is compared before any figure is reported. Runway is asked twice: at rest, and with another model changed
before each question, so that nothing remembered is of use.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import psycopg
from runway.v1 import registry_pb2, registry_pb2_grpc
from runway_client import connect, messages

from bench.fleet import make_fleet
from bench.plane import load_fleet, running_plane
from bench.table import Row

IDS = ("list_models_p99_ms",)

MODELS = 5_000
QUESTIONS = 1_000
CHANGED_QUESTIONS = 300
ROUNDS = 3
"""The median of three p99s: one hiccup of the machine is not our p99."""
PAGE = 100
LANGUAGES = ("churn", "fraud", "ranking", "demand", "pricing", "delay", "credit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The same question to both."""

    request: registry_pb2.ListModelsRequest
    where: str = "true"
    order: str = "model_id"
    values: tuple[object, ...] = ()


def questions() -> list[Question]:
    """What people ask, in turns."""
    asked = [Question(request=registry_pb2.ListModelsRequest())]
    for number in range(4):
        team = f"team_{number * 3}"
        asked.append(Question(request=registry_pb2.ListModelsRequest(teams=[team]), where="team = %s", values=(team,)))
        asked.append(
            Question(
                request=registry_pb2.ListModelsRequest(
                    tiers=[messages.Tier.ValueType(1 + number)], order_by="updated_at desc"
                ),
                where="tier = %s",
                order="updated_at DESC, model_id",
                values=(1 + number,),
            )
        )
        word = LANGUAGES[number]
        asked.append(
            Question(
                request=registry_pb2.ListModelsRequest(query=word[:4]),
                where="to_tsvector('simple', words) @@ to_tsquery('simple', %s)",
                values=(f"{word[:4]}:*",),
            )
        )
    return asked


def run() -> list[Row]:
    """Measure both on one fleet."""
    fleet = make_fleet(models=MODELS, others=1_000, dependencies=10_000)
    asked = questions()
    with running_plane() as plane, plane.channel() as channel:
        load_fleet(plane.address, fleet)
        with connect(plane.address) as runway:
            models = _described(runway.registry.update_model, fleet.models)
            stub = registry_pb2_grpc.RegistryServiceStub(channel)

            def ask(number: int) -> registry_pb2.ListModelsResponse:
                return stub.ListModels(asked[number % len(asked)].request, timeout=30)

            ours = _measure(ask, QUESTIONS)
            answers = [_shown(ask(number)) for number in range(len(asked))]
            page_bytes = ask(0).ByteSize()
            postgres = _postgres(plane.postgres.url(), stub, asked, answers)

            def change(number: int) -> None:
                model_id = models[number * 7 % len(models)]
                runway.registry.update_model(messages.Model(model_id=model_id, description=f"changed {number}"))

            changing = _measure(ask, CHANGED_QUESTIONS, change)
    return [
        Row(
            id="list_models_p99_ms",
            value=ours[1],
            unit="ms",
            peers={
                "runway p50": ours[0],
                "runway p99, a model changed before each": changing[1],
                "postgres p50": postgres[0],
                "postgres p99": postgres[1],
                "postgres p99 / runway p99": postgres[1] / ours[1],
            },
            note=(
                f"target < 5; {MODELS:,} models, pages of {PAGE} whole models ({page_bytes / 1024:,.0f} KiB), "
                f"{len(asked)} questions in turns with their counts, all answers equal"
            ),
        )
    ]


def _described(update: Callable[[registry_pb2.Model], object], node_ids: Sequence[str]) -> list[str]:
    """Give models words to be found by; their ids."""
    ids = [node_id.removeprefix("model:") for node_id in node_ids]
    for number, model_id in enumerate(ids[:: len(LANGUAGES)]):
        update(messages.Model(model_id=model_id, description=f"{LANGUAGES[number % len(LANGUAGES)]} of the fleet"))
    return ids


def _shown(reply: registry_pb2.ListModelsResponse) -> tuple[list[str], int]:
    return [model.model_id for model in reply.models], reply.total_size


def _measure(
    ask: Callable[[int], object], count: int, before: Callable[[int], None] | None = None
) -> tuple[float, float]:
    """Medians over the rounds of p50 and p99, in milliseconds."""
    p50s, p99s = [], []
    for number in range(100):
        ask(number)
    for _ in range(ROUNDS):
        times_ms = []
        for number in range(count):
            if before is not None:
                before(number)
            begun = time.perf_counter()
            ask(number)
            times_ms.append((time.perf_counter() - begun) * 1e3)
        p50, p99 = np.percentile(times_ms, [50, 99])
        p50s.append(float(p50))
        p99s.append(float(p99))
    return float(np.median(p50s)), float(np.median(p99s))


def _postgres(
    url: str,
    stub: registry_pb2_grpc.RegistryServiceStub,
    asked: Sequence[Question],
    answers: Sequence[tuple[list[str], int]],
) -> tuple[float, float]:
    """Indexed, prepared, over one connection on the Unix socket; a page and its count are two statements."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        connection.execute(
            'CREATE TABLE bench_model (model_id text COLLATE "C" PRIMARY KEY, team text, tier int, '
            "updated_at timestamptz, words text, message bytea)"
        )
        _copy(connection, stub)
        connection.execute("CREATE INDEX ON bench_model (team, model_id)")
        connection.execute("CREATE INDEX ON bench_model (tier, updated_at DESC, model_id)")
        connection.execute("CREATE INDEX ON bench_model USING gin (to_tsvector('simple', words))")
        connection.execute("VACUUM ANALYZE bench_model")

        def ask(number: int) -> tuple[list[str], int]:
            question = asked[number % len(asked)]
            rows = connection.execute(
                f"SELECT message FROM bench_model WHERE {question.where} ORDER BY {question.order} LIMIT {PAGE}",
                question.values,
                binary=True,
            ).fetchall()
            [count] = connection.execute(
                f"SELECT count(*) FROM bench_model WHERE {question.where}", question.values
            ).fetchone() or [0]
            return [registry_pb2.Model.FromString(row[0]).model_id for row in rows], int(count)

        for number, answer in enumerate(answers):
            if ask(number) != answer:
                raise AssertionError(f"Postgres and Runway disagree on question {number}")
        return _measure(ask, QUESTIONS)


def _copy(connection: "psycopg.Connection[tuple[object, ...]]", stub: registry_pb2_grpc.RegistryServiceStub) -> None:
    """All models, as Runway shows them."""
    request = registry_pb2.ListModelsRequest()
    request.page.page_size = 1_000
    with connection.cursor() as cursor, cursor.copy("COPY bench_model FROM STDIN") as copy:
        while True:
            reply = stub.ListModels(request, timeout=30)
            for model in reply.models:
                words = " ".join((model.model_id, model.owner, model.team, model.description))
                row = (model.model_id, model.team, int(model.tier), model.updated_at.ToDatetime(), words)
                copy.write_row((*row, model.SerializeToString()))
            if not reply.next_page_token:
                return
            request.page.page_token = reply.next_page_token
