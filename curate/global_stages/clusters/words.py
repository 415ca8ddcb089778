"""The words that name concepts, and the model that encodes them, which is the one that made the embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from curate.catalog.gates import quote
from curate.catalog.vectors import embedding_model
from curate.global_stages.clusters.settings import ClusterSettings
from stages.base import SettingsError

if TYPE_CHECKING:
    from stages.pretrained.open_clip_model import OpenClipModel

MOST_WORDS = 1_000_000


def word_list(settings: ClusterSettings) -> list[str]:
    """The distinct words in their order. SettingsError: a file that can't be read, no words in it."""
    given = settings.words
    if given is None:
        return []
    if isinstance(given, str):
        try:
            given = tuple(Path(given).expanduser().read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
            raise SettingsError(
                f"words: {settings.words}: {reason}; give a file of one word a line, or a list"
            ) from None
    plain = (word.encode("utf-8", "replace").decode().replace("\0", " ").strip() for word in given)
    words = list(dict.fromkeys(word for word in plain if word))
    if not words:
        raise SettingsError("words: there is no word in it; give one a line, or leave `words` out")
    if len(words) > MOST_WORDS:
        raise SettingsError(f"words: {len(words):,} of them; {MOST_WORDS:,} are the most")
    return words


def check_model(settings: ClusterSettings) -> None:
    """SettingsError for a model by name that is not there."""
    if settings.model is not None:
        from stages.pretrained.open_clip_lookup import find_model

        find_model(settings.model, settings.pretrained)


def text_encoder(connection: duckdb.DuckDBPyConnection, settings: ClusterSettings) -> OpenClipModel:
    """The model that made the embeddings, to encode words with.

    SettingsError: no run says which it was, it can't be found, or its weights have changed.
    """
    from stages.pretrained.open_clip_lookup import find_model
    from stages.pretrained.open_clip_model import load_model

    table = settings.embeddings
    names = {"model": settings.model} if settings.model else embedding_model(connection, table)
    if settings.pretrained:
        names["pretrained"] = settings.pretrained
    if not names.get("model"):
        raise SettingsError(f"no run says which model filled table {table!r}: name it with `model` in clusters")
    model = load_model(find_model(names["model"], names.get("pretrained")), "auto", "float32")
    column = quote(f"{table}_revision")
    rows = connection.sql(f"SELECT DISTINCT {column} FROM {quote(table)} WHERE {column} IS NOT NULL").fetchall()
    if others := {row[0] for row in rows} - {model.revision}:
        raise SettingsError(
            f"table {table!r} was made by a model of revision {min(others)}, but {model.name} is {model.revision}: "
            "name the model that made it with `model` in clusters"
        )
    return model
