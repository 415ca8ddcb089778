"""One HTTP request and its whole reply, bounded by the clock: a server that hangs, or sends a byte a minute,
is cut off all the same.

The standard library is enough: one connection a request, which is nothing beside the seconds of a caption.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

BROKEN = "the reply broke off"
MAX_REPLY = 16 * 2**20  # bytes; a caption has a few thousand


class NoReply(Exception):
    """Why there is no whole reply, one line. `reached`: a connection was made, so the server may have worked."""

    def __init__(self, reason: str, reached: bool):
        super().__init__(reason)
        self.reached = reached


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """Requests below one base URL, from any number of threads."""

    def __init__(self, base_url: str):
        parts = urllib.parse.urlsplit(base_url)
        self.base_url, self.path = base_url, parts.path.rstrip("/")
        self._host, self._port = parts.hostname or "", parts.port
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._live: set[_Line] = set()
        self._lock = threading.Lock()
        self._aborted = False

    def request(
        self,
        method: str,
        path: str,
        seconds: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Raises NoReply when not all of the reply has come within `seconds`, or the connection fails."""
        connection = self._connection(seconds)
        line = _Line()
        timer = threading.Timer(seconds, line.cut)
        timer.daemon = True
        timer.start()
        with self._lock:
            self._live.add(line)
        try:
            if self._aborted:
                raise ConnectionAbortedError("stopped")
            connection.connect()
            line.sock = connection.sock
            connection.request(method, self.path + path, body, dict(headers or {}))
            reply = connection.getresponse()
            data = reply.read(MAX_REPLY + 1)
            if line.is_cut:  # which may look like a reply that ended
                raise TimeoutError
            if len(data) > MAX_REPLY:
                raise NoReply(f"a reply of more than {MAX_REPLY} bytes", reached=True)
            if reply.length:  # bytes that were promised and never came
                raise NoReply(BROKEN, reached=True)
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, data)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reached = line.sock is not None
            if line.is_cut or isinstance(error, TimeoutError):
                raise NoReply(f"no whole reply within {seconds:.3g} s", reached) from error
            raise NoReply(_reason(error, f"{self._host}:{connection.port}"), reached) from error
        finally:
            timer.cancel()
            with self._lock:
                self._live.discard(line)
            connection.close()

    def abort(self) -> None:
        """Cuts every request that is under way, and refuses new ones."""
        with self._lock:
            self._aborted = True
            live = list(self._live)
        for line in live:
            line.cut()

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=seconds)


class _Line:
    """The socket of a request, kept by itself: http.client lets go of it once the headers are there."""

    sock: socket.socket | None = None
    is_cut = False

    def cut(self) -> None:
        """Wakes whoever waits on the connection; closing alone would not."""
        self.is_cut = True
        if self.sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


def _reason(error: BaseException, where: str) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"nothing answers at {where} (connection refused)"
    if isinstance(error, socket.gaierror):
        return f"the host of {where} is not known"
    if isinstance(error, http.client.IncompleteRead):
        return BROKEN
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
        return "the server closed the connection without a reply"
    return " ".join(str(error).split())[:200] or type(error).__name__
