"""Rows of an impact answer, written on the wire directly.

An answer may have a hundred thousand rows, and building a message object for each takes 1 us per field. But the facts
of a node are the same in every answer, and there are few pairs of wave and distance. So facts are encoded once per
node, the beginning of a row (its length, wave and distance) once per combination, and an answer is a join of known
bytes. Arrow joins them: the bytes of all nodes lie side by side, where 50,000 Python objects are spread over the memory
and take four times as long to visit. That fields may come in any order and that encodings may be concatenated are
promises of the protobuf wire format (https://protobuf.dev/programming-guides/encoding/#order, "Last One Wins").
"""

from itertools import chain
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from runway.v1 import common_pb2, graph_pb2

from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Node
from control_plane.core.graph.impact import Impact, ReachedNode
from control_plane.core.graph.layout import Ints, Numbering
from control_plane.core.ids import NodeId

ROW_KEY = bytes([graph_pb2.GetImpactResponse.REACHED_FIELD_NUMBER << 3 | 2])
"""Key of the field of rows on the wire: its number, and 2 for length-delimited. All three responses use one number."""

WAVE_KEY = bytes([graph_pb2.Reached.WAVE_FIELD_NUMBER << 3])
DISTANCE_KEY = bytes([graph_pb2.Reached.DISTANCE_FIELD_NUMBER << 3])
PATH_KEY = bytes([graph_pb2.Reached.PATH_FIELD_NUMBER << 3 | 2])

BEGINNINGS_KEPT_MAX = 200_000
"""Combinations of length, wave and distance remembered, 20 MB; then all are forgotten. An answer has some thousand."""

COMBINATIONS_MAX = 1 << 20
"""Counted in an array up to here (1 ms); on deep chains, where waves and distances are many, sorted instead."""


class _Facts:
    """Encoded facts of the nodes of one graph, by their index, and which version of the node they are of."""

    def __init__(self) -> None:
        self.rows: list[bytes] = []
        self.lengths = np.zeros(0, np.int64)
        self.version = np.zeros(0, np.int64)
        self.side_by_side: pa.BinaryArray = pa.array([], pa.binary())
        """The same as `rows`."""
        self._seen: tuple[int, Numbering] | None = None

    def refresh(self, graph: DependencyGraph, numbering: Numbering) -> None:
        """Encode the facts of all nodes that have changed."""
        if self._seen is not None and self._seen[0] == graph.nodes_version and self._seen[1] is numbering:
            return
        self._seen = graph.nodes_version, numbering
        index, written = numbering.index, graph.columns.written
        if more := len(written) - len(self.rows):
            self.rows += [b""] * more
            self.lengths = np.concatenate([self.lengths, np.zeros(more, np.int64)])
            self.version = np.concatenate([self.version, np.full(more, -1, np.int64)])
        stale = index[self.version[index] != written[index]]
        if not len(stale):
            return
        for place in stale.tolist():
            self.rows[place] = _encoded(graph.at(place))
        self.lengths[stale] = [len(self.rows[place]) for place in stale.tolist()]
        self.version[stale] = written[stale]
        self.side_by_side = pa.array(self.rows, pa.binary())


class ImpactRows:
    """Encodes answers; remembers the encoded facts of each node until it changes, as long as its graph lives."""

    def __init__(self) -> None:
        self._graphs: WeakKeyDictionary[DependencyGraph, _Facts] = WeakKeyDictionary()
        self._beginnings: dict[tuple[int, int, int], bytes] = {}

    def encode(self, graph: DependencyGraph, answer: Impact, rest: bytes = b"") -> bytes:
        """All rows of an answer, in order, after the rest of the response."""
        if not len(answer):
            return rest
        facts = self._graphs.setdefault(graph, _Facts())
        facts.refresh(graph, answer.layout.numbering)
        index = answer.layout.numbering.index[answer.positions]
        if answer.paths:
            rows = [facts.rows[place] for place in index.tolist()]
            return rest + b"".join(chain.from_iterable(_with_paths(answer, rows)))
        beginnings = self._row_beginnings(facts.lengths[index], answer)
        joined = pc.binary_join_element_wise(beginnings, facts.side_by_side.take(pa.array(index)), b"")
        return b"".join((rest, joined.buffers()[2]))

    def _row_beginnings(self, lengths: Ints, answer: Impact) -> pa.BinaryArray:
        """Key, length, wave and distance of each row."""
        waves, distances = answer.waves.astype(np.int64), answer.distances.astype(np.int64)
        distances_end, lengths_end = int(distances.max()) + 1, int(lengths.max()) + 1
        codes = (waves * distances_end + distances) * lengths_end + lengths
        distinct, place = _distinct(codes, (int(waves.max()) + 1) * distances_end * lengths_end)
        rest, of_length = np.divmod(distinct, lengths_end)
        of_wave, of_distance = np.divmod(rest, distances_end)
        known = self._beginnings
        if len(known) > BEGINNINGS_KEPT_MAX:
            known.clear()
        beginnings: list[bytes] = []
        for key in zip(of_length.tolist(), of_wave.tolist(), of_distance.tolist(), strict=True):
            beginning = known.get(key)
            if beginning is None:
                beginning = known[key] = _beginning(*key)
            beginnings.append(beginning)
        return pa.array(beginnings, pa.binary()).take(pa.array(place))


def _distinct(codes: Ints, codes_end: int) -> tuple[Ints, npt.NDArray[np.intp]]:
    """The distinct codes, ascending, and where each code is among them. All are below `codes_end`."""
    if codes_end > COMBINATIONS_MAX:
        distinct, place = np.unique(codes, return_inverse=True)
        return distinct, place
    distinct = np.flatnonzero(np.bincount(codes, minlength=codes_end))
    places = np.zeros(codes_end, np.intp)
    places[distinct] = np.arange(len(distinct))
    return distinct, places[codes]


def _beginning(facts_length: int, wave: int, distance: int) -> bytes:
    layer = WAVE_KEY + varint(wave) + DISTANCE_KEY + varint(distance)
    return ROW_KEY + varint(facts_length + len(layer)) + layer


def _with_paths(answer: Impact, rows: list[bytes]) -> "list[tuple[bytes, bytes, bytes, bytes]]":
    """Rows with paths. A path repeats the nodes of others, so its entries are encoded once per node of the answer."""
    entries: dict[NodeId, bytes] = {}

    def entry(node_id: NodeId) -> bytes:
        known = entries.get(node_id)
        if known is None:
            text = node_id.encode()
            known = entries[node_id] = PATH_KEY + varint(len(text)) + text
        return known

    parts: list[tuple[bytes, bytes, bytes, bytes]] = []
    for found, facts in zip(answer.reached(), rows, strict=True):
        path = b"".join(map(entry, found.path))
        rest = _rest(found)
        parts.append((ROW_KEY, varint(len(facts) + len(path) + len(rest)), facts, path + rest))
    return parts


def _rest(found: ReachedNode) -> bytes:
    row = graph_pb2.Reached(wave=found.wave, distance=found.distance, path_count=found.path_count or 0.0)
    for path in found.all_paths:
        row.all_paths.add().node_ids.extend(path)
    return row.SerializeToString()


def _encoded(node: Node) -> bytes:
    facts = graph_pb2.Reached(node_id=node.node_id, owner=node.owner, team=node.team)
    if node.tier:
        facts.tier = common_pb2.Tier.ValueType(node.tier)  # TIER_1 is 1, and so on
    return facts.SerializeToString()


def varint(number: int) -> bytes:
    """Base 128, least significant group first, the high bit set on all but the last."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
