"""How likely a promotion harms who is downstream: by what it did before, to models that use it in the same way."""

from control_plane.core.commands import DeclareDependencies, RecordEvaluation
from control_plane.core.decide.likelihood import Cases, past_harm
from control_plane.core.graph.facts import Dependency, DependencyType
from control_plane.core.ids import ModelId, NodeId
from control_plane.core.retraining.types import RetrainingPolicy
from tests.core.fleets import HOUR, MINUTE, Fleet, an_evaluation
from tests.core.test_cascade_plan import planned

POLICY = RetrainingPolicy(cascade_cooldown=HOUR)


def stands_on(fleet: Fleet, name: str, upstream: str, how: DependencyType) -> None:
    """A model in production that uses another in a way."""
    fleet.model(name, policy=POLICY, serving=True)
    edge = Dependency(upstream=NodeId(f"model:{upstream}"), downstream=NodeId(f"model:{name}"), edge_type=how)
    fleet.do(DeclareDependencies(dependencies=(edge,)))


def promoted(fleet: Fleet, name: str, harmed: set[str]) -> None:
    """A promotion, and the looks after its cooldown; each verdict is good again afterwards."""
    fleet.promote(ModelId(name))
    fleet.pass_time(HOUR + MINUTE)
    for model_id, record in fleet.state.models.items():
        if record.cascade is not None and record.cascade.harmed is None and record.production is not None:
            look = an_evaluation(record.production.number, fleet.now, stale=model_id in harmed)
            fleet.do(RecordEvaluation(model_id=model_id, evaluation=look))


def test_the_way_a_model_uses_what_is_promoted_makes_the_difference() -> None:
    fleet = Fleet()
    fleet.model("up", serving=True)
    embedded = [f"embedded{at}" for at in range(4)]
    for name in embedded:
        stands_on(fleet, name, "up", DependencyType.EMBEDS)
    for at in range(4):
        stands_on(fleet, f"consumer{at}", "up", DependencyType.CONSUMES_OUTPUT)
    fleet.pass_time(25 * HOUR)
    promoted(fleet, "up", harmed={*embedded})
    history = past_harm(fleet.state)
    assert history == {
        DependencyType.EMBEDS: Cases(looked_at=4, harmed=4),
        DependencyType.CONSUMES_OUTPUT: Cases(looked_at=4, harmed=0),
    }
    fleet.model("new", policy=POLICY, serving=True)
    stands_on(fleet, "fresh_embedded", "up", DependencyType.EMBEDS)
    stands_on(fleet, "fresh_consumer", "up", DependencyType.CONSUMES_OUTPUT)
    plan = {one.record.model_id: one for one in planned(fleet, "up").retrains}
    likely, hardly = plan[ModelId("fresh_embedded")], plan[ModelId("fresh_consumer")]
    assert 0.7 < likely.likelihood < 1
    assert 0 < hardly.likelihood < 0.3
    assert likely.why_likely == (
        "4 of 4 models that stand on the embedding of what is promoted were harmed the last time"
    )
    # Its own history counts beside that of its kind.
    assert plan[ModelId("consumer0")].likelihood < plan[ModelId("embedded0")].likelihood
    assert plan[ModelId("embedded0")].why_likely.endswith("this one was harmed")


def test_without_any_history_nobody_knows() -> None:
    fleet = Fleet()
    fleet.model("up", serving=True)
    stands_on(fleet, "down", "up", DependencyType.CONSUMES_OUTPUT)
    (_, down) = planned(fleet, "up").retrains
    assert down.likelihood == 0.5
