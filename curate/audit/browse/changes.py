"""Whether the catalog has changed since the page's clips were read: looked at every few seconds, beside the answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from curate.catalog.catalog import Catalog
from curate.errors import DamagedError, UserError

EVERY_SECONDS = 10.0


class Changes:
    """`seen` never waits: it tells what was found last, and looks again in a thread where that is long ago."""

    def __init__(self, catalog: Catalog, shown: Callable[[], dict[str, int]]):
        self._catalog, self._shown = catalog, shown
        self._found = shown()
        self._looked = time.monotonic()
        self._looking = threading.Lock()

    def seen(self) -> bool:
        if time.monotonic() - self._looked > EVERY_SECONDS and self._looking.acquire(blocking=False):
            threading.Thread(target=self._look, name="changes", daemon=True).start()
        return self._found != self._shown()

    def _look(self) -> None:
        try:
            self._found = self._catalog.snapshot()
        except (UserError, DamagedError):
            pass  # a store that does not answer now; the next look will tell
        finally:
            self._looked = time.monotonic()
            self._looking.release()
