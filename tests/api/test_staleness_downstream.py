"""A model without outcomes is judged by what its labelled consumers lose; and marked as judged so."""

from datetime import timedelta

import msgspec
import pytest
from runway.v1 import policies_pb2, staleness_pb2

from control_plane.core.ids import ModelId
from control_plane.core.staleness.evidence import MetricRole, PerformanceSource
from control_plane.core.staleness.verdict import Evaluation, MetricReading, Signal
from tests.api.test_staleness import EAGER, PROFILE, evaluate, send
from tests.api.worlds import START, Api, by
from tests.core.fleets import an_evaluation

CONSUMERS = ("delay_jfk", "delay_lga", "delay_ewr")


def a_labelled_look(api: Api, drop: float) -> Evaluation:
    """A look at a consumer that measured this loss of AUC on 5,000 outcomes."""
    performance = Signal(
        name="performance",
        value=0.5,
        raw=drop,
        weight=0.35,
        contribution=0.1,
        sample_size=5_000,
        significant=drop > 0.02,
        missing=False,
        explanation="measured",
        source=PerformanceSource.LABELS,
    )
    reading = MetricReading(
        name="auc",
        role=MetricRole.PRIMARY,
        baseline=0.8,
        current=0.8 - drop,
        drop=drop,
        drop_low=drop - 0.01,
        drop_high=drop + 0.01,
        sample_size=5_000,
        tolerance=0.03,
    )
    look = an_evaluation(1, api.clock.at, stale=False)
    return msgspec.structs.replace(look, signals=(performance,), metrics=(reading,))


@pytest.fixture
async def read_by_three(api: Api) -> Api:
    """`eta` feeds three labelled models; of itself no outcome ever comes."""
    api.clock.at = START + timedelta(days=1)
    await api.serving("eta", policies=policies_pb2.Policies(staleness=EAGER), reference_profile=PROFILE)
    for consumer in CONSUMERS:
        await api.model(consumer)
        await api.edge("model:eta", f"model:{consumer}")
    await send(api, "eta", shifted=False)
    api.clock.at += timedelta(hours=1)
    return api


async def performance_of_eta(api: Api) -> tuple[staleness_pb2.Staleness, staleness_pb2.Signal]:
    found = await evaluate(api, "eta")
    return found, next(one for one in found.evaluation.signals if one.name == "performance")


async def test_without_labelled_consumers_nothing_is_inferred(read_by_three: Api) -> None:
    _, performance = await performance_of_eta(read_by_three)
    assert performance.missing


async def test_the_loss_of_its_consumers_is_laid_to_it_as_weaker_evidence(read_by_three: Api) -> None:
    for consumer in CONSUMERS:
        read_by_three.plane.evaluator.latest[ModelId(consumer)] = a_labelled_look(read_by_three, 0.12)
    found, performance = await performance_of_eta(read_by_three)
    assert not performance.missing
    assert performance.source == staleness_pb2.PERFORMANCE_SOURCE_DOWNSTREAM
    assert performance.significant
    [reading] = [one for one in found.evaluation.metrics if one.role == staleness_pb2.METRIC_ROLE_PRIMARY]
    assert reading.source == staleness_pb2.PERFORMANCE_SOURCE_DOWNSTREAM
    assert found.evaluation.confidence != staleness_pb2.CONFIDENCE_HIGH
    assert "delay_ewr" in performance.explanation


async def test_consumers_that_are_well_say_that_it_is_well(read_by_three: Api) -> None:
    for consumer in CONSUMERS:
        read_by_three.plane.evaluator.latest[ModelId(consumer)] = a_labelled_look(read_by_three, 0.0)
    _, performance = await performance_of_eta(read_by_three)
    assert (performance.missing, performance.significant) == (False, False)


async def test_one_consumer_in_trouble_of_its_own_is_not_laid_to_it(read_by_three: Api) -> None:
    latest = read_by_three.plane.evaluator.latest
    for consumer in CONSUMERS:
        latest[ModelId(consumer)] = a_labelled_look(read_by_three, 0.0)
    broken = a_labelled_look(read_by_three, 0.12)
    latest[ModelId(CONSUMERS[0])] = msgspec.structs.replace(broken, data_quality=("temp is constant",))
    _, performance = await performance_of_eta(read_by_three)
    assert not performance.significant


async def test_whoever_wants_no_estimate_gets_none(read_by_three: Api) -> None:
    await read_by_three.policies.SetPolicies(
        policies_pb2.SetPoliciesRequest(
            mutation=by(reason="test"),
            scope="model:eta",
            policies=policies_pb2.Policies(staleness=policies_pb2.StalenessPolicy(estimate=False)),
        )
    )
    for consumer in CONSUMERS:
        read_by_three.plane.evaluator.latest[ModelId(consumer)] = a_labelled_look(read_by_three, 0.12)
    _, performance = await performance_of_eta(read_by_three)
    assert performance.missing
