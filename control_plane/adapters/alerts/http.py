"""One POST to an address of somebody's choice, and what came back.

The name is resolved once, what it stands for is checked, and the connection goes to the very address that was checked:
a name that stands for another address a moment later changes nothing. Redirects are not followed, proxies not asked,
answers read up to a bound, and the whole has a time limit.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

import h11

from control_plane.adapters.alerts.addresses import check_addresses
from control_plane.app.delivery import Undelivered

TIMEOUT_S = 10.0
"""From the name to the end of the answer; a receiver that takes longer should answer first and work afterwards."""
ANSWER_BYTES_MAX = 64 * 1024
CHUNK_BYTES = 16 * 1024
TOLD_CHARS_MAX = 200
"""Of an answer that is no, in the failure that is shown."""
RETRY_AFTER_S_MAX = 3600.0

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Addresses of a host; the system's resolver, unless a test says otherwise."""


async def resolved(host: str, port: int) -> list[str]:
    """What a name stands for, by the system's resolver. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class SafePost:
    """`Post` of app/delivery.py."""

    def __init__(
        self, *, resolve: Resolve = resolved, timeout_s: float = TIMEOUT_S, tls: ssl.SSLContext | None = None
    ) -> None:
        self._resolve = resolve
        self._timeout_s = timeout_s
        self._tls = tls

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str], *, allow_private: bool) -> str:
        """Send it; what came back, in words, if it was taken. Raises Undelivered."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await self._connected(parts, host, allow_private=allow_private)
                try:
                    return await _exchanged(reader, writer, parts, body, headers)
                finally:
                    writer.close()
                    with suppress(OSError, asyncio.CancelledError):
                        writer.transport.abort()
        except TimeoutError:
            raise Undelivered(f"{host} did not answer within {self._timeout_s:g} s") from None
        except (OSError, h11.RemoteProtocolError) as error:
            raise Undelivered(f"{host} cannot be reached: {_words(error)}") from error

    async def _connected(
        self, parts: SplitResult, host: str, *, allow_private: bool
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses = check_addresses(host, await self._resolve(host, port), allow_private=allow_private)
        tls = (self._tls or ssl.create_default_context()) if parts.scheme == "https" else None
        failure: OSError | None = None
        for address in addresses:
            try:
                return await asyncio.open_connection(
                    address, port, ssl=tls, server_hostname=host if tls is not None else None
                )
            except ssl.SSLError:
                raise
            except OSError as error:
                failure = error
        assert failure is not None
        raise failure


async def _exchanged(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    parts: SplitResult,
    body: bytes,
    headers: Mapping[str, str],
) -> str:
    """Write the request, read the answer."""
    wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=ANSWER_BYTES_MAX)
    host = parts.netloc.rpartition("@")[2]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {"host": host, "user-agent": "runway", "content-length": str(len(body)), "connection": "close", **headers}
    request = h11.Request(method="POST", target=target, headers=[(k.encode(), v.encode()) for k, v in sent.items()])
    writer.write((wire.send(request) or b"") + (wire.send(h11.Data(data=body)) or b""))
    writer.write(wire.send(h11.EndOfMessage()) or b"")
    with suppress(ConnectionError):  # a receiver may say no before it has read all; its answer is read below
        await writer.drain()
    response: h11.Response | None = None
    answer = b""
    while True:
        event = wire.next_event()
        if event is h11.NEED_DATA:
            wire.receive_data(await reader.read(CHUNK_BYTES))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            answer += bytes(event.data)
            if len(answer) >= ANSWER_BYTES_MAX:
                break
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
            break
    if response is None:
        raise OSError("it closed the connection without an answer")
    return _judged(response, answer)


def _judged(response: h11.Response, answer: bytes) -> str:
    """What came back, in words, if it was taken. Raises Undelivered."""
    status = response.status_code
    told = " ".join(answer.decode("utf-8", "replace").split())[:TOLD_CHARS_MAX]
    told = "".join(char for char in told if char.isprintable())
    if 200 <= status < 300:
        return f"{status}" + (f" {told}" if told else "")
    found = {bytes(name).lower(): bytes(value) for name, value in response.headers}
    if 300 <= status < 400:
        where = found.get(b"location", b"").decode("latin-1")[:TOLD_CHARS_MAX]
        raise Undelivered(f"it answered {status}, a redirect to {where!a}: those are not followed", refused=True)
    raise Undelivered(
        f"it answered {status}" + (f": {told}" if told else ""),
        retry_after_s=_retry_after_s(found.get(b"retry-after", b"")),
        gone=status == 410,
        refused=status < 500 and status not in (408, 425, 429),
    )


def _retry_after_s(value: bytes) -> float:
    try:
        return min(max(float(value), 0.0), RETRY_AFTER_S_MAX)
    except ValueError:
        return 0.0


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__
