"""After an upstream promotion: who is retrained, how often, in which order, under which name."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.core.commands import RecordEvaluation
from control_plane.core.events import CascadeSettled, RetrainEnded, RetrainLeased
from control_plane.core.ids import ModelId
from control_plane.core.plan import wanted_retrain
from control_plane.core.retraining.types import RetrainCause, RetrainingPolicy, RetrainState
from control_plane.core.staleness.verdict import UpstreamCompatibility
from tests.core.fleets import HOUR, MINUTE, Fleet, an_evaluation

POLICY = RetrainingPolicy(cooldown=timedelta(0), cascade_cooldown=4 * HOUR, lease_ttl=6 * HOUR)


def pair() -> Fleet:
    """a -> b, both in production, all cooldowns over and settled."""
    fleet = Fleet()
    for name in "ab":
        fleet.model(name, policy=POLICY, serving=True)
    fleet.edge("a", "b")
    return fleet


def one_look(fleet: Fleet, name: str, *, stale: bool) -> None:
    """A single look at what serves."""
    model_id = ModelId(name)
    production = fleet.state.models[model_id].production
    assert production is not None
    look = an_evaluation(production.number, fleet.now, stale=stale)
    fleet.do(RecordEvaluation(model_id=model_id, evaluation=look))


def test_a_stale_verdict_that_the_fresh_look_does_not_confirm_asks_for_nothing() -> None:
    fleet = pair()
    fleet.promote(ModelId("a"))
    fleet.look("b", stale=True)
    fleet.pass_time(3 * HOUR)
    record = fleet.state.models[ModelId("b")]
    assert record.live_retrain is None
    fleet.pass_time(HOUR + MINUTE)
    assert record.live_retrain is None
    one_look(fleet, "b", stale=False)
    assert record.cascade is not None
    assert record.cascade.harmed is False
    fleet.pass_time(MINUTE)
    assert record.live_retrain is None
    # Stale after all: that is its own doing.
    one_look(fleet, "b", stale=True)
    assert wanted_retrain(record, fleet.now) is RetrainCause.STALE


def test_a_request_from_before_the_promotion_ends_with_the_look_that_finds_no_harm() -> None:
    fleet = pair()
    fleet.look("b", stale=True)
    fleet.request("a")
    (attempt,) = fleet.lease()
    fleet.pass_time(MINUTE)
    record = fleet.state.models[ModelId("b")]
    assert record.live_retrain is not None
    fleet.validate("a", fleet.train(attempt))
    fleet.pass_time(4 * HOUR + MINUTE)
    assert fleet.lease() == ()
    before = len(fleet.events)
    one_look(fleet, "b", stale=False)
    kinds = {type(event) for event in fleet.events[before:]}
    assert {CascadeSettled, RetrainEnded} <= kinds
    assert fleet.lease() == ()
    retrain = fleet.state.retrains[record.retrain_ids[-1]]
    assert retrain.state is RetrainState.CANCELLED
    assert "did it no harm" in retrain.conclusion


def test_an_operators_request_outlives_a_look_that_finds_no_harm() -> None:
    fleet = pair()
    fleet.promote(ModelId("a"))
    fleet.request("b", ignore_cooldown=False)
    fleet.pass_time(4 * HOUR + MINUTE)
    one_look(fleet, "b", stale=False)
    assert fleet.leased_models(fleet.lease()) == ["b"]


DAGS = st.integers(2, 6).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.sets(
            st.tuples(st.integers(0, size - 2), st.integers(1, size - 1)).filter(lambda pair: pair[0] < pair[1]),
            max_size=10,
        ),
        st.sets(st.integers(1, size - 1)),
    )
)


@given(DAGS)
@settings(max_examples=40, deadline=None)
def test_each_harmed_model_retrains_once_for_one_promotion_and_after_what_is_upstream(
    dag: tuple[int, set[tuple[int, int]], set[int]],
) -> None:
    size, edges, unharmed = dag
    fleet = Fleet()
    for number in range(size):
        fleet.model(f"m{number}", policy=POLICY, serving=True)
    for upstream, downstream in sorted(edges):
        fleet.edge(f"m{upstream}", f"m{downstream}")
    below: dict[int, set[int]] = {n: set() for n in range(size)}
    for upstream, downstream in sorted(edges, reverse=True):
        below[upstream] |= {downstream} | below[downstream]
    fleet.now += HOUR
    fleet.promote(ModelId("m0"))
    root = fleet.state.models[ModelId("m0")].retrain_ids[-1]
    harmed = below[0] - unharmed
    begun = len(fleet.events)
    retrained: list[int] = []
    for _ in range(40):
        fleet.pass_time(HOUR)
        for number in sorted(below[0]):
            fleet.look(f"m{number}", stale=number in harmed and number not in retrained)
        fleet.pass_time(MINUTE)
        for attempt in fleet.lease():
            model_id = fleet.state.retrain_of_attempt(attempt).model_id
            fleet.validate(model_id, fleet.train(attempt))
            retrained.append(int(model_id[1:]))
    leased = [event for event in fleet.events[begun:] if isinstance(event, RetrainLeased)]
    assert sorted(int(event.model_id[1:]) for event in leased) == sorted(harmed)
    for upstream in harmed:
        for downstream in harmed & below[upstream]:
            assert retrained.index(upstream) < retrained.index(downstream)
    groups = {fleet.state.retrains[event.retrain_id].group for event in leased}
    assert groups <= {f"cascade_{root}"}


def embedding(*, compatible: bool) -> UpstreamCompatibility:
    """What a look says of the embedding `a`, which serves another version than `b` was trained with."""
    return UpstreamCompatibility(
        model_id="a",
        trained_with=1,
        serves=2,
        compatible=compatible,
        knn_jaccard=0.8 if compatible else 0.1,
        knn_jaccard_floor=0.8,
        procrustes_cosine=0.9,
        cka=0.9,
        anchors=200,
        explanation="its embeddings are " + ("compatible" if compatible else "not compatible"),
    )


@pytest.mark.parametrize(
    ("stale", "compatible", "harmed", "cause"),
    [
        (False, True, False, None),
        (True, True, False, RetrainCause.STALE),  # stale by its own doing
        (True, False, True, RetrainCause.UPSTREAM),
        (False, False, False, None),
    ],
)
def test_a_compatible_embedding_harms_nobody(
    stale: bool, compatible: bool, harmed: bool, cause: RetrainCause | None
) -> None:
    fleet = pair()
    fleet.pass_time(HOUR)
    fleet.promote(ModelId("a"))
    fleet.pass_time(4 * HOUR + MINUTE)
    record = fleet.state.models[ModelId("b")]
    assert record.production is not None
    look = replace(
        an_evaluation(record.production.number, fleet.now, stale=stale), upstreams=(embedding(compatible=compatible),)
    )
    fleet.do(RecordEvaluation(model_id=ModelId("b"), evaluation=look))
    assert record.cascade is not None
    assert record.cascade.harmed is harmed
    if compatible or harmed:
        assert record.cascade.why == look.upstreams[0].explanation
    for _ in range(3):  # until the verdict follows
        fleet.do(RecordEvaluation(model_id=ModelId("b"), evaluation=replace(look, at=fleet.now)))
    waiting = [one for living in fleet.state.living() for one in living.causes]
    assert (waiting[0] if waiting else wanted_retrain(record, fleet.now)) is cause
