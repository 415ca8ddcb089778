"""Search by words for the page: the model is loaded by the first search, and stays."""

from __future__ import annotations

import threading

from curate.catalog.catalog import Catalog
from curate.errors import UserError
from curate.query.search import TextSearch

NEAREST = 1000  # clips that a search gives


class Words:
    """One search at a time. A context manager, which lets go of the model."""

    def __init__(self, catalog: Catalog):
        self._catalog = catalog
        self._search: TextSearch | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Words:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()

    def find(self, text: str) -> dict[str, list[str] | list[float] | str]:
        """The ids of the nearest clips, best first, their scores, and the words that the encoder does not see.

        Raises UserError where the catalog has no embeddings or their model is not there.
        """
        with self._lock:
            if not text.strip():
                raise UserError("give some words to search for")
            if self._search is None:
                try:
                    self._search = TextSearch(self._catalog)
                except ImportError as error:
                    raise UserError(f"a search needs a package: {error} (pip install 'clipmill[clip]')") from error
            hits = self._search.find(text, NEAREST)
            return {
                "clips": [hit.clip_id for hit in hits],
                "scores": [hit.score for hit in hits],
                "left_out": self._search.cut_off(text),
            }

    def forget(self) -> None:
        """The next search sees the catalog as it is then."""
        with self._lock:
            if self._search is not None:
                self._search.__exit__()
                self._search = None
