"""Nodes of the graph as Dagster assets.

Models are software-defined: one op each, `retrain__<model>`, which Runway's attempts run. Datasets, features and
consumers are external: they are drawn, Dagster never makes them. Dagster's names are narrower than the registry's in a
few places (tags, owners); what does not fit is shown as metadata instead of refused, because a model that cannot be
drawn is worse than one whose tag is elsewhere.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from assets.attempt import Outcome, run_attempt
from assets.fleet import Fleet, Model, Node
from assets.plane import Connect, ControlPlane, Lease, TrainedVersion
from assets.tags import (
    ATTEMPT_TAG,
    CAUSES_TAG,
    DATA_UNTIL_TAG,
    LEASE_TAG,
    LIFECYCLE_TAG,
    MEMORY_SCALE_TAG,
    OFFLINE_VALIDATION,
    RETRAIN_TAG,
    TEAM_TAG,
    TIER_TAG,
    op_name,
)
from assets.trainer import Trainer, trainer_of
from assets.verdicts import fresh_check

Trainers = Mapping[str, Callable[[], Trainer]]

GROUPS = {"dataset": "data_sources", "feature": "features", "consumer": "consumers", "model": "discovered_models"}
"""Of external assets; a model is one if lineage found it and nobody has registered it."""

TAG_PART = re.compile(r"[A-Za-z0-9_.\-]{1,63}")
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
WARN_AT = 0.8
"""Share of the age backstop after which Dagster shows a model as ageing."""


def node_key(node_id: str) -> dg.AssetKey:
    """The asset key of a node: models by their slug, everything else below its kind."""
    kind, _, slug = node_id.partition(":")
    return dg.AssetKey([slug] if kind == "model" else [kind, slug])


def external_assets(fleet: Fleet) -> list[dg.AssetSpec]:
    """Datasets, features and consumers."""
    upstream = fleet.upstream()
    return [_external(node, upstream.get(f"{node.kind}:{node.slug}", ())) for node in fleet.nodes]


def model_assets(fleet: Fleet, connect: Connect, trainers: Trainers) -> list[dg.AssetsDefinition]:
    """Every model with the op that retrains it."""
    upstream = fleet.upstream()
    return [
        _model_asset(model, upstream.get(f"model:{model.model_id}", ()), connect, trainers) for model in fleet.models
    ]


def model_checks(fleet: Fleet, connect: Connect) -> list[dg.AssetChecksDefinition]:
    """The check `fresh` of every model."""
    return [fresh_check(model.model_id, connect) for model in fleet.models]


def _external(node: Node, upstream: tuple[str, ...]) -> dg.AssetSpec:
    return dg.AssetSpec(
        node_key(f"{node.kind}:{node.slug}"),
        deps=[node_key(node_id) for node_id in upstream],
        description=node.description or None,
        group_name=GROUPS[node.kind],
        owners=_owners(node.owner, node.team),
        kinds={node.kind},
        metadata={"node": f"{node.kind}:{node.slug}"} | ({"owner": node.owner} if node.owner else {}),
    )


def _model_asset(model: Model, upstream: tuple[str, ...], connect: Connect, trainers: Trainers) -> dg.AssetsDefinition:
    key = dg.AssetKey([model.model_id])

    @dg.multi_asset(
        name=op_name(model.model_id),
        specs=[model_spec(model, upstream)],
        check_specs=[
            dg.AssetCheckSpec(
                OFFLINE_VALIDATION,
                asset=key,
                blocking=True,
                description="The candidate against production, on the same holdout. A candidate that fails is not "
                "promoted, and nothing is materialized.",
            )
        ],
        # Makes both outputs optional: a run that only asks Runway yields neither.
        can_subset=True,
    )
    def retrain(context: dg.AssetExecutionContext) -> Iterator[Any]:
        lease = lease_of(context.run.tags, model)
        plane = connect()
        try:
            if lease is None:
                ask_instead(context, plane, model)
                return
            outcome = run_attempt(
                lease, plane, lambda: trainer_of(model, trainers), context.run.run_id, context.log.info
            )
        finally:
            plane.close()
        yield from events_of(key, outcome)

    return retrain


def model_spec(model: Model, upstream: tuple[str, ...]) -> dg.AssetSpec:
    """A model as it is drawn."""
    fitting = {key: value for key, value in model.tags.items() if _fits(key, value)}
    lineage = f"/assets/{model.model_id}?view=lineage&lineageScope=neighbors"
    metadata: dict[str, Any] = {
        # Lineage that is read from Dagster finds the node by this (`runway_lineage.dagster_assets`).
        "node": f"model:{model.model_id}",
        "owner": model.owner or "nobody yet",
        "team": model.team,
        "tier": dg.MetadataValue.int(model.tier),
        "task": model.task_type,
        "lineage": dg.MetadataValue.url(lineage),
        "what breaks if it changes": dg.MetadataValue.text(f"runway impact {model.model_id}"),
        "why it is fresh or stale": dg.MetadataValue.text(f"runway staleness explain {model.model_id}"),
    }
    if model.deprecated:
        metadata["lifecycle"] = "deprecated: it still serves, but look elsewhere for something new"
    if model.consumers:
        metadata["consumers"] = ", ".join(model.consumers)
    metadata |= {f"tag {key}": value for key, value in model.tags.items() if key not in fitting}
    return dg.AssetSpec(
        dg.AssetKey([model.model_id]),
        deps=[node_key(node_id) for node_id in upstream],
        description=model.description or None,
        skippable=True,
        group_name=model.team,
        owners=_owners(model.owner, model.team),
        tags={TIER_TAG: str(model.tier), **({LIFECYCLE_TAG: "deprecated"} if model.deprecated else {}), **fitting},
        kinds={"model", model.task_type},
        freshness_policy=_freshness(model.age_backstop_days),
        metadata=metadata,
    )


def lease_of(tags: Mapping[str, str], model: Model) -> Lease | None:
    """The lease in a run's tags; None for a run that a person launched."""
    if ATTEMPT_TAG not in tags or LEASE_TAG not in tags:
        return None
    return Lease(
        attempt_id=tags[ATTEMPT_TAG],
        retrain_id=tags[RETRAIN_TAG],
        model_id=model.model_id,
        lease_token=tags[LEASE_TAG],
        team=tags.get(TEAM_TAG, model.team),
        tier=model.tier,
        data_until=datetime.fromisoformat(tags[DATA_UNTIL_TAG]),
        causes=tuple(cause for cause in tags.get(CAUSES_TAG, "").split(",") if cause),
        memory_scale=int(tags.get(MEMORY_SCALE_TAG, "1")),
    )


def ask_instead(context: dg.AssetExecutionContext, plane: ControlPlane, model: Model) -> None:
    """A person pressed Materialize: Runway decides when, so ask it, for every model of this run.

    The first op asks for all, because the ops downstream of one that materializes nothing are skipped.
    """
    asked = sorted(key.path[-1] for key in context.run.asset_selection or () if len(key.path) == 1)
    for model_id in asked or [model.model_id]:
        retrain_id = plane.request_retrain(model_id, "asked for in Dagster", f"dagster-{context.run.run_id}-{model_id}")
        context.log.info(
            f"Asked Runway to retrain {model_id}: {retrain_id}. It runs in a run of its own when order and limits "
            f"allow; `runway retrains show {retrain_id}` says what it waits for."
        )


def events_of(key: dg.AssetKey, outcome: Outcome) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
    """What Dagster is told. A refused candidate yields only its failed check, so that nothing is materialized.

    One that waits for approval, or goes through its canary, has passed; it is materialized once it is in production.
    """
    validation = outcome.validation
    compared: dict[str, Any] = {
        "metric": validation.metric,
        "candidate": dg.MetadataValue.float(validation.candidate),
        "holdout_rows": dg.MetadataValue.int(validation.sample_size),
        "version": dg.MetadataValue.int(outcome.version),
        "explanation": validation.explanation,
        **{f"check {name}": words for name, words in outcome.checks.items()},
    }
    if validation.production is not None:
        compared["production"] = dg.MetadataValue.float(validation.production)
        compared["difference"] = dg.MetadataValue.float(validation.candidate - validation.production)
    yield dg.AssetCheckResult(
        asset_key=key,
        check_name=OFFLINE_VALIDATION,
        passed=outcome.passed,
        description=validation.explanation or None,
        metadata=compared,
    )
    if outcome.promoted:
        yield dg.MaterializeResult(asset_key=key, metadata=_made(outcome), data_version=_data_version(outcome))


def materialization_of(model_id: str, version: int, trained: TrainedVersion) -> dg.AssetMaterialization:
    """The materialization of a version that came into production without a run here."""
    return dg.AssetMaterialization(
        asset_key=dg.AssetKey([model_id]),
        description=f"Version {version} came into production without a run of its own here.",
        metadata=_version_metadata(version, trained),
        tags={DATA_VERSION_TAG: trained.artifact_sha256},
    )


def _made(outcome: Outcome) -> dict[str, Any]:
    """Metadata of a materialization; what is a number here plots over time."""
    trained, validation = outcome.trained, outcome.validation
    made = _version_metadata(outcome.version, trained) | {
        validation.metric: dg.MetadataValue.float(validation.candidate),
        "holdout_rows": dg.MetadataValue.int(validation.sample_size),
        "training_s": dg.MetadataValue.float(round(outcome.training_s, 2)),
        "ground_truth_until": last_whole_day(outcome.data_until),
    }
    if trained.rows:
        made["training_rows"] = dg.MetadataValue.int(trained.rows)
    if validation.production is not None:
        made[f"{validation.metric}_gain"] = dg.MetadataValue.float(validation.candidate - validation.production)
    return made


def last_whole_day(data_until: datetime) -> str:
    """The newest partition of `ground_truth_daily` that was over when a training began.

    >>> last_whole_day(datetime(2013, 3, 7, 16, tzinfo=UTC)), last_whole_day(datetime(2013, 3, 7, tzinfo=UTC))
    ('2013-03-06', '2013-03-06')
    """
    return f"{data_until.astimezone(UTC) - timedelta(days=1):%Y-%m-%d}"


def _version_metadata(version: int, trained: TrainedVersion) -> dict[str, Any]:
    return {
        "version": dg.MetadataValue.int(version),
        **{metric.name: dg.MetadataValue.float(metric.value) for metric in trained.metrics},
        "trained_until": dg.MetadataValue.timestamp(trained.trained_until),
        "digest": trained.artifact_sha256,
        "artifact": dg.MetadataValue.path(trained.artifact_uri),
        "artifact_bytes": dg.MetadataValue.int(trained.artifact_size_bytes),
    }


def _data_version(outcome: Outcome) -> dg.DataVersion:
    return dg.DataVersion(outcome.trained.artifact_sha256)


def _freshness(age_backstop_days: float | None) -> dg.FreshnessPolicy | None:
    """Dagster knows the age of a materialization only; that is the age backstop. The verdict is the check `fresh`."""
    if age_backstop_days is None:
        return None
    fail = timedelta(days=max(age_backstop_days, 1 / 24))
    return dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=fail * WARN_AT)


def _owners(owner: str, team: str) -> list[str]:
    named = [owner] if EMAIL.fullmatch(owner) or owner.removeprefix("team:") not in ("", owner) else []
    of_team = f"team:{team}"
    return named + ([of_team] if team and of_team not in named else [])


def _fits(key: str, value: str) -> bool:
    """Would Dagster accept this tag? Keys of its own and of Runway's are not for owners to set."""
    namespace, slash, name = key.rpartition("/")
    if slash and (not TAG_PART.fullmatch(namespace) or namespace in {"dagster", "runway"}):
        return False
    return bool(TAG_PART.fullmatch(name)) and (not value or bool(TAG_PART.fullmatch(value)))
