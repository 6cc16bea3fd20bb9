"""A small fleet as canned answers of `ControlPlaneFake`, for tests of what the command line prints."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from runway.v1 import (
    facts_pb2,
    graph_pb2,
    ground_truth_pb2,
    operations_pb2,
    policies_pb2,
    registry_pb2,
    retraining_pb2,
    rollout_pb2,
    staleness_pb2,
)
from runway_client import messages, to_duration, to_timestamp

from tests.api.control_plane_fake import ControlPlaneFake, failure, not_found

NOW = datetime(2013, 3, 4, 11, tzinfo=UTC)


def before(**span: float) -> Any:
    """An instant so long before the control plane's now."""
    return to_timestamp(NOW - timedelta(**span))


AIR_TIME = registry_pb2.Model(
    model_id="air_time",
    owner="anna@example.com",
    team="flight_ops",
    tier=messages.TIER_1,
    task_type=messages.TASK_TYPE_REGRESSION,
    description="Minutes in the air, from route, plane and weather.",
    tags={"fleet": "flights"},
    consumers=["crew_planning"],
    effective_policies=policies_pb2.Policies(
        staleness=policies_pb2.StalenessPolicy(
            stale_threshold=0.6,
            age_backstop_days=60,
            cadence=to_duration(timedelta(hours=1)),
            hysteresis_k=2,
            hysteresis_n=3,
        ),
        retraining=policies_pb2.RetrainingPolicy(
            automatic=True,
            cooldown=to_duration(timedelta(days=1)),
            cascade_cooldown=to_duration(timedelta(hours=6)),
            attempts_max=3,
        ),
        validation=policies_pb2.ValidationPolicy(margin=0.005),
        label=policies_pb2.LabelSpec(label_type="air_time", window=to_duration(timedelta(days=1)), metric="rmse"),
    ),
    registered_at=before(days=62),
    updated_at=before(days=62),
    etag="e1",
    aliases={"production": 3, "previous": 2},
    latest_version=4,
)
ARRIVAL = registry_pb2.Model(
    model_id="arrival_delay_jfk",
    owner="boris@example.com",
    team="passenger_experience",
    tier=messages.TIER_2,
    task_type=messages.TASK_TYPE_BINARY,
    aliases={"production": 1},
    latest_version=1,
)
UNTRAINED = registry_pb2.Model(
    model_id="route_embedding",
    owner="team:network",
    team="network",
    tier=messages.TIER_3,
    task_type=messages.TASK_TYPE_EMBEDDING,
    description="evil\x1b[2Jtext",
)
MODELS = {model.model_id: model for model in (AIR_TIME, ARRIVAL, UNTRAINED)}

STALE = staleness_pb2.Staleness(
    model_id="air_time",
    verdict=staleness_pb2.VERDICT_STALE,
    verdict_since=before(hours=5),
    owner="anna@example.com",
    team="flight_ops",
    tier=messages.TIER_1,
    evaluation=staleness_pb2.Evaluation(
        version=3,
        evaluated_at=before(minutes=10),
        level=staleness_pb2.VERDICT_STALE,
        score=0.714,
        score_low=0.65,
        score_high=0.9,
        threshold=0.6,
        confidence=staleness_pb2.CONFIDENCE_HIGH,
        confidence_reason="3 of 4 signals are known",
        signals=[
            staleness_pb2.Signal(
                name="age", value=0.4, weight=0.2, contribution=0.08, explanation="trained on data up to 24 days ago"
            ),
            staleness_pb2.Signal(
                name="input_drift",
                value=0.9,
                weight=0.4,
                contribution=0.36,
                sample_size=14200,
                significant=True,
                explanation="7 of 25 features drifted",
            ),
            staleness_pb2.Signal(name="performance", weight=0.3, missing=True, explanation="40 labels, 200 needed"),
        ],
        top_features=[
            staleness_pb2.FeatureDrift(name="temp", psi=0.41, psi_debiased=0.39, p_value=1e-12, drifted=True),
            staleness_pb2.FeatureDrift(name="seats", psi=0.02, psi_debiased=0.0, p_value=0.4),
        ],
        reasons=["temp moved by 0.39 nats: winter ended"],
        recommended_action="RETRAIN",
    ),
)
FRESH = staleness_pb2.Staleness(
    model_id="arrival_delay_jfk",
    verdict=staleness_pb2.VERDICT_FRESH,
    verdict_since=before(days=3),
    team="passenger_experience",
    tier=messages.TIER_2,
    evaluation=staleness_pb2.Evaluation(score=0.12, threshold=0.6, confidence=staleness_pb2.CONFIDENCE_MEDIUM),
)
UNKNOWN = staleness_pb2.Staleness(
    model_id="route_embedding", verdict=staleness_pb2.VERDICT_UNKNOWN, team="network", tier=messages.TIER_3
)
STANDINGS = {standing.model_id: standing for standing in (STALE, FRESH, UNKNOWN)}

REACHED = [
    graph_pb2.Reached(
        node_id="feature:temp", wave=1, distance=1, path=["dataset:weather", "feature:temp"], path_count=1
    ),
    graph_pb2.Reached(
        node_id="model:air_time",
        wave=2,
        distance=2,
        path=["dataset:weather", "feature:temp", "model:air_time"],
        path_count=1,
        owner="anna@example.com",
        team="flight_ops",
        tier=messages.TIER_1,
    ),
    graph_pb2.Reached(
        node_id="model:arrival_delay_jfk",
        wave=3,
        distance=3,
        path=["dataset:weather", "feature:temp", "model:air_time", "model:arrival_delay_jfk"],
        path_count=2,
        all_paths=[
            graph_pb2.Path(node_ids=["dataset:weather", "feature:temp", "model:air_time", "model:arrival_delay_jfk"]),
            graph_pb2.Path(node_ids=["dataset:weather", "feature:wind", "model:air_time", "model:arrival_delay_jfk"]),
        ],
        owner="boris@example.com",
        team="passenger_experience",
        tier=messages.TIER_2,
    ),
]
NODES = ["dataset:weather", "feature:temp", "model:air_time", "model:arrival_delay_jfk", "consumer:air_time"]

WAITING = retraining_pb2.Retrain(
    retrain_id="rt_000002",
    model_id="air_time",
    state=retraining_pb2.RETRAIN_STATE_WAITING,
    causes=[retraining_pb2.RETRAIN_CAUSE_STALE, retraining_pb2.RETRAIN_CAUSE_OPERATOR],
    tier=messages.TIER_1,
    score=0.714,
    requested_at=before(hours=5),
    requested_by="anna",
    reason="winter ended",
    waiting_for=["cooldown until 2013-03-04 14:00"],
    attempts=[
        retraining_pb2.Attempt(
            attempt_id="rt_000002_a1",
            number=1,
            state=retraining_pb2.ATTEMPT_STATE_FAILED,
            scheduler="dagster",
            leased_at=before(hours=4),
            ended_at=before(hours=3),
            failure="out of memory",
            run="b9f1c0de",
        )
    ],
)
DONE = retraining_pb2.Retrain(
    retrain_id="rt_000001",
    model_id="arrival_delay_jfk",
    state=retraining_pb2.RETRAIN_STATE_PROMOTED,
    causes=[retraining_pb2.RETRAIN_CAUSE_UPSTREAM],
    tier=messages.TIER_2,
    requested_at=before(days=3),
    conclusion="v1 was promoted",
    rollout_id="ro_000001",
)
ROLLOUT = rollout_pb2.Rollout(
    rollout_id="ro_000001",
    model_id="arrival_delay_jfk",
    version=1,
    state=rollout_pb2.ROLLOUT_STATE_PROMOTED,
    started_at=before(days=3),
    ended_at=before(days=3),
    retrain_id="rt_000001",
    conclusion="better by 0.012",
    validation=rollout_pb2.Validation(
        passed=True,
        metric="auc",
        candidate=0.712,
        production=0.7,
        standard_error=0.004,
        sample_size=8123,
        explanation="The candidate is better.",
        holdout_from=before(days=10),
        holdout_until=before(days=3),
    ),
)
EVENTS = [
    operations_pb2.Event(
        revision=40, at=before(hours=6), actor="replay", kind="ClockAdvanced", sentence="the clock stands at 06:00"
    ),
    operations_pb2.Event(
        revision=41,
        at=before(hours=5),
        actor="runway",
        kind="VerdictChanged",
        model_id="air_time",
        sentence="air_time became STALE",
    ),
    operations_pb2.Event(
        revision=42,
        at=before(hours=5),
        actor="anna",
        reason="winter ended",
        kind="RetrainRequested",
        model_id="air_time",
        sentence="rt_000002 of air_time was requested",
    ),
]


def _page(items: list[Any], after: int, page_max: int) -> list[Any]:
    return [item for item in items if item.revision > after][:page_max]


def _model(model_id: str) -> registry_pb2.Model:
    if model_id not in MODELS:
        raise not_found("MODEL_NOT_FOUND", f"there is no model {model_id}")
    return MODELS[model_id]


def _version(number: int, days: int) -> registry_pb2.ModelVersion:
    return registry_pb2.ModelVersion(
        model_id="air_time",
        version=number,
        artifact_sha256=f"{number:x}" * 64,
        trained_until=before(days=days),
        registered_at=before(days=days - 1),
        metrics=[registry_pb2.Metric(name="rmse", value=7.5 + number / 10, standard_error=0.05)],
        run=f"run{number}",
        attempt_id=f"rt_00000{number}_a1",
    )


def _impact(request: Any, _context: Any) -> graph_pb2.GetImpactResponse:
    if request.node_id not in NODES:
        raise not_found("NODE_NOT_FOUND", f"there is no node {request.node_id}")
    wanted = request.filter
    near = [r for r in REACHED if not wanted.depth_max or r.distance <= wanted.depth_max]
    if request.node_id != "dataset:weather":
        near = []
    kinds = Counter(r.node_id.partition(":")[0] for r in near)
    names = {graph_pb2.NodeKind.Name(kind).removeprefix("NODE_KIND_").lower() for kind in wanted.kinds}
    reached = [r for r in near if not names or r.node_id.partition(":")[0] in names]
    if wanted.paths != graph_pb2.PATHS_ALL:
        reached = [_without_further_paths(r) for r in reached]
    deeper = len(REACHED) - len(near) if wanted.depth_max else 0
    return graph_pb2.GetImpactResponse(
        reached=reached,
        waves=len(reached),
        completeness=graph_pb2.Completeness(
            complete=not deeper,
            reasons=[f"{deeper} nodes lie deeper than {wanted.depth_max}"] if deeper else [],
            oldest_lineage_at=before(days=3) if near else None,
            oldest_lineage_age=to_duration(timedelta(days=3)) if near else None,
            suspect_edges=1 if near else 0,
        ),
        summary=graph_pb2.ImpactSummary(
            by_kind=kinds,
            models_by_tier=Counter(int(r.tier) for r in near if r.tier),
            tier_1_models=[r.node_id for r in near if r.tier == messages.TIER_1],
            owners=sorted({r.owner for r in near if r.owner}),
            teams=sorted({r.team for r in near if r.team}),
            retrain_gpu_hours=12.5,
            retrain_cost_unknown=1,
        ),
        revision=42,
    )


def _without_further_paths(reached: graph_pb2.Reached) -> graph_pb2.Reached:
    bare = graph_pb2.Reached()
    bare.CopyFrom(reached)
    bare.ClearField("all_paths")
    return bare


def _paths(request: Any, _context: Any) -> graph_pb2.ListPathsResponse:
    found = [r.path for r in REACHED if (r.path[0], r.path[-1]) == (request.from_node_id, request.to_node_id)]
    more = [["dataset:weather", "feature:temp", "feature:wind", "model:air_time"]] if found else []
    return graph_pb2.ListPathsResponse(
        paths=[graph_pb2.Path(node_ids=path) for path in [*found, *more]],
        total="3" if found else "0",
        complete=not found,
        incomplete_reason="1 of 3 paths left out: the limit is 2" if found else "",
    )


def _causes(request: Any, _context: Any) -> graph_pb2.GetCommonCausesResponse:
    if "consumer:air_time" in request.node_ids:
        return graph_pb2.GetCommonCausesResponse()
    return graph_pb2.GetCommonCausesResponse(
        causes=[
            graph_pb2.CommonCause(node_id="feature:temp", distance=2, nearest=True, team="data"),
            graph_pb2.CommonCause(node_id="dataset:weather", distance=3, root=True, owner="cleo@example.com"),
        ]
    )


def _diff(request: Any, _context: Any) -> graph_pb2.DiffGraphResponse:
    edge = graph_pb2.Dependency(
        upstream_id="dataset:weather", downstream_id="feature:temp", type=messages.DEPENDENCY_TYPE_DERIVED_FROM
    )
    return graph_pb2.DiffGraphResponse(
        nodes_added=[graph_pb2.Node(node_id="feature:wind", owner="cleo@example.com")],
        nodes_changed=[
            graph_pb2.NodeChange(
                before=graph_pb2.Node(node_id="feature:temp", owner="anna"),
                after=graph_pb2.Node(node_id="feature:temp", owner="ben"),
            )
        ],
        dependencies_removed=[edge],
        from_revision=getattr(request, "from").as_of_revision,
        to_revision=42,
    )


def _preview(request: Any, _context: Any) -> graph_pb2.PreviewChangeResponse:
    if not (request.retire_node_ids or request.remove):
        return graph_pb2.PreviewChangeResponse(
            completeness=graph_pb2.Completeness(complete=True),
            refusals=[
                "feature:temp cannot depend on model:air_time: that closes the cycle "
                "model:air_time -> feature:temp -> model:air_time"
            ],
        )
    reached = _impact(graph_pb2.GetImpactRequest(node_id="dataset:weather"), None)
    return graph_pb2.PreviewChangeResponse(
        affected=reached.reached,
        waves=3,
        completeness=graph_pb2.Completeness(complete=True),
        summary=reached.summary,
        orphaned=["model:air_time"],
        directly_hit=["model:air_time"],
    )


def _list_retrains(request: Any, _context: Any) -> retraining_pb2.ListRetrainsResponse:
    if request.model_id:
        _model(request.model_id)
    found = [
        retrain
        for retrain in (WAITING, DONE)
        if request.model_id in ("", retrain.model_id) and (not request.states or retrain.state in request.states)
    ]
    return retraining_pb2.ListRetrainsResponse(retrains=found, revision=42)


def _get_retrain(request: Any, _context: Any) -> retraining_pb2.GetRetrainResponse:
    for retrain in (WAITING, DONE):
        if retrain.retrain_id == request.retrain_id:
            return retraining_pb2.GetRetrainResponse(retrain=retrain)
    raise not_found("RETRAIN_NOT_FOUND", f"there is no retrain {request.retrain_id}")


def _promote(request: Any, _context: grpc.ServicerContext) -> rollout_pb2.PromoteVersionResponse:
    if not request.force:
        raise failure(9, "VALIDATION_REQUIRED", "v4 of air_time has not passed a validation: force it with a reason")
    rollout = rollout_pb2.Rollout(
        rollout_id="ro_000002",
        model_id=request.model_id,
        version=request.version,
        production_before=3,
        state=rollout_pb2.ROLLOUT_STATE_PROMOTED,
    )
    return rollout_pb2.PromoteVersionResponse(rollout=rollout)


def _coverage(request: Any, _context: Any) -> ground_truth_pb2.GetCoverageResponse:
    _model(request.model_id)
    row = ground_truth_pb2.CoverageRow(
        start_time=before(hours=11),
        end_time=to_timestamp(NOW),
        predicted=1200,
        mature=1000,
        joined=985,
        late=3,
        orphans=1,
        coverage=0.985,
        layer=ground_truth_pb2.LAYER_SPEED,
    )
    return ground_truth_pb2.GetCoverageResponse(
        total=row, rows=[row], coverage_min=0.9, explanation="985 of 1000 mature predictions have their outcome"
    )


def _fleet_coverage(request: Any, _context: Any) -> ground_truth_pb2.ListCoverageResponse:
    low = ground_truth_pb2.ModelCoverage(
        model_id="arrival_delay_jfk",
        tier=1,
        total=ground_truth_pb2.CoverageRow(mature=1000, joined=612, coverage=0.612),
        coverage_min=0.8,
        low=True,
        alert=True,
        cause=ground_truth_pb2.COVERAGE_CAUSE_SOURCE_SILENT,
    )
    fine = ground_truth_pb2.ModelCoverage(
        model_id="air_time",
        tier=2,
        total=ground_truth_pb2.CoverageRow(mature=1000, joined=985, coverage=0.985),
        coverage_min=0.9,
    )
    models = [low] if request.low_only else [low, fine]
    return ground_truth_pb2.ListCoverageResponse(models=models, total=2, low=1)


def _performance(request: Any, _context: Any) -> ground_truth_pb2.GetPerformanceResponse:
    _model(request.model_id)
    metrics = [
        ground_truth_pb2.PerformanceMetric(
            name="rmse", value=8.1234, standard_error=0.061, sample_size=985, baseline=7.8, low=8.0047, high=8.2439
        )
    ]
    row = ground_truth_pb2.PerformanceRow(
        start_time=before(hours=11),
        end_time=to_timestamp(NOW),
        metrics=metrics,
        layer=ground_truth_pb2.LAYER_BATCH,
        predicted=1_200,
        labelled=985,
        arrived=0.82 if request.provisional else 1.0,
        provisional=request.provisional,
        sample_rate=1.0,
        computed_at=before(hours=1),
    )
    return ground_truth_pb2.GetPerformanceResponse(
        total=row,
        rows=[row],
        delays=ground_truth_pb2.DelayHistogram(
            edges_s=[0, 60, 3600], counts=[0, 900, 85, 0], arrived=[0, 0.9, 1], median_s=12, p95_s=2_000
        ),
        label_type="default",
        label_kind=ground_truth_pb2.LABEL_KIND_EXACT,
        degraded=["12 predictions of 1 hours wait for the batch join and are not counted"] if request.slice else [],
    )


def _joined(request: Any, _context: Any) -> facts_pb2.JoinPartitionResponse:
    if request.model_id:
        _model(request.model_id)
    return facts_pb2.JoinPartitionResponse(
        hours_joined=20,
        hours_live=1,
        predicted=1200,
        joined=985,
        late=3,
        orphans=1,
        engine="duckdb",
        cpu_s=0.42,
        models=[facts_pb2.ModelJoin(model_id="air_time", predicted=1200, joined=985, coverage=0.985)],
    )


def _status(_request: Any, _context: Any) -> operations_pb2.GetStatusResponse:
    return operations_pb2.GetStatusResponse(
        server_version="0.1.0",
        leader=True,
        epoch=3,
        revision=42,
        snapshot_revision=40,
        clock_mode=operations_pb2.CLOCK_MODE_DRIVEN,
        now=to_timestamp(NOW),
        started_at=before(hours=1),
        models=3,
        nodes=5,
        dependencies=3,
        verdicts={"FRESH": 1, "STALE": 1, "UNKNOWN": 1, "AT_RISK": 0},
        retrains={"WAITING": 1},
        limits=operations_pb2.RetrainingLimits(running_max=50, running_per_team_max=10),
        retraining_held=True,
        predictions_ingested=1234567,
        outcomes_ingested=1200000,
        watchers=1,
    )


def serve_fleet(fake: ControlPlaneFake) -> None:
    """Give the fake an answer for everything the command line asks."""
    edges = [("dataset:weather", "feature:temp", 5), ("feature:temp", "model:air_time", 2)]
    graph = graph_pb2.GetGraphResponse(
        nodes=[graph_pb2.Node(node_id=node_id) for node_id in NODES],
        dependencies=[
            graph_pb2.Dependency(upstream_id=up, downstream_id=down, type=graph_pb2.DependencyType.ValueType(kind))
            for up, down, kind in edges
        ],
    )
    moves = [
        registry_pb2.AliasMove(
            model_id="air_time",
            alias="production",
            from_version=2,
            to_version=3,
            moved_at=before(days=20),
            actor="runway",
            reason="validated: better by 0.2",
            revision=33,
        )
    ]
    fake.answers |= {
        "OperationsService/GetStatus": _status,
        "OperationsService/ListEvents": lambda request, _context: operations_pb2.ListEventsResponse(
            events=_page(EVENTS, request.after_revision, request.events_max), revision=42, scanned_revision=42
        ),
        "OperationsService/Watch": lambda request, _context: iter(
            [operations_pb2.WatchResponse(events=_page(EVENTS, request.after_revision, 100))]
        ),
        "OperationsService/HoldRetraining": lambda _r, _c: operations_pb2.HoldRetrainingResponse(revision=43),
        "OperationsService/ReleaseRetraining": lambda _r, _c: operations_pb2.ReleaseRetrainingResponse(revision=44),
        "RegistryService/ListModels": lambda request, _context: registry_pb2.ListModelsResponse(
            models=[model for model in MODELS.values() if not request.teams or model.team in request.teams], revision=42
        ),
        "RegistryService/GetModel": lambda request, _context: registry_pb2.GetModelResponse(
            model=_model(request.model_id), revision=42
        ),
        "RegistryService/GetVersion": lambda request, _context: registry_pb2.GetVersionResponse(
            version=registry_pb2.ModelVersion(model_id=request.model_id, version=request.version), revision=42
        ),
        "PolicyService/ExplainPolicies": lambda _request, _context: policies_pb2.ExplainPoliciesResponse(
            values=[
                policies_pb2.PolicyValue(field="staleness.cadence", value="900s", source="tier:1"),
                policies_pb2.PolicyValue(field="retraining.cooldown", value="86400s", source="built-in"),
            ],
            revision=42,
        ),
        "RegistryService/ListAliasMoves": lambda request, _context: registry_pb2.ListAliasMovesResponse(
            moves=moves if _model(request.model_id) == AIR_TIME else []
        ),
        "RegistryService/ListVersions": lambda request, _context: registry_pb2.ListVersionsResponse(
            versions=[_version(4, 2), _version(3, 24)] if _model(request.model_id) == AIR_TIME else []
        ),
        "StalenessService/ListStaleness": lambda request, _context: staleness_pb2.ListStalenessResponse(
            staleness=[s for s in STANDINGS.values() if not request.verdicts or s.verdict in request.verdicts]
        ),
        "StalenessService/GetStaleness": lambda request, _context: staleness_pb2.GetStalenessResponse(
            staleness=STANDINGS[_model(request.model_id).model_id]
        ),
        "StalenessService/ExplainStaleness": lambda request, _context: staleness_pb2.ExplainStalenessResponse(
            staleness=STANDINGS[_model(request.model_id).model_id],
            sentences=["Its inputs drifted.", "Retraining is advised."],
        ),
        "StalenessService/ListEvaluations": lambda _r, _c: staleness_pb2.ListEvaluationsResponse(),
        "StalenessService/ListVerdictChanges": lambda _r, _c: staleness_pb2.ListVerdictChangesResponse(),
        "StalenessService/EvaluateModel": lambda request, _context: staleness_pb2.EvaluateModelResponse(
            staleness=STANDINGS[_model(request.model_id).model_id], revision=43
        ),
        "StalenessService/ReplayEvaluation": lambda _r, _c: staleness_pb2.ReplayEvaluationResponse(
            recorded=STALE.evaluation, replayed=STALE.evaluation, identical=True, evidence_sha256="ab" * 32
        ),
        "GraphService/GetImpact": _impact,
        "GraphService/GetUpstream": lambda _request, _context: graph_pb2.GetUpstreamResponse(
            reached=[graph_pb2.Reached(node_id="dataset:weather", wave=1, distance=1)],
            waves=1,
            completeness=graph_pb2.Completeness(complete=False, reasons=["more than 100,000 nodes"]),
            summary=graph_pb2.ImpactSummary(by_kind={"dataset": 1}),
        ),
        "GraphService/ListPaths": _paths,
        "GraphService/GetCommonCauses": _causes,
        "GraphService/PreviewChange": _preview,
        "GraphService/RemoveNodes": lambda request, _context: graph_pb2.RemoveNodesResponse(
            changed=len(request.node_ids), revision=43
        ),
        "GraphService/RenameNode": lambda request, _context: graph_pb2.RenameNodeResponse(
            node=graph_pb2.Node(node_id=request.new_node_id), dependencies=2, revision=43
        ),
        "GraphService/DiffGraph": _diff,
        "GraphService/GetGraph": lambda _request, _context: graph,
        "GroundTruthService/GetCoverage": _coverage,
        "GroundTruthService/ListCoverage": _fleet_coverage,
        "GroundTruthService/GetPerformance": _performance,
        "FactsService/JoinPartition": _joined,
        "RetrainingService/ListRetrains": _list_retrains,
        "RetrainingService/GetRetrain": _get_retrain,
        "RetrainingService/RequestRetrain": lambda request, _context: retraining_pb2.RequestRetrainResponse(
            retrain=WAITING if _model(request.model_id) == AIR_TIME else None, created=False, revision=43
        ),
        "RetrainingService/CancelRetrain": lambda request, _context: retraining_pb2.CancelRetrainResponse(
            retrain=_get_retrain(request, _context).retrain
        ),
        "RolloutService/ListRollouts": lambda _request, _context: rollout_pb2.ListRolloutsResponse(rollouts=[ROLLOUT]),
        "RolloutService/GetRollout": lambda _request, _context: rollout_pb2.GetRolloutResponse(rollout=ROLLOUT),
        "RolloutService/PromoteVersion": _promote,
        "RolloutService/RollBack": lambda request, _context: rollout_pb2.RollBackResponse(
            rollout=rollout_pb2.Rollout(
                rollout_id="ro_000003",
                model_id=_model(request.model_id).model_id,
                version=3,
                production_before=2,
                state=rollout_pb2.ROLLOUT_STATE_ROLLED_BACK,
            )
        ),
    }
