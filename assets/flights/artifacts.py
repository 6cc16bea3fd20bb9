"""Trained models on disk: one file per artifact, named by the sha256 of its bytes, so that a name can be believed."""

import hashlib
import io
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import joblib

from assets.flights.home import home, write_atomically


class ArtifactError(Exception):
    """An artifact is missing or is not what its digest says; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A trained model: the estimator and how its inputs are encoded."""

    model_id: str
    inputs: tuple[str, ...]
    """Columns in the order the estimator takes them; upstream outputs under their own names."""
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Values of each categorical input; a value's code is its place here, others are missing."""
    estimator: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where an artifact is and what its bytes hash to."""

    uri: str
    sha256: str
    size_bytes: int


def store(artifact: Artifact) -> Stored:
    """Write an artifact; the same content is the same file."""
    sink = io.BytesIO()
    joblib.dump(artifact, sink, compress=3)
    data = sink.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    path = home() / "artifacts" / artifact.model_id / f"{digest}.joblib"
    if not path.exists():
        write_atomically(path, data)
    return Stored(uri=path.as_uri(), sha256=digest, size_bytes=len(data))


@lru_cache(maxsize=64)
def load(uri: str, sha256: str) -> Artifact:
    """Read an artifact and check it.

    Raises:
        ArtifactError: the file is not there, or its bytes are others.
    """
    path = Path(urlsplit(uri).path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"the artifact {path.name} cannot be read ({os.strerror(error.errno or 0)})") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ArtifactError(f"the artifact {path.name} hashes to {found[:12]}, the registry says {sha256[:12]}")
    artifact = joblib.load(io.BytesIO(data))
    if not isinstance(artifact, Artifact):
        raise ArtifactError(f"the file {path.name} is not a model of this fleet")
    return artifact
