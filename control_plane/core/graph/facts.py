"""What the graph is made of: nodes, dependencies and the form in which a snapshot keeps them.

All of it may appear in events, so the types are the codec. They hold only scalars, hence `gc=False`: at
100,000 nodes and a million edges the collector would otherwise walk them all, in the middle of a read.
"""

from enum import StrEnum

import msgspec

from control_plane.core.ids import NodeId, node_kind


class NodeKind(StrEnum):
    """What a node is; the part of its id before the colon."""

    DATASET = "dataset"
    FEATURE = "feature"
    MODEL = "model"
    CONSUMER = "consumer"


class DependencyType(StrEnum):
    """How the downstream node uses the upstream one; which kinds each may join is in `rules.ENDS`."""

    TRAINED_ON = "trained_on"
    READS_FEATURE = "reads_feature"
    CONSUMES_OUTPUT = "consumes_output"
    EMBEDS = "embeds"
    DERIVED_FROM = "derived_from"


class Node(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A dataset, feature, model or consumer. Empty text means not known; `tier` is 1 to 4, for models.

    `title` is what people call it. `external_ids` are the names that lineage sources know it by, each of one node at
    most. `declared` is False while nobody has said that it exists but a source.
    """

    node_id: NodeId
    title: str = ""
    description: str = ""
    owner: str = ""
    team: str = ""
    tier: int | None = None
    external_ids: tuple[str, ...] = ()
    declared: bool = True

    @property
    def kind(self) -> NodeKind:
        """The kind, read from the id."""
        return NodeKind(node_kind(self.node_id))


class Dependency(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """`downstream` depends on `upstream`. The two ends and the type are the key; the rest may change.

    `pinned` is the version (`v3`) or alias of the upstream model that is consumed; empty if it is not pinned. Who says
    that it is there is not told here but in the ledger (`lineage.py`).
    """

    upstream: NodeId
    downstream: NodeId
    edge_type: DependencyType
    pinned: str = ""
    note: str = ""

    @property
    def key(self) -> tuple[NodeId, NodeId, DependencyType]:
        """What makes it this dependency and not another."""
        return self.upstream, self.downstream, self.edge_type


class GraphSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A whole graph as two lists, each in the order of its keys, so that equal graphs give equal bytes."""

    nodes: list[Node]
    dependencies: list[Dependency]
