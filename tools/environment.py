"""Makes `.venv` from the lock, and the lock from `pyproject.toml`, on a bare Python 3.11.

The environment is made in three steps, each with hashes checked: pip installs uv and setuptools from
`requirements-uv.lock`; uv installs everything from `requirements.lock` (one package is only published as
source: it is built with the pinned setuptools, without a download of its own); the project itself is linked
in, without dependencies. `.venv/.made-from` says from which locks and which `pyproject.toml` the environment
was made; a changed lock re-makes it in place, a half-made environment is made anew.

The locks name no download address: whatever index pip is configured for on this machine is used, also by uv,
which does not read pip's configuration itself.

    python3.11 tools/environment.py make
    .venv/bin/python tools/environment.py lock
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UV = VENV / "bin" / "uv"
MADE_FROM = VENV / ".made-from"
LOCK = ROOT / "requirements.lock"
UV_LOCK = ROOT / "requirements-uv.lock"
PYPROJECT = ROOT / "pyproject.toml"
PEERS = ROOT / ".venv-peers"
PEERS_IN = ROOT / "requirements-peers.in"
PEERS_LOCK = ROOT / "requirements-peers.lock"
SPARK = ROOT / ".venv-spark"
SPARK_IN = ROOT / "requirements-spark.in"
SPARK_LOCK = ROOT / "requirements-spark.lock"
AIRFLOW = ROOT / ".venv-airflow"
AIRFLOW_IN = ROOT / "requirements-airflow.in"
AIRFLOW_LOCK = ROOT / "requirements-airflow.lock"

# pip's setting, and what uv calls the same thing.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}
# What a user may already have said to uv; then pip's setting stays out of the way.
SAID_TO_UV = {"index-url": ("UV_INDEX_URL",), "extra-index-url": ("UV_EXTRA_INDEX_URL",)}


def _say(text: str) -> None:
    print(f"environment: {text}", flush=True)


def _pip_setting(pip: list[str], name: str) -> str | None:
    """A setting of pip: from the environment (PIP_INDEX_URL), else from its configuration files."""
    from_environment = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if from_environment:
        return from_environment
    for section in ("install", "global"):
        asked = [*pip, "config", "get", f"{section}.{name}"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip():
            return answer.stdout.strip()
    return None


def uv_environment(pip: list[str]) -> dict[str, str]:
    """The process environment, with what pip is configured for told to uv, unless uv was told otherwise."""
    environment = dict(os.environ)
    for name, variable in PIP_TO_UV.items():
        if any(environment.get(said) for said in (variable, *SAID_TO_UV.get(name, ()))):
            continue
        values = (_pip_setting(pip, name) or "").split()
        if name == "find-links":
            values = [value for value in values if _reachable(value)]
        if values:
            # pip separates several values by white space, uv's find-links by commas.
            environment[variable] = ("," if name == "find-links" else " ").join(values)
    environment["VIRTUAL_ENV"] = str(VENV)
    # A cache on another disk cannot be linked from; uv would warn about it once per package.
    environment.setdefault("UV_LINK_MODE", "copy" if os.environ.get("CI") else "hardlink")
    return environment


def _reachable(place: str) -> bool:
    """uv refuses a folder that is not there, pip passes it over."""
    return "://" in place or Path(place).is_dir()


def _digest_of_locks() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for lock in (UV_LOCK, LOCK):
        digest.update(lock.read_bytes())
    return digest.hexdigest()


def _digest_of_project() -> str:
    """What the link to the project is made from: metadata and build settings, not how it is linted."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    parts = [project["build-system"], project["project"], project["tool"]["hatch"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _made_from() -> dict[str, str]:
    """What the environment says it was made from; empty when there is none or it is half made."""
    if not PYTHON.exists():
        return {}
    try:
        found = json.loads(MADE_FROM.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _install_locked(pip: list[str]) -> None:
    """Everything in the lock, by uv; by pip, slower, where uv cannot (a proxy or index it does not take)."""
    by_uv = [str(UV), "pip", "sync", "--require-hashes", "--no-build-isolation", str(LOCK)]
    if not sys.stderr.isatty():
        by_uv.append("--quiet")
    if subprocess.run(by_uv, env=uv_environment(pip), check=False).returncode == 0:
        return
    _say("uv could not do it (see above); trying pip, which takes longer")
    by_pip = [*pip, "install", "--require-hashes", "--no-deps", "--no-build-isolation", "-r", str(LOCK)]
    if subprocess.run(by_pip, check=False).returncode != 0:
        sys.exit(
            "environment: neither uv nor pip could install what requirements.lock pins (see above).\n"
            "Is the package index reachable? It is pip's (pip config list), or PIP_INDEX_URL."
        )


def make() -> None:
    """Bring `.venv` in line with the locks and the project; does nothing when it is."""
    wanted = {"locks": _digest_of_locks(), "project": _digest_of_project()}
    found = _made_from()
    if found == wanted:
        return
    started_s = time.monotonic()
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    if not found:
        _say("making .venv")
        if not shutil.which("cc") and not shutil.which("gcc"):
            _say("no C compiler here: fine as long as every package has a wheel for this machine")
        try:
            venv.create(VENV, clear=VENV.exists(), with_pip=True, symlinks=True)
        except (subprocess.CalledProcessError, OSError) as error:
            sys.exit(
                f"environment: this Python cannot make a virtual environment ({error}).\n"
                "On Debian and Ubuntu the package python3.11-venv is missing."
            )
    MADE_FROM.unlink(missing_ok=True)
    if found.get("locks") != wanted["locks"]:
        _say("installing uv and setuptools (requirements-uv.lock)")
        first = [*pip, "install", "--require-hashes", "--no-deps", "-r", str(UV_LOCK)]
        if subprocess.run(first, check=False).returncode != 0:
            sys.exit("environment: pip could not install uv: is the index reachable (pip config list)?")
        count = sum(1 for line in LOCK.read_text(encoding="utf-8").splitlines() if line[:1].isalnum())
        _say(f"installing {count} packages (requirements.lock)")
        _install_locked(pip)
    _say("linking the project in")
    link = [*pip, "install", "--no-deps", "--no-build-isolation", "--no-index", "--editable", str(ROOT)]
    subprocess.run(link, check=True)
    MADE_FROM.write_text(json.dumps(wanted), encoding="utf-8")
    _say(f"ready after {time.monotonic() - started_s:.0f} s")


def peers() -> Path | None:
    """The Python of `.venv-peers`, with what benchmarks compare with; made if need be, None if it cannot be."""
    return _beside(PEERS, PEERS_LOCK)


def spark() -> Path | None:
    """The Python of `.venv-spark`, with Spark; made if need be, None if it cannot be."""
    return _beside(SPARK, SPARK_LOCK)


def airflow() -> Path | None:
    """The Python of `.venv-airflow`, with a real Airflow to test against; made if need be, None if it cannot be."""
    return _beside(AIRFLOW, AIRFLOW_LOCK)


def _beside(home: Path, lock: Path) -> Path | None:
    """The Python of an environment of its own, in line with its lock."""
    wanted = hashlib.sha256(sys.version.encode() + lock.read_bytes()).hexdigest()
    python, made_from = home / "bin" / "python", home / ".made-from"
    if made_from.exists() and made_from.read_text(encoding="utf-8") == wanted:
        return python
    _say(f"making {home.name} ({lock.name})")
    settings = uv_environment([str(PYTHON), "-m", "pip"]) | {"VIRTUAL_ENV": str(home)}
    for command in (
        [str(UV), "venv", "--quiet", "--clear", "--python", str(PYTHON), str(home)],
        [str(UV), "pip", "sync", "--quiet", "--require-hashes", str(lock)],
    ):
        if subprocess.run(command, env=settings, check=False).returncode != 0:
            return None
    made_from.write_text(wanted, encoding="utf-8")
    return python


def lock() -> None:
    """Compile both locks again: newest versions that pyproject.toml allows, hashes, no addresses."""
    common = [str(UV), "pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes"]
    common += ["--no-emit-index-url", "--no-emit-find-links", "--quiet"]
    common += ["--custom-compile-command", "make lock"]
    environment = uv_environment([str(PYTHON), "-m", "pip"])
    upgrade = ["--upgrade"] if os.environ.get("UPGRADE") else []
    everything = [*common, *upgrade, str(PYPROJECT), "--group", "dev", "-o", str(LOCK)]
    subprocess.run(everything, env=environment, cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as work:
        first = Path(work) / "first.in"
        first.write_text("uv\nsetuptools\n", encoding="utf-8")
        without_origin = ["--no-annotate", "-c", str(LOCK), str(first), "-o", str(UV_LOCK)]
        subprocess.run([*common, *without_origin], env=environment, cwd=ROOT, check=True)
    for source, compiled in ((PEERS_IN, PEERS_LOCK), (SPARK_IN, SPARK_LOCK), (AIRFLOW_IN, AIRFLOW_LOCK)):
        subprocess.run([*common, *upgrade, str(source), "-o", str(compiled)], env=environment, cwd=ROOT, check=True)
    locks = (LOCK, UV_LOCK, PEERS_LOCK, SPARK_LOCK, AIRFLOW_LOCK)
    addresses = [line for path in locks for line in path.read_text().splitlines() if "://" in line]
    if addresses:
        sys.exit("lock: a download address slipped in: " + addresses[0])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make"]:
            make()
        case ["lock"]:
            lock()
        case _:
            sys.exit(__doc__)
