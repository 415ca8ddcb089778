"""Captions from a server that speaks OpenAI's chat completions (vLLM, SGLang, hosted ones).

Errors that pass (no reply, 408, 429, 5xx, a reply that broke off) are retried, later each time; errors that stay (400,
404, 413, ...) fail the clip at once. If the server refuses clip after clip in the same words, or no longer answers
at all, the run stops instead of failing a million clips.
"""

from __future__ import annotations

import base64
import difflib
import importlib.util
import json
import os
import threading
from dataclasses import dataclass
from typing import Any

import cv2

from stages.base import ClipError, SettingsError
from stages.captions.answers import Answer, CaptionSource, Deadline
from stages.captions.http_client import HttpClient, NoReply, Reply
from stages.captions.pace import Clock, Pace, backoff, retry_after
from stages.captions.settings import CaptionSettings, ServerSettings
from stages.unit import Clip

RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # statuses of errors that may pass
STOP_AFTER = 20  # clips in a row, with no caption in between, that were refused alike or got no reply at all
PROBE_S = 15.0
JPEG_QUALITY = 90


class BadReply(Exception):
    """A reply of status 200 that is no caption: broken JSON, or not what the protocol says."""


@dataclass
class Session:
    """What the threads that ask a server share."""

    client: HttpClient
    pace: Pace
    failures: FailureCount
    slots: threading.BoundedSemaphore


class ServerCaptions(CaptionSource):
    """One server, asked by any number of threads after `setup`.

    It has no `content`: its name is a setting, and which weights stand behind a name a server does not say.
    """

    def __init__(self, settings: CaptionSettings, clock: Clock):
        if settings.server is None:
            raise ValueError("captions from a server need its settings")
        self.settings: ServerSettings = settings.server
        self.request = {
            "model": self.settings.model,
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "seed": settings.seed,
            **self.settings.extra_body,
        }
        self.clock = clock
        self._session: Session | None = None

    def check(self) -> None:
        """Asks the server for its models. SettingsError: it can't be reached, refuses the key, has no such model."""
        if importlib.util.find_spec("httpx") is None:
            raise SettingsError("this needs the package httpx: pip install 'clipmill[caption]'")
        _check_models(self.settings, self._headers(), self._key())

    def setup(self) -> None:
        self.check()
        settings = self.settings
        self._session = Session(
            HttpClient(settings.base_url, self._headers()),
            Pace(settings.requests_per_minute, self.clock),
            FailureCount(settings.base_url),
            threading.BoundedSemaphore(settings.concurrency),
        )

    def halt(self) -> None:
        """Begins no further request: whoever waits for a turn or a retry is woken, and raises."""
        if self._session:
            self._session.pace.stop()

    def close(self) -> None:
        """Cancels the requests under way, too."""
        self.halt()
        if self._session:
            self._session.client.close()

    def caption(self, clip: Clip, name: str, prompt: str, deadline: Deadline) -> Answer:
        """Waiting for a turn under our own limits does not count against the deadline."""
        if self._session is None:
            raise RuntimeError("a server is asked after setup()")
        began = self.clock.now()
        with self._session.slots:
            deadline.extend(self.clock.now() - began)
            body = json.dumps(self.request | {"messages": messages(clip, prompt)}).encode()
            return self._ask(self._session, body, deadline)

    def _ask(self, session: Session, body: bytes, deadline: Deadline) -> Answer:
        silent, problem = True, ""  # whether no reply of any kind came; what the last try met
        for attempt in range(self.settings.tries):
            deadline.extend(session.pace.wait_for_turn())
            seconds = min(self.settings.timeout_seconds, deadline.left())
            if seconds <= 0:
                break
            wait = None
            try:
                reply = session.client.request("POST", "/chat/completions", seconds, body)
            except NoReply as error:
                problem = str(error)
            else:
                silent = False
                if reply.status == 200:
                    try:
                        answer = read_caption(reply.body, self.settings.model)
                    except BadReply as error:
                        problem = str(error)
                    else:
                        session.failures.reset()
                        return answer
                else:
                    problem = f"{reply.status} {complaint(reply, self._key())}".strip()
                    if reply.status not in RETRIED or "insufficient_quota" in problem:
                        session.failures.add(problem)
                        raise ClipError(f"the server refuses: {problem}")
                    wait = retry_after(reply.headers.get("retry-after"))
                    if wait is not None:
                        session.pace.hold(min(wait, self.settings.deadline_seconds))
            pause = max(wait or 0.0, backoff(attempt, self.settings.backoff_seconds))
            if pause >= deadline.left() or attempt + 1 == self.settings.tries:
                problem += f" (it asks to wait {wait:.0f} s, longer than there is)" if wait and wait >= pause else ""
                break
            session.pace.sleep(pause)
        if silent:
            session.failures.add("no reply: " + problem)
        tries = f"{attempt + 1} {'try' if attempt == 0 else 'tries'}"
        raise ClipError(f"no caption from the server after {tries}: {problem or 'no time left'}")

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if name := self.settings.api_key_env:
            if not (key := self._key()):
                raise SettingsError(f"api_key_env: the environment variable {name} is not set")
            if not (key.isascii() and key.isprintable()):
                raise SettingsError(f"api_key_env: the environment variable {name} holds characters that no key has")
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _key(self) -> str:
        return os.environ.get(self.settings.api_key_env or "", "").strip()


def messages(clip: Clip, prompt: str) -> list[dict[str, Any]]:
    """The clip's frames as JPEG data URLs in their order, then the prompt."""
    parts: list[dict[str, Any]] = []
    for _, picture in clip.frames:
        done, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not done:
            raise ClipError("a frame could not be made a JPEG")
        url = "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return [{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}]


def read_caption(body: bytes, model: str) -> Answer:
    """The caption in a reply. Raises BadReply for what is not one, ClipError for a reply without text.

    A refusal that the protocol marks as such is text like any other: the audit finds it.
    """
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        message = choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        if not isinstance(text, str):
            raise TypeError
        finish = choice.get("finish_reason")
        revision = "/".join(str(data[k]) for k in ("model", "system_fingerprint") if data.get(k))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise BadReply(f"a reply that is no chat completion: {_printable(body)!r}") from error
    if not text.strip():
        raise ClipError(f"the server's answer has no text (finish_reason {finish!r})")
    return Answer(text.strip(), "server", finish if finish in ("stop", "length") else None, model, revision or None)


def complaint(reply: Reply, key: str = "") -> str:
    """What a server says of an error, one short line: OpenAI's and FastAPI's forms, else the text itself.

    Some repeat the key they were given; it must not get into a table or a log.
    """
    return _error_text(reply).replace(key, "***") if key else _error_text(reply)


def _error_text(reply: Reply) -> str:
    try:
        data = json.loads(reply.body)
        error = data.get("error", data)
        text = error if isinstance(error, str) else error.get("message") or error.get("detail") or ""
        code = error.get("code") if isinstance(error, dict) else None
        return _printable(f"{text} ({code})" if code and isinstance(code, str) else str(text))
    except (ValueError, AttributeError, RecursionError):
        return _printable(reply.body)


def _printable(text: str | bytes) -> str:
    """One line of at most 200 printable characters."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())[:200]


def _check_models(settings: ServerSettings, headers: dict[str, str], key: str) -> None:
    url = settings.base_url
    try:
        with HttpClient(url, headers) as client:
            reply = client.request("GET", "/models", min(PROBE_S, settings.timeout_seconds))
    except NoReply as error:
        raise SettingsError(f"server {url}: {error}: start it, or correct `base_url`") from error
    if reply.status in (401, 403):
        what = f"the key in {settings.api_key_env}" if settings.api_key_env else "a request without a key"
        advice = "" if settings.api_key_env else ": name the variable that holds it in `api_key_env`"
        raise SettingsError(f"server {url} refuses {what} ({reply.status} {complaint(reply, key)}){advice}")
    if reply.status >= 500:
        raise SettingsError(f"server {url} answers {reply.status} {complaint(reply, key)}: is it still starting?")
    if 300 <= reply.status < 400:
        there = reply.headers.get("location", "another address")
        raise SettingsError(f"server {url} sends elsewhere ({there}): give that as `base_url`")
    try:
        models = [str(one["id"]) for one in json.loads(reply.body)["data"]] if reply.status == 200 else []
    except (ValueError, KeyError, TypeError):
        raise SettingsError(f"server {url}: what it says of its models is not OpenAI's form; is /v1 missing?") from None
    if models and settings.model not in models:
        near = difflib.get_close_matches(settings.model, models, n=1, cutoff=0.4)
        said = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(models[:8])}"
        raise SettingsError(f"server {url} has no model {settings.model!r}; {said}")


class FailureCount:
    """Counts clips in a row that failed for the same reason; raises SettingsError when there are too many."""

    def __init__(self, url: str):
        self._url, self._reason, self._count = url, "", 0
        self._lock = threading.Lock()

    def reset(self) -> None:
        self._count = 0

    def add(self, reason: str) -> None:
        kind = reason.split(":")[0] if reason.startswith("no reply") else reason
        with self._lock:
            self._count = self._count + 1 if kind == self._reason else 1
            self._reason = kind
            if self._count >= STOP_AFTER:
                raise SettingsError(
                    f"server {self._url}: {STOP_AFTER} clips in a row came to nothing ({reason}): stopped, so that the "
                    "rest is not failed; run again when this is mended, what was answered is kept"
                )
