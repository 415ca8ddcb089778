"""Gates: SQL conditions over the columns of `clips`, judged by the same SQL text in a run and in the view.

A clip passes a gate where the condition is TRUE and fails where it is FALSE. NULL is unknown (a signal was
not measured, or the condition can't be computed): the clip passes unless the gate says `unknown: drop`.
`failed_gates` names every gate that a clip did not pass, `dropped_by` the first of them, and `unknown_gates`
every gate whose condition was NULL: a gate named in both lists dropped the clip for being unknown.
"""

from __future__ import annotations

import datetime
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from curate.catalog.syntax_tree import nodes, parse
from curate.errors import UserError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

# A gate must give the same verdict in a run and at every query, and reach nothing but its clip.
REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "*",
    "PARAMETER": "a parameter",
    "DEFAULT": "DEFAULT",
}
# These make a value of a size that a number says: a billion items of a list can neither be stopped nor bounded.
BOUNDLESS = {"range", "generate_series", "repeat", "lpad", "rpad", "list_resize", "array_resize", "bar", "bitstring"}
BOUNDLESS |= {"equi_width_bins", "format", "printf"}  # "{:1000000000}"
CHECK_SECONDS = 10.0  # for one gate over one made-up clip
AGAIN_SECONDS = 0.02  # between interrupts, once the time is over
JUDGE_SECONDS = 120.0  # for all gates over the clips of one unit
CHANGING = """
    SELECT function_name FROM duckdb_functions()
    WHERE list_contains($1::VARCHAR[], function_name) AND stability <> 'CONSISTENT' LIMIT 1"""


class GateSettings(BaseModel):
    """One gate of a recipe: `name: "SQL"`, or `name: {where: SQL, unknown: drop}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: str = Field(min_length=1)
    unknown: Literal["keep", "drop"] = "keep"  # what becomes of a clip for which the condition is NULL

    @model_validator(mode="before")
    @classmethod
    def _bare_sql(cls, given: Any) -> Any:
        return {"where": given} if isinstance(given, str) else given


class Gate(GateSettings):
    """A gate with its name, as the catalog keeps it."""

    name: str = Field(min_length=1)


class Verdict(NamedTuple):
    verdict: str  # 'kept' or 'dropped'
    dropped_by: str | None
    failed_gates: list[str]
    unknown_gates: list[str]


def quote(name: str) -> str:
    """A SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"


def condition_sql(gate: Gate) -> str:
    """A gate's condition over a relation `clips`: TRUE, FALSE or NULL.

    TRY makes a condition that can't be computed for one clip (a failing cast) unknown for that clip, instead
    of an error for every query. The line break ends a comment at the end of a condition.
    """
    return f"TRY(({gate.where}\n))"


def verdict_sql(gates: Sequence[Gate]) -> dict[str, str]:
    """The SQL of verdict, dropped_by, failed_gates and unknown_gates, over a relation `clips`."""
    if not gates:
        none = "CAST([] AS VARCHAR[])"
        return {
            "verdict": "'kept'",
            "dropped_by": "CAST(NULL AS VARCHAR)",
            "failed_gates": none,
            "unknown_gates": none,
        }
    tried = [condition_sql(gate) for gate in gates]
    passed = [f"coalesce({t}, {'false' if g.unknown == 'drop' else 'true'})" for t, g in zip(tried, gates, strict=True)]
    names = [literal(gate.name) for gate in gates]
    cases = " ".join(f"WHEN NOT {p} THEN {n}" for p, n in zip(passed, names, strict=True))
    listed = f"[{', '.join(names)}]"
    return {
        "verdict": f"CASE WHEN {' AND '.join(passed)} THEN 'kept' ELSE 'dropped' END",
        "dropped_by": f"CASE {cases} END",
        "failed_gates": f"list_where({listed}, [{', '.join('NOT ' + p for p in passed)}])",
        "unknown_gates": f"list_where({listed}, [{', '.join(t + ' IS NULL' for t in tried)}])",
    }


def locked_connection() -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that loads no extension and opens no file."""
    import duckdb

    return duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "enable_external_access": "false",
            "threads": "1",
            "memory_limit": "1GB",
            "max_temp_directory_size": "0B",
        }
    )


@contextmanager
def time_limit(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Interrupts what the connection does when the time is over: duckdb.InterruptException there.

    Again and again, since an interrupt that comes just before a query begins is forgotten by it. What was too
    late but not to be interrupted is refused all the same.
    """
    import duckdb

    over, began = threading.Event(), time.monotonic()

    def watch() -> None:
        late = over.wait(seconds)
        while not late:
            connection.interrupt()
            late = over.wait(AGAIN_SECONDS)

    watchdog = threading.Thread(target=watch, name="clipmill-limit", daemon=True)
    watchdog.start()
    try:
        yield
    finally:
        over.set()
        watchdog.join()
    if time.monotonic() - began > seconds:
        raise duckdb.InterruptException(f"more than {seconds:g} s")


def one_line(error: Exception) -> str:
    """What DuckDB said, without its drawing of the query."""
    text = str(error).split("\nLINE ")[0]
    said = "; ".join(line.strip() for line in text.splitlines() if line.strip())
    unquoted = re.search(r'Referenced column "(kept|dropped|done|failed|video|image)" not found', said)
    if unquoted is None:
        return said
    return f"{said.split('; Candidate bindings')[0]}; a text goes in single quotes: '{unquoted[1]}'"


def referenced_columns(connection: duckdb.DuckDBPyConnection, gate: Gate) -> set[str]:
    """The columns that a gate's condition names; UserError where it is no single plain SQL expression."""
    return _references(_expression(connection, gate))


def check_gates(gates: Sequence[Gate], columns: Mapping[str, Any]) -> None:
    """Raises UserError, naming the gate, unless every condition is TRUE or FALSE about one clip by itself.

    `columns` are the columns of `clips` beyond those that every catalog has: name -> Arrow type or its name.
    """
    if not gates:
        return
    types = _duckdb_types(columns)
    connection = locked_connection()
    try:
        listed = ", ".join(f"{quote(name)} {kind}" for name, kind in types.items())
        connection.execute(f"CREATE TABLE clips ({listed})").fetchall()
        ones = ", ".join(f"TRY_CAST('1' AS {kind})" for kind in types.values())
        connection.execute(f"INSERT INTO clips SELECT {ones}").fetchall()
        for index, gate in enumerate(gates):
            if gate.name in {earlier.name for earlier in gates[:index]}:
                raise UserError(f"gate {gate.name!r} stands twice: give each its own name")
            _check(connection, gate)
    finally:
        connection.close()


def _duckdb_types(columns: Mapping[str, Any]) -> dict[str, str]:
    from curate.catalog.schema import clip_columns, duckdb_type

    return {name: duckdb_type(kind) for name, kind in clip_columns(columns).items()}


def _wrong(gate: Gate, what: str) -> UserError:
    return UserError(f"gate {gate.name!r} ({gate.where}): {what}")


def _check(connection: duckdb.DuckDBPyConnection, gate: Gate) -> None:
    import duckdb

    called = [n["function_name"] for n in nodes(_expression(connection, gate)) if n.get("class") == "FUNCTION"]
    if boundless := BOUNDLESS & {name.lower() for name in called}:
        raise _wrong(gate, f"calls {min(boundless)}, which can make a value of any size")
    try:
        if called and connection.execute(CHANGING, [called]).fetchall():
            raise _wrong(gate, "calls a function that gives another answer later, so a verdict would not hold")
        with time_limit(connection, CHECK_SECONDS):
            # A WHERE clause takes no aggregate.
            connection.execute(f"SELECT 1 FROM clips WHERE TRY(({gate.where}\n))").fetchall()
        found = connection.execute(f"DESCRIBE SELECT ({gate.where}\n) AS answer FROM clips").fetchall()[0][1]
    except duckdb.InterruptException as error:
        raise _wrong(gate, f"takes more than {CHECK_SECONDS:g} s for one clip: make it simpler") from error
    except duckdb.OutOfMemoryException as error:
        raise _wrong(gate, "takes more than 1 GB of memory for one clip: make it simpler") from error
    except duckdb.Error as error:
        raise _wrong(gate, one_line(error)) from error
    if found != "BOOLEAN":
        raise _wrong(gate, f"gives {found}, not true or false: compare it with a value")


def _expression(connection: duckdb.DuckDBPyConnection, gate: Gate) -> dict[str, Any]:
    """The syntax tree of a condition.

    Comparing the query around it with that around `true` finds clauses that were smuggled in.
    """
    tree = _parse(connection, gate, gate.where)
    frame = _parse(connection, gate, "true")
    chosen = tree.pop("select_list", [])  # absent in a UNION
    frame.pop("select_list")
    if len(chosen) != 1 or _without_places(tree) != _without_places(frame):
        raise _wrong(gate, "must be one condition, such as motion >= 0.25")
    for node in nodes(chosen[0]):
        names = node["column_names"] if node.get("class") == "COLUMN_REF" else ["clips"]
        if len(names) > 1 and (len(names) > 2 or names[0].lower() != "clips"):
            raise UserError(f"gate {gate.name!r} ({gate.where}): name a column alone, without a table")
        if node.get("class") in REFUSED:
            raise _wrong(gate, f"must be a condition on one clip, without {REFUSED[node['class']]}")
    return chosen[0]


def _parse(connection: duckdb.DuckDBPyConnection, gate: Gate, condition: str) -> dict[str, Any]:
    text = f"SELECT ({condition}\n) FROM clips"
    tree = parse(connection, text)
    if tree["error"]:
        said = "; ".join(tree["error_message"].split("\nLINE ")[0].split("\n"))
        raise _wrong(gate, said)
    if len(tree["statements"]) != 1:
        raise _wrong(gate, "must be one condition, such as motion >= 0.25")
    return tree["statements"][0]["node"]


def _without_places(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _without_places(v) for k, v in tree.items() if not k.startswith("query_location")}
    return [_without_places(child) for child in tree] if isinstance(tree, list) else tree


def _references(tree: dict[str, Any]) -> set[str]:
    return {n["column_names"][-1] for n in nodes(tree) if n.get("class") == "COLUMN_REF"}


class Judge:
    """Gates over a few clips at a time, in a worker: one connection, one prepared statement.

    Columns that a gate names and `columns` lacks read as NULL, as they do in the view.
    """

    def __init__(self, gates: Sequence[Gate], columns: Mapping[str, Any]):
        self.gates = list(gates)
        if not self.gates:
            return
        self.connection = locked_connection()
        types = {name.lower(): (name, kind) for name, kind in _duckdb_types(columns).items()}
        needed = sorted({name.lower() for gate in gates for name in referenced_columns(self.connection, gate)})
        self.inputs = [types[name][0] for name in needed if name in types]
        fields = [f"unnest(${i}::{types[n.lower()][1]}[]) AS {quote(n)}" for i, n in enumerate(self.inputs, 2)]
        fields += [f"NULL AS {quote(name)}" for name in needed if name not in types]
        # The first parameter gives the rows even where no gate names a column.
        rows = ", ".join(["unnest($1::INTEGER[]) AS __row", *fields])
        # Conditions alone: planning each of them four times, as the view's columns do, would cost more than
        # judging. What follows from them is the same rule as verdict_sql's.
        chosen = ", ".join(["__row", *map(condition_sql, self.gates)])
        text = f"SELECT {chosen} FROM (SELECT {rows}) AS clips"
        self.statement = self.connection.extract_statements(text)[0]

    def __call__(self, clips: Sequence[Mapping[str, Any]] | pa.Table) -> list[Verdict]:
        """One verdict for each clip, in their order; UserError for gates that take too long."""
        import duckdb

        if not isinstance(clips, Sequence):
            clips = clips.to_pylist()
        if not self.gates or not clips:
            return [Verdict("kept", None, [], []) for _ in clips]
        values = [[_known(clip.get(name)) for clip in clips] for name in self.inputs]
        try:
            with time_limit(self.connection, JUDGE_SECONDS):
                found = self.connection.execute(self.statement, [list(range(len(clips))), *values]).fetchall()
        except (duckdb.InterruptException, duckdb.OutOfMemoryException) as error:
            names = ", ".join(repr(gate.name) for gate in self.gates)
            raise UserError(
                f"the gates {names} take more than {JUDGE_SECONDS:g} s or 1 GB for {len(clips)} clips: "
                "make them simpler"
            ) from error
        return [self._verdict(answers) for _, *answers in sorted(found, key=lambda row: row[0])]

    def _verdict(self, answers: Sequence[bool | None]) -> Verdict:
        failed, unknown = [], []
        for gate, answer in zip(self.gates, answers, strict=True):
            if answer is None:
                unknown.append(gate.name)
            if not (gate.unknown == "keep" if answer is None else answer):
                failed.append(gate.name)
        return Verdict("dropped" if failed else "kept", failed[0] if failed else None, failed, unknown)


def _known(value: Any) -> Any:
    """A value as the view has it: NULL for NaN (see schema.rows_to_table), times in UTC without a zone."""
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC).replace(tzinfo=None)
    if hasattr(value, "item"):  # a numpy scalar
        value = value.item()
    return None if value != value else value
