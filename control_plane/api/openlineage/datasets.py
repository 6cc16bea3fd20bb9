"""Datasets of OpenLineage as nodes: which node is meant, of what kind, in which version.

The facet `runway` is our own. It says what OpenLineage has no word for:

    "runway": {"nodeId": "feature:temp"}        this dataset is that node, whatever it is called here
    "runway": {"kind": "consumer"}              a feature or a consumer, not a dataset

Names of the namespace `runway` are our ids: `weather` is `dataset:weather` (or `model:weather`, if the `datasetType`
facet says MODEL), `model:air_time` is itself.
"""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from control_plane.api.openlineage import limits
from control_plane.api.openlineage.reading import Reading, facet, facets_of, is_clean
from control_plane.core.errors import Invalid
from control_plane.core.graph.facts import NodeKind
from control_plane.core.graph.lineage_facts import LineageNode
from control_plane.core.graph.lineage_names import greater_kind
from control_plane.core.ids import NODE_KINDS, parse_node_id

OUR_NAMESPACE = "runway"
OUR_FACET = "runway"
MODEL_TYPE = "MODEL"

Object = Mapping[str, object]


def dataset_node(reading: Reading, dataset: Object, where: str) -> LineageNode | None:
    """The node that a dataset names; None if it does not name one, which is noted."""
    before = len(reading.found)
    name = reading.qualified(dataset, where)
    facets = facets_of(reading, dataset, where)
    ours = facet(facets, OUR_FACET)
    place = f"{where}.facets.{OUR_FACET}"
    kind = _kind(reading, facets, ours, where)
    node_id = reading.text(ours, "nodeId", place, chars_max=limits.NAME_CHARS_MAX)
    node_id_field = f"{place}.nodeId"
    if dataset.get("namespace") == OUR_NAMESPACE:
        own = str(dataset.get("name"))
        node_id_field = f"{where}.name" if not node_id else node_id_field
        node_id = node_id or (own if ":" in own else f"{kind or NodeKind.DATASET}:{own}")
        name = ""
    if node_id and len(reading.found) == before:
        try:
            parse_node_id(node_id, node_id_field)
        except Invalid as bad:
            for violation in bad.violations:
                reading.wrong(violation.field, violation.rule, violation.message)
    aliases = _symlinks(reading, facets, where)
    if len(reading.found) > before:
        return None
    return LineageNode(
        node_id=node_id,
        external_id=name,
        kind=NodeKind(node_id.partition(":")[0]) if node_id else kind,
        title=_words(ours.get("title"), limits.VERSION_CHARS_MAX),
        description=_words(facet(facets, "documentation").get("description"), limits.DESCRIPTION_CHARS_MAX),
        version=_version(facet(facets, "version").get("datasetVersion")),
        aliases=tuple(alias for alias in aliases if alias != name),
    )


def merged(nodes: Iterable[LineageNode]) -> tuple[LineageNode, ...]:
    """Each node once, in the order of first mention; of two kinds told for one, the greater."""
    found: dict[tuple[str, str], LineageNode] = {}
    for node in nodes:
        key = (node.node_id, node.external_id)
        known = found.get(key)
        if known is None:
            found[key] = node
        elif node != known:
            found[key] = replace(
                known,
                kind=greater_kind(known.kind or NodeKind.DATASET, node.kind or NodeKind.DATASET),
                title=max(known.title, node.title),
                description=max(known.description, node.description),
                version=max(known.version, node.version),
                aliases=tuple(sorted({*known.aliases, *node.aliases})[: limits.SYMLINKS_MAX]),
            )
    return tuple(found.values())


def _kind(reading: Reading, facets: Object, ours: Object, where: str) -> NodeKind | None:
    told = reading.text(ours, "kind", f"{where}.facets.{OUR_FACET}", chars_max=limits.NAME_CHARS_MAX)
    if told and told not in NODE_KINDS:
        reading.wrong(
            f"{where}.facets.{OUR_FACET}.kind",
            "one_of",
            f"{told[:60]!r} is no kind; write one of {', '.join(NODE_KINDS)}",
        )
    elif told:
        return NodeKind(told)
    field = f"{where}.facets.datasetType"
    dataset_type = reading.text(facet(facets, "datasetType"), "datasetType", field, chars_max=limits.NAME_CHARS_MAX)
    return NodeKind.MODEL if dataset_type.upper() == MODEL_TYPE else None


def _symlinks(reading: Reading, facets: Object, where: str) -> tuple[str, ...]:
    """Other names of the dataset, each once, in order."""
    field = f"{where}.facets.symlinks.identifiers"
    told = facet(facets, "symlinks").get("identifiers")
    if told is None:
        return ()
    if not isinstance(told, list):
        reading.wrong(field, "type", f"is {reading.kind(told)}; send a list of identifiers")
        return ()
    if len(told) > limits.SYMLINKS_MAX:
        reading.wrong(field, "size", f"{len(told)} identifiers; at most {limits.SYMLINKS_MAX}")
        return ()
    names: dict[str, None] = {}
    for place, identifier in enumerate(told):
        here = f"{field}[{place}]"
        if not isinstance(identifier, Mapping):
            reading.wrong(here, "type", f"is {reading.kind(identifier)}; send an object with namespace and name")
            continue
        name = reading.qualified(identifier, here)
        if name:
            names[name] = None
    return tuple(sorted(names))


def _words(told: object, chars_max: int) -> str:
    return told[:chars_max] if isinstance(told, str) and is_clean(told.replace("\n", " ").replace("\t", " ")) else ""


def _version(told: object) -> str:
    if isinstance(told, int) and not isinstance(told, bool):
        told = str(told)
    return told if isinstance(told, str) and is_clean(told) and len(told) <= limits.VERSION_CHARS_MAX else ""
