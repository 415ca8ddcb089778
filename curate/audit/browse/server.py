"""The server of `clipmill browse`: files of the page, questions to the child, thumbnails, spans of films."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from curate.audit.browse.changes import Changes
from curate.audit.browse.guard import MOST_BYTES, Guard
from curate.audit.browse.process import Questioner
from curate.audit.browse.spans import Spans
from curate.audit.browse.words import Words
from curate.errors import UserError, first_line

PAGE = Path(__file__).with_name("page")
FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "style.css": ("style.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
# What may be asked of the child, with the names of what is given.
ASKED = {
    "schema": (), "column": ("name",), "page": ("selection", "after"), "count": ("selection",),
    "clip": ("clip_id",), "rows": ("text",), "try": ("gate",), "export": ("selection",),
}  # fmt: skip
OPTIONAL = {"after"}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def application(questioner: Questioner, spans: Spans, words: Words, changes: Changes, token: str) -> Any:
    """The ASGI application, behind its guard."""
    routes = [Route(f"/{path}", _file(*found)) for path, found in files().items()]
    routes += [
        Route("/thumbnail/{place:int}", thumbnail),
        Route("/span/{clip_id:str}.mp4", span),
        Route("/ask/{question:str}", ask, methods=["POST"]),
        Route("/search", search, methods=["POST"]),
        Route("/stop", stop, methods=["POST"]),
        Route("/reload", reload, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={UserError: _refused, Exception: _failed})
    app.state.questioner, app.state.spans = questioner, spans
    app.state.words, app.state.changes = words, changes
    return Guard(app, token)


def files() -> dict[str, tuple[str, str]]:
    """The page's files by their paths: (name, type)."""
    scripts = {path.name: (path.name, "text/javascript; charset=utf-8") for path in PAGE.glob("*.js")}
    return FILES | scripts


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    content = (PAGE / name).read_bytes()
    return lambda request: Response(content, media_type=kind)


async def ask(request: Request) -> Response:
    """POST {…} to /ask/QUESTION; `number`, if given, is a name by which /stop interrupts it."""
    question = request.path_params["question"]
    if question not in ASKED:
        return JSONResponse({"error": f"no question {question!r}"}, 404)
    given = await _body(request)
    number = given.pop("number", None)
    if unknown := set(given) - set(ASKED[question]):
        raise UserError(f"{question} takes no {min(unknown)}")
    if lacking := set(ASKED[question]) - OPTIONAL - set(given):
        raise UserError(f"{question} needs {min(lacking)}")
    if question == "export":
        given["catalog"] = request.app.state.questioner.uri
    stopping = request.app.state.stopping = getattr(request.app.state, "stopping", {})
    own = request.app.state.questioner.number()
    if number is not None:
        stopping[str(number)] = own
    try:
        answer = await run_in_threadpool(request.app.state.questioner.ask, question, own, **given)
    finally:
        stopping.pop(str(number), None)
    return JSONResponse({"answer": answer.value, "changed": request.app.state.changes.seen()})


async def stop(request: Request) -> Response:
    """Interrupts the question of that number, if it still runs."""
    number = getattr(request.app.state, "stopping", {}).get(str((await _body(request)).get("number")))
    if number is not None:
        await run_in_threadpool(request.app.state.questioner.stop, number)
    return JSONResponse({"answer": number is not None})


async def search(request: Request) -> Response:
    """The ids of the clips nearest to a text, best first."""
    given = await _body(request)
    hits = await run_in_threadpool(request.app.state.words.find, str(given.get("text", "")))
    return JSONResponse({"answer": hits})


async def reload(request: Request) -> Response:
    """The catalog as it is now: its clips are read anew."""
    state = request.app.state
    state.spans.forget()
    state.words.forget()
    await run_in_threadpool(state.questioner.restart)
    return JSONResponse({"answer": state.questioner.versions})


def thumbnail(request: Request) -> Response:
    """The JPEG at a place that a page of clips has named."""
    found = request.app.state.questioner.ask("thumbnail", place=request.path_params["place"])
    return Response(found.body, media_type="image/jpeg") if found.body else Response(status_code=404)


def span(request: Request) -> Response:
    """A clip as MP4, whole or a range of its bytes."""
    row = request.app.state.questioner.ask("span", clip_id=request.path_params["clip_id"]).value
    if row is None or row["media"] == "image":
        raise UserError("a still image is no film")
    return in_range(request.app.state.spans.mp4(row), request.headers.get("range"))


def in_range(data: bytes, asked: str | None) -> Response:
    """The bytes that a Range header asks for (RFC 9110, one range), or all of them."""
    headers, total = {"accept-ranges": "bytes"}, len(data)
    match = _RANGE.fullmatch(asked.strip()) if asked else None
    if match is None or not any(match.groups()):
        return Response(data, media_type="video/mp4", headers=headers)
    first, last = match.groups()
    if first:
        begin, end = int(first), min(int(last), total - 1) if last else total - 1
    else:
        begin, end = max(0, total - int(last)), total - 1
    if begin > end or begin >= total:
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{total}"})
    headers["content-range"] = f"bytes {begin}-{end}/{total}"
    return Response(data[begin : end + 1], 206, media_type="video/mp4", headers=headers)


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises UserError for anything else, and for one that is too long."""
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > MOST_BYTES:
            raise UserError(f"a request may have {MOST_BYTES:,} bytes")
    try:
        found = json.loads(data or b"{}")
        json.dumps(found, ensure_ascii=False).encode()  # halves of characters are no text
    except (ValueError, RecursionError) as error:
        raise UserError(f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError("expected a JSON object")
    return found


def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"{type(error).__name__}: {first_line(error)}"}, 500)
