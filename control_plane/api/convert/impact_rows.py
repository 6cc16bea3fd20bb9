"""Rows of an impact answer, written on the wire directly.

An answer may have thousands of rows, and building a message object for each takes 1 us per field: 2.7 ms for 2,700
rows, where finding them takes 0.4. But all of a row except wave and distance is the same in every answer. So the
constant part of each node is encoded once, wave and distance are encoded once per pair, and an answer is a join of
known bytes: 0.4 ms. That fields may come in any order and that encodings may be concatenated are promises of the
protobuf wire format (https://protobuf.dev/programming-guides/encoding/#order, "Last One Wins").
"""

from runway.v1 import common_pb2, graph_pb2

from control_plane.core.graph.dependency_graph import DependencyGraph
from control_plane.core.graph.facts import Node
from control_plane.core.graph.impact import Impact
from control_plane.core.ids import NodeId

REACHED_TAG = bytes([graph_pb2.GetImpactResponse.REACHED_FIELD_NUMBER << 3 | 2])
"""Key of the field `reached` on the wire: its number, and 2 for length-delimited. Both responses use one number."""

ONE_BYTE_MAX = 127
"""Largest number that a varint holds in one byte."""

ENDING_BYTES = 4
"""Bytes of wave and distance while both fit one byte: a key and a value each."""


class ImpactRows:
    """Encodes answers; remembers the constant part of each node until a node changes."""

    def __init__(self) -> None:
        self._beginnings: dict[NodeId, bytes] = {}
        self._of: tuple[DependencyGraph, int] | None = None
        self._endings: dict[tuple[int, int], bytes] = {}

    def encode(self, graph: DependencyGraph, answer: Impact) -> bytes:
        """All `reached` rows of a GetImpactResponse or GetUpstreamResponse, in order; merge them into the message."""
        # The graph itself is part of the key: after a replay another one counts its versions from 0 again.
        if self._of is None or self._of[0] is not graph or self._of[1] != graph.nodes_version:
            self._beginnings = {node.node_id: _beginning(node) for node in graph.nodes()}
            self._of = (graph, graph.nodes_version)
        if answer.paths or max(answer.distances, default=0) > ONE_BYTE_MAX or answer.wave_count > ONE_BYTE_MAX:
            return _one_by_one(graph, answer)
        beginnings = self._beginnings
        parts: list[bytes] = []
        for node_id, pair in zip(answer.node_ids, zip(answer.waves, answer.distances, strict=True), strict=True):
            parts.append(beginnings[node_id])
            parts.append(self._endings.get(pair) or self._ending(pair))
        return b"".join(parts)

    def _ending(self, pair: tuple[int, int]) -> bytes:
        """At most 127 * 127 of them, 3 MB."""
        wave, distance = pair
        ending = graph_pb2.Reached(wave=wave, distance=distance).SerializeToString()
        self._endings[pair] = ending
        return ending


def _beginning(node: Node) -> bytes:
    """Field key, length of the whole row, and the facts."""
    facts = _facts(node).SerializeToString()
    return REACHED_TAG + _varint(len(facts) + ENDING_BYTES) + facts


def _facts(node: Node) -> graph_pb2.Reached:
    facts = graph_pb2.Reached(node_id=node.node_id, owner=node.owner, team=node.team)
    if node.tier:
        facts.tier = common_pb2.Tier.ValueType(node.tier)  # TIER_1 is 1, and so on
    return facts


def _one_by_one(graph: DependencyGraph, answer: Impact) -> bytes:
    """Through message objects: with paths, or deeper than one byte counts, there is no constant part to speak of."""
    response = graph_pb2.GetImpactResponse()
    for found in answer.reached():
        row = response.reached.add()
        row.CopyFrom(_facts(graph.node(found.node_id)))
        row.wave = found.wave
        row.distance = found.distance
        row.path.extend(found.path)
    return response.SerializeToString()


def _varint(number: int) -> bytes:
    """Base 128, least significant group first, the high bit set on all but the last."""
    encoded = bytearray()
    while number > ONE_BYTE_MAX:
        encoded.append(number & ONE_BYTE_MAX | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
