"""Which dependencies may be declared: known ends, kinds that fit the type, and never a cycle.

A batch is judged as a whole. Every problem in it is found before anything is answered, and nothing is changed
here, so a batch is declared entirely or not at all. An edge is blamed for a cycle exactly if adding the batch
one by one, leaving out those blamed before, would refuse it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from control_plane.core.errors import Invalid, NotFound, Reason, Refused, Violation
from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Dependency, DependencyType, NodeKind
from control_plane.core.ids import NodeId, node_kind, parse_node_id

CYCLES_REPORTED_MAX = 20
"""Each costs a binary search over the batch (about 20 ms at 5,000 nodes / 50,000 edges); nobody fixes more at
once.
"""

PROBLEMS_IN_MESSAGE_MAX = 5
"""What a person reads in one sentence; the typed violations carry all."""

D, F, M, C = NodeKind.DATASET, NodeKind.FEATURE, NodeKind.MODEL, NodeKind.CONSUMER

ENDS: dict[DependencyType, frozenset[tuple[NodeKind, NodeKind]]] = {
    DependencyType.TRAINED_ON: frozenset({(D, M), (D, F)}),
    DependencyType.READS_FEATURE: frozenset({(F, M), (F, C)}),
    # Predictions written to a table or served as a feature make that dataset or feature downstream of the
    # model.
    DependencyType.CONSUMES_OUTPUT: frozenset({(M, M), (M, C), (M, F), (M, D)}),
    DependencyType.EMBEDS: frozenset({(M, M), (M, F)}),
    DependencyType.DERIVED_FROM: frozenset({(D, D), (D, F), (F, F), (F, D), (D, C)}),
}
"""For each type the (upstream, downstream) kinds it may join. Nothing depends on a consumer."""

USUAL: dict[tuple[NodeKind, NodeKind], DependencyType] = {
    (D, M): DependencyType.TRAINED_ON,
    (F, M): DependencyType.READS_FEATURE,
    (F, C): DependencyType.READS_FEATURE,
    (M, M): DependencyType.CONSUMES_OUTPUT,
    (M, C): DependencyType.CONSUMES_OUTPUT,
    (M, F): DependencyType.CONSUMES_OUTPUT,
    (M, D): DependencyType.CONSUMES_OUTPUT,
    (D, D): DependencyType.DERIVED_FROM,
    (D, F): DependencyType.DERIVED_FROM,
    (F, F): DependencyType.DERIVED_FROM,
    (F, D): DependencyType.DERIVED_FROM,
    (D, C): DependencyType.DERIVED_FROM,
}
"""What an edge is taken for when only its ends are known; pairs that are not here cannot be joined."""


def usual_type(upstream: NodeId, downstream: NodeId) -> DependencyType | None:
    """The usual type of an edge between two nodes; None if their kinds cannot be joined."""
    return USUAL.get((NodeKind(node_kind(upstream)), NodeKind(node_kind(downstream))))


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyProblem:
    """Why one dependency of a batch may not be declared. `path` is the cycle, from its upstream end back to
    it.
    """

    index: int
    reason: Reason
    field: str
    rule: str
    message: str
    path: tuple[NodeId, ...] = ()


def check_dependency(graph: DependencyGraph, dependency: Dependency) -> None:
    """Raise if this dependency may not be declared; see `check_dependencies`."""
    check_dependencies(graph, (dependency,))


def check_dependencies(graph: DependencyGraph, dependencies: Sequence[Dependency]) -> None:
    """Raise if any of these may not be declared. A dependency that is there already is fine.

    The kind of error is that of the worst problem; message and violations name all problems.

    Raises:
        Invalid: an id is malformed, a dependency of a node on itself, or kinds that do not fit the type.
        NotFound: NODE_NOT_FOUND, an end is not a node.
        Refused: DEPENDENCY_CYCLE; `details["path"]` is the first cycle as `a -> b -> a`, `details["paths"]`
            all.
    """
    refuse(dependency_problems(graph, dependencies))


def check_ends(graph: DependencyGraph, dependency: Dependency, field: str) -> None:
    """Raise if an edge joins no two nodes there are, or kinds that do not fit its type; cycles are not looked at.

    Raises:
        Invalid, NotFound: as `check_dependencies`, with `field` for the name of the edge.
    """
    refuse([replace(p, field=p.field.replace("dependencies[0]", field)) for p in _shape_problems(graph, 0, dependency)])


def refuse(problems: Sequence[DependencyProblem]) -> None:
    """Raise what `check_dependencies` says, if there are any problems."""
    if not problems:
        return
    if any(p.reason in {Reason.INVALID_ARGUMENT, Reason.INVALID_ID} for p in problems):
        raise Invalid(
            Reason.INVALID_ARGUMENT,
            *(Violation(field=p.field, rule=p.rule, message=p.message) for p in problems),
        )
    message = "; ".join(p.message for p in problems[:PROBLEMS_IN_MESSAGE_MAX])
    if len(problems) > PROBLEMS_IN_MESSAGE_MAX:
        message += f"; and {len(problems) - PROBLEMS_IN_MESSAGE_MAX} more"
    paths = [" -> ".join(p.path) for p in problems if p.path]
    cycles = {"path": paths[0], "paths": "\n".join(paths)} if paths else {}
    unknown = [p for p in problems if p.reason == Reason.NODE_NOT_FOUND]
    if unknown:
        raise NotFound(Reason.NODE_NOT_FOUND, message, fields=", ".join(p.field for p in unknown), **cycles)
    raise Refused(Reason.DEPENDENCY_CYCLE, message, fields=", ".join(p.field for p in problems), **cycles)


def dependency_problems(graph: DependencyGraph, dependencies: Sequence[Dependency]) -> tuple[DependencyProblem, ...]:
    """Every problem in a batch, by place in the batch; of cycles the first `CYCLES_REPORTED_MAX`."""
    problems: list[DependencyProblem] = []
    sound: list[int] = []
    for index, dependency in enumerate(dependencies):
        if _sound(graph, dependency):
            sound.append(index)
        else:
            problems += _shape_problems(graph, index, dependency)
    problems += _cycle_problems(graph, dependencies, sound)
    return tuple(sorted(problems, key=lambda p: (p.index, p.field)))


def _sound(graph: DependencyGraph, dependency: Dependency) -> bool:
    """Whether `_shape_problems` finds nothing; 50,000 times in a row, hence apart. Known nodes have proper ids."""
    upstream, downstream = dependency.upstream, dependency.downstream
    return (
        graph.has_node(upstream)
        and graph.has_node(downstream)
        and upstream != downstream
        and (node_kind(upstream), node_kind(downstream)) in ENDS[dependency.edge_type]
    )


def _shape_problems(graph: DependencyGraph, index: int, dependency: Dependency) -> list[DependencyProblem]:
    """What is wrong with one dependency, whatever the others are."""
    problems: list[DependencyProblem] = []
    where = f"dependencies[{index}]"
    ends = {"upstream_id": dependency.upstream, "downstream_id": dependency.downstream}
    for name, node_id in ends.items():
        try:
            parse_node_id(node_id, f"{where}.{name}")
        except Invalid as bad:
            problems += [
                DependencyProblem(index=index, reason=bad.reason, field=v.field, rule=v.rule, message=v.message)
                for v in bad.violations
            ]
    if problems:
        return problems
    kinds = NodeKind(node_kind(dependency.upstream)), NodeKind(node_kind(dependency.downstream))
    if dependency.upstream == dependency.downstream:
        problems.append(
            DependencyProblem(
                index=index,
                reason=Reason.INVALID_ARGUMENT,
                field=f"{where}.downstream_id",
                rule="no_self",
                message=f"{dependency.upstream} cannot depend on itself",
            )
        )
    elif kinds not in ENDS[dependency.edge_type]:
        problems.append(
            DependencyProblem(
                index=index,
                reason=Reason.INVALID_ARGUMENT,
                field=f"{where}.type",
                rule="kinds",
                message=_kinds_message(dependency, kinds),
            )
        )
    problems += [
        DependencyProblem(
            index=index,
            reason=Reason.NODE_NOT_FOUND,
            field=f"{where}.{name}",
            rule="exists",
            message=f"there is no node {node_id}; {_remedy(node_id)}",
        )
        for name, node_id in ends.items()
        if not graph.has_node(node_id)
    ]
    return problems


def _remedy(node_id: NodeId) -> str:
    return "register the model first" if node_kind(node_id) == NodeKind.MODEL else "declare it first"


def _kinds_message(dependency: Dependency, kinds: tuple[NodeKind, NodeKind]) -> str:
    upstream, downstream = kinds
    fitting = [t.value for t in DependencyType if kinds in ENDS[t]]
    remedy = f"use {' or '.join(fitting)}" if fitting else f"no type joins {upstream} to {downstream}"
    return (
        f"{dependency.downstream} cannot depend on {dependency.upstream} as {dependency.edge_type}: "
        f"a {downstream} on a {upstream}; {remedy}"
    )


def _cycle_problems(
    graph: DependencyGraph, dependencies: Sequence[Dependency], sound: Sequence[int]
) -> list[DependencyProblem]:
    if len(sound) == 1:
        only = dependencies[sound[0]]
        cycle = graph.find_cycle(only.upstream, only.downstream)
        return [] if cycle is None else [_cycle_problem(sound[0], only, cycle)]
    if not sound:
        return []
    trial = graph.scratch()
    problems: list[DependencyProblem] = []
    rest = list(sound)
    while rest and len(problems) < CYCLES_REPORTED_MAX:
        accepted = acyclic_prefix(trial, [dependencies[i] for i in rest])
        if accepted < len(rest):
            blamed = dependencies[rest[accepted]]
            cycle = trial.find_cycle(blamed.upstream, blamed.downstream)
            assert cycle is not None  # with this edge the sort failed, without it it did not
            problems.append(_cycle_problem(rest[accepted], blamed, cycle))
        rest = rest[accepted + 1 :]
    return problems


def acyclic_prefix(trial: DependencyGraph, batch: Sequence[Dependency]) -> int:
    """Declare the longest prefix that leaves the graph acyclic; return its length. Costs about log2(len)
    sorts.
    """
    declared, first_bad, step = 0, len(batch) + 1, len(batch)
    # Invariant: batch[:declared] is in and acyclic; batch[:first_bad] would have a cycle (or is longer than
    # there is).
    while declared < len(batch) and declared + 1 < first_bad:
        upto = min(declared + step, first_bad - 1)
        if trial.add_if_acyclic(batch[declared:upto]):
            declared = upto
        else:
            first_bad = upto
        step = max((first_bad - declared) // 2, 1)
    return declared


def _cycle_problem(index: int, dependency: Dependency, cycle: tuple[NodeId, ...]) -> DependencyProblem:
    return DependencyProblem(
        index=index,
        reason=Reason.DEPENDENCY_CYCLE,
        field=f"dependencies[{index}]",
        rule="acyclic",
        message=(
            f"{dependency.downstream} cannot depend on {dependency.upstream}: "
            f"that closes the cycle {' -> '.join(cycle)}"
        ),
        path=cycle,
    )
