"""LineageService: what sources tell, what is known of each edge, overrides, disagreements, policies."""

from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from runway.v1 import common_pb2, graph_pb2, lineage_pb2

from tests.api.worlds import START, Api, by, refused

RAW, CLEAN, WEATHER = "dataset:raw", "dataset:clean", "dataset:weather"
DAY = timedelta(days=1)


def run(reads: str, writes: str, run_id: str = "r1", job: str = "etl") -> lineage_pb2.LineageRun:
    """A completed run; a name with a colon and no slash is our id."""

    def nodes(names: str) -> list[lineage_pb2.LineageNode]:
        return [
            lineage_pb2.LineageNode(external_id=name) if "/" in name else lineage_pb2.LineageNode(node_id=name)
            for name in names.split()
        ]

    return lineage_pb2.LineageRun(
        source="openlineage",
        job=job,
        run_id=run_id,
        state=lineage_pb2.RUN_STATE_COMPLETE,
        inputs=nodes(reads),
        outputs=nodes(writes),
        evidence_url=f"https://airflow.example/{run_id}",
    )


async def tell(api: Api, *runs: lineage_pb2.LineageRun) -> lineage_pb2.ReportLineageResponse:
    return await api.lineage.ReportLineage(lineage_pb2.ReportLineageRequest(runs=runs))


def edge(upstream: str, downstream: str) -> graph_pb2.Dependency:
    return graph_pb2.Dependency(upstream_id=upstream, downstream_id=downstream)


async def declare(api: Api, *pairs: tuple[str, str]) -> None:
    request = graph_pb2.DeclareDependenciesRequest(mutation=by(), dependencies=[edge(*pair) for pair in pairs])
    await api.graph.DeclareDependencies(request)


async def edges(api: Api, **asked: object) -> list[lineage_pb2.Edge]:
    return list((await api.lineage.ListEdges(lineage_pb2.ListEdgesRequest(**asked))).edges)  # type: ignore[arg-type]


def override(actor: str, *, present: bool = False, replace: int = 0) -> lineage_pb2.SetOverrideRequest:
    return lineage_pb2.SetOverrideRequest(
        mutation=common_pb2.Mutation(actor=actor, reason=f"{actor} knows"),
        dependency=edge(RAW, CLEAN),
        present=present,
        replace_revision=replace,
    )


@pytest.fixture
async def fleet(api: Api) -> Api:
    """Three declared datasets."""
    nodes = [graph_pb2.Node(node_id=node_id, owner="ana@example.com", team="data") for node_id in (RAW, CLEAN, WEATHER)]
    await api.graph.DeclareNodes(graph_pb2.DeclareNodesRequest(nodes=nodes))
    return api


async def test_a_completed_run_makes_an_edge_with_its_evidence(fleet: Api) -> None:
    assert (await tell(fleet, run(RAW, CLEAN))).changed == 1
    assert (await tell(fleet, run(RAW, CLEAN))).changed == 0
    (found,) = await edges(fleet)
    assert found.dependency.type == graph_pb2.DEPENDENCY_TYPE_DERIVED_FROM
    assert found.state == lineage_pb2.EDGE_STATE_ACTIVE
    assert found.explanation == "openlineage job etl showed it in run r1"
    assert found.confidence == 1.0
    assert not found.HasField("declaration")
    (sighting,) = found.sightings
    assert sighting.origin == lineage_pb2.EDGE_ORIGIN_DISCOVERED
    assert (sighting.run_id, sighting.runs_seen, sighting.runs_missed) == ("r1", 1, 0)
    assert sighting.evidence_url == "https://airflow.example/r1"
    assert sighting.last_seen_at.ToDatetime() == START.replace(tzinfo=None)
    impact = await fleet.graph.GetImpact(graph_pb2.GetImpactRequest(node_id=RAW))
    assert [row.node_id for row in impact.reached] == [CLEAN]
    assert impact.completeness.HasField("oldest_lineage_at")


async def test_a_run_that_has_not_ended_makes_none(fleet: Api) -> None:
    begun = run(RAW, CLEAN)
    begun.state = lineage_pb2.RUN_STATE_START
    assert (await tell(fleet, begun)).changed == 1
    assert await edges(fleet) == []


async def test_a_cycle_is_reported_with_its_path_and_the_rest_is_applied(fleet: Api) -> None:
    await declare(fleet, (RAW, CLEAN))
    reply = await tell(fleet, run(CLEAN, RAW, job="back"), run(WEATHER, CLEAN, job="on"))
    (apart,) = reply.quarantined
    assert list(apart.cycle) == [CLEAN, RAW, CLEAN]
    (found,) = await edges(fleet, states=[lineage_pb2.EDGE_STATE_QUARANTINED])
    assert found.explanation == f"it would close the cycle {CLEAN} -> {RAW} -> {CLEAN}"
    assert len(await edges(fleet, states=[lineage_pb2.EDGE_STATE_ACTIVE])) == 2


async def test_all_that_is_wrong_with_a_report_is_told_at_once(fleet: Api) -> None:
    bad = run(RAW, CLEAN)
    bad.run_id = ""
    bad.inputs.append(lineage_pb2.LineageNode())
    bad.inputs.append(lineage_pb2.LineageNode(node_id="dataset:weаther"))  # noqa: RUF001 - that is the point
    refusal = await refused(tell(fleet, bad))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "INVALID_LINEAGE"
    assert set(refusal.violations) == {"runs[0].run_id", "runs[0].inputs[1]", "runs[0].inputs[2].node_id"}
    assert "CYRILLIC SMALL LETTER A, which only looks like 'a'" in " ".join(refusal.described)


async def test_edges_are_found_by_node_origin_and_source_and_come_in_pages(fleet: Api) -> None:
    await declare(fleet, (RAW, CLEAN))
    await tell(fleet, run(f"{RAW} {WEATHER} s3://lake/x", CLEAN))
    assert len(await edges(fleet)) == 3
    assert len(await edges(fleet, node_id=WEATHER)) == 1
    assert len(await edges(fleet, node_id=CLEAN, other_node_id=RAW)) == 1
    assert len(await edges(fleet, origins=[lineage_pb2.EDGE_ORIGIN_DECLARED])) == 1
    assert len(await edges(fleet, origins=[lineage_pb2.EDGE_ORIGIN_DISCOVERED])) == 3
    assert await edges(fleet, source="metaflow") == []
    token, seen = "", []
    while True:
        page = common_pb2.PageRequest(page_size=1, page_token=token)
        reply = await fleet.lineage.ListEdges(lineage_pb2.ListEdgesRequest(page=page))
        assert reply.total_size == 3
        seen += [found.dependency.upstream_id for found in reply.edges]
        token = reply.next_page_token
        if not token:
            break
    assert seen == sorted(set(seen))
    assert len(seen) == 3


async def test_an_override_wins_and_a_second_team_is_told(fleet: Api) -> None:
    await declare(fleet, (RAW, CLEAN))
    no_reason = override("ana")
    no_reason.mutation.reason = ""
    assert (await refused(fleet.lineage.SetOverride(no_reason))).violations == {"mutation.reason": "REQUIRED"}
    first = await fleet.lineage.SetOverride(override("ana"))
    assert first.edge.state == lineage_pb2.EDGE_STATE_SUPPRESSED
    assert first.edge.explanation == "ana says that it is not there: ana knows"
    assert first.edge.override.revision == first.revision
    refusal = await refused(fleet.lineage.SetOverride(override("bo", present=True)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "OVERRIDE_EXISTS")
    assert refusal.metadata["owner"] == "ana"
    assert "ana knows" in refusal.message
    replaced = await fleet.lineage.SetOverride(override("bo", present=True, replace=int(refusal.metadata["revision"])))
    assert replaced.edge.state == lineage_pb2.EDGE_STATE_ACTIVE
    clear = lineage_pb2.ClearOverrideRequest(mutation=by(), dependency=edge(RAW, CLEAN))
    cleared = await fleet.lineage.ClearOverride(clear)
    assert cleared.edge.HasField("declaration")
    assert not cleared.edge.HasField("override")
    assert (await refused(fleet.lineage.ClearOverride(clear))).reason == "OVERRIDE_NOT_FOUND"


async def test_an_override_expires_by_itself(fleet: Api) -> None:
    await declare(fleet, (RAW, CLEAN))
    request = override("ana")
    request.expires_at.FromDatetime(START + DAY)
    await fleet.lineage.SetOverride(request)
    await fleet.pass_time(DAY)
    (found,) = await edges(fleet)
    assert found.state == lineage_pb2.EDGE_STATE_ACTIVE
    assert not found.HasField("override")


async def test_a_disagreement_is_listed_until_somebody_decides(fleet: Api) -> None:
    await declare(fleet, (WEATHER, CLEAN))
    await tell(fleet, run(RAW, CLEAN))
    asked = lineage_pb2.ListDisagreementsRequest(team="data")
    (found,) = (await fleet.lineage.ListDisagreements(asked)).disagreements
    assert found.kind == lineage_pb2.DISAGREEMENT_KIND_NOT_DECLARED
    assert (found.owner, found.team) == ("ana@example.com", "data")
    assert found.edge.sightings[0].job == "etl"
    assert "Declare it, or override it as not there." in found.explanation
    await fleet.lineage.SetOverride(override("ana"))
    assert not (await fleet.lineage.ListDisagreements(asked)).disagreements
    asked.include_overridden = True
    (decided,) = (await fleet.lineage.ListDisagreements(asked)).disagreements
    assert decided.kind == lineage_pb2.DISAGREEMENT_KIND_OVERRIDDEN
    assert not (
        await fleet.lineage.ListDisagreements(lineage_pb2.ListDisagreementsRequest(team="another"))
    ).disagreements


async def test_a_model_that_is_not_registered_is_a_node_that_answers(fleet: Api) -> None:
    await tell(fleet, run(RAW, "model:ghost"))
    (found,) = (await fleet.lineage.ListDisagreements(lineage_pb2.ListDisagreementsRequest())).disagreements
    assert (found.kind, found.node_id) == (lineage_pb2.DISAGREEMENT_KIND_NOT_REGISTERED, "model:ghost")
    impact = await fleet.graph.GetImpact(graph_pb2.GetImpactRequest(node_id=RAW))
    assert [row.node_id for row in impact.reached] == ["model:ghost"]
    await fleet.model("ghost")
    assert not (await fleet.lineage.ListDisagreements(lineage_pb2.ListDisagreementsRequest())).disagreements


async def test_the_policy_is_set_read_and_applied(fleet: Api) -> None:
    read = lineage_pb2.GetLineagePolicyRequest()
    assert (await fleet.lineage.GetLineagePolicy(read)).policy.suspect_after_runs == 3
    await tell(fleet, run(RAW, CLEAN))
    wanted = lineage_pb2.LineagePolicy(suspect_after=Duration(seconds=3600), retire_after=Duration(seconds=7200))
    await fleet.lineage.SetLineagePolicy(lineage_pb2.SetLineagePolicyRequest(mutation=by(), policy=wanted))
    assert (await fleet.lineage.GetLineagePolicy(read)).policy == wanted
    await fleet.pass_time(timedelta(hours=1))
    assert (await edges(fleet))[0].state == lineage_pb2.EDGE_STATE_SUSPECT
    await fleet.pass_time(timedelta(hours=1))
    assert (await edges(fleet))[0].state == lineage_pb2.EDGE_STATE_RETIRED
    wanted.suspect_after.seconds = 10_000
    refusal = await refused(fleet.lineage.SetLineagePolicy(lineage_pb2.SetLineagePolicyRequest(policy=wanted)))
    assert refusal.violations == {"policy.retire_after": "ORDER"}
