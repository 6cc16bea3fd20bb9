"""Lineage by example: what runs show, what people say, what becomes of edges."""

from datetime import timedelta

import pytest

from control_plane.core.commands import (
    ClearOverride,
    DeclareDependencies,
    DeclareNodes,
    RegisterModel,
    RemoveNodes,
    RenameNode,
    ReportLineage,
    RetractDependencies,
    SetLineagePolicy,
    SetOverride,
)
from control_plane.core.errors import Invalid, NotFound, Reason, Refused
from control_plane.core.events import EdgesSettled, Envelope, LineageReported
from control_plane.core.graph.facts import DependencyType, Node, NodeKind
from control_plane.core.graph.lineage_disagreements import DisagreementKind, disagreements
from control_plane.core.graph.lineage_facts import EdgeState, LineageNode, LineagePolicy, LineageRun, RunState
from control_plane.core.graph.lineage_names import discovered_id
from control_plane.core.graph.lineage_runs import RUNS_KEPT_MAX
from control_plane.core.ids import ModelId, NodeId, TeamId
from control_plane.core.registry.types import ModelFacts, TaskType
from control_plane.core.sentences import sentence
from control_plane.core.snapshots import decode_snapshot, encode_snapshot
from tests.core.fleets import START, Fleet, reason_of
from tests.core.lineages import DAY, declare, dependency, key, named, nodes, run, state_of, tell

RAW, CLEAN, WEATHER = "dataset:raw", "dataset:clean", "dataset:weather"


@pytest.fixture
def fleet() -> Fleet:
    """Three declared datasets and a model."""
    fleet = Fleet()
    nodes(fleet, RAW, CLEAN, WEATHER)
    fleet.model("delay")
    return fleet


def last_sentence(fleet: Fleet) -> str:
    """The last event in words."""
    event = fleet.events[-1]
    return sentence(Envelope(seq=1, epoch=1, at=fleet.now, actor="ana", reason="", event=event))


# What runs show


def test_a_completed_run_confirms_every_input_to_every_output(fleet: Fleet) -> None:
    result = tell(fleet, run(f"{RAW} {WEATHER}", f"{CLEAN} model:delay"))
    assert result.changed == 1
    assert [d.key for d in fleet.state.graph.dependencies()] == [
        key(RAW, CLEAN),
        key(RAW, "model:delay"),
        key(WEATHER, CLEAN),
        key(WEATHER, "model:delay"),
    ]
    assert fleet.state.graph.dependency(key(RAW, "model:delay")).edge_type is DependencyType.TRAINED_ON  # type: ignore[union-attr]
    assert "found: openlineage job etl showed it in run r1" in last_sentence(fleet)


@pytest.mark.parametrize("state", [RunState.START, RunState.RUNNING, RunState.FAIL, RunState.ABORT])
def test_only_complete_confirms(fleet: Fleet, state: RunState) -> None:
    tell(fleet, run(RAW, CLEAN, state=state))
    assert state_of(fleet, RAW, CLEAN) is None
    assert fleet.state.graph.dependency_count == 0
    tell(fleet, run("", "", state=RunState.COMPLETE))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE


def test_a_run_that_failed_and_completed_is_complete_whatever_came_first(fleet: Fleet) -> None:
    tell(fleet, run(RAW, CLEAN), run(RAW, CLEAN, state=RunState.FAIL, at=START + DAY))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE


def test_input_and_output_come_in_any_order(fleet: Fleet) -> None:
    tell(fleet, run("", CLEAN))
    assert state_of(fleet, RAW, CLEAN) is None
    tell(fleet, run(RAW, "", state=RunState.START))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE


def test_what_was_told_before_changes_nothing(fleet: Fleet) -> None:
    assert fleet.new_events(ReportLineage(runs=(run(RAW, CLEAN),))) == ["LineageReported", "EdgesSettled"]
    assert fleet.new_events(ReportLineage(runs=(run(RAW, CLEAN), run(RAW, CLEAN)))) == []
    (sighting,) = fleet.state.lineage.records[key(RAW, CLEAN)].sightings
    assert sighting.runs_seen == 1


def test_facts_about_a_job_confirm_by_themselves(fleet: Fleet) -> None:
    static = LineageRun(
        source="openlineage", job="etl", state=RunState.STATIC, inputs=(named(RAW),), outputs=(named(CLEAN),)
    )
    tell(fleet, static)
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE


def test_a_node_is_no_edge_to_itself_and_kinds_without_a_type_are_counted(fleet: Fleet) -> None:
    nodes(fleet, "consumer:desk")
    tell(fleet, run(f"{RAW} consumer:desk", f"{RAW} {CLEAN}"))
    assert [d.key for d in fleet.state.graph.dependencies()] == [key(RAW, CLEAN)]
    (event,) = [e for e in fleet.events if isinstance(e, LineageReported)]
    assert event.untyped == 2


def test_what_is_declared_under_an_unusual_type_is_that_edge(fleet: Fleet) -> None:
    fleet.model("embedding")
    embeds = dependency("model:embedding", "model:delay", DependencyType.EMBEDS)
    tell(fleet, run("model:embedding", "model:delay"))
    fleet.do(DeclareDependencies(dependencies=(embeds,)))
    tell(fleet, run("model:embedding", "model:delay", run_id="r2"))
    assert fleet.state.graph.dependencies() == (embeds,)
    (sighting,) = fleet.state.lineage.records[embeds.key].sightings
    assert sighting.runs_seen == 2


def test_a_source_that_is_not_sure_makes_no_edge_until_one_is(fleet: Fleet) -> None:
    tell(fleet, run(RAW, CLEAN, confidence=0.3))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.RETIRED
    tell(fleet, run(RAW, CLEAN, source="metaflow", confidence=0.9))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE


def test_every_violation_of_a_report_is_told_at_once(fleet: Fleet) -> None:
    bad = LineageRun(
        source="x",
        job=" ",
        state=RunState.COMPLETE,
        inputs=(LineageNode(), LineageNode(node_id="dataset:wéather")),
        confidence=2.0,
    )
    with pytest.raises(Invalid) as caught:
        tell(fleet, run(RAW, CLEAN), bad)
    assert caught.value.reason is Reason.INVALID_LINEAGE
    assert [v.field for v in caught.value.violations] == [
        "runs[1].job",
        "runs[1].run_id",
        "runs[1].confidence",
        "runs[1].inputs[0]",
        "runs[1].inputs[1].node_id",
    ]
    assert fleet.state.lineage.jobs == {}


def test_a_run_of_too_many_pairs_is_refused_with_the_remedy(fleet: Fleet) -> None:
    many = " ".join(f"dataset:d{number}" for number in range(400))
    with pytest.raises(Invalid, match="steps of the job"):
        tell(fleet, run(many, many))


def test_a_run_does_not_grow_beyond_the_bound_by_many_events(fleet: Fleet) -> None:
    first, second = (" ".join(f"dataset:{side}{number}" for number in range(400)) for side in "ab")
    tell(fleet, run(first, "", state=RunState.START))
    with pytest.raises(Invalid, match="with what was told of it before"):
        tell(fleet, run("", second))
    assert fleet.state.graph.dependency_count == 0


def test_ten_thousand_edges_on_one_node(fleet: Fleet) -> None:
    many = " ".join(f"dataset:d{number}" for number in range(10_000))
    tell(fleet, run(many, CLEAN))
    assert len(fleet.state.graph.upstream_of(NodeId(CLEAN))) == 10_000
    tell(fleet, run("dataset:d1", CLEAN, run_id="r2"))


def test_runs_that_never_end_are_forgotten_and_that_is_said(fleet: Fleet) -> None:
    tell(fleet, run(RAW, "", state=RunState.START))
    fleet.pass_time(29 * DAY)
    assert fleet.state.lineage.unfinished
    assert fleet.pass_time(2 * DAY) == ["UnfinishedRunsDropped"]
    assert "openlineage etl r1" in last_sentence(fleet)
    assert fleet.pass_time(DAY) == []
    tell(fleet, run("", CLEAN))
    assert state_of(fleet, RAW, CLEAN) is None


def test_late_news_of_a_run_long_past_is_passed_over(fleet: Fleet) -> None:
    for number in range(RUNS_KEPT_MAX + 1):
        tell(fleet, run(RAW, CLEAN, run_id=f"r{number}", at=START + number * timedelta(minutes=1)))
        fleet.now += timedelta(minutes=1)
    assert tell(fleet, run(WEATHER, CLEAN, run_id="r0", at=START)).changed == 0
    assert tell(fleet, run(WEATHER, CLEAN, run_id=f"r{RUNS_KEPT_MAX}", at=START)).changed == 1


# Names


def test_a_name_that_nobody_claims_makes_a_node_with_a_readable_id(fleet: Fleet) -> None:
    name = "postgres://db:5432/shop.public.Órders"
    tell(fleet, run(name, CLEAN))
    node_id = discovered_id(name, NodeKind.DATASET)
    assert node_id.startswith("dataset:shop_public_orders_")
    node = fleet.state.graph.node(node_id)
    assert (node.title, node.declared) == (name, False)
    tell(fleet, run("postgres://db:5432/shop.public.O\u0301rders", CLEAN, run_id="r2"))
    assert len(fleet.state.graph.upstream_of(NodeId(CLEAN))) == 1, "the same name in another normal form"


def test_look_alike_names_are_two_nodes() -> None:
    latin = discovered_id("s3://b/sales", NodeKind.DATASET)
    cyrillic = discovered_id("s3://b/s\u0430les", NodeKind.DATASET)
    assert latin != cyrillic


def test_a_claimed_name_is_that_node(fleet: Fleet) -> None:
    fleet.do(DeclareNodes(nodes=(Node(node_id=NodeId("dataset:orders"), external_ids=("pg://db/orders",)),)))
    tell(fleet, run("pg://db/orders", CLEAN))
    assert state_of(fleet, "dataset:orders", CLEAN) is EdgeState.ACTIVE


def test_a_later_claim_takes_the_discovered_node_over(fleet: Fleet) -> None:
    tell(fleet, run("pg://db/orders", CLEAN))
    found = discovered_id("pg://db/orders", NodeKind.DATASET)
    fleet.do(SetOverride(dependency=dependency(found, CLEAN), present=True, owner="ana", reason="I know"))
    claim = DeclareNodes(nodes=(Node(node_id=NodeId("dataset:orders"), external_ids=("pg://db/orders",)),))
    assert fleet.new_events(claim) == ["NodesDeclared", "NodesMoved"]
    assert not fleet.state.graph.has_node(found)
    record = fleet.state.lineage.records[key("dataset:orders", CLEAN)]
    assert record.override is not None
    assert record.sightings[0].runs_seen == 1
    assert state_of(fleet, "dataset:orders", CLEAN) is EdgeState.ACTIVE
    tell(fleet, run("pg://db/orders", "", run_id="r1", state=RunState.START))
    assert not fleet.state.graph.has_node(found)


def test_a_name_belongs_to_one_node(fleet: Fleet) -> None:
    first = Node(node_id=NodeId("dataset:orders"), external_ids=("pg://db/orders",))
    second = Node(node_id=NodeId("dataset:sales"), external_ids=("pg://db/orders",))
    fleet.do(DeclareNodes(nodes=(first,)))
    with pytest.raises(Refused, match="is a name of dataset:orders") as caught:
        fleet.do(DeclareNodes(nodes=(second,)))
    assert caught.value.reason is Reason.NODE_ALREADY_EXISTS
    with pytest.raises(Invalid, match="one node each"):
        fleet.do(
            DeclareNodes(
                nodes=(
                    Node(node_id=NodeId("dataset:x"), external_ids=("a",)),
                    second.__class__(node_id=NodeId("dataset:y"), external_ids=("a",)),
                )
            )
        )


@pytest.mark.parametrize("model_first", [True, False])
def test_a_name_told_as_dataset_and_as_model_is_a_model(fleet: Fleet, model_first: bool) -> None:
    told = [run("lake/churn", CLEAN, run_id="r1"), run("model!lake/churn", WEATHER, run_id="r2")]
    for one in reversed(told) if model_first else told:
        tell(fleet, one)
        fleet.pass_time(timedelta(minutes=1))
    node_id = discovered_id("lake/churn", NodeKind.MODEL)
    assert state_of(fleet, node_id, CLEAN) is EdgeState.ACTIVE
    assert state_of(fleet, node_id, WEATHER) is EdgeState.ACTIVE
    assert [n.node_id for n in fleet.state.graph.nodes() if not n.declared] == [node_id]


def test_the_greatest_kind_stands_though_a_lesser_is_told_before_the_node_has_moved(fleet: Fleet) -> None:
    for number, name in enumerate(("lake/churn", "model!lake/churn", "feature!lake/churn")):
        tell(fleet, run(RAW, name, run_id=f"r{number}"))
    fleet.pass_time(timedelta(minutes=1))
    assert state_of(fleet, RAW, discovered_id("lake/churn", NodeKind.MODEL)) is EdgeState.ACTIVE


def test_a_model_that_nobody_registered_is_a_node_and_a_disagreement(fleet: Fleet) -> None:
    tell(fleet, run("model:delay", "model:ghost"))
    assert not fleet.state.graph.node(NodeId("model:ghost")).declared
    (found,) = disagreements(fleet.state.graph, fleet.state.lineage, fleet.now)
    assert (found.kind, found.node_id) == (DisagreementKind.NOT_REGISTERED, "model:ghost")
    # Whatever walks downstream models walks past it: a cascade, a plan.
    fleet.promote(ModelId("delay"))
    fleet.pass_time(DAY)
    fleet.model("ghost")
    assert fleet.state.graph.node(NodeId("model:ghost")).declared
    assert state_of(fleet, "model:delay", "model:ghost") is EdgeState.ACTIVE
    assert DisagreementKind.NOT_REGISTERED not in {
        d.kind for d in disagreements(fleet.state.graph, fleet.state.lineage, fleet.now)
    }


# Cycles


def test_a_cycle_is_quarantined_and_the_rest_of_the_batch_is_not(fleet: Fleet) -> None:
    declare(fleet, (RAW, CLEAN))
    result = tell(fleet, run(CLEAN, RAW, job="back"), run(WEATHER, CLEAN, job="on"))
    (apart,) = result.quarantined
    assert apart.dependency.key == key(CLEAN, RAW)
    assert apart.cycle == (CLEAN, RAW, CLEAN)
    assert state_of(fleet, CLEAN, RAW) is EdgeState.QUARANTINED
    assert state_of(fleet, WEATHER, CLEAN) is EdgeState.ACTIVE
    settled = fleet.events[-1]
    assert isinstance(settled, EdgesSettled)
    assert "quarantined: closes the cycle dataset:clean -> dataset:raw -> dataset:clean" in last_sentence(fleet)
    assert tell(fleet, run(CLEAN, RAW, job="back", run_id="r2")).quarantined == result.quarantined
    assert fleet.pass_time(DAY) == []


def test_a_quarantined_edge_is_let_in_when_the_cycle_is_gone(fleet: Fleet) -> None:
    declare(fleet, (RAW, CLEAN))
    tell(fleet, run(CLEAN, RAW))
    fleet.do(RetractDependencies(dependencies=(dependency(RAW, CLEAN),)))
    assert fleet.pass_time(timedelta(seconds=1)) == ["EdgesSettled"]
    assert state_of(fleet, CLEAN, RAW) is EdgeState.ACTIVE


def test_a_cycle_within_one_run_of_a_batch_is_found(fleet: Fleet) -> None:
    result = tell(fleet, run("a", "b", job="1"), run("b", "c", job="2"), run("c", "a", job="3"))
    assert len(result.quarantined) == 1
    assert fleet.state.graph.dependency_count == 2


def test_a_declaration_wins_over_what_was_discovered(fleet: Fleet) -> None:
    tell(fleet, run(CLEAN, RAW))
    declared = DeclareDependencies(dependencies=(dependency(RAW, CLEAN),))
    assert fleet.new_events(declared) == ["EdgesSettled", "DependenciesDeclared"]
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE
    assert state_of(fleet, CLEAN, RAW) is EdgeState.QUARANTINED
    with pytest.raises(Refused) as caught:
        declare(fleet, (CLEAN, WEATHER), (WEATHER, RAW))
    assert caught.value.reason is Reason.DEPENDENCY_CYCLE


# Overrides


def absent(owner: str = "ana", *, present: bool = False, replace_revision: int = 0, **more: object) -> SetOverride:
    """An override of RAW -> CLEAN."""
    return SetOverride(
        dependency=dependency(RAW, CLEAN),
        present=present,
        owner=owner,
        reason=f"{owner} knows",
        replace_revision=replace_revision,
        **more,  # type: ignore[arg-type]
    )


def test_an_override_wins_over_sources_and_declarations(fleet: Fleet) -> None:
    declare(fleet, (RAW, CLEAN))
    tell(fleet, run(RAW, CLEAN))
    fleet.do(absent())
    assert state_of(fleet, RAW, CLEAN) is EdgeState.SUPPRESSED
    tell(fleet, run(RAW, CLEAN, run_id="r2"))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.SUPPRESSED
    assert fleet.new_events(DeclareDependencies(dependencies=(dependency(RAW, CLEAN),))) == []
    fleet.do(ClearOverride(dependency=dependency(RAW, CLEAN)))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE
    with pytest.raises(NotFound, match="has no override"):
        fleet.do(ClearOverride(dependency=dependency(RAW, CLEAN)))


def test_an_override_makes_an_edge_that_nobody_else_knows(fleet: Fleet) -> None:
    fleet.do(absent(present=True))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE
    fleet.do(ClearOverride(dependency=dependency(RAW, CLEAN)))
    assert state_of(fleet, RAW, CLEAN) is None
    assert fleet.state.lineage.records == {}


def test_the_first_of_two_overrides_wins_and_the_other_is_told(fleet: Fleet) -> None:
    fleet.do(absent("ana"))
    with pytest.raises(Refused, match=r"ana says that .* is not there") as caught:
        fleet.do(absent("bo", present=True))
    assert caught.value.reason is Reason.OVERRIDE_EXISTS
    assert caught.value.details["owner"] == "ana"
    revision = int(caught.value.details["revision"])
    assert reason_of(lambda: fleet.do(absent("bo", replace_revision=revision - 1))) is Reason.OVERRIDE_EXISTS
    fleet.do(absent("bo", present=True, replace_revision=revision))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE
    assert fleet.new_events(absent("bo")) == ["OverrideSet"], "it is their own"
    assert fleet.new_events(absent("bo")) == []


def test_an_override_expires(fleet: Fleet) -> None:
    declare(fleet, (RAW, CLEAN))
    fleet.do(absent(expires_at=START + DAY))
    assert reason_of(lambda: fleet.do(absent("bo", expires_at=START))) is Reason.INVALID_ARGUMENT
    fleet.pass_time(DAY - timedelta(seconds=1))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.SUPPRESSED
    assert fleet.pass_time(timedelta(seconds=1)) == ["OverrideCleared"]
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE
    assert "expired; the edge is there" in last_sentence(fleet)


def test_an_override_does_not_close_a_cycle(fleet: Fleet) -> None:
    declare(fleet, (CLEAN, RAW))
    with pytest.raises(Refused, match="dataset:raw -> dataset:clean -> dataset:raw") as caught:
        fleet.do(absent(present=True))
    assert caught.value.reason is Reason.DEPENDENCY_CYCLE
    fleet.do(absent())


def test_what_was_suppressed_comes_back_apart_if_it_closes_a_cycle(fleet: Fleet) -> None:
    tell(fleet, run(RAW, CLEAN))
    fleet.do(absent(expires_at=START + DAY))
    declare(fleet, (CLEAN, RAW))
    fleet.pass_time(DAY)
    assert state_of(fleet, RAW, CLEAN) is EdgeState.QUARANTINED


# Reconciliation


def test_an_edge_that_is_no_longer_shown_is_suspect_then_retired_and_heals(fleet: Fleet) -> None:
    tell(fleet, run(RAW, CLEAN))
    states = []
    for number in range(1, 11):
        fleet.now += timedelta(hours=1)
        tell(fleet, run(WEATHER, CLEAN, run_id=f"w{number}", at=fleet.now))
        states.append(state_of(fleet, RAW, CLEAN))
    assert states == [EdgeState.ACTIVE] * 2 + [EdgeState.SUSPECT] * 7 + [EdgeState.RETIRED]
    assert "retired: the last 10 completed runs of openlineage job etl did not show it" in last_sentence(fleet)
    fleet.now += timedelta(hours=1)
    tell(fleet, run(RAW, CLEAN, run_id="again", at=fleet.now))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE


def test_time_alone_retires_too(fleet: Fleet) -> None:
    tell(fleet, run(RAW, CLEAN))
    assert fleet.pass_time(13 * DAY) == []
    assert fleet.pass_time(DAY) == ["EdgesSettled"]
    assert state_of(fleet, RAW, CLEAN) is EdgeState.SUSPECT
    assert fleet.pass_time(31 * DAY) == ["EdgesSettled"]
    assert state_of(fleet, RAW, CLEAN) is EdgeState.RETIRED
    assert "last showed it on 2013-03-01, 45 days ago" in last_sentence(fleet)
    assert fleet.pass_time(100 * DAY) == []


def test_another_job_that_still_shows_it_keeps_an_edge(fleet: Fleet) -> None:
    tell(fleet, run(RAW, CLEAN), run(RAW, CLEAN, job="other", at=START))
    for number in range(12):
        tell(fleet, run(WEATHER, CLEAN, run_id=f"w{number}", at=START + timedelta(seconds=number + 1)))
        fleet.now += timedelta(seconds=1)
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE


def test_what_is_declared_or_overridden_does_not_retire(fleet: Fleet) -> None:
    tell(fleet, run(RAW, f"{CLEAN} {WEATHER}"))
    declare(fleet, (RAW, CLEAN))
    fleet.do(SetOverride(dependency=dependency(RAW, WEATHER), present=True, owner="ana", reason="I know"))
    assert fleet.pass_time(400 * DAY) == []
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE
    fleet.do(RetractDependencies(dependencies=(dependency(RAW, CLEAN),)))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.RETIRED


def test_another_policy_is_applied_at_once(fleet: Fleet) -> None:
    tell(fleet, run(RAW, CLEAN))
    fleet.now += 2 * DAY
    command = SetLineagePolicy(policy=LineagePolicy(suspect_after=DAY))
    assert fleet.new_events(command) == ["LineagePolicySet", "EdgesSettled"]
    assert state_of(fleet, RAW, CLEAN) is EdgeState.SUSPECT
    assert fleet.new_events(command) == []
    off = LineagePolicy(
        suspect_after_runs=0, suspect_after=timedelta(0), retire_after_runs=0, retire_after=timedelta(0)
    )
    fleet.do(SetLineagePolicy(policy=off))
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE
    assert fleet.pass_time(4_000 * DAY) == []
    with pytest.raises(Invalid) as caught:
        fleet.do(SetLineagePolicy(policy=LineagePolicy(suspect_after_runs=1_000, retire_after=DAY)))
    assert {v.field for v in caught.value.violations} >= {"policy.suspect_after_runs", "policy.retire_after"}


def test_the_times_of_edges_follow_what_is_discovered(fleet: Fleet) -> None:
    tell(fleet, run(RAW, f"{CLEAN} {WEATHER}"))
    assert len(fleet.state.edge_times) == 2
    declare(fleet, (RAW, CLEAN))
    assert len(fleet.state.edge_times) == 1
    fleet.pass_time(100 * DAY)
    assert len(fleet.state.edge_times) == 0


# Retracting


def test_retracting_takes_the_declaration_only(fleet: Fleet) -> None:
    declare(fleet, (RAW, CLEAN), (WEATHER, CLEAN))
    tell(fleet, run(RAW, CLEAN))
    both = RetractDependencies(dependencies=(dependency(RAW, CLEAN), dependency(WEATHER, CLEAN)))
    fleet.do(both)
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE
    assert state_of(fleet, WEATHER, CLEAN) is None
    with pytest.raises(NotFound, match=r"nobody declared the edge dataset:raw -> dataset:clean .* override") as caught:
        fleet.do(both)
    assert caught.value.reason is Reason.DEPENDENCY_NOT_FOUND


# Removing, renaming


def test_a_node_with_edges_is_not_removed(fleet: Fleet) -> None:
    declare(fleet, (RAW, CLEAN))
    with pytest.raises(Refused, match="dataset:raw has dependencies with dataset:clean") as caught:
        fleet.do(RemoveNodes(node_ids=(NodeId(RAW), NodeId(WEATHER))))
    assert caught.value.reason is Reason.NODE_IN_USE
    with pytest.raises(Invalid, match="lifecycle"):
        fleet.do(RemoveNodes(node_ids=(NodeId("model:delay"),)))
    assert fleet.do(RemoveNodes(node_ids=(NodeId(WEATHER),))).changed == 1
    assert not fleet.state.graph.has_node(NodeId(WEATHER))


def test_a_removed_node_does_not_come_back_by_a_late_event(fleet: Fleet) -> None:
    tell(fleet, run(RAW, "", state=RunState.START))
    fleet.do(RemoveNodes(node_ids=(NodeId(RAW),)))
    tell(fleet, run("", CLEAN))
    assert not fleet.state.graph.has_node(NodeId(RAW))


def test_renaming_moves_edges_evidence_and_names(fleet: Fleet) -> None:
    fleet.do(DeclareNodes(nodes=(Node(node_id=NodeId(RAW), owner="ana", external_ids=("pg://raw",)),)))
    declare(fleet, (RAW, CLEAN))
    tell(fleet, run("pg://raw", f"{CLEAN} {WEATHER}"))
    result = fleet.do(RenameNode(node_id=NodeId(RAW), new_node_id=NodeId("dataset:source")))
    assert (result.node_id, result.dependencies) == ("dataset:source", 2)
    assert fleet.state.graph.node(NodeId("dataset:source")).owner == "ana"
    assert state_of(fleet, "dataset:source", CLEAN) is EdgeState.ACTIVE
    assert key("dataset:source", CLEAN) in fleet.state.lineage.declared
    tell(fleet, run(RAW, WEATHER, run_id="r2"))
    assert not fleet.state.graph.has_node(NodeId(RAW)), "the old id still means the node"
    assert fleet.state.lineage.records[key("dataset:source", WEATHER)].sightings[0].runs_seen == 2


def test_renaming_to_a_node_there_is_makes_one_of_two(fleet: Fleet) -> None:
    declare(fleet, (RAW, CLEAN), (WEATHER, "model:delay"))
    tell(fleet, run(f"{RAW} {WEATHER}", CLEAN))
    fleet.do(RenameNode(node_id=NodeId(RAW), new_node_id=NodeId(WEATHER)))
    assert [d.key for d in fleet.state.graph.dependencies()] == [key(WEATHER, CLEAN), key(WEATHER, "model:delay")]
    assert key(WEATHER, CLEAN) in fleet.state.lineage.declared


def test_renaming_into_a_cycle_is_refused_or_quarantined(fleet: Fleet) -> None:
    declare(fleet, (RAW, CLEAN), (CLEAN, WEATHER))
    rename = RenameNode(node_id=NodeId(WEATHER), new_node_id=NodeId(RAW))
    assert reason_of(lambda: fleet.do(rename)) is Reason.DEPENDENCY_CYCLE
    fleet.do(RetractDependencies(dependencies=(dependency(CLEAN, WEATHER),)))
    tell(fleet, run(CLEAN, WEATHER))
    fleet.do(rename)
    assert state_of(fleet, RAW, CLEAN) is EdgeState.ACTIVE
    assert state_of(fleet, CLEAN, RAW) is EdgeState.QUARANTINED


def test_a_registered_model_keeps_its_id(fleet: Fleet) -> None:
    with pytest.raises(Invalid, match="register other"):
        fleet.do(RenameNode(node_id=NodeId("model:delay"), new_node_id=NodeId("model:other")))
    with pytest.raises(NotFound):
        fleet.do(RenameNode(node_id=NodeId("dataset:none"), new_node_id=NodeId("dataset:other")))
    tell(fleet, run(RAW, "model!lake/delay"))
    fleet.do(RenameNode(node_id=discovered_id("lake/delay", NodeKind.MODEL), new_node_id=NodeId("model:delay")))
    assert state_of(fleet, RAW, "model:delay") is EdgeState.ACTIVE


def test_a_renamed_consumer_is_renamed_in_its_models(fleet: Fleet) -> None:
    facts = ModelFacts(
        model_id=ModelId("served"),
        owner="team:x",
        team=TeamId("x"),
        tier=2,
        task_type=TaskType.BINARY,
        consumers=("desk",),
    )
    fleet.do(RegisterModel(facts=facts))
    fleet.do(RenameNode(node_id=NodeId("consumer:desk"), new_node_id=NodeId("consumer:gate_desk")))
    assert fleet.state.models[facts.model_id].facts.consumers == ("gate_desk",)
    assert state_of(fleet, "model:served", "consumer:gate_desk") is EdgeState.ACTIVE


# Disagreements


def told(fleet: Fleet, **more: bool) -> list[tuple[str, str]]:
    """Kinds and nodes of what is disagreed about."""
    found = disagreements(fleet.state.graph, fleet.state.lineage, fleet.now, **more)
    assert all(d.explanation.endswith(".") for d in found)
    return [(d.kind.value, d.node_id) for d in found]


def test_what_is_discovered_beside_declarations_is_listed_until_it_is_resolved(fleet: Fleet) -> None:
    tell(fleet, run(RAW, CLEAN))
    assert told(fleet) == [], "nobody has declared anything for it"
    declare(fleet, (WEATHER, CLEAN))
    assert told(fleet) == [("NOT_DECLARED", CLEAN)]
    fleet.do(absent())
    assert told(fleet) == []
    assert told(fleet, overridden=True) == [("OVERRIDDEN", CLEAN)]
    fleet.do(ClearOverride(dependency=dependency(RAW, CLEAN)))
    declare(fleet, (RAW, CLEAN))
    assert told(fleet) == []


def test_what_is_declared_and_not_read_is_listed(fleet: Fleet) -> None:
    declare(fleet, (RAW, CLEAN))
    for number in range(3):
        assert ("NOT_SEEN", CLEAN) not in told(fleet)
        tell(fleet, run(WEATHER, CLEAN, run_id=f"r{number}", at=START + timedelta(seconds=number)))
        fleet.now += timedelta(seconds=1)
    assert told(fleet) == [("NOT_DECLARED", CLEAN), ("NOT_SEEN", CLEAN)]
    tell(fleet, run(RAW, CLEAN, run_id="r9", at=fleet.now))
    assert told(fleet) == [("NOT_DECLARED", CLEAN)]


# Snapshots


def test_a_snapshot_has_all_evidence(fleet: Fleet) -> None:
    declare(fleet, (RAW, CLEAN))
    tell(fleet, run(f"{CLEAN} x", f"{RAW} model!y"), run("a", "", run_id="open", state=RunState.START))
    fleet.do(absent(expires_at=START + DAY))
    blob = encode_snapshot(fleet.state)
    again = decode_snapshot(blob)
    assert encode_snapshot(again) == blob
    assert again.lineage.claims == fleet.state.lineage.claims
    assert again.lineage.touching == fleet.state.lineage.touching
    assert len(again.edge_times) == len(fleet.state.edge_times)
    copy = Fleet(state=again, now=fleet.now)
    assert copy.pass_time(DAY) == fleet.pass_time(DAY) != []
    assert encode_snapshot(copy.state) == encode_snapshot(fleet.state)
