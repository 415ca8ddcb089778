"""A stand-in for vLLM or SGLang: OpenAI's chat completions over real HTTP on loopback, with every way to fail.

A script decides what happens to a request: a function of the prompt and of how many times it was asked before. It may
block, to hold a request back until something else has happened. The caption in a reply names the prompt, so a test
sees which question was answered.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

MODEL = "stand-in-vl"
KEY = "a-key-of-the-test"

# What a script may decide; 'STATUS', 'STATUS retry-after=X' or 'STATUS location=X' is a reply of another status.
OK, HANG, DRIP, DROP, CUT, GARBAGE = "ok", "hang", "drip", "drop", "cut", "garbage"
TRUNCATED, REFUSAL, EMPTY = "truncated", "refusal", "empty"
Script = Callable[[str, int], str]


@dataclass
class Seen:
    """A request as the server saw it; `answered` if it got a whole reply with a caption."""

    prompt: str
    body: dict[str, Any]
    began: float
    answered: bool = False


@dataclass
class CaptionServer:
    """A context manager; `url` is the base URL. `delay` seconds pass before a good answer.

    `paths` are those of all requests as they came, `most_at_once` how many were unanswered at a time at most.
    """

    script: Script = lambda prompt, attempt: OK
    delay: float = 0.0
    key: str | None = None
    moved: str | None = None  # where a redirect of all GET requests points
    seen: list[Seen] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._unanswered = 0
        self._open = 0
        self._changed = threading.Condition()
        self._end = threading.Event()

    def __enter__(self) -> CaptionServer:
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def prompts(self) -> list[str]:
        return [one.prompt for one in self.seen]

    @property
    def answered(self) -> list[str]:
        """The prompts that got a whole good reply, as often as they did."""
        return [one.prompt for one in self.seen if one.answered]

    def begin(self, body: dict[str, Any]) -> tuple[Seen, int]:
        """Notes a request; its number among those with its prompt, from 0."""
        prompt = body["messages"][-1]["content"][-1]["text"]
        with self._changed:
            attempt = self._counts[prompt]
            self._counts[prompt] += 1
            one = Seen(prompt, body, time.monotonic())
            self.seen.append(one)
            self._open += 1
            self._unanswered += 1
            self.most_at_once = max(self.most_at_once, self._unanswered)
            self._changed.notify_all()
        return one, attempt

    def answering(self) -> None:
        """A request's reply begins."""
        with self._changed:
            self._unanswered -= 1

    def end(self) -> None:
        """A request is over."""
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def wait_for_requests(self, count: int) -> None:
        """Until so many have come."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.seen) >= count)

    def wait_until_idle(self) -> None:
        """Until all that have come are over."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open)

    def rest(self, seconds: float) -> None:
        self._end.wait(seconds)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


def completion(prompt: str, what: str = OK) -> dict[str, Any]:
    texts = {
        OK: f"A grey square moves over a dark ground. It answers {prompt}.",
        TRUNCATED: f"A grey square moves over a dark ground. It answers {prompt} and then the",
        REFUSAL: "I'm sorry, but I can't help with that.",
        EMPTY: "",
    }
    message = {"role": "assistant", "content": texts.get(what, texts[OK])}
    choice = {"index": 0, "message": message, "finish_reason": "length" if what == TRUNCATED else "stop"}
    return {"id": "chat-1", "object": "chat.completion", "model": f"{MODEL}-0.1", "choices": [choice]}


def _handler(server: CaptionServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _send(self, status: int, data: Any, headers: dict[str, str] | None = None, size: int | None = None) -> None:
            body = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body) if size is None else size))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def _welcome(self) -> bool:
            if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
                given = self.headers.get("Authorization", "").removeprefix("Bearer ")
                self._send(
                    401, {"error": {"message": f"Incorrect API key provided: {given}", "code": "invalid_api_key"}}
                )
                return False
            return True

        def do_GET(self) -> None:
            server.paths.append(self.path)
            if not self._welcome():
                return
            if server.moved:
                self._send(307, {}, {"Location": server.moved})
            elif urlsplit(self.path).path == "/v1/models":  # the whole URL where a proxy is asked
                self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
            else:
                self._send(404, {"detail": "Not Found"})

        def do_POST(self) -> None:
            server.paths.append(self.path)
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._welcome():
                return
            seen, attempt = server.begin(json.loads(data))
            try:
                what, _, more = server.script(seen.prompt, attempt).partition(" ")
                server.rest({HANG: 600.0}.get(what, server.delay))
                server.answering()
                self._answer(seen, what, more)
            finally:
                server.end()

        def _answer(self, seen: Seen, what: str, more: str) -> None:
            good = json.dumps(completion(seen.prompt, what)).encode()
            if what in (HANG, DROP):
                self.close_connection = True
            elif what == DRIP:
                self.send_response(200)
                self.end_headers()
                for place in range(len(good)):
                    self.wfile.write(good[place : place + 1])
                    server.rest(0.05)
            elif what == CUT:
                self._send(200, good[: len(good) // 2], size=len(good))
            elif what == GARBAGE:
                self._send(200, good[: len(good) // 2])
            elif what.isdigit():
                name, _, value = more.partition("=")
                self._send(int(what), {"error": {"message": f"the script says {what}"}}, {name: value} if name else {})
            else:
                seen.answered = True  # before the client can tell anybody
                try:
                    self._send(200, good)
                except OSError:
                    seen.answered = False
                    raise

    return Handler
