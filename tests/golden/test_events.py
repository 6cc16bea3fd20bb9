"""Every event ever written still reads: one sample per kind and form, and a log whose chain must still verify.

A kind that gets a field (with a default) gets a second sample, `Kind.2.json`; samples are never changed.
"""

import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from control_plane.app.chain import first_bad
from control_plane.app.machine import FleetMachine
from control_plane.app.ports import CorruptLog, Record
from control_plane.app.replica import open_record
from control_plane.core.events import SCHEMA_VERSION, Event, decode_event, encode_event, event_kind
from control_plane.core.sentences import sentence

HERE = Path(__file__).parent
SAMPLES = sorted(HERE.glob("events_v*/*.json"))
KINDS = sorted(kind.__name__ for kind in get_args(Event))


def name(path: Path) -> str:
    """The kind of a sample."""
    return path.name.partition(".")[0]


def holds(whole: object, part: object) -> bool:
    """Is everything in `part` also in `whole`?"""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and holds(whole[key], value) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(holds, whole, part))
    return part == whole


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_reads_and_nothing_of_it_is_lost(path: Path) -> None:
    text = path.read_bytes().rstrip(b"\n")
    event = decode_event(text)
    assert event_kind(event) == name(path)
    again = encode_event(event)
    assert holds(json.loads(again), json.loads(text))
    assert decode_event(again) == event


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_sample_of_its_present_form(kind: str) -> None:
    texts = [path.read_bytes().rstrip(b"\n") for path in SAMPLES if name(path) == kind]
    assert texts, f"add tests/golden/events_v{SCHEMA_VERSION}/{kind}.json"
    assert any(encode_event(decode_event(text)) == text for text in texts), (
        f"{kind} has changed: add a sample of its new form beside the old one"
    )


def test_a_log_that_was_written_is_read_whole() -> None:
    """The chain's hash covers every byte as it was written: it must never be computed otherwise, nor anew."""
    machine = FleetMachine()
    lines = (HERE / "log_v2.jsonl").read_bytes().splitlines()
    records = [msgspec.json.decode(line, type=Record) for line in lines]
    assert first_bad(records, after_seq=0, prev_hash=b"", version_max=SCHEMA_VERSION) is None
    envelopes = [open_record(machine, record) for record in records]
    assert {event_kind(envelope.event) for envelope in envelopes} == {name(path) for path in SAMPLES}
    for record, envelope in zip(records, envelopes, strict=True):
        kind, payload = machine.encode_event(envelope.event)
        assert kind == record.kind
        assert holds(json.loads(payload), json.loads(record.payload))
        assert sentence(envelope)
    damaged = msgspec.structs.replace(records[7], reason="another")
    found = first_bad([*records[:7], damaged, *records[8:]], after_seq=0, prev_hash=b"", version_max=SCHEMA_VERSION)
    assert found is not None
    assert found.seq == 8


def test_a_log_from_before_the_first_release_is_refused_with_what_to_do() -> None:
    line = (HERE / "log_v2.jsonl").read_bytes().splitlines()[0]
    old = msgspec.structs.replace(msgspec.json.decode(line, type=Record), version=1)
    with pytest.raises(CorruptLog, match=r"ModelRegistered of version 1 .* start with an empty log"):
        open_record(FleetMachine(), old)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("ModelExploded", '{"type":"ModelExploded"}'),
        ("RetrainingHeld", '{"type":"RetrainingReleased"}'),
        ("AliasMoved", '{"type":"AliasMoved","model_id":"m"}'),
        ("RetrainingHeld", "not json"),
    ],
)
def test_what_is_no_event_is_no_event(kind: str, payload: str) -> None:
    with pytest.raises(ValueError):
        FleetMachine().decode_event(kind, SCHEMA_VERSION, payload)
