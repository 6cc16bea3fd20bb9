"""What is known of an edge, in sentences."""

from collections.abc import Iterator
from datetime import datetime

from runway_client import messages

from runway_cli.words import clock, count, enum_word, instant_of, joined, number, when


def origins_of(edge: messages.Edge) -> str:
    """Who says that it is there: declared, discovered, observed, overridden."""
    origins = {enum_word(messages.EdgeOrigin, sighting.origin).lower() for sighting in edge.sightings}
    if edge.HasField("declaration"):
        origins.add("declared")
    if edge.HasField("override"):
        origins.add("overridden")
    return joined(sorted(origins))


def column_of_last(edge: messages.Edge, now: datetime) -> str:
    """How long ago a source showed it; `-` if none ever did."""
    return when(instant_of(edge, "last_seen_at"), now) if edge.sightings else "-"


def edge_sentences(edge: messages.Edge, now: datetime) -> Iterator[str]:
    """All evidence for and against it."""
    # An override, a cycle or a declaration that explains its state is told below, with more.
    told = edge.HasField("override") or edge.cycle or edge.HasField("declaration")
    if edge.explanation and not told:
        yield f"Why: {edge.explanation}."
    if edge.HasField("override"):
        yield _override(edge.override, now)
    if edge.HasField("declaration"):
        said = edge.declaration
        yield (
            f"{said.declared_by or 'Somebody'} declared it on {clock(instant_of(said, 'declared_at'))} "
            f"(revision {said.revision:,})."
        )
    else:
        yield "Nobody declared it."
    for sighting in edge.sightings:
        yield _sighting(sighting, now)
    if not edge.sightings:
        yield "No source has shown it."
    if edge.cycle:
        yield f"It would close the cycle {' -> '.join(edge.cycle)}; take one of these edges away, and it is applied."
    if edge.dependency.pinned:
        yield f"It reads {edge.dependency.pinned} of {edge.dependency.upstream_id}."
    if edge.HasField("compatibility"):
        yield _compatibility(edge.compatibility)
    if edge.dependency.note:
        yield f"Note: {edge.dependency.note}"


def _compatibility(found: messages.UpstreamCompatibility) -> str:
    said = found.explanation
    measured = f"Procrustes cosine {number(found.procrustes_cosine, 2)}, CKA {number(found.cka, 2)}"
    return f"{said[:1].upper()}{said[1:]} ({measured}, on {count(found.anchors, 'anchor')})."


def _override(override: messages.Override, now: datetime) -> str:
    until = instant_of(override, "expires_at")
    ends = f"until {clock(until)} ({when(until, now)})" if until else "until somebody clears it"
    return (
        f"{override.owner or 'Somebody'} says that it is {'there' if override.present else 'not there'}, since "
        f"{clock(instant_of(override, 'set_at'))}, {ends}: {override.reason} (revision {override.revision:,})."
    )


def _sighting(sighting: messages.Sighting, now: datetime) -> str:
    verb = "was seen to use it" if sighting.origin == messages.EDGE_ORIGIN_OBSERVED else "showed it"
    text = (
        f"{sighting.job} ({sighting.source}) {verb} in {count(sighting.runs_seen, 'run')}, first on "
        f"{clock(instant_of(sighting, 'first_seen_at'))}, last {when(instant_of(sighting, 'last_seen_at'), now)}"
    )
    if sighting.run_id:
        text += f" in run {sighting.run_id}"
    if sighting.runs_missed:
        text += f"; {count(sighting.runs_missed, 'run')} since did not"
    if 0 < sighting.confidence < 1:
        text += f"; confidence {number(sighting.confidence)}"
    return f"{text}{f' ({sighting.evidence_url})' if sighting.evidence_url else ''}."
