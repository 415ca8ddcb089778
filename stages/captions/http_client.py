"""An HTTP client for one server, shared by many threads: every request has one time limit for its whole reply.

httpx does the HTTP, with TLS and the proxies of the environment. Its own time limits are for single reads, which a
server that sends a byte a minute never exceeds. So requests run as asyncio tasks on a thread of their own, where each
can be cancelled as a whole: when its time is up, or when the run is stopped.

Every request opens its own connection. httpx's pool loses connections, sockets included, when requests are cancelled
(httpcore 1.0.9), and connecting takes little beside the seconds of a caption.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

BROKEN = "the reply broke off"
MAX_REPLY = 16 * 2**20  # bytes; a caption has a few thousand


class NoReply(Exception):
    """Why there is no whole reply, in one line."""


@dataclass(frozen=True)
class Reply:
    """`headers` are found by their names in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Requests below one base URL. Redirects are not followed; certificates are checked against the system's."""

    def __init__(self, base_url: str, headers: Mapping[str, str], max_reply: int = MAX_REPLY):
        parts = urllib.parse.urlsplit(base_url)
        self._where = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        self._base_url, self._headers, self._max_reply = base_url, dict(headers), max_reply
        self._certificates = ssl.create_default_context()
        self._closed = False
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="caption-http", daemon=True)
        self._thread.start()

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, method: str, path: str, seconds: float, body: bytes | None = None) -> Reply:
        """Raises NoReply when not all of the reply has come within `seconds`, or the connection fails."""
        with self._lock:
            if self._closed:
                raise NoReply("the run was stopped")
            task = asyncio.run_coroutine_threadsafe(self._request(method, path, seconds, body), self._loop)
        try:
            return task.result()
        except concurrent.futures.CancelledError as error:
            raise NoReply("the run was stopped") from error

    def close(self) -> None:
        """Cancels every request that is under way, and refuses new ones."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _request(self, method: str, path: str, seconds: float, body: bytes | None) -> Reply:
        import httpx

        begun = False  # whether the headers of the reply are there
        try:
            async with (
                httpx.AsyncClient(headers=self._headers, verify=self._certificates, timeout=None) as client,
                asyncio.timeout(seconds),
                client.stream(method, self._base_url + path, content=body) as response,
            ):
                begun = True
                data = bytearray()
                async for part in response.aiter_bytes():
                    data += part
                    if len(data) > self._max_reply:
                        raise NoReply(f"a reply of more than {self._max_reply} bytes")
                return Reply(response.status_code, response.headers, bytes(data))
        except TimeoutError as error:
            raise NoReply(f"no whole reply within {seconds:.3g} s") from error
        except httpx.InvalidURL as error:
            raise NoReply(f"no address of a server: {error}") from error
        except (httpx.HTTPError, OSError) as error:
            raise NoReply(BROKEN if begun else self._reason(error)) from error

    def _reason(self, error: Exception) -> str:
        """Why a request failed before its reply began."""
        import httpx

        for cause in _causes(error):
            if isinstance(cause, ConnectionRefusedError):
                return f"nothing answers at {self._where} (connection refused)"
            if isinstance(cause, socket.gaierror):
                return f"the host of {self._where} is not known"
        text = " ".join(str(error).split())[:200]
        if isinstance(error, httpx.ReadError | httpx.WriteError) or "disconnected" in text:
            return "the server closed the connection without a reply"
        return text or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and all that led to it, those of a group included."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from _causes(one)
        error = error.__cause__ or error.__context__
