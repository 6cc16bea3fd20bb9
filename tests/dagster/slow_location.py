"""A code location for real workers: ops that end, hang or crash, and that say which models they were told to load."""

import os
import threading
from pathlib import Path

import dagster as dg

from assets.tags import only_models

HANG_S_MAX = 120.0


def _write(name: str, text: str) -> None:
    Path(os.environ["SLOW_LOCATION_FOLDER"], name).write_text(text, encoding="utf-8")


@dg.asset
def quick() -> None:
    _write("quick", ",".join(only_models(os.environ) or ()))


@dg.asset
def hangs() -> None:
    _write("hangs", str(os.getpid()))
    threading.Event().wait(HANG_S_MAX)


defs = dg.Definitions(assets=[quick, hangs], executor=dg.in_process_executor)
