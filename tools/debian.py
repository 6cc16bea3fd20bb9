"""Servers from Debian packages, unpacked beside the tree and not installed, each package with its hash checked.

apt knows where packages come from on this machine, so nothing here names a host. `debian.lock` lists what is taken.
"""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".debian"
LOCK = ROOT / "debian.lock"
DOWNLOAD_S_MAX = 120
"""Some ten megabytes."""


def unpacked(package: str) -> Path:
    """The folder that a package is unpacked in, fetched if need be.

    Raises:
        OSError: it cannot be had here, or is not what was locked; the text says which.
    """
    version, architecture, digest = _locked(package)
    target = CACHE / f"{package}_{digest[:12]}"
    if target.exists():
        return target
    for program in ("apt-get", "dpkg", "dpkg-deb"):
        if shutil.which(program) is None:
            raise OSError(f"{package} comes from a Debian package, and there is no {program} here")
    here = _said(["dpkg", "--print-architecture"])
    if here != architecture:
        raise OSError(f"{package} is locked for {architecture}, this is {here}")
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        _said(["apt-get", "download", "-q", f"{package}={version}"], cwd=folder)
        [found] = Path(folder).glob("*.deb")
        if hashlib.sha256(found.read_bytes()).hexdigest() != digest:
            raise OSError(f"{found.name} is not the one of {LOCK.name}")
        _said(["dpkg-deb", "-x", str(found), f"{folder}/unpacked"])
        try:
            Path(f"{folder}/unpacked").rename(target)
        except OSError:
            if not target.exists():  # else another process was faster
                raise
    return target


def relocated(program: Path, folder: str, target: Path) -> Path:
    """A copy of a program that looks for its files where it is started, instead of in a folder of the system: packages
    are not installed here, and their programs know their folders by name only.

    Raises:
        OSError: the program does not name the folder.
    """
    content = program.read_bytes()
    name = folder.encode()
    if name not in content:
        raise OSError(f"{program.name} does not name {folder}")
    here = b"." + b"/" * (len(name) - 1)
    target.write_bytes(content.replace(name, here))
    target.chmod(0o755)
    return target


def _locked(package: str) -> tuple[str, str, str]:
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{package} "):
            _, version, architecture, digest = line.split()
            return version, architecture, digest
    raise OSError(f"{package} is not in {LOCK.name}")


def _said(command: list[str], cwd: str | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=DOWNLOAD_S_MAX, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} took longer than {DOWNLOAD_S_MAX} s") from error
    if done.returncode:
        raise OSError(f"{' '.join(command[:2])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()
