"""The fleet as Dagster shows it: nodes, dependencies, and what is said about each model.

A `Fleet` is a plain copy of the registry and the graph at one revision. The last good one is kept in a file, because a
code location that loads while the control plane is away must show the fleet as it was, never an empty page: with no
assets, runs that are waiting could not start either. Workers read the same file, so that starting one asks nobody.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal["dataset", "feature", "model", "consumer"]

HOME_VARIABLE = "RUNWAY_HOME"
HOME_DEFAULT = ".runway"
LAST_GOOD_FILE = "dagster-fleet.json"
LAYOUT = 2


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the graph, `kind:slug`."""

    kind: Kind
    slug: str
    description: str = ""
    owner: str = ""
    team: str = ""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry says about a model, as far as it shows."""

    model_id: str
    owner: str
    team: str
    tier: int
    task_type: str
    description: str = ""
    tags: dict[str, str] = {}
    consumers: tuple[str, ...] = ()
    age_backstop_days: float | None = None
    """Older than this is stale whatever else is true."""
    deprecated: bool = False
    """Still serves; new consumers should look elsewhere."""


class Dependency(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """`downstream` depends on `upstream`; both `kind:slug`."""

    upstream: str
    downstream: str
    type: str = ""


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is drawn. Sorted, so that the same fleet always reads the same."""

    models: tuple[Model, ...] = ()
    nodes: tuple[Node, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    revision: int = 0
    layout: int = LAYOUT

    def fingerprint(self) -> str:
        """Changes exactly when something drawn changes; the revision alone does not."""
        drawn = msgspec.structs.replace(self, revision=0)
        return hashlib.sha256(msgspec.json.encode(drawn, order="sorted")).hexdigest()[:16]

    def upstream(self) -> Mapping[str, tuple[str, ...]]:
        """Node id -> ids of the nodes it depends on."""
        found: dict[str, list[str]] = {}
        for edge in self.dependencies:
            found.setdefault(edge.downstream, []).append(edge.upstream)
        return {downstream: tuple(sorted(set(ups))) for downstream, ups in found.items()}

    def only(self, model_ids: Iterable[str]) -> "Fleet":
        """The named models and the edges into them: all that a worker which trains them needs."""
        wanted = set(model_ids)
        targets = {f"model:{model_id}" for model_id in wanted}
        return msgspec.structs.replace(
            self,
            models=tuple(model for model in self.models if model.model_id in wanted),
            nodes=(),
            dependencies=tuple(edge for edge in self.dependencies if edge.downstream in targets),
        )


def make_fleet(
    models: Iterable[Model], nodes: Iterable[Node], dependencies: Iterable[Dependency], revision: int = 0
) -> Fleet:
    """A fleet in the one order."""
    return Fleet(
        models=tuple(sorted(models, key=lambda model: model.model_id)),
        nodes=tuple(sorted(nodes, key=lambda node: (node.kind, node.slug))),
        dependencies=tuple(sorted(set(dependencies))),
        revision=revision,
    )


def last_good_path() -> Path:
    """Where the last good copy is kept."""
    return Path(os.environ.get(HOME_VARIABLE) or HOME_DEFAULT) / LAST_GOOD_FILE


def keep_last_good(fleet: Fleet, path: Path) -> None:
    """Write the copy so that it is there wholly or not at all; each writer has a file of its own until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    with fresh.open("wb") as file:
        file.write(msgspec.json.encode(fleet))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read_last_good(path: Path) -> Fleet | None:
    """The copy; None if there is none, or none that can be read."""
    try:
        fleet = msgspec.json.decode(path.read_bytes(), type=Fleet)
    except (OSError, msgspec.DecodeError):
        return None
    return fleet if fleet.layout == LAYOUT else None
