"""HTTP to systems that operators name: one request, one bounded answer, and which of two kinds a failure is of.

Requests run in threads of their own pool, with timeouts on the socket and on the whole, so that a server which
dribbles holds no thread for long. Redirects are not followed and proxies not asked: the address configured is the
address called. Failures are told without numbers that change from try to try.
"""

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from control_plane.app.serving import ServingRefused, ServingUnavailable

TIMEOUT_S = 10.0
GRACE_S = 0.5
"""After its own timeouts a thread has so long to say so."""
ANSWER_BYTES_MAX = 4 * 2**20
"""An answer about one model is small; a whole HTTPRoute is at most 1.5 MB in etcd."""
CHUNK_BYTES = 64 * 1024
THREADS_MAX = 16
"""Per system: twice the calls a driver makes to one at once, since a call given up still holds its thread a while."""
TOLD_CHARS_MAX = 200

TRY_AGAIN = frozenset({408, 425, 429})
"""4xx that say nothing about the request itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    body: bytes

    def json(self, who: str) -> Any:
        """The body read as JSON. Raises ServingUnavailable when it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ServingUnavailable(f"{who} answered something that is not JSON") from error


class HttpClient:
    """Requests to one base URL; `who` is how it is called in sentences."""

    def __init__(
        self,
        base_url: str,
        who: str,
        *,
        ca_file: str = "",
        token_file: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        parts = urlsplit(base_url)
        self.who = who
        self._host, self._port = parts.hostname or "", parts.port
        self._tls = parts.scheme == "https"
        self._path = parts.path.rstrip("/") if parts.path != "/" else ""
        self._ca_file, self._token_file = ca_file, token_file
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix=f"http {who}")

    async def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request, whatever its status. `path` follows the base URL's, query included.

        Raises ServingUnavailable: no answer, or not in time.
        """
        loop = asyncio.get_running_loop()
        held: list[http.client.HTTPConnection] = []
        work = partial(self._request, held, method, path, body, dict(headers or {}))
        try:
            async with asyncio.timeout(self._timeout_s + GRACE_S):
                return await loop.run_in_executor(self._threads, work)
        except TimeoutError as error:
            raise ServingUnavailable(f"{self.who} did not answer within {self._timeout_s:g} s") from error
        finally:
            _cut(held)

    async def accepted(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request that should succeed. Raises as `raise_for` does."""
        answer = await self.request(method, path, body=body, headers=headers)
        raise_for(self.who, answer)
        return answer

    async def close(self) -> None:
        """Start no more requests; those under way end by their timeouts."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _request(
        self, held: list[http.client.HTTPConnection], method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> Answer:
        try:
            if self._token_file:
                # Read anew each time: Kubernetes rotates it.
                headers["Authorization"] = f"Bearer {Path(self._token_file).read_text(encoding='utf-8').strip()}"
            connection = self._connection()
        except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
            raise ServingUnavailable(f"{self.who} cannot be called: {_words(error)}") from error
        held.append(connection)
        deadline_s = time.monotonic() + self._timeout_s
        try:
            connection.request(method, self._path + path, body=body or None, headers=headers)
            answer = connection.getresponse()
            return Answer(status=answer.status, body=self._read(answer, deadline_s))
        except TimeoutError as error:
            raise ServingUnavailable(f"{self.who} did not answer within {self._timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise ServingUnavailable(f"{self.who} cannot be reached: {_words(error)}") from error
        finally:
            held.clear()
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        context = ssl.create_default_context(cafile=self._ca_file or None)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)

    def _read(self, answer: http.client.HTTPResponse, deadline_s: float) -> bytes:
        parts, size = [], 0
        while chunk := answer.read1(CHUNK_BYTES):
            parts.append(chunk)
            size += len(chunk)
            if size > ANSWER_BYTES_MAX:
                raise ServingUnavailable(f"{self.who} answered more than {ANSWER_BYTES_MAX // 2**20} MB")
            if time.monotonic() > deadline_s:
                raise TimeoutError
        return b"".join(parts)


def _cut(held: list[http.client.HTTPConnection]) -> None:
    """End what a thread still waits for: a server that sends its headers byte by byte keeps every timeout waiting."""
    for connection in held[:]:
        with contextlib.suppress(OSError, AttributeError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def raise_for(who: str, answer: Answer) -> None:
    """Nothing for 2xx; else which kind of failure it is.

    Raises:
        ServingUnavailable: 5xx, and 4xx that say nothing about the request.
        ServingRefused: any other.
    """
    if 200 <= answer.status < 300:
        return
    said = " ".join(answer.body[: 4 * TOLD_CHARS_MAX].decode("utf-8", "replace").split())[:TOLD_CHARS_MAX]
    sentence = f"{who} answered {answer.status}" + (f": {said}" if said else "")
    if answer.status >= 500 or answer.status in TRY_AGAIN:
        raise ServingUnavailable(sentence)
    raise ServingRefused(sentence)


def _words(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:TOLD_CHARS_MAX]
