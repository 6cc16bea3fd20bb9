"""Dagster's own asset lineage: the asset graph as facts about jobs, materializations as runs.

    in Dagster                                        | in Runway
    --------------------------------------------------+------------------------------------------------------------------
    an asset                                          | a node, `dagster://<location>/<asset key>`
    one whose metadata names a node (`runway/node`)   | that node; `node` and the models of `assets/` count too
    its dependencies                                  | a STATIC fact of the job `<location>/<asset key>`
    a materialization                                 | a COMPLETE run of that job, with Dagster's run id
    what it was made from                             | its inputs: those whose data versions Dagster recorded, else the
                                                      | dependencies as they are defined now

Two ways in, one shape: `read_dagster` asks a webserver's GraphQL, `read_definitions` looks at a code location and an
instance in this process. What Dagster was told by Runway (its own fleet is drawn from the registry) comes back as a
confirmation that Dagster ran it so, not as news; what a training really read is told by the trainer itself
(`assets/attempt.py`).
"""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from runway.v1 import lineage_pb2
from runway_client.times import to_timestamp

from runway_lineage.naming import NODE_ID, model_kind
from runway_lineage.reading import Reading, SourceError

if TYPE_CHECKING:
    import dagster as dg

SOURCE = "dagster"
NODE_LABELS = ("runway/node", "node")
"""Metadata of an asset that names its node, the first one that does."""

INPUT_VERSION_PREFIX = "dagster/input_data_version/"
DATA_VERSION_TAG = "dagster/data_version"
"""Tags of materializations (dagster/_core/definitions/data_version.py)."""

MATERIALIZATIONS_MAX = 20
"""Newest runs of each asset; older ones confirmed the same edges when they were new."""

ANSWER_S_MAX = 60.0
ANSWER_BYTES_MAX = 256 * 1024 * 1024
"""Ten thousand assets with twenty materializations each are some 100 MiB of JSON."""

Key = tuple[str, ...]
Ask = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Answers a GraphQL query with its `data`."""

QUERY = """
query RunwayLineage($limit: Int!) {
  assetNodes {
    assetKey { path }
    description
    kinds
    dependencyKeys { path }
    repository { location { name } }
    metadataEntries { label ... on TextMetadataEntry { text } }
    assetMaterializations(limit: $limit) { runId timestamp tags { key value } }
  }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialization:
    """One event: when, by which run, and its tags."""

    run_id: str
    at: datetime
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """An asset as either way in shows it. `node_id` empty: it names none."""

    key: Key
    location: str
    node_id: str = ""
    description: str = ""
    is_model: bool = False
    dependencies: tuple[Key, ...] = ()
    materializations: tuple[Materialization, ...] = ()


def read_dagster(
    url: str, *, since: datetime | None = None, materializations_max: int = MATERIALIZATIONS_MAX, ask: Ask | None = None
) -> Reading:
    """Look at a deployment through its webserver.

    Args:
        url: of the webserver, `http://127.0.0.1:3070`.
        since: materializations before this are left out.
        materializations_max: newest of each asset.
        ask: how to ask, if not by HTTP.
    Raises:
        SourceError: it cannot be reached, or does not answer as Dagster does.
    """
    base = url.rstrip("/")
    answer = (ask or over_http(base))(QUERY, {"limit": materializations_max})
    reading = Reading(source=base)
    assets = []
    for node in answer.get("assetNodes") or ():
        try:
            assets.append(_asset(node))
        except (KeyError, TypeError, ValueError) as error:
            reading.cannot(f"asset {node!r:.200}", error)
    reading.runs = runs_of(assets, since=since, evidence_url=base)
    return reading


def read_definitions(
    definitions: "dg.Definitions",
    instance: "dg.DagsterInstance",
    location: str,
    *,
    since: datetime | None = None,
    materializations_max: int = MATERIALIZATIONS_MAX,
) -> Reading:
    """Look at a code location and an instance in this process; otherwise as `read_dagster`."""
    graph = definitions.resolve_asset_graph()
    assets = []
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        events = instance.fetch_materializations(key, limit=materializations_max).records
        assets.append(
            Asset(
                key=tuple(key.path),
                location=location,
                node_id=_node_id({label: getattr(value, "value", value) for label, value in node.metadata.items()}),
                description=node.description or "",
                is_model="model" in node.kinds,
                dependencies=tuple(sorted(tuple(parent.path) for parent in node.parent_keys)),
                materializations=tuple(
                    Materialization(
                        run_id=event.run_id,
                        at=datetime.fromtimestamp(event.timestamp, UTC),
                        tags=(event.asset_materialization.tags if event.asset_materialization else None) or {},
                    )
                    for event in events
                ),
            )
        )
    return Reading(source=location, runs=runs_of(assets, since=since))


def runs_of(
    assets: Iterable[Asset], *, since: datetime | None = None, evidence_url: str = ""
) -> list[lineage_pb2.LineageRun]:
    """What assets and their materializations say; assets without dependencies appear only where somebody reads them."""
    by_key = {asset.key: asset for asset in sorted(assets, key=lambda asset: (asset.key, asset.location))}
    found = []
    for asset in by_key.values():
        if not asset.dependencies:
            continue
        job = f"{asset.location}/{'/'.join(asset.key)}"
        found.append(
            lineage_pb2.LineageRun(
                source=SOURCE,
                job=job,
                state=lineage_pb2.RUN_STATE_STATIC,
                inputs=[_node(by_key, key, asset.location) for key in asset.dependencies],
                outputs=[_node(by_key, asset.key, asset.location)],
                evidence_url=f"{evidence_url}/assets/{'/'.join(asset.key)}" if evidence_url else "",
            )
        )
        for event in sorted(asset.materializations, key=lambda event: (event.at, event.run_id)):
            # One without a run was reported by hand; it says that the asset is there, not what made it.
            if event.run_id and (since is None or event.at >= since):
                found.append(_run(by_key, asset, job, event, evidence_url))
    return found


def _run(
    by_key: Mapping[Key, Asset], asset: Asset, job: str, event: Materialization, evidence_url: str
) -> lineage_pb2.LineageRun:
    versions = {
        tuple(tag.removeprefix(INPUT_VERSION_PREFIX).split("/")): version
        for tag, version in event.tags.items()
        if tag.startswith(INPUT_VERSION_PREFIX)
    }
    return lineage_pb2.LineageRun(
        source=SOURCE,
        job=job,
        run_id=event.run_id,
        state=lineage_pb2.RUN_STATE_COMPLETE,
        event_time=to_timestamp(event.at),
        inputs=[
            _node(by_key, key, asset.location, versions.get(key, "")) for key in sorted(versions or asset.dependencies)
        ],
        outputs=[_node(by_key, asset.key, asset.location, event.tags.get(DATA_VERSION_TAG, ""))],
        evidence_url=f"{evidence_url}/runs/{event.run_id}" if evidence_url else "",
    )


def _node(by_key: Mapping[Key, Asset], key: Key, location: str, version: str = "") -> lineage_pb2.LineageNode:
    asset = by_key.get(key, Asset(key=key, location=location))
    name = f"dagster://{asset.location}/{'/'.join(asset.key)}"
    if asset.node_id:
        return lineage_pb2.LineageNode(node_id=asset.node_id, version=version)
    return lineage_pb2.LineageNode(
        external_id=name,
        kind=model_kind(asset.is_model),
        title="/".join(asset.key)[:500],
        description=asset.description[:4000],
        version=version,
    )


def _node_id(metadata: Mapping[str, Any]) -> str:
    for label in NODE_LABELS:
        value = metadata.get(label)
        if isinstance(value, str) and NODE_ID.fullmatch(value):
            return value
    return ""


def _asset(node: Mapping[str, Any]) -> Asset:
    return Asset(
        key=tuple(node["assetKey"]["path"]),
        location=node["repository"]["location"]["name"],
        node_id=_node_id({entry["label"]: entry.get("text") for entry in node["metadataEntries"]}),
        description=node["description"] or "",
        is_model="model" in node["kinds"],
        dependencies=tuple(sorted(tuple(key["path"]) for key in node["dependencyKeys"])),
        materializations=tuple(
            Materialization(
                run_id=event["runId"],
                at=datetime.fromtimestamp(float(event["timestamp"]) / 1000, UTC),
                tags={tag["key"]: tag["value"] for tag in event["tags"]},
            )
            for event in node["assetMaterializations"]
        ),
    )


def over_http(url: str) -> Ask:
    """Ask a webserver by POST to its `/graphql`."""
    if not url.startswith(("http://", "https://")):
        raise SourceError(f"{url!r} is no address of a Dagster webserver: write http://HOST:PORT")

    def ask(query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(  # noqa: S310 (only http and https, see above)
            f"{url}/graphql", data=body, headers={"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S_MAX) as response:  # noqa: S310
                said = response.read(ANSWER_BYTES_MAX + 1)
        except (urllib.error.URLError, OSError) as error:
            why = getattr(error, "reason", error)
            raise SourceError(f"cannot ask Dagster at {url} ({why}): is its webserver running there?") from error
        if len(said) > ANSWER_BYTES_MAX:
            raise SourceError(f"Dagster at {url} answers more than {ANSWER_BYTES_MAX >> 20} MiB: ask for fewer runs")
        return _data(said, url)

    return ask


def _data(said: bytes, url: str) -> Mapping[str, Any]:
    try:
        answer = json.loads(said)
        data, errors = answer.get("data"), answer.get("errors")
    except (ValueError, AttributeError) as error:
        raise SourceError(f"what listens at {url} does not answer as Dagster does") from error
    if errors or not isinstance(data, dict):
        first: Sequence[Any] = errors or ["it sent no data"]
        sentence = first[0].get("message", first[0]) if isinstance(first[0], dict) else first[0]
        raise SourceError(f"Dagster at {url} refuses the question: {str(sentence)[:300]}")
    return data
