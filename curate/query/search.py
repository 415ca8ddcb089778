"""`clipmill search`: finds the clips whose embeddings are nearest to that of a text.

The text is encoded by the model that made the embeddings. The search is exact and needs no index: the cosines with a
batch of embeddings are one matrix product, and memory holds one batch and the best hits so far.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import astuple, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.catalog.catalog import Catalog
from curate.catalog.gates import literal, quote
from curate.catalog.vectors import embedding_batches, embedding_model
from curate.catalog.views import connect, query
from curate.errors import UserError
from curate.query.hit import Hit
from stages.base import SettingsError

if TYPE_CHECKING:
    from stages.pretrained.open_clip_model import OpenClipModel

BATCH_ROWS = 16_384  # embeddings compared at a time: 25 MB of 768 float16
MOST = 10_000  # hits of one search, at most


class TextSearch:
    """Searches the embeddings of a catalog by text; the model is loaded once.

    `model` and `pretrained` name the model if its path has changed since the embeddings were made.
    Raises UserError: no such table, no embeddings, a model that can't be found or did not make them.
    """

    def __init__(
        self, catalog: Catalog, table: str = "embeddings", model: str | None = None, pretrained: str | None = None
    ):
        self.table = table
        self.connection = connect(catalog)
        try:
            revision = self._revision()
            self.model = self._load(model, pretrained)
            if self.model.revision != revision:
                raise UserError(
                    f"table {table!r} was made by a model of revision {revision}, but {self.model.name} is "
                    f"{self.model.revision} now: name the model that made it with --model, or rebuild the table"
                )
        except BaseException:
            self.connection.close()
            raise

    def __enter__(self) -> TextSearch:
        return self

    def __exit__(self, *_: Any) -> None:
        self.connection.close()

    def cut_off(self, text: str) -> str:
        """The end of a text that is too long for the encoder; '' for a text that fits."""
        words = text.split()
        if self.model.fits(text):
            return ""
        low, high = 0, len(words)  # `low` words fit, `high` words do not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.model.fits(" ".join(words[:middle])) else (low, middle)
        return " ".join(words[low:])

    def find(self, text: str, k: int = 20, where: str | None = None) -> list[Hit]:
        """The `k` clips nearest to the text, best first; those with equal scores in order of their ids.

        `where` is a SQL condition on the view `clips`. Dropped clips are found as well as kept ones. Raises UserError.
        """
        if not text.strip():
            raise UserError("the text to search for is empty")
        if not 1 <= k <= MOST:
            raise UserError(f"-k must be from 1 to {MOST:,}, got {k}")
        if where is not None:  # checks that it is one condition and nothing else, with DuckDB's message if it is not
            query(self.connection, f"SELECT 1 FROM clips WHERE ({where}\n) LIMIT 0")
        vector = self.model.encode_texts([text])[0]  # (dim,)
        best = nearest(embedding_batches(self.connection, self.table, where, BATCH_ROWS), vector, k)
        return self._hits(best)

    def _revision(self) -> str:
        """The revision of the model that made the table's embeddings."""
        name = self.table
        tables = [row[0] for row in self.connection.execute("SHOW TABLES").fetchall()]
        if name not in tables or not self._holds_embeddings(name):
            embeddings = sorted(table for table in tables if self._holds_embeddings(table))
            advice = f"there is {', '.join(embeddings)}" if embeddings else "run a recipe with the stage `embed` first"
            raise UserError(f"the catalog has no embeddings in a table {name!r}: {advice}")
        rows = self.connection.execute(
            f"SELECT DISTINCT {quote(f'{name}_revision')}, settings FROM {quote(name)} WHERE status = 'done'"
        ).fetchall()
        if not rows:
            raise UserError(f"table {name!r} holds no embedding yet: no clip of it is done")
        if len(rows) > 1:
            revisions = " and ".join(sorted({str(row[0]) for row in rows}))
            raise UserError(
                f"table {name!r} holds embeddings of several settings (revision {revisions}): finish its rebuild first"
            )
        return rows[0][0]

    def _holds_embeddings(self, table: str) -> bool:
        names = {row[0] for row in self.connection.execute(f"DESCRIBE {quote(table)}").fetchall()}
        return f"{table}_revision" in names and bool({"embedding", f"{table}_embedding"} & names)

    def _load(self, model: str | None, pretrained: str | None) -> OpenClipModel:
        """The model of the last run that filled the table, or the one that the user names, on any device: where the
        embeddings were made makes no difference to the text.
        """
        from stages.pretrained.open_clip_lookup import find_model
        from stages.pretrained.open_clip_model import load_model

        names = embedding_model(self.connection, self.table) if model is None else {"model": model}
        if pretrained is not None:
            names["pretrained"] = pretrained
        if "model" not in names:
            raise UserError(f"no run says which model filled table {self.table!r}: name it with --model")
        try:
            found = find_model(names["model"], names.get("pretrained"))
            print(f"loading CLIP model {found.name}", file=sys.stderr, flush=True)
            return load_model(found, "auto", "float32")
        except SettingsError as error:
            raise UserError(
                f"table {self.table!r} was made by model {names['model']}, but {error} (or name it with --model)"
            ) from error

    def _hits(self, best: list[tuple[float, str]]) -> list[Hit]:
        if not best:
            return []
        ids = ", ".join(literal(clip) for _, clip in best)
        rows = self.connection.execute(
            f"SELECT clip_id, uri, start_s, end_s, verdict FROM clips WHERE clip_id IN ({ids})"
        ).fetchall()
        by_id = {row[0]: row[1:] for row in rows}
        found = [(score, clip) for score, clip in best if clip in by_id]
        return [Hit(rank, score, clip, *by_id[clip]) for rank, (score, clip) in enumerate(found, 1)]


def nearest(batches: Iterator[tuple[list[str], np.ndarray]], vector: np.ndarray, k: int) -> list[tuple[float, str]]:
    """(score, id) of the k rows with the largest product with `vector` (dim,), from batches of (ids, (n, dim)).

    Best first; equal scores in order of ids, whatever the batches.
    """
    best: list[tuple[float, str]] = []
    for ids, matrix in batches:
        if matrix.shape[1] != len(vector):
            raise UserError(f"the embeddings have {matrix.shape[1]} numbers, the text's has {len(vector)}")
        scores = matrix.astype(np.float32) @ vector.astype(np.float32)  # (n,)
        least = best[-1][0] if len(best) == k else -np.inf
        if len(ids) > k:
            least = max(least, np.partition(scores, -k)[-k])
        best += [(float(scores[i]), ids[i]) for i in np.nonzero(scores >= least)[0]]
        best = sorted(best, key=lambda hit: (-hit[0], hit[1]))[:k]
    return best


def run_search(
    catalog: str,
    text: str,
    k: int = 20,
    where: str | None = None,
    table: str = "embeddings",
    model: str | None = None,
    pretrained: str | None = None,
    form: str = "table",
    output: str | None = None,
) -> int:
    """Prints the hits as 'table', 'csv' or 'json', and draws them on a contact sheet at `output`; returns 0."""
    from curate.query.contact_sheet import check_sheet_name, write_contact_sheet
    from curate.query.sql import write_rows

    text = text.encode("utf-8", "replace").decode()  # a terminal may pass on bytes that are no UTF-8
    if not text.strip():
        raise UserError("the text to search for is empty")
    if output is not None:
        check_sheet_name(output)
    with TextSearch(Catalog.open(catalog), table, model, pretrained) as searcher:
        if rest := searcher.cut_off(text):
            print(f"clipmill: the text is too long for {searcher.model.name}; left out: {rest}", file=sys.stderr)
        hits = searcher.find(text, k, where)
        if output is not None:
            write_contact_sheet(output, searcher.connection, [(hit.clip_id, hit.labels) for hit in hits], text)
    if form == "table":  # paths below the current folder without it: short, and they can be typed
        here = os.path.join(os.getcwd(), "")
        hits = [replace(hit, uri=hit.uri.removeprefix(here)) for hit in hits]
    write_rows(sys.stdout, [field.name for field in fields(Hit)], [astuple(hit) for hit in hits], form)
    return 0
