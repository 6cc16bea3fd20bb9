"""An object store for tests: a real server of the S3 API (moto's) in a process of its own, on a port of its choice."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BUCKET = "facts"


@contextmanager
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a server with an empty bucket and point the usual variables at it; yields `s3://bucket`."""
    command = [sys.executable, "-m", "tests.ground_truth.object_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            endpoint = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", endpoint), endpoint
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                monkeypatch.delenv(name)
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            monkeypatch.setenv("AWS_REGION", "us-east-1")
            monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            yield f"s3://{BUCKET}"
        finally:
            process.kill()
