"""The Python client against a server that says what it is told: ids, retries, deadlines, errors, pages, times."""

import pickle
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import runway_client
from google.rpc import code_pb2
from runway.v1 import (
    graph_pb2,
    operations_pb2,
    registry_pb2,
    retraining_pb2,
    rollout_pb2,
)
from runway_client import (
    InvalidRequest,
    NoAnswer,
    NotFound,
    Refused,
    Runway,
    RunwayRpcError,
    Unreachable,
    Why,
    connect,
    connection,
    from_timestamp,
    messages,
    to_timestamp,
)

from tests.api.control_plane_fake import FILES, SERVICES, ControlPlaneFake, failure, unavailable

REGISTER = "RegistryService/RegisterModel"


@pytest.fixture
def fake() -> Iterator[ControlPlaneFake]:
    one = ControlPlaneFake()
    yield one
    one.close()


@pytest.fixture
def runway(fake: ControlPlaneFake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runway]:
    monkeypatch.setattr(connection, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(connection, "BACKOFF_MAX_S", 0.002)
    with connect(fake.address, "anna", retry_for_s=5) as client:
        yield client


def answer_register(fake: ControlPlaneFake) -> None:
    fake.answers[REGISTER] = lambda request, _context: registry_pb2.RegisterModelResponse(
        model=request.model, revision=7
    )


def test_a_change_carries_an_id_an_actor_and_a_reason(fake: ControlPlaneFake, runway: Runway) -> None:
    answer_register(fake)
    model = runway.registry.register_model(registry_pb2.Model(model_id="air_time"), why=Why(reason="new"))
    runway.registry.register_model(registry_pb2.Model(model_id="air_time"), why=Why(validate_only=True))
    first, second = (request.mutation for request in fake.requests(REGISTER))
    assert model.model_id == "air_time"
    assert runway.revision == 7
    assert re.fullmatch(r"[0-9a-f-]{36}", first.request_id)
    assert first.request_id != second.request_id
    assert (first.actor, first.reason, first.validate_only) == ("anna", "new", False)
    assert second.validate_only
    assert fake.calls[0].metadata["x-request-id"] == first.request_id


def test_a_given_request_id_is_kept(fake: ControlPlaneFake, runway: Runway) -> None:
    answer_register(fake)
    runway.registry.register_model(registry_pb2.Model(), why=Why(request_id="mine"))
    assert fake.requests(REGISTER)[0].mutation.request_id == "mine"


def test_unavailable_is_tried_again_with_the_same_id(fake: ControlPlaneFake, runway: Runway) -> None:
    answer_register(fake)
    fake.failures[REGISTER].extend([unavailable("NOT_LEADER"), unavailable("APPEND_OUTCOME_UNKNOWN")])
    runway.registry.register_model(registry_pb2.Model(model_id="air_time"))
    ids = [request.mutation.request_id for request in fake.requests(REGISTER)]
    assert len(ids) == 3
    assert len(set(ids)) == 1


@pytest.mark.parametrize("code", [code_pb2.ABORTED, code_pb2.INTERNAL, code_pb2.FAILED_PRECONDITION, code_pb2.UNKNOWN])
def test_nothing_else_is_tried_again(fake: ControlPlaneFake, runway: Runway, code: int) -> None:
    fake.failures[REGISTER].append(failure(code, "INTERNAL", "no"))
    answer_register(fake)
    with pytest.raises(RunwayRpcError, match="no"):
        runway.registry.register_model(registry_pb2.Model())
    assert len(fake.calls) == 1


def test_trying_again_ends(fake: ControlPlaneFake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.answers["OperationsService/GetStatus"] = lambda _request, _context: (_ for _ in ()).throw(unavailable())
    with connect(fake.address, retry_for_s=0.2) as client, pytest.raises(Unreachable, match="try again") as caught:
        client.operations.get_status()
    assert caught.value.reason == "STORE_UNAVAILABLE"


def test_every_call_has_a_deadline(fake: ControlPlaneFake, runway: Runway) -> None:
    answer_register(fake)
    fake.answers["OperationsService/GetStatus"] = lambda _request, _context: operations_pb2.GetStatusResponse()
    fake.answers["OperationsService/Watch"] = lambda _request, _context: iter(
        [operations_pb2.WatchResponse(events=[operations_pb2.Event(revision=1)])]
    )
    runway.registry.register_model(registry_pb2.Model())
    runway.operations.get_status()
    next(runway.watch())
    assert all(call.remaining_s is not None and call.remaining_s < 1000 for call in fake.calls)


def test_no_answer_in_time_says_so(fake: ControlPlaneFake, runway: Runway) -> None:
    def silent(_request: object, context: grpc.ServicerContext) -> operations_pb2.GetStatusResponse:
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait()
        return operations_pb2.GetStatusResponse()

    fake.answers["OperationsService/GetStatus"] = silent
    stub = runway.operations.stub
    with pytest.raises(NoAnswer, match=r"did not answer OperationsService/GetStatus within 0\.05 s"):
        runway.connection.read(
            stub.GetStatus, operations_pb2.GetStatusRequest(), method="OperationsService/GetStatus", deadline_s=0.05
        )


def test_errors_are_decoded(fake: ControlPlaneFake, runway: Runway) -> None:
    fake.failures[REGISTER].append(
        failure(
            code_pb2.INVALID_ARGUMENT,
            "INVALID_ARGUMENT",
            "model.team: use a slug; model.tier: say which",
            [("model.team", "use a slug"), ("model.tier", "say which")],
            field="model.team",
        )
    )
    with pytest.raises(InvalidRequest) as caught:
        runway.registry.register_model(registry_pb2.Model())
    error = caught.value
    assert (error.reason, error.code) == ("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT)
    assert [(v.field, v.message, v.rule) for v in error.violations] == [
        ("model.team", "use a slug", "rule"),
        ("model.tier", "say which", "rule"),
    ]
    assert error.metadata == {"field": "model.team"}
    assert str(error) == "model.team: use a slug; model.tier: say which"
    assert error.method == REGISTER
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), vars(copied)) == (type(error), vars(error))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (code_pb2.NOT_FOUND, NotFound),
        (code_pb2.ALREADY_EXISTS, runway_client.AlreadyExists),
        (code_pb2.ABORTED, Refused),
        (code_pb2.OUT_OF_RANGE, Refused),
        (code_pb2.RESOURCE_EXHAUSTED, Refused),
        (code_pb2.DEADLINE_EXCEEDED, NoAnswer),
        (code_pb2.INTERNAL, RunwayRpcError),
    ],
)
def test_kinds_of_errors(fake: ControlPlaneFake, runway: Runway, code: int, kind: type[RunwayRpcError]) -> None:
    fake.failures[REGISTER].append(failure(code, "SOME_REASON", "a sentence"))
    with pytest.raises(RunwayRpcError) as caught:
        runway.registry.register_model(registry_pb2.Model())
    assert type(caught.value) is kind
    assert caught.value.reason == "SOME_REASON"


def test_nobody_there() -> None:
    with connect("127.0.0.1:1", retry_for_s=0) as client, pytest.raises(Unreachable) as caught:
        client.operations.get_status()
    assert str(caught.value) == (
        "cannot reach the control plane at 127.0.0.1:1: start it with `make up` or set RUNWAY_ADDRESS"
    )
    assert caught.value.reason == "UNREACHABLE"


def test_somebody_else_is_there(fake: ControlPlaneFake, runway: Runway) -> None:
    with pytest.raises(RunwayRpcError, match="does not know OperationsService/GetStatus"):
        runway.operations.get_status()


def test_a_message_too_large_is_not_sent(fake: ControlPlaneFake, runway: Runway) -> None:
    answer_register(fake)
    with pytest.raises(Refused, match="smaller") as caught:
        runway.registry.register_model(registry_pb2.Model(description="x" * (33 * 1024 * 1024)))
    assert caught.value.reason == "MESSAGE_TOO_LARGE"
    assert fake.calls == []


def test_a_closed_connection_says_so(fake: ControlPlaneFake) -> None:
    client = connect(fake.address)
    client.close()
    with pytest.raises(RunwayRpcError, match="was closed: connect again"):
        client.operations.get_status()


def test_the_address_comes_from_the_environment(fake: ControlPlaneFake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWAY_ADDRESS", fake.address)
    monkeypatch.setenv("RUNWAY_ACTOR", "boris")
    with connect() as client:
        assert (client.address, client.connection.actor) == (fake.address, "boris")
    monkeypatch.delenv("RUNWAY_ADDRESS")
    with connect() as client:
        assert client.address == "127.0.0.1:7433"


def test_lists_go_through_all_pages(fake: ControlPlaneFake, runway: Runway) -> None:
    names = [f"model_{number}" for number in range(7)]

    def page(
        request: registry_pb2.ListModelsRequest, _context: grpc.ServicerContext
    ) -> registry_pb2.ListModelsResponse:
        begin = int(request.page.page_token or 0)
        rest = str(begin + 3) if begin + 3 < len(names) else ""
        models = [registry_pb2.Model(model_id=name) for name in names[begin : begin + 3]]
        return registry_pb2.ListModelsResponse(models=models, next_page_token=rest)

    fake.answers["RegistryService/ListModels"] = page
    assert [model.model_id for model in runway.registry.list_models(teams=["ops"])] == names
    assert {tuple(request.teams) for request in fake.requests("RegistryService/ListModels")} == {("ops",)}
    assert len(fake.calls) == 3


def test_events_go_on_until_there_are_no_more(fake: ControlPlaneFake, runway: Runway) -> None:
    def some(
        request: operations_pb2.ListEventsRequest, _context: grpc.ServicerContext
    ) -> operations_pb2.ListEventsResponse:
        first = request.after_revision + 1
        last = min(2500, request.after_revision + request.events_max)
        return operations_pb2.ListEventsResponse(
            events=[operations_pb2.Event(revision=revision) for revision in range(first, last + 1)],
            revision=2500,
            scanned_revision=last,
        )

    fake.answers["OperationsService/ListEvents"] = some
    assert [event.revision for event in runway.operations.list_events(10)] == list(range(11, 2501))


def test_requests_say_what_was_asked(fake: ControlPlaneFake, runway: Runway) -> None:
    fake.answers["GraphService/GetImpact"] = lambda _request, _context: graph_pb2.GetImpactResponse(waves=2)
    fake.answers["RetrainingService/ReportAttempt"] = lambda _request, _context: retraining_pb2.ReportAttemptResponse()
    fake.answers["RegistryService/GetVersion"] = lambda _request, _context: registry_pb2.GetVersionResponse()
    fake.answers["RegistryService/MoveAlias"] = lambda _request, _context: registry_pb2.MoveAliasResponse()
    fake.answers["RolloutService/RollBack"] = lambda _request, _context: rollout_pb2.RollBackResponse()
    fake.answers["OperationsService/AdvanceClock"] = lambda request, _context: operations_pb2.AdvanceClockResponse(
        now=request.now
    )
    wanted = graph_pb2.ImpactFilter(kinds=[graph_pb2.NODE_KIND_MODEL], paths=graph_pb2.PATHS_SHORTEST)
    impact = runway.graph.get_impact("dataset:weather", wanted, as_of=7)
    runway.retraining.report_success("rt_000001_a1", "token", 3, duration=timedelta(seconds=90))
    runway.retraining.report_failure("rt_000001_a1", "token", "out of memory", permanent=True)
    runway.registry.get_version("air_time", alias="production")
    runway.registry.move_alias("air_time", "shadow", 2, expected_version=0)
    runway.rollouts.roll_back("air_time")
    now = datetime(2013, 3, 1, 12, tzinfo=UTC)

    assert impact.waves == 2
    asked = fake.requests("GraphService/GetImpact")[0]
    assert (asked.filter, asked.read.as_of_revision) == (wanted, 7)
    assert runway.operations.advance_clock(now) == now
    success, failed = fake.requests("RetrainingService/ReportAttempt")
    assert (success.succeeded_version, success.duration.seconds) == (3, 90)
    assert (failed.WhichOneof("result"), failed.permanent) == ("failure", True)
    assert fake.requests("RegistryService/GetVersion")[0].WhichOneof("which") == "alias"
    move = fake.requests("RegistryService/MoveAlias")[0]
    assert move.HasField("expected_version")
    assert move.expected_version == 0


SHORTER = {
    "report_attempt": "report_success",
    "report_scheduler_calls": "report_calls",
    "trip_breaker": "trip",
    "reset_breaker": "reset",
    "bypass_breaker": "bypass",
}
"""Calls whose method has another name than they have."""


def test_every_rpc_has_a_method(runway: Runway) -> None:
    wrappers = {
        "RegistryService": runway.registry,
        "GraphService": runway.graph,
        "StalenessService": runway.staleness,
        "GroundTruthService": runway.ground_truth,
        "RetrainingService": runway.retraining,
        "RolloutService": runway.rollouts,
        "OperationsService": runway.operations,
        "PolicyService": runway.policies,
        "LineageService": runway.lineage,
        "FactsService": runway.facts,
        "SchedulersService": runway.schedulers,
    }
    for service in SERVICES:
        for method in service.methods:
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
            name = SHORTER.get(name, name)
            assert callable(getattr(wrappers[service.name], name)), f"{service.name}/{method.name}"


def test_messages_holds_the_whole_contract() -> None:
    for file in FILES:
        for name in [*file.DESCRIPTOR.message_types_by_name, *file.DESCRIPTOR.enum_types_by_name]:
            assert getattr(messages, name) is getattr(file, name)
    assert messages.TIER_1 == 1
    assert messages.Mutation().actor == ""


def test_times_keep_their_microseconds_and_need_a_zone() -> None:
    instant = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    assert from_timestamp(to_timestamp(instant)) == instant
    with pytest.raises(ValueError, match="no time zone"):
        to_timestamp(datetime(2013, 3, 1))  # noqa: DTZ001
