"""A plan of a whole fleet in the making, and the words it is told in."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from control_plane.core.decide.fleet_changes import Change
from control_plane.core.errors import Violation
from control_plane.core.events import Event, RulesMatched
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Dependency, DependencyType
from control_plane.core.graph.lineage_facts import EdgeKey
from control_plane.core.ids import ModelId, NodeId, model_node
from control_plane.core.policies import Overrides
from control_plane.core.registry.types import ModelFacts
from control_plane.core.state import State

T = TypeVar("T")

EVENT_ENTRIES_MAX = 5_000
"""Nodes or dependencies in one event: a few hundred kilobytes, so that nobody who reads the log meets a giant."""


@dataclass(slots=True, kw_only=True)
class Draft:
    """A plan in the making: what was found so far, and the fleet as it would be."""

    graph: DependencyGraph
    facts: dict[ModelId, ModelFacts]
    """Of every model, after the manifest."""
    scopes: dict[str, Overrides] = field(default_factory=dict)
    """Scopes that say something else after it."""
    changes: list[Change] = field(default_factory=list)
    models: dict[ModelId, Change] = field(default_factory=dict)
    """Changes of models of the manifest, which gather facts and policies."""
    violations: list[Violation] = field(default_factory=list)
    policy_events: list[Event] = field(default_factory=list)
    rule_events: list[Event] = field(default_factory=list)
    outcome_events: list[RulesMatched] = field(default_factory=list)
    """What the changed rules make of models; when is no part of the plan."""
    model_policy_events: list[Event] = field(default_factory=list)
    model_events: list[Event] = field(default_factory=list)
    node_events: list[Event] = field(default_factory=list)
    edge_events: list[Event] = field(default_factory=list)
    retract_events: list[Event] = field(default_factory=list)
    lost: set[EdgeKey] = field(default_factory=set)
    """Dependencies that go because their model names the consumer no more."""
    removal_events: list[Event] = field(default_factory=list)

    def wrong(self, where: str, rule: str, message: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(field=where, rule=rule, message=message))


def implied(model_id: ModelId, consumer: str) -> Dependency:
    """The dependency of an application that a model names as its consumer."""
    return Dependency(
        upstream=model_node(model_id),
        downstream=NodeId(f"consumer:{consumer}"),
        edge_type=DependencyType.CONSUMES_OUTPUT,
    )


def declared_dependencies(state: State) -> Iterator[Dependency]:
    """Every dependency that somebody declared, also where an override keeps it from counting."""
    for key in state.lineage.declared:
        found = declared_dependency(state, key)
        if found is not None:
            yield found


def declared_dependency(state: State, key: EdgeKey) -> Dependency | None:
    """A dependency as it was declared; None if nobody did."""
    if key not in state.lineage.declared:
        return None
    record = state.lineage.records.get(key)
    return record.dependency if record is not None else state.graph.dependency(key)


def edge_text(edge: Dependency) -> str:
    """A dependency in words."""
    # Joined by hand: an enum in an f-string costs ten times as much, and here are 50,000.
    return edge.upstream + " -> " + edge.downstream + " (" + edge.edge_type.value + ")"


def parts(entries: list[T]) -> Iterator[list[T]]:
    """So much as one event holds at a time."""
    for start in range(0, len(entries), EVENT_ENTRIES_MAX):
        yield entries[start : start + EVENT_ENTRIES_MAX]
