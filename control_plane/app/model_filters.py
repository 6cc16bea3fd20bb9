"""Which models a query asks for: filters and ready-made views."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from control_plane.app.model_order import Facts
from control_plane.core.ids import ModelId, NodeId, node_kind, node_name
from control_plane.core.registry.types import PRODUCTION, Lifecycle, TaskType
from control_plane.core.relations import consumers_of
from control_plane.core.retraining.types import RetrainState
from control_plane.core.staleness.verdict import Level
from control_plane.core.state import ModelRecord, State

TRAFFIC_AFTER = timedelta(days=30)
"""A model that got no prediction for so long has no traffic."""


class View(StrEnum):
    """A ready-made question. Each leaves retired models out, unless the query names that state."""

    ALL = "ALL"
    UNUSED = "UNUSED"
    NO_OWNER = "NO_OWNER"
    ALERTED = "ALERTED"
    NEVER_VALIDATED = "NEVER_VALIDATED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelQuery:
    """What is asked for. Empty matches everything; several are combined with AND, the values of one with OR."""

    text: str = ""
    teams: frozenset[str] = frozenset()
    tiers: frozenset[int] = frozenset()
    tags: tuple[str, ...] = ()
    """Each `key` or `key=value`; all must match."""
    owners: frozenset[str] = frozenset()
    feature: str = ""
    consumer: str = ""
    lifecycles: frozenset[Lifecycle] = frozenset()
    verdicts: frozenset[Level] = frozenset()
    task_types: frozenset[TaskType] = frozenset()
    view: View = View.ALL
    order_by: str = ""


Test = Callable[[ModelRecord], bool]


def tests_of(state: State, query: ModelQuery, facts: Facts) -> list[Test]:
    """What a record must pass, the cheap ones first."""
    tests: list[Test] = []
    for wanted, read in (
        (query.teams, lambda record: record.facts.team),
        (query.tiers, lambda record: record.facts.tier),
        (query.owners, lambda record: record.facts.owner),
        (query.lifecycles, lambda record: record.lifecycle),
        (query.verdicts, lambda record: record.standing.level),
        (query.task_types, lambda record: record.facts.task_type),
    ):
        if wanted:
            tests.append(_among(wanted, read))
    tests.extend(map(_tagged, query.tags))
    if query.view is View.ALL:
        return tests
    if Lifecycle.RETIRED not in query.lifecycles:
        tests.append(lambda record: not record.retired)
    match query.view:
        case View.NO_OWNER:
            tests.append(lambda record: not record.facts.owner)
        case View.ALERTED:
            tests.append(lambda record: alerted(state, record))
        case View.NEVER_VALIDATED:
            tests.append(lambda record: never_validated(state, record))
        case View.UNUSED:
            tests.append(lambda record: unused(state, record, facts))
    return tests


def _among(wanted: Collection[object], read: Callable[[ModelRecord], object]) -> Test:
    return lambda record: read(record) in wanted


def _tagged(tag: str) -> Test:
    key, equals, value = tag.partition("=")
    if equals:
        return lambda record: record.facts.tags.get(key) == value
    return lambda record: key in record.facts.tags


def neighbours(state: State, query: ModelQuery) -> set[ModelId]:
    """Models that read the feature, and that the consumer consumes, directly."""
    found: list[set[ModelId]] = []
    graph = state.graph
    if query.feature:
        node = NodeId(query.feature if ":" in query.feature else f"feature:{query.feature}")
        edges = graph.downstream_of(node) if graph.has_node(node) else ()
        found.append({ModelId(node_name(edge.downstream)) for edge in edges if node_kind(edge.downstream) == "model"})
    if query.consumer:
        node = NodeId(query.consumer if ":" in query.consumer else f"consumer:{query.consumer}")
        edges = graph.upstream_of(node) if graph.has_node(node) else ()
        found.append({ModelId(node_name(edge.upstream)) for edge in edges if node_kind(edge.upstream) == "model"})
    return set.intersection(*found)


def alerted(state: State, record: ModelRecord) -> bool:
    """Stale, or too little truth arrives, or its last retrain failed."""
    if record.standing.level is Level.STALE or record.coverage_alert:
        return True
    ended = (state.retrains[one] for one in reversed(record.retrain_ids) if not state.retrains[one].live)
    last = next(ended, None)
    return last is not None and last.state is RetrainState.FAILED


def never_validated(state: State, record: ModelRecord) -> bool:
    """The version in production never passed a validation."""
    serving = record.aliases.get(PRODUCTION)
    if not serving:
        return False
    made = (state.rollouts[one] for one in record.rollout_ids)
    return not any(one.version == serving and one.validation is not None and one.validation.passed for one in made)


def unused(state: State, record: ModelRecord, facts: Facts) -> bool:
    """In production, but nothing consumes it and no prediction has arrived for `TRAFFIC_AFTER`."""
    if PRODUCTION not in record.aliases:
        return False
    last = facts.last_predictions.get(record.model_id)
    if last is not None and facts.now - last <= TRAFFIC_AFTER:
        return False
    return not consumers_of(state, record.model_id)
