"""What is said of a column or table that is not there, wherever a command takes SQL or the name of a column.

The error itself is raised where the SQL is asked; the command line, which knows the catalog and the recipes, adds the
name that is meant (by spelling, or by the words that users take for it), or the recipe that makes it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from curate.errors import UserError
from curate.query.columns.missing import Missing, missing_name
from curate.query.columns.words import OWN, ColumnWords, documented, of_catalog, own_tables
from curate.recipe.load import pipelines_file
from curate.recipe.registry import PARTS

_GUESS = re.compile(r";? ?(?:Candidate bindings|Did you mean|did you mean|there is)\b.*", re.DOTALL)  # DuckDB's or ours
_DUCKDB = re.compile(r"(?:Binder|Catalog) Error: .*", re.DOTALL)
_QUOTES = "single quotes"  # the error says already what is wrong
MOST = 3  # columns that are named
LEAST_WORD = 4  # letters of a word that is looked for in meanings
ALIKE = 0.7  # least likeness of two names that may be meant for one another, as difflib counts it


def explained(error: BaseException, catalog: str | None, pipelines: str | Path | None = None) -> str:
    """The text of an error; of one about a name that is not there with what is meant in place of DuckDB's guess."""
    return reworded(str(error), missing_name(error), lambda: _columns(catalog), pipelines)


def reworded(
    said: str,
    missing: Missing | None,
    columns: Callable[[], Sequence[ColumnWords]],
    pipelines: str | Path | None = None,
) -> str:
    """The text of an error about a missing name with what is meant by it; `columns` gives those that are there."""
    if missing is None or _QUOTES in said:
        return said
    try:
        hint = _hint(missing, columns(), pipelines)
    except Exception:  # a catalog that can't be read, for instance: the error stands for itself
        return said
    if not hint:
        return said
    return f"{_DUCKDB.sub(f'there is no {missing.kind} {missing.name}', _GUESS.sub('', said))}; {hint}"


def _columns(catalog: str | None) -> Sequence[ColumnWords]:
    from curate.catalog.catalog import Catalog
    from curate.catalog.views import connect

    if catalog is None:
        return ()
    try:
        opened = Catalog.open(catalog)
    except UserError:  # the first run of a new catalog
        return ()
    with connect(opened) as sql:
        return of_catalog(sql)


def _hint(missing: Missing, there: Sequence[ColumnWords], pipelines: str | Path | None) -> str:
    from curate.query.columns.listing import empty_catalog

    with empty_catalog() as sql:
        known = documented(sql)
    names = Names(there, known, pipelines)
    return names.of_table(missing.name) if missing.kind == "table" else names.of_column(missing.name)


class Names:
    """The columns that are there, and those documented ones that no run has made yet."""

    def __init__(self, there: Sequence[ColumnWords], known: Sequence[ColumnWords], pipelines: str | Path | None = None):
        have = {(words.table, words.column.lower()) for words in there}
        self.there = sorted(there, key=lambda words: words.table != "clips")  # what most queries ask of comes first
        self.absent = [words for words in known if (words.table, words.column.lower()) not in have]
        self.pipelines = pipelines

    def of_column(self, name: str) -> str:
        """Which column is meant by a name that is none of those asked for; '' where nothing can be said."""
        word = name.lower()
        if here := list(dict.fromkeys(words.table for words in self.there if words.column.lower() == word)):
            said = f"{', '.join(here)} {'has' if len(here) == 1 else 'have'} one of that name"
            meant = [(table, text) for table, text in self._meant(word, self.there) if table not in here]
            return "; ".join([said, *(f"of {table} say {text}" for table, text in dict(meant).items())][: 1 + MOST])
        if exact := [words for words in self.absent if words.column.lower() == word]:
            return self._made_by(exact[0])
        for columns in (self.there, self.absent):
            if meant := self._meant(word, columns):
                return self._did_you_mean(meant)
        for look in (_part_of_name, _spelled_alike, _part_of_meaning):
            for columns in (self.there, self.absent):
                if meant := look(word, columns):
                    return self._did_you_mean(meant)
        return f"`clipmill columns` lists them all, and a text goes in {_QUOTES}: '{name}'"

    def of_table(self, name: str) -> str:
        """Which table is meant by a name that is none."""
        word = name.lower()
        there = dict.fromkeys(words.table for words in self.there)
        absent = {words.table: words for words in reversed(self.absent) if words.table not in there}
        if word in absent:
            return self._made_by(absent[word], "it")
        also = [table.name for table in own_tables().values() if word in table.also]
        alike = difflib.get_close_matches(word, [*there, *absent], n=1, cutoff=ALIKE)
        for found in [*also, *alike]:
            made = f" ({self._made_by(absent[found], 'it')})" if found in absent else ""
            return f"did you mean {found}?{made}"
        return f"there is {', '.join(there)}" if there else ""

    def _meant(self, word: str, columns: Iterable[ColumnWords]) -> list[tuple[str, str]]:
        """(table, SQL) of what users take the word for: a column, or what several say together."""
        phrases = [(t.name, t.expressions[word]) for t in own_tables().values() if word in t.expressions]
        return [*phrases, *((words.table, words.column) for words in columns if word in words.also)]

    def _did_you_mean(self, meant: Iterable[tuple[str, str]]) -> str:
        tables: dict[str, list[str]] = {}
        for table, text in meant:
            tables.setdefault(text, []).append(table)
        named = list(tables.items())[:MOST]
        if len(named) == 1:
            ((text, found),) = named
            shown_in_clips = "clips" in found or found[0] not in OWN or not self.there
            said = f"did you mean {text if shown_in_clips else f'{text} of {found[0]}'}?"
            missing = [words for words in self.absent if words.column == text and words.table == found[0]]
            return f"{said} ({self._made_by(missing[0])})" if missing and self.there else said
        return f"did you mean {' or '.join(f'{text} (of {found[0]})' for text, found in named)}?"

    def _made_by(self, words: ColumnWords, made: str = "") -> str:
        """What must be run before a documented column is there; `made` stands for its table."""
        made = made or words.column
        if words.stage.startswith("measure"):
            return f"`{words.stage}` makes {made}: add it to your recipe"
        if words.stage in PARTS:
            return f"the stage `{words.stage}` makes {made}, and no run has yet"
        recipe = recipe_with(words.stage, self.pipelines)
        if recipe is None:
            return f"the stage `{words.stage}` makes {made}: run a recipe that has it first"
        return f"run `clipmill run {recipe}` first: its stage `{words.stage}` makes {made}"


def recipe_with(stage: str, pipelines: str | Path | None) -> str | None:
    """The first recipe of the pipelines file that has a stage; None where none has, or the file can't be read."""
    try:
        recipes = yaml.safe_load(pipelines_file(pipelines).read_text())["recipes"]
        return next((name for name, recipe in recipes.items() if stage in _stages(recipe)), None)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        return None


def _stages(recipe: dict[str, Any]) -> Iterator[str]:
    for entry in recipe["stages"]:
        yield from [entry] if isinstance(entry, str) else entry


def _spelled_alike(word: str, columns: Sequence[ColumnWords]) -> list[tuple[str, str]]:
    """(table, column) of the columns whose name, or a word for them, is spelled most like `word`."""
    spelled: dict[str, list[tuple[str, str]]] = {}
    for words in columns:
        for name in (words.column.lower(), *words.also):
            spelled.setdefault(name, []).append((words.table, words.column))
    for table in own_tables().values() if columns else ():
        for name, text in table.expressions.items():
            spelled.setdefault(name, []).append((table.name, text))
    near = difflib.get_close_matches(word, spelled, n=1, cutoff=ALIKE)
    return spelled[near[0]] if near else []


def _part_of_name(word: str, columns: Iterable[ColumnWords]) -> list[tuple[str, str]]:
    """(table, column) of the columns whose name has the word in it: content_hash for hash."""
    return [(words.table, words.column) for words in columns if word in words.column.lower().split("_")]


def _part_of_meaning(word: str, columns: Iterable[ColumnWords]) -> list[tuple[str, str]]:
    """(table, column) of the columns whose meaning has the word in it."""
    if len(word) < LEAST_WORD:
        return []
    whole = re.compile(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])")
    return [(words.table, words.column) for words in columns if whole.search(words.meaning.lower())]
