"""Names for people who mistyped one."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import click
from runway_client import InvalidRequest, NotFound, RunwayRpcError, messages

if TYPE_CHECKING:
    from runway_client import Runway

SUGGESTIONS_MAX = 5
NODE_KINDS = ("dataset", "feature", "model", "consumer")


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Names like this one: near in spelling first, then those that contain it.

    >>> nearest("arival_delay", ["air_time", "arrival_delay_jfk", "arrival_delay_lga", "route_embedding"])
    ['arrival_delay_lga', 'arrival_delay_jfk']
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=SUGGESTIONS_MAX, cutoff=0.6)
    for other in names:
        if name and (name in other or other in name) and other not in near:
            near.append(other)
    return near[:SUGGESTIONS_MAX]


def not_found(what: str, name: str, known: Iterable[str], see: str) -> click.ClickException:
    """The complaint about a name that does not exist."""
    near = nearest(name, known)
    remedy = f"did you mean {' or '.join(near)}?" if near else f"see `{see}`"
    return click.ClickException(f"there is no {what} {name!r}: {remedy}")


@contextmanager
def _suggesting(reasons: tuple[str, ...], complaint: Callable[[], click.ClickException]) -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        if error.reason not in reasons:
            raise
        try:
            better = complaint()
        except RunwayRpcError:
            raise error from None
        raise better from None


def model_suggestions(runway: "Runway", model_id: str) -> AbstractContextManager[None]:
    """Around a call about a model: an unknown one is answered with the names it may have meant."""
    return _suggesting(
        ("MODEL_NOT_FOUND", "NODE_NOT_FOUND"),
        lambda: not_found(
            "model", model_id, (model.model_id for model in runway.registry.list_models()), "runway models list"
        ),
    )


def node_exists(runway: "Runway", node_id: str) -> bool:
    """Asked about one node, so that a large graph need not be read whole."""
    try:
        runway.graph.get_impact(node_id, messages.ImpactFilter(depth_max=1))
    except (NotFound, InvalidRequest):
        return False
    return True


def find_node(runway: "Runway", name: str) -> str:
    """The id of a node from what people type: `dataset:weather`, or `weather` if only one node is called so."""
    if ":" in name:
        return name
    there = [node_id for kind in NODE_KINDS if node_exists(runway, node_id := f"{kind}:{name}")]
    if len(there) == 1:
        return there[0]
    if there:
        raise click.ClickException(f"several nodes are called {name!r}: say which of {', '.join(sorted(there))}")
    try:
        known = [node.node_id for node in runway.graph.get_graph().nodes]
    except RunwayRpcError:  # too large to be read whole
        known = []
    by_name = {node_id.partition(":")[2]: node_id for node_id in sorted(known)}
    near = [by_name[found] for found in nearest(name, by_name)]
    remedy = f"did you mean {' or '.join(near)}?" if near else "see `runway graph`"
    raise click.ClickException(f"there is no node {name!r}: {remedy}")


def node_suggestions(runway: "Runway", node_id: str) -> AbstractContextManager[None]:
    """The same around a call about a node."""
    return _suggesting(
        ("NODE_NOT_FOUND", "MODEL_NOT_FOUND"),
        lambda: not_found("node", node_id, (node.node_id for node in runway.graph.get_graph().nodes), "runway graph"),
    )
