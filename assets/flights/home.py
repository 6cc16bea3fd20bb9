"""Where the fleet keeps its files."""

import os
import tempfile
from pathlib import Path


def home() -> Path:
    """The fleet's folder below RUNWAY_HOME; made when missing."""
    folder = Path(os.environ.get("RUNWAY_HOME", ".runway")).absolute() / "flights"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, even after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as part:
        try:
            part.write(data)
            part.flush()
            os.fsync(part.fileno())
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise
    Path(part.name).replace(path)
