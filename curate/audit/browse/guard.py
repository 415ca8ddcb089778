"""Lets in only those who have the address that was printed: token, Host, Origin; and what every answer says of itself.

The token is the first part of every path, so that pictures and films need no cookie, which another program on another
port of this machine would be sent too. A page of another site that resolves its own name to the loopback (DNS
rebinding) has its name in Host; one that sends requests here has its address in Origin.
"""

from __future__ import annotations

import hmac

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")  # with any port: a tunnel over ssh may begin at another
MOST_BYTES = 1 << 20  # of a request's body
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware. The application behind it sees paths without the token."""

    def __init__(self, app: ASGIApp, token: str):
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        _, _, rest = scope["path"].removeprefix("/").partition("/")
        inside = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        await self.app(inside, receive, with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not is_host(hosts[0]):
            return PlainTextResponse("this server answers to 127.0.0.1 and localhost alone\n", 421)
        given = scope["path"].removeprefix("/").partition("/")[0].encode("utf-8", "replace")
        if not hmac.compare_digest(given, self.token):
            return PlainTextResponse(
                "open the address that `clipmill browse` has printed: the token is part of it\n", 403
            )
        if any(origin != b"http://" + hosts[0] for origin in headers.get(b"origin", [])):
            return PlainTextResponse("another page may not ask here\n", 403)
        if any(site not in (b"same-origin", b"none") for site in headers.get(b"sec-fetch-site", [])):
            return PlainTextResponse("another page may not ask here\n", 403)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("only GET and POST\n", 405)
        return None


def is_host(host: bytes) -> bool:
    """Whether a Host header names the loopback, with or without a port."""
    name, colon, port = host.decode("latin-1").lower().partition(":")
    return name in HOSTS and (not colon or port.isdigit())
