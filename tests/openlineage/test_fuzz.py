"""Whatever is sent: an answer, never a fault. And whatever the order of what runs tell: the same edges."""

import asyncio
import copy
import http.client
import json
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.api.openlineage.bodies import Unreadable, decoded, split, unpacked
from control_plane.api.openlineage.translate import translate
from control_plane.core.commands import ReportLineage
from control_plane.core.errors import Invalid
from control_plane.core.graph.lineage_facts import check_runs
from tests.core.fleets import Fleet
from tests.openlineage.folds import Edges, edges_of, told
from tests.openlineage.http import Event, KeptPlane, dataset, listening, run_event
from tests.openlineage.test_airflow import EVENTS

WORDS = st.sampled_from(
    ["eventTime", "eventType", "run", "runId", "job", "inputs", "outputs", "dataset", "namespace", "name", "facets"]
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "\0", "runway", "model:x", "model:X", "2026-01-01T00:00:00Z", "COMPLETE", "\U0001f600", "x" * 3000]
    ),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(WORDS, TEXTS), inner, max_size=4)),
    max_leaves=12,
)
SEEDS: list[Event] = [
    *EVENTS,
    run_event(inputs=[dataset("a", symlinks={"identifiers": [{"namespace": "n", "name": "m", "type": "T"}]})]),
    {
        "eventTime": "2026-03-01T12:00:00Z",
        "dataset": dataset("d", lineage={"inputs": [{"namespace": "n", "name": "m"}]}),
    },
    {
        "eventTime": "2026-03-01T12:00:00Z",
        "job": {"namespace": "n", "name": "j"},
        "outputs": [dataset("model:x", "runway")],
    },
]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A real event in which some part became something else, went, or moved."""
    event: Any = copy.deepcopy(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        place: Any = event
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 3)):
                place = place[key]
                continue
            if draw(st.booleans()):
                place[key] = draw(VALUES)
            else:
                del place[key]
            break
    return event


@given(st.one_of(VALUES, mutated()))
def test_any_json_is_translated_or_refused(event: Any) -> None:
    try:
        run = translate(event)
    except Invalid as refused:
        assert refused.violations
        assert all(violation.rule and violation.message for violation in refused.violations)
        return
    if run is not None:
        # What is let through is what the core takes, and what it takes can be told twice.
        check_runs((run,))
        fleet = Fleet()
        fleet.do(ReportLineage(runs=(run,)))
        assert fleet.new_events(ReportLineage(runs=(run,))) == []


@given(st.one_of(st.binary(max_size=200), mutated().map(lambda event: json.dumps(event).encode()[:-1])), st.booleans())
def test_any_bytes_are_read_or_refused(body: bytes, packed: bool) -> None:
    try:
        plain = unpacked(body, "gzip" if packed else "")
        for event in (plain, *split(plain)):
            decoded(event)
    except Unreadable as refused:
        assert refused.status in {400, 413}
        assert refused.violation.message


@pytest.mark.parametrize("path", ["/api/v1/lineage", "/api/v1/lineage/batch"])
async def test_broken_bytes_over_a_connection(path: str) -> None:
    """Bits of real events turned over, cut and doubled; one connection for all, so that none may break it."""
    rng = np.random.default_rng(1)
    bodies = []
    for _ in range(150):
        whole = json.dumps(EVENTS[int(rng.integers(len(EVENTS)))]).encode()
        broken = bytearray(b"[" + whole + b"]" if path.endswith("batch") else whole)
        for _ in range(int(rng.integers(1, 6))):
            place = int(rng.integers(len(broken)))
            match int(rng.integers(3)):
                case 0:
                    broken[place] ^= 1 << int(rng.integers(8))
                case 1:
                    del broken[place : place + int(rng.integers(1, 50))]
                case _:
                    broken[place:place] = broken[place : place + int(rng.integers(1, 50))]
        bodies.append(bytes(broken))

    def send(port: int) -> set[int]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        found = set()
        for body in bodies:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            json.loads(response.read())
            found.add(response.status)
        connection.close()
        return found

    async with listening(KeptPlane()) as sender:
        assert await asyncio.to_thread(send, sender.port) <= {200, 201, 400}


# -- order --------------------------------------------------------------------------------------------------------

NAMES = ["a", "b", "c", "m1", "m2"]
"""Those with a number are models, whoever names them."""


def named(name: str) -> Event:
    """A dataset, or a model if it has a number."""
    return dataset(name, "n", **({"datasetType": {"datasetType": "MODEL"}} if name[-1].isdecimal() else {}))


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """What a few runs tell, in order."""
    names = st.lists(st.sampled_from(NAMES), max_size=3)
    states = st.sampled_from(["START", "RUNNING", "OTHER", "COMPLETE", "FAIL", "ABORT", None])
    return [
        run_event(
            draw(states),
            [named(name) for name in draw(names)],
            [named(name) for name in draw(names)],
            run_id=draw(st.sampled_from("rs")),
            job=draw(st.sampled_from("jk")),
            eventTime=f"2013-02-28T12:{draw(st.integers(0, 59)):02}:00Z",
        )
        for _ in range(draw(st.integers(1, 6)))
    ]


def confirmed(events: list[Event]) -> Edges:
    """The dumb twin: of each run that ever completed, everything it ever read to everything it ever wrote."""
    found: Edges = set()
    for job, run_id in product("jk", "rs"):
        own = [event for event in events if (event["job"]["name"], event["run"]["runId"]) == (job, run_id)]
        if any(event.get("eventType") == "COMPLETE" for event in own):
            reads, writes = ({each["name"] for event in own for each in event[side]} for side in ("inputs", "outputs"))
            found |= {(f"n/{up}", f"n/{down}") for up, down in product(reads, writes) if up != down}
    return found


@given(
    histories().flatmap(
        lambda events: st.tuples(st.permutations(events), st.lists(st.sampled_from(events), max_size=4))
    )
)
def test_order_and_repetition_do_not_matter(drawn: tuple[list[Event], list[Event]]) -> None:
    events, repeated = drawn
    fleet = told(Fleet(), [*events, *repeated])
    assert edges_of(fleet) == confirmed(events)
