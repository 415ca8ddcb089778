"""A stand-in for vLLM or SGLang: OpenAI's chat completions over real HTTP on loopback, with every way to fail.

What happens to a request is said by a script: a function of the prompt and of how many times it was asked
before. The caption that it gives names the prompt, so a test sees which question was answered.
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

MODEL = "stand-in-vl"
KEY = "a-key-of-the-test"

# What a script may say of a request; 'STATUS' or 'STATUS retry-after=X' is an HTTP error.
OK, SLOW, HANG, DRIP, DROP, CUT, GARBAGE = "ok", "slow", "hang", "drip", "drop", "cut", "garbage"
TRUNCATED, REFUSAL, EMPTY = "truncated", "refusal", "empty"
Script = Callable[[str, int], str]


@dataclass
class Seen:
    """A request as the server saw it; `answered` when a whole reply of status 200 was written."""

    prompt: str
    body: dict[str, Any]
    began: float
    what: str
    answered: float | None = None


@dataclass
class CaptionServer:
    """A context manager; `url` is the base URL. `delay` seconds pass before a good answer."""

    script: Script = lambda prompt, attempt: OK
    delay: float = 0.0
    key: str | None = None
    seen: list[Seen] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._now = 0
        self._lock = threading.Lock()
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

    def begin(self, body: dict[str, Any]) -> Seen:
        prompt = body["messages"][-1]["content"][-1]["text"]
        with self._lock:
            attempt = self._counts[prompt]
            self._counts[prompt] += 1
            one = Seen(prompt, body, time.monotonic(), self.script(prompt, attempt))
            self.seen.append(one)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        return one

    def finish(self) -> None:
        with self._lock:
            self._now -= 1

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
            if not self._welcome():
                return
            if self.path == "/v1/models":
                self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
            else:
                self._send(404, {"detail": "Not Found"})

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._welcome():
                return
            seen = server.begin(json.loads(data))
            try:
                self._answer(seen)
            finally:
                server.finish()

        def _answer(self, seen: Seen) -> None:
            what, _, more = seen.what.partition(" ")
            good = json.dumps(completion(seen.prompt, what)).encode()
            if what == HANG:
                server.rest(60)
            elif what == DROP:
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
                headers = {"Retry-After": more.removeprefix("retry-after=")} if more else {}
                self._send(int(what), {"error": {"message": f"the script says {what}"}}, headers)
            else:
                server.rest(float(more) if what == SLOW else server.delay)
                self._send(200, good)
                seen.answered = time.monotonic()

    return Handler
