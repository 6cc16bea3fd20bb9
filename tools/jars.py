"""Jars of the engines beside us, from Maven's central repository, each with its hash checked.

Spark brings a resolver (Ivy) that knows where that repository is, or whatever takes its place on this machine
(`ivysettings.xml` in `~/.ivy2` or RUNWAY_IVY_SETTINGS); so nothing here names a host. `jars.lock` lists every jar.

    python -m tools.jars lock    after a change of WANTED: resolve, and write down what was found
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import environment
from tools.java import java_home, java_options

ROOT = Path(__file__).resolve().parent.parent
JARS = ROOT / ".jars"
LOCK = ROOT / "jars.lock"
WANTED = {
    "kafka": (("org.apache.kafka", "kafka_2.13", "4.2.0"),),
    "spark": (
        ("org.apache.spark", "spark-sql-kafka-0-10_2.13", "4.1.1"),
        ("io.delta", "delta-spark_2.13", "4.1.0"),
    ),
}
"""By folder: organisation, name and version; what they need comes with them."""


class Engines:
    """Where the engines are: a Python with Spark, a Java, and folders of jars."""

    def __init__(self, python: Path, java: Path) -> None:
        self.python = python
        self.java = java
        self.kafka_jars = JARS / "kafka"
        self.spark_jars = JARS / "spark"

    @property
    def environment(self) -> dict[str, str]:
        """The process environment in which they run."""
        return {**os.environ, "JAVA_HOME": str(self.java), "PYTHONPATH": str(ROOT)}


def engines() -> Engines:
    """The engines, fetched if need be.

    Raises:
        OSError: a package or a jar cannot be had, or is not what was locked.
    """
    python = environment.spark()
    if python is None:
        raise OSError("the environment of Spark cannot be made (see above): is the package index reachable?")
    found = Engines(python, java_home(python))
    wanted = _locked()
    if not all(_is(JARS / path, digest) for path, digest in wanted.items()):
        for folder in WANTED:
            _resolve(found, folder, JARS / folder)
        wrong = [path for path, digest in wanted.items() if not _is(JARS / path, digest)]
        if wrong:
            raise OSError(f"jars are missing or not those of jars.lock: {', '.join(wrong[:5])}")
    return found


def _locked() -> dict[str, str]:
    lines = (line.split() for line in LOCK.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return {path: digest for path, digest in lines}  # noqa: C416 - two columns


def _is(path: Path, digest: str) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _resolve(found: Engines, folder: str, target: Path) -> None:
    """Let Ivy fetch the jars of a folder with all that they need."""
    print(f"jars: fetching {folder}", flush=True)
    shutil.rmtree(target, ignore_errors=True)
    pyspark = subprocess.run(
        [str(found.python), "-c", "import pyspark, os; print(os.path.dirname(pyspark.__file__))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    dependencies = "".join(
        f'<dependency org="{organisation}" name="{name}" rev="{version}" conf="default->default"/>'
        for organisation, name, version in WANTED[folder]
    )
    with tempfile.TemporaryDirectory() as work:
        module = Path(work) / "ivy.xml"
        module.write_text(
            '<ivy-module version="2.0"><info organisation="runway" module="engines"/>'
            '<configurations><conf name="default"/></configurations>'
            f"<dependencies>{dependencies}</dependencies></ivy-module>"
        )
        settings = os.environ.get("RUNWAY_IVY_SETTINGS")
        command = [
            *(str(found.java / "bin" / "java"), *java_options(), "-cp", f"{pyspark}/jars/*", "org.apache.ivy.Main"),
            *("-ivy", str(module), "-cache", f"{work}/cache", "-warn"),
            *(("-settings", settings) if settings else ()),
            *("-types", "jar", "bundle", "-retrieve", f"{target}/[artifact]-[revision](-[classifier]).[ext]"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise OSError("Ivy could not fetch the jars: " + " | ".join(lines[-8:])[:800])
    if folder == "spark":
        shipped = {_name(jar) for jar in Path(pyspark, "jars").glob("*.jar")}
        for jar in target.glob("*.jar"):
            if _name(jar) in shipped:
                jar.unlink()


def _name(jar: Path) -> str:
    """A jar's name without its version: Spark's own copy of a library must stay the only one."""
    return re.sub(r"-\d[\w.\-]*\.jar$", "", jar.name)


def lock() -> None:
    """Resolve everything and write `jars.lock`."""
    python = environment.spark()
    if python is None:
        sys.exit("jars: the environment of Spark cannot be made")
    found = Engines(python, java_home(python))
    for folder in WANTED:
        _resolve(found, folder, JARS / folder)
    lines = ["# Jars and their SHA-256; made by `python -m tools.jars lock`."]
    for path in sorted(JARS.rglob("*.jar")):
        lines.append(f"{path.relative_to(JARS)} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    LOCK.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["lock"]:
        sys.exit(__doc__)
    lock()
