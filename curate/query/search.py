"""Text search: the clips whose embeddings lie nearest to a text's, found exactly, batch by batch.

The text goes through the model that made the embeddings. No index: a cosine with every embedding is one
matrix product a batch, and memory holds one batch and the best so far.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

import duckdb
import numpy as np

from curate.catalog.catalog import Catalog
from curate.catalog.gates import literal, quote
from curate.catalog.vectors import embedding_batches
from curate.catalog.views import connect, query
from curate.errors import UserError
from stages.base import SettingsError

BATCH_ROWS = 16_384  # embeddings that are compared at a time: 25 MB of 768 float16
MOST = 10_000  # hits of one search


@dataclass(frozen=True)
class Hit:
    """A clip and the cosine of its embedding with the text's, -1 to 1."""

    rank: int
    score: float
    clip_id: str
    uri: str
    start_s: float
    end_s: float
    verdict: str


class TextSearch:
    """A catalog's embeddings, ready to be asked by text; the model is loaded once.

    `model` and `pretrained` name the model where its path has changed since the embeddings were made.
    Raises UserError: no such table, no embeddings, a model that is not there or not the one that made them.
    """

    def __init__(
        self, catalog: Catalog, table: str = "embeddings", model: str | None = None, pretrained: str | None = None
    ):
        self.table = table
        self.connection = connect(catalog)
        try:
            revision = self._revision()
            self.model = _load(_settings(catalog, table, model, pretrained), table)
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

    def cut(self, text: str) -> str:
        """What of a text the encoder does not see; '' for a text that it sees whole."""
        words = text.split()
        if self.model.fits(text):
            return ""
        low, high = 0, len(words)  # so many words fit, and so many do not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.model.fits(" ".join(words[:middle])) else (low, middle)
        return " ".join(words[low:])

    def find(self, text: str, k: int = 20, where: str | None = None) -> list[Hit]:
        """The `k` clips nearest to the text, best first; equal ones in order of their ids.

        `where` is a SQL condition on the view `clips`. Dropped clips are found as well as kept ones.
        """
        if not text.strip():
            raise UserError("the text to search for is empty")
        if not 1 <= k <= MOST:
            raise UserError(f"-k must be from 1 to {MOST:,}, got {k}")
        if where is not None:  # one condition and no second statement, and DuckDB's own words for a wrong one
            query(self.connection, f"SELECT 1 FROM clips WHERE ({where}\n) LIMIT 0")
        vector = self.model.encode_texts([text])[0]
        best = nearest(embedding_batches(self.connection, self.table, where, BATCH_ROWS), vector, k)
        return self._hits(best)

    def _revision(self) -> str:
        """The one revision of the table's embeddings."""
        name = self.table
        known = {row[0] for row in self.connection.execute("SHOW TABLES").fetchall()}
        column = f"{name}_revision"
        if name not in known or column not in {row[0] for row in _describe(self.connection, name)}:
            made = ", ".join(sorted(t for t in known if _is_embeddings(self.connection, t)))
            there = f"there is {made}" if made else "run a recipe with the stage `embed` first"
            raise UserError(f"the catalog has no embeddings in a table {name!r}: {there}")
        rows = self.connection.execute(
            f"SELECT DISTINCT {quote(column)}, settings FROM {quote(name)} WHERE status = 'done'"
        ).fetchall()
        if not rows:
            raise UserError(f"table {name!r} holds no embedding yet: no clip of it is done")
        if len(rows) > 1:
            found = " and ".join(sorted({str(row[0]) for row in rows}))
            raise UserError(
                f"table {name!r} holds embeddings of several settings (revision {found}): finish its rebuild first"
            )
        return rows[0][0]

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
    scores, ids = np.empty(0, np.float32), np.empty(0, object)
    for names, matrix in batches:
        if matrix.shape[1] != len(vector):
            raise UserError(f"the embeddings have {matrix.shape[1]} numbers, the text's has {len(vector)}")
        product = matrix.astype(np.float32) @ vector.astype(np.float32)
        scores, ids = np.concatenate([scores, product]), np.concatenate([ids, np.array(names, object)])
        if len(scores) > k:
            chosen = np.nonzero(scores >= np.partition(scores, -k)[-k])[0]  # with all that tie with the last
            order = sorted(chosen, key=lambda i: (-scores[i], ids[i]))[:k]
            scores, ids = scores[order], ids[order]
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], ids[i]))
    return [(float(scores[i]), ids[i]) for i in order]


def search(catalog: str, text: str, k: int = 20, where: str | None = None, table: str = "embeddings") -> list[Hit]:
    """One question to the catalog at a URI; see TextSearch."""
    with TextSearch(Catalog.open(catalog), table) as asked:
        return asked.find(text, k, where)


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
    """`clipmill search`: prints the hits as 'table', 'csv' or 'json', and draws them on a sheet at `output`."""
    from curate.query.contact_sheet import check_name, write_sheet
    from curate.query.sql import write_rows

    text = text.encode("utf-8", "replace").decode()  # a terminal may hand on bytes that are none
    if not text.strip():
        raise UserError("the text to search for is empty")
    if output is not None:
        check_name(output)
    with TextSearch(Catalog.open(catalog), table, model, pretrained) as asked:
        if left := asked.cut(text):
            print(f"clipmill: the text is too long for {asked.model.name}; left out: {left}", file=sys.stderr)
        hits = asked.find(text, k, where)
        if output is not None:
            write_sheet(output, asked.connection, hits, text)
    if form == "table":
        hits = [replace(hit, uri=_from_here(hit.uri)) for hit in hits]
    write_rows(sys.stdout, [field.name for field in fields(Hit)], [astuple(hit) for hit in hits], form)
    return 0


def _from_here(uri: str) -> str:
    """A path below the current folder without it: short enough for a table, and one can type it."""
    here = os.path.join(os.getcwd(), "")
    return uri.removeprefix(here)


def _describe(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[Any, ...]]:
    return connection.execute(f"DESCRIBE {quote(table)}").fetchall()


def _is_embeddings(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    names = {row[0] for row in _describe(connection, table)}
    return f"{table}_revision" in names and bool({"embedding", f"{table}_embedding"} & names)


def _settings(catalog: Catalog, table: str, model: str | None, pretrained: str | None) -> dict[str, Any]:
    """What the last run that filled the table was told of its model, or what the user says now."""
    made = catalog.last_stages(table) or {"stages": []}
    known: dict[str, Any] = next((one for stage in made["stages"] for one in stage.values() if "model" in one), {})
    if model is not None:
        known = {"model": model}
    if pretrained is not None:
        known = {**known, "pretrained": pretrained}
    if "model" not in known:
        raise UserError(f"no run says which model filled table {table!r}: name it with --model")
    return known


def _load(settings: dict[str, Any], table: str) -> Any:
    """The model on whatever device is here: where the embeddings were made does not matter to the text."""
    from stages.pretrained.clip_models import find_model, load_model

    name = settings["model"]
    try:
        return load_model(find_model(name, settings.get("pretrained")), "auto", "fp32")
    except SettingsError as error:
        raise UserError(f"table {table!r} was made by model {name}, but {error} (or name it with --model)") from error
