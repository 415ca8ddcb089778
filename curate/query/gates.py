"""`clipmill gates`: the gates in force with what each costs, and what another one would change.

A gate costs the clips that fail it. What only it drops is counted apart: that much comes back without it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import Literal

import duckdb

from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate, check_gates, condition_sql
from curate.catalog.views import connect
from curate.errors import UserError, did_you_mean
from curate.recipe.checks import clip_columns
from curate.removal.carry_out import refuse_unfinished
from curate.run.report import hours, report_console, share, table_of
from curate.run.selection import passes_sql, with_nulls_sql

LONGEST = 72  # characters of a condition that are shown; `clipmill sql "FROM gates"` has them whole
LENGTH = "coalesce(end_s - start_s, 0)"  # seconds of a clip; a picture has none


@dataclass(frozen=True)
class Standing:
    """A gate in force: the recipe that brought it, and since when it has said what it says (UTC)."""

    recipe: str
    gate: Gate
    since: datetime

    @property
    def name(self) -> str:
        return f"{self.recipe}.{self.gate.name}"


@dataclass(frozen=True)
class Count:
    clips: int
    seconds: float

    def cells(self, total: Count) -> tuple[str, str, str]:
        """Clips, hours, and their share of all clips, as a table shows them."""
        return f"{self.clips:,}", hours(self.seconds), share(self.clips, total.clips)


def print_gates(uri: str) -> int:
    """Prints the gates in force, and names recipes whose gates drop the same clips."""
    catalog = Catalog.open(uri)
    console = report_console()
    with connect(catalog) as sql:
        standing = gates_in_force(sql)
        if not standing:
            console.print("no gate is in force: every clip is kept")
            return 0
        total, fails, alone = costs(sql, [each.gate for each in standing])
        shared = held_together(sql, standing)
    rows = [
        (each.name, *fail.cells(total), f"{only.clips:,}", f"{each.since:%Y-%m-%d %H:%M}", _said(each.gate))
        for each, fail, only in zip(standing, fails, alone, strict=True)
    ]
    names = ("gate", "drops", "hours", "share", "only it drops", "since (UTC)", "condition")
    console.print(table_of(f"gates in force, over {total.clips:,} clips, {hours(total.seconds)} hours", names, rows))
    for (one, other), count in shared.items():
        console.print(
            f"note: the recipes {one!r} and {other!r} both drop {count:,} clips, which come back only when both "
            f"let them pass (`clipmill gates drop {other}` takes the gates of {other!r} away)"
        )
    return 0


def drop_gates(uri: str, name: str) -> int:
    """Takes the gates of a recipe, or RECIPE.NAME alone, out of force. UserError where there is none."""
    catalog = Catalog.open(uri)
    refuse_unfinished(catalog)
    with connect(catalog) as sql:
        standing, before = gates_in_force(sql), kept(sql)
    gone = [each for each in standing if name in (each.recipe, each.name)]
    if not gone:
        known = list(dict.fromkeys([*(each.recipe for each in standing), *(each.name for each in standing)]))
        raise UserError(f"no gate {name!r} is in force{did_you_mean(name, known)}")
    recipe = gone[0].recipe
    stay = [each.gate for each in standing if each.recipe == recipe and each not in gone]
    catalog.put_gates(recipe, stay, run_id=None)
    with connect(catalog) as sql:
        after = kept(sql)
    said = ", ".join(each.gate.name for each in gone)
    print(f"out of force: {said} of the recipe {recipe!r}; kept: {_change(before, after)}")
    print(f"the next `clipmill run {recipe}` puts them in force again, unless they are taken out of the recipe too")
    return 0


def try_gate(uri: str, where: str, unknown: Literal["keep", "drop"] = "keep", instead: str | None = None) -> int:
    """Prints what a condition would keep beside the gates in force, or `instead` of one, and changes nothing."""
    catalog = Catalog.open(uri)
    console = report_console()
    with connect(catalog) as sql:
        tried = Trial.of(sql, Gate(name="tried", where=where, unknown=unknown), instead)
        counts = tried.counts(sql)
    total = counts["all clips"]
    rows = [(name, *count.cells(total)) for name, count in counts.items()]
    console.print(table_of("with " + (f"it instead of {instead}" if instead else "this gate too"),
                           ("clips", "number", "hours", "share"), rows))  # fmt: skip
    console.print('nothing was put in force: write it into the recipe as  - gate: {NAME: "SQL"}  and run it')
    return 0


@dataclass(frozen=True)
class Trial:
    """What a gate that is not in force would do beside those that are, or instead of one: in `relation`, SQL of the
    clips with the columns that gates name, each of `conditions` is true of the clips that its name says.
    """

    relation: str
    conditions: dict[str, str]

    @classmethod
    def of(cls, sql: duckdb.DuckDBPyConnection, gate: Gate, instead: str | None) -> Trial:
        """Raises UserError for a gate that can't be one, and where no gate `instead` (RECIPE.NAME) is in force."""
        check_gates([gate], clip_columns(sql))
        standing = gates_in_force(sql)
        if instead is not None and instead not in [each.name for each in standing]:
            known = [each.name for each in standing]
            raise UserError(f"--instead {instead}: no such gate is in force{did_you_mean(instead, known)}")
        others = [each.gate for each in standing if each.name != instead]
        now = "(verdict = 'kept')"
        then = f"({now} AND {passes_sql([gate])})" if instead is None else passes_sql([*others, gate])
        conditions = {
            "all clips": "true",
            "kept now": now,
            "kept then": then,
            "newly dropped": f"{now} AND NOT ({then})",
            "newly kept": f"{then} AND NOT ({now})",
            "unknown to it (NULL)": f"{condition_sql(gate)} IS NULL",
        }
        named = [gate, *(each.gate for each in standing)]
        return cls(with_nulls_sql(sql, named, _columns(sql)), conditions)

    def counts(self, sql: duckdb.DuckDBPyConnection) -> dict[str, Count]:
        found = _counts(sql, self.relation, list(self.conditions.values()))
        return dict(zip(self.conditions, found, strict=True))


def gates_in_force(sql: duckdb.DuckDBPyConnection) -> list[Standing]:
    """In the order in which they are judged."""
    rows = sql.execute(
        "SELECT recipe, name, condition, unknown, set_at, generation, in_force FROM gates ORDER BY generation, position"
    ).fetchall()
    first: dict[str, int] = {}
    history: dict[tuple[str, Gate], dict[int, datetime]] = defaultdict(dict)
    generations: dict[str, list[int]] = defaultdict(list)
    for recipe, name, condition, unknown, set_at, generation, _ in rows:
        first.setdefault(recipe, generation)
        history[recipe, Gate(name=name, where=condition, unknown=unknown)][generation] = set_at
        if generation not in generations[recipe]:
            generations[recipe].append(generation)
    found = []
    for recipe, name, condition, unknown, set_at, _, in_force in rows:
        if not in_force:
            continue
        gate = Gate(name=name, where=condition, unknown=unknown)
        since = set_at
        for generation in reversed(generations[recipe]):
            if generation not in history[recipe, gate]:
                break
            since = history[recipe, gate][generation]
        found.append(Standing(recipe, gate, since))
    return sorted(found, key=lambda each: first[each.recipe])


def costs(sql: duckdb.DuckDBPyConnection, gates: Sequence[Gate]) -> tuple[Count, list[Count], list[Count]]:
    """(all clips, those that each gate drops, those that only it drops)."""
    passes = [passes_sql([gate]) for gate in gates]
    failed = " + ".join(f"CAST(NOT {each} AS INTEGER)" for each in passes)
    relation = with_nulls_sql(sql, gates, _columns(sql))
    wanted = ["true", *(f"NOT {each}" for each in passes), *(f"NOT {each} AND ({failed}) = 1" for each in passes)]
    total, *found = _counts(sql, relation, wanted)
    return total, found[: len(gates)], found[len(gates) :]


def held_together(sql: duckdb.DuckDBPyConnection, standing: Sequence[Standing]) -> dict[tuple[str, str], int]:
    """How many clips the gates of two recipes both drop, for each pair of recipes that share any."""
    by_recipe: dict[str, list[Gate]] = defaultdict(list)
    for each in standing:
        by_recipe[each.recipe].append(each.gate)
    pairs = list(combinations(by_recipe, 2))
    if not pairs:
        return {}
    relation = with_nulls_sql(sql, [each.gate for each in standing], _columns(sql))
    both = [f"NOT {passes_sql(by_recipe[one])} AND NOT {passes_sql(by_recipe[other])}" for one, other in pairs]
    counts = _counts(sql, relation, both)
    return {pair: count.clips for pair, count in zip(pairs, counts, strict=True) if count.clips}


def kept(sql: duckdb.DuckDBPyConnection) -> Count:
    return _counts(sql, "SELECT * FROM clips", ["verdict = 'kept'"])[0]


def _counts(sql: duckdb.DuckDBPyConnection, relation: str, conditions: Sequence[str]) -> list[Count]:
    """Clips and seconds for which each condition is true, in one query."""
    chosen = [f"count(*) FILTER ({each}), coalesce(sum({LENGTH}) FILTER ({each}), 0)" for each in conditions]
    row = sql.execute(f"SELECT {', '.join(chosen)} FROM ({relation}) AS clips").fetchall()[0]
    return [Count(row[at], row[at + 1]) for at in range(0, len(row), 2)]


def _columns(sql: duckdb.DuckDBPyConnection) -> list[str]:
    return [row[0] for row in sql.execute("DESCRIBE clips").fetchall()]


def _said(gate: Gate) -> str:
    """The condition in one line, cut to LONGEST: those that stages bring along can be long."""
    text = " ".join(gate.where.split())
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return text + (" (unknown: drop)" if gate.unknown == "drop" else "")


def _change(before: Count, after: Count) -> str:
    return f"{before.clips:,} -> {after.clips:,} clips, {hours(before.seconds)} -> {hours(after.seconds)} hours"
