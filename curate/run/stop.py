"""`clipmill stop`: asks the live runs of a catalog, wherever they are, to finish what they have in hand."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from curate.catalog.lease import FOLDER, live_runs
from curate.storage import filesystem, join

LOOK_SECONDS = 2.0  # between two looks of a run for a request to stop


def stop_runs(catalog: str) -> int:
    """Asks every live run to stop; exit code 0, or 1 where there is none. Raises UserError for no catalog."""
    from curate.catalog.catalog import Catalog

    opened = Catalog.open(catalog)
    runs = sorted(live_runs(opened.uri))
    for run in runs:
        fs, path = filesystem(_request(opened.uri, run))
        fs.pipe_file(path, b"stop")
    if not runs:
        print(f"no live run of {catalog}")
        return 1
    print(f"asked {len(runs)} live run{'s' * (len(runs) > 1)} to stop: {', '.join(run[:8] for run in runs)}")
    return 0


@contextlib.contextmanager
def stop_requests(
    catalog_uri: str, run_id: str, stop: threading.Event, seconds: float = LOOK_SECONDS
) -> Iterator[None]:
    """While a run lasts: sets `stop` when somebody asks for it. A store that can't be reached asks for nothing."""
    ended = threading.Event()
    fs, path = filesystem(_request(catalog_uri, run_id))

    def look() -> None:
        while not ended.wait(seconds) and not stop.is_set():
            with contextlib.suppress(Exception):  # each store has its own exceptions
                if fs.exists(path):
                    stop.set()

    thread = threading.Thread(target=look, name="clipmill-stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)
        with contextlib.suppress(Exception):
            if fs.exists(path):
                fs.rm_file(path)


def _request(catalog_uri: str, run_id: str) -> str:
    return join(catalog_uri, FOLDER, f"{run_id}.stop")
