"""Programs out of Debian's packages, for tests against the real thing: unpacked into a cache, installed nowhere."""

import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path.home() / ".cache" / "runway" / "debian"
DOWNLOAD_S_MAX = 120.0


def program(package: str, name: str) -> Path:
    """A program of a package: of the machine if it has it, else downloaded once. Skips the test where neither works."""
    found = shutil.which(name)
    if found:
        return Path(found)
    path = CACHE / package / "usr" / "bin" / name
    if not path.exists():
        _unpack(package)
    if not path.exists():
        pytest.skip(f"there is no {name} here, and Debian's package {package} cannot be downloaded")
    return path


def _unpack(package: str) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return
    folder = CACHE / f"{package}.download"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        asked = ["apt-get", "download", "-q", package]
        subprocess.run(asked, cwd=folder, check=True, capture_output=True, timeout=DOWNLOAD_S_MAX)
        (archive,) = folder.glob("*.deb")
        into = CACHE / f"{package}.unpacked"
        subprocess.run(["dpkg", "-x", archive, into], check=True, capture_output=True, timeout=DOWNLOAD_S_MAX)
        shutil.rmtree(CACHE / package, ignore_errors=True)
        into.rename(CACHE / package)
    except (subprocess.SubprocessError, OSError, ValueError):
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
