"""`clipmill browse` as a process, and a client that sends whatever headers a test wants."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A running server. `address` ends with the token and a slash."""

    address: str
    process: subprocess.Popen[str]
    printed: str = field(default="")  # on stdout behind the address, when it has ended
    said: str = field(default="")  # on stderr, when it has ended

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 0

    @property
    def root(self) -> str:
        return urlsplit(self.address).path

    def send(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        """One request; `path` is as it is sent, without the token before it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in ({"Host": f"127.0.0.1:{self.port}"} | (headers or {})).items():
                if value:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", self.root + path, headers=headers)

    def post(self, path: str, given: Any = None) -> Reply:
        return self.send("POST", self.root + path, json.dumps(given or {}).encode())

    def ask(self, question: str, **given: Any) -> Any:
        reply = self.post(f"ask/{question}", given)
        assert reply.status == 200, reply.body
        return reply.json["answer"]

    def refused(self, question: str, **given: Any) -> str:
        """The one line by which a question is refused."""
        reply = self.post(f"ask/{question}", given)
        assert reply.status == 400, reply.body
        return reply.json["error"]

    def pages(self, selection: dict[str, Any]) -> list[dict[str, Any]]:
        """All clips of a selection, page after page."""
        found, after = [], {}
        while True:
            page = self.ask("page", selection=selection, **after)
            found += page["clips"]
            if page["next"] is None:
                return found
            after = {"after": page["next"]}

    def child(self) -> int:
        """The process that holds the data: the one that takes the most memory."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return max(children, key=lambda one: one.memory_info().rss).pid


@contextlib.contextmanager
def serving(catalog: Path | str, *arguments: str, **settings: Any) -> Iterator[Served]:
    command = [sys.executable, "-m", "curate.cli", "browse", "--catalog", str(catalog), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)
    assert process.stdout is not None and process.stderr is not None
    served = Served(process.stdout.readline().strip(), process)
    try:
        assert served.address.startswith("http://127.0.0.1:"), process.stderr.read()
        yield served
    finally:
        process.terminate()
        served.printed, served.said = process.communicate(timeout=30)
