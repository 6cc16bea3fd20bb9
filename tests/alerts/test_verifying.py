"""What the documentation tells receivers to do does verify what we send, and nothing else: in Python and in Node."""

import base64
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control_plane.adapters.alerts.webhook import signed
from tests.alerts.nodes import SECRET

DOCUMENT = Path(__file__).parents[2] / "docs" / "alerts.md"
Verify = Callable[[Mapping[str, str], bytes, str], bool]


def block(language: str) -> str:
    """The documentation's example."""
    [found] = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return str(found)


def by_python(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """The example in Python."""
    names: dict[str, Verify] = {}
    exec(block("python"), names)
    return names["verified"](headers, body, secret)


def by_node(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """The example in JavaScript."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node here")
    told = json.dumps([dict(headers), base64.b64encode(body).decode(), secret])
    call = 'const [h, b, s] = JSON.parse(process.argv[1]); console.log(verified(h, Buffer.from(b, "base64"), s));'
    done = subprocess.run([node, "-e", block("javascript") + call, told], capture_output=True, text=True, check=True)
    return {"true\n": True, "false\n": False}[done.stdout]


@pytest.mark.parametrize("verified", [by_python, by_node])
@pytest.mark.parametrize("secret", [SECRET, "any other text, gl\u00fccklich"])
def test_the_documented_example_takes_ours_and_nothing_else(verified: Verify, secret: str) -> None:
    body, now = '{"id": "4711", "text": "gl\u00fccklich"}'.encode(), time.time()
    headers = signed(secret, "4711", datetime.fromtimestamp(now, UTC), body)
    assert verified(headers, body, secret)
    assert not verified(headers, body + b" ", secret)
    assert not verified(headers, body, secret[:-2] + "A=" if secret.endswith("=") else secret + "x")
    assert not verified(headers | {"webhook-id": "4712"}, body, secret)
    assert not verified(headers | {"webhook-signature": "v1,"}, body, secret)
    assert not verified(headers | {"webhook-timestamp": "soon"}, body, secret)
    for late_s in (-400, 400):
        late = signed(secret, "4711", datetime.fromtimestamp(now + late_s, UTC), body)
        assert not verified(late, body, secret)
