"""Clips that are no longer what their latents were made of: other captions, crop box, window or conditions.

Each row of latents has a hash of each (stages/shards/made_of.py). The same hash of what the catalog says now is
computed in SQL, for all clips in one query.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.catalog.catalog import Catalog
from curate.catalog.gates import literal, quote
from curate.shards.inventory import shard_rows_sql

if TYPE_CHECKING:
    import duckdb

PIXELS = ("crop", "window")  # a change of these makes other latents; of the others, only other text or JSON
PARTS = ("captions", *PIXELS, "conditions")
KEPT = "SELECT clip_id FROM clips WHERE verdict = 'kept'"
SPAN = ("start_pts", "end_pts", "time_base_num", "time_base_den", "width", "height", "media", "hdr", "deinterlace")
NOTHING = "''::BLOB"
NAN = r"'\x7F\xF8\x00\x00\x00\x00\x00\x00'::BLOB"  # the eight bytes that stand for an unknown condition


@dataclass(frozen=True)
class Changed:
    """The clips of a table that have changed since they were encoded, as `find_changed` counts them."""

    table: str
    clips: int
    pixels: int  # of these, the ones to decode again; of the others only text or conditions are made anew
    parts: dict[str, int]  # how many by what changed, without zeros
    example: str  # the id of one
    recipe: str | None  # the last that filled the table

    def what(self) -> str:
        """How many, and why."""
        why = ", ".join(f"{part} of {number:,}" for part, number in self.parts.items())
        clips = "1 clip has" if self.clips == 1 else f"{self.clips:,} clips have"
        return f"{self.table}: {clips} changed since encoding ({why}), such as {self.example}"

    def how(self) -> str:
        """How they are encoded again."""
        if not self.pixels:
            return "without decoding video"
        return f"{self.pixels:,} from video" + (f", {self.clips - self.pixels:,} without" * (self.clips > self.pixels))

    def line(self, catalog: Catalog) -> str:
        """All that, and the command that encodes them again."""
        command = "the recipe that encodes"
        if self.recipe is not None:
            command = f"`clipmill run {shlex.quote(self.recipe)} --catalog {shlex.quote(catalog.uri)}`"
        return f"{self.what()}: {command} encodes {'it' if self.clips == 1 else 'them'} again, {self.how()}"


def find_changed(sql: duckdb.DuckDBPyConnection, table: str, among: str | None = None) -> Changed | None:
    """Counts the encoded clips of a table that have changed; None where none has.

    `among` is a query that gives clip_id; None: the clips that the recipe selects which filled the table last.
    """
    recipe, select = _last_recipe(sql, table)
    changes = changed_sql(sql, table)
    numbers = ", ".join(f"count(*) FILTER ({condition})" for condition in changes.values())
    clips, decoded, example, *parts = sql.execute(f"""
        SELECT count(*), count(*) FILTER ({any_sql(changes, PIXELS)}), min(clips.clip_id), {numbers}
        FROM clips JOIN {shard_rows_sql(sql, table)} AS made ON made.clip_id = clips.clip_id
        WHERE made.status = 'done' AND {any_sql(changes, PARTS)}
            AND clips.clip_id IN (SELECT chosen.clip_id FROM ({among or select}\n) AS chosen)""").fetchall()[0]
    if not clips:
        return None
    return Changed(table, clips, decoded, {p: n for p, n in zip(changes, parts, strict=True) if n}, example, recipe)


def changed_sql(sql: duckdb.DuckDBPyConnection, table: str, made: str = "made") -> dict[str, str]:
    """By part of PARTS, a condition over `clips` and a row `made` of shard_rows_sql(table): true where the clip's has
    changed since, else false. What a row has no hash of has not changed.
    """
    there = {row[0].lower() for row in sql.execute("DESCRIBE clips").fetchall()}

    def column(name: str, kind: str = "VARCHAR") -> str:
        return f"CAST({f'clips.{quote(name)}' if name.lower() in there else 'NULL'} AS {kind})"

    rows = sql.execute(f"SELECT DISTINCT contract, condition_names FROM {shard_rows_sql(sql, table)}").fetchall()
    captions = {text: _captions_sql(text, column) for text in sorted({text for text, _ in rows if text})}
    conditions = {names: _conditions_sql(names, column) for names in sorted({names for _, names in rows if names})}
    box = [column(f"crop_{name}") for name in "xywh"]
    no_box = " OR ".join(f"{value} IS NULL" for value in box)
    whole = ["'0'", "'0'", column("width"), column("height")]
    span = _joined([*(f"coalesce({column(name)}, '')" for name in SPAN), f"{made}.bucket"])
    now = {
        "captions": _case(f"{made}.contract", captions),
        "crop": f"md5(CASE WHEN {no_box} THEN {_joined(whole)} ELSE {_joined(box)} END)",
        "window": f"md5(encode({span}) || {made}.window_fps::DOUBLE::BIT::BLOB)",
        "conditions": _case(f"{made}.condition_names", conditions),
    }
    return {part: f"coalesce({made}.{part}_hash <> {now[part]}, false)" for part in PARTS}


def any_sql(changes: dict[str, str], parts: Iterable[str]) -> str:
    """The condition that one of these parts has changed."""
    return "(" + " OR ".join(changes[part] for part in parts) + ")"


def _case(value: str, results: dict[str, str]) -> str:
    """The result for the text that a value equals, NULL for any other."""
    found = " ".join(f"WHEN {literal(text)} THEN {result}" for text, result in results.items())
    return f"(CASE {value} {found} END)" if found else "NULL"


def _joined(values: Sequence[str]) -> str:
    return f"concat_ws(',', {', '.join(values)})"


def _captions_sql(contract: str, column: Callable[[str], str]) -> str:
    """The hash of a clip's captions that a contract names; NULL where it names none."""
    fields: dict[str, str] = {}
    with suppress(ValueError, AttributeError):  # no contract: what checks shards says so
        fields = (json.loads(contract).get("text") or {}).get("fields", {})
    hashes = [f"md5(coalesce({column(fields[field])}, ''))" for field in sorted(fields)]
    return f"md5({_joined(hashes)})" if hashes else "NULL"


def _conditions_sql(names: str, column: Callable[[str, str], str]) -> str:
    values = [column(name, "DOUBLE") for name in json.loads(names)]
    bits = [f"CASE WHEN {v} IS NULL OR isnan({v}) THEN {NAN} ELSE {v}::BIT::BLOB END" for v in values]
    return f"md5({' || '.join(bits) or NOTHING})"


def _last_recipe(sql: duckdb.DuckDBPyConnection, table: str) -> tuple[str | None, str]:
    """(name, select) of the recipe that filled the table last. Where none is known, or its SQL fails by now, None or
    the kept clips.
    """
    import duckdb
    import yaml

    rows = sql.execute(
        "SELECT recipe, recipe_text FROM runs WHERE json_exists(stages, ?) ORDER BY started_at DESC LIMIT 1",
        [f'$."{table}"'],
    ).fetchall()
    if not rows:
        return None, KEPT
    ((recipe, text),) = rows
    select = yaml.safe_load(text)["recipes"][recipe].get("select") or KEPT
    try:
        sql.execute(f"DESCRIBE SELECT chosen.clip_id FROM ({select}\n) AS chosen")
    except duckdb.Error:
        return recipe, KEPT
    return recipe, select
