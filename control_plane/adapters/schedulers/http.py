"""HTTP to schedulers: one request, one bounded answer, and for each failure whether anything can have been done.

A connection that never came about did nothing, so the job may go back. Whatever was sent may have been done even if
no answer came back: such a failure is never taken for a no.

Requests run in threads of their own pool. Redirects are not followed and proxies not asked: the address configured is
the address called.
"""

import asyncio
import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from control_plane.app.schedulers import SchedulerRefused, SchedulerUnavailable

TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 16 * 2**20
"""A page of workflow instances with their definitions is the largest."""
CHUNK_BYTES = 64 * 1024
THREADS_MAX = 16
"""Per scheduler: twice the calls a driver makes at once, since a call given up still holds its thread a while."""
TOLD_CHARS_MAX = 200
NOT_NOW = frozenset({425, 429})
"""4xx that say nothing about the request itself. Like all 4xx they did nothing; 408 may have."""
NOT_US = frozenset({401, 403})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. `who` is how the scheduler is called in sentences."""

    who: str
    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Done."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body read as JSON. Raises SchedulerUnavailable when it is none: something else answered."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise SchedulerUnavailable(f"{self.who} answered something that is not JSON") from error

    def fields(self) -> dict[str, Any]:
        """The body read as a JSON object. Raises SchedulerUnavailable when it is none."""
        found = self.json()
        if not isinstance(found, dict):
            raise SchedulerUnavailable(f"{self.who} answered JSON of another shape")
        return found

    def checked(self) -> "Answer":
        """Itself if it is a 2xx.

        Raises:
            SchedulerUnavailable: 408 and 5xx, nobody knows what was done; 425 and 429, nothing was.
            SchedulerRefused: any other; the whole of us with 401 and 403.
        """
        if self.ok:
            return self
        sentence = f"{self.who} answered {self.status}" + (f": {said}" if (said := self._said()) else "")
        if self.status == 408 or self.status >= 500:
            raise SchedulerUnavailable(sentence)
        if self.status in NOT_NOW:
            raise SchedulerUnavailable(sentence, sure=True, counts=False)
        raise SchedulerRefused(sentence, whole=self.status in NOT_US)

    def _said(self) -> str:
        """What it says of itself: the field that APIs put it in, else the beginning of the body."""
        text = self.body[: 16 * TOLD_CHARS_MAX].decode("utf-8", "replace")
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        if isinstance(found, dict):
            told = found.get("detail") or found.get("message")
            text = told if isinstance(told, str) else json.dumps(told or found)
        return " ".join(text.split())[:TOLD_CHARS_MAX]


class HttpClient:
    """Requests to one base URL."""

    def __init__(self, base_url: str, who: str, *, ca_file: str = "", timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(base_url)
        self.who = who
        self._host, self._port = parts.hostname or "", parts.port
        self._tls = parts.scheme == "https"
        self._path = parts.path.rstrip("/")
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix=f"http {who}")

    async def request(
        self, method: str, path: str, *, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request with a JSON body, whatever its status. Raises SchedulerUnavailable: no answer, or not in time."""
        content = b"" if body is None else json.dumps(body).encode()
        sent = {"Accept": "application/json", "User-Agent": "runway", **(headers or {})}
        if content:
            sent["Content-Type"] = "application/json"
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._request, method, path, content, sent)

    async def close(self) -> None:
        """Start no more requests; those under way end by their timeouts."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        connection = self._connection()
        deadline_s = time.monotonic() + self._timeout_s
        try:
            self._connect(connection)
            connection.request(method, self._path + path, body=body or None, headers=headers)
            answer = connection.getresponse()
            return Answer(who=self.who, status=answer.status, body=self._read(answer, deadline_s))
        except TimeoutError as error:
            raise SchedulerUnavailable(f"{self.who} did not answer within {self._timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise SchedulerUnavailable(f"{self.who} broke off: {_words(error)}") from error
        finally:
            connection.close()

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.connect()
        except TimeoutError as error:
            sentence = f"{self.who} did not take a connection within {self._timeout_s:g} s"
            raise SchedulerUnavailable(sentence, sure=True) from error
        except OSError as error:
            raise SchedulerUnavailable(f"{self.who} cannot be reached: {_words(error)}", sure=True) from error

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
                raise SchedulerUnavailable(f"{self.who} answered more than {ANSWER_BYTES_MAX // 2**20} MB")
            if time.monotonic() > deadline_s:
                raise TimeoutError
        missing = answer.length
        if missing:
            raise http.client.IncompleteRead(b"", missing)
        return b"".join(parts)


def _words(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:TOLD_CHARS_MAX]
