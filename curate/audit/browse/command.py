"""`clipmill browse`: opens the catalog, prints the address of the page, and serves it until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
from collections.abc import Iterator

from curate.catalog.catalog import Catalog
from curate.errors import UserError, missing_extra
from stages.pretrained.devices import cores

LOOPBACK = "127.0.0.1"
TOKEN_BYTES = 24
SHARE = 0.5  # of this machine's memory that the clips and a query may take
MOST_CHILDREN = 2  # that cut clips


def browse(uri: str, port: int | None = None, memory_gb: float | None = None) -> int:
    """Serves the page of a catalog; returns 0 when it is stopped. Raises UserError for what can't be served."""
    try:
        import uvicorn

        from curate.audit.browse.server import application
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("uvicorn", "starlette"):
            raise missing_extra(str(error.name), "browse") from error
        raise
    from curate.audit.browse.changes import Changes
    from curate.audit.browse.process import Questioner
    from curate.audit.browse.spans import Spans
    from curate.audit.browse.words import Words

    catalog, token = Catalog.open(uri), secrets.token_urlsafe(TOKEN_BYTES)
    with _bound(port) as listening:
        print(f"reading the clips of {uri} …", file=sys.stderr)
        with (
            Questioner(catalog.uri, memory_gb or memory() * SHARE) as questioner,
            Spans(min(MOST_CHILDREN, cores())) as spans,
            Words(catalog) as words,
        ):
            changes = Changes(catalog, lambda: questioner.versions)
            app = application(questioner, spans, words, changes, token)
            server = uvicorn.Server(
                uvicorn.Config(
                    app,
                    log_level="warning",
                    access_log=False,
                    server_header=False,
                    ws="none",
                    timeout_graceful_shutdown=1,
                )
            )
            print(f"http://{LOOPBACK}:{listening.getsockname()[1]}/{token}/", flush=True)
            with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again when it has closed
                server.run(sockets=[listening])
    return 0


@contextlib.contextmanager
def _bound(port: int | None) -> Iterator[socket.socket]:
    """A socket on the loopback; without a port, the system chooses one that is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((LOOPBACK, port or 0))
            found.listen()  # before the address is printed: whoever reads it may ask at once
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}; without --port a free one is chosen") from error
        yield found


def memory() -> float:
    """GB of memory that this machine has, or that its container may use."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError), open(path) as file:
            found.append(int(file.read()))
    return min(found) / 1e9
