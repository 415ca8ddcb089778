"""What an audit is: sections of figures, each one query and its rows, and the file audit.json that holds them."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from curate.errors import UserError, first_line
from models.files import write_whole

KIND = "clipmill audit"
VERSION = 1  # of audit.json
AUDIT = "audit.json"
ABSENT = "not in this catalog: "  # the beginning of the note of a figure that has nothing to count

Cell = str | int | float | bool | None | list[Any]


@dataclass(frozen=True)
class Figure:
    """One query and its rows. A figure whose columns the catalog lacks has no SQL and no rows, and a note that says so:
    what is not known is never 0.
    """

    id: str  # 'section.name', the same in every audit: what page and documents look a figure up by
    title: str
    sql: str  # gives the rows, over the views of the catalog and the relations of the audit
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""  # what a reader has to know: how a number was approximated, how many rows were left out

    @property
    def known(self) -> bool:
        """Whether the catalog has what the figure counts."""
        return not self.note.startswith(ABSENT)

    def column(self, name: str) -> list[Any]:
        """The values of one column, a value for each row."""
        return [row[self.columns.index(name)] for row in self.rows]

    def records(self) -> list[dict[str, Any]]:
        """The rows by the names of their columns."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def value(self, name: str) -> Any:
        """A column of a figure of one row; None where the catalog lacks it."""
        return self.records()[0][name] if self.rows else None


@dataclass(frozen=True)
class Section:
    """Figures of one subject, in the order in which a page shows them."""

    name: str
    title: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Audit:
    """All figures of a catalog, a selection or a dataset."""

    about: Mapping[str, Any]  # catalog, what was selected, versions of tables, time: see `command.py`
    relations: Mapping[str, str]  # name -> SQL of what the figures query beside the views, in the order they build on
    sections: tuple[Section, ...] = field(default=())

    def figures(self) -> Iterator[Figure]:
        for section in self.sections:
            yield from section.figures

    def figure(self, id: str) -> Figure:
        """The figure of that id. KeyError where no section has it."""
        return next((figure for figure in self.figures() if figure.id == id), None) or _missing(id)

    def runnable(self, figure: Figure) -> str:
        """The figure's SQL with the relations that it names, as `clipmill sql` takes it."""
        return with_relations(self.relations, figure.sql)


def with_relations(relations: Mapping[str, str], sql: str) -> str:
    """A query behind the relations that it names, as common table expressions."""
    if not any(re.search(rf"\b{name}\b", sql) for name in relations):
        return sql
    named = ",\n".join(f"{name} AS ({text})" for name, text in relations.items())
    own = f",\n{sql.removeprefix('WITH ')}" if sql.startswith("WITH ") else f"\n{sql}"
    return f"WITH {named}{own}"


def plain_cell(value: Any) -> Cell:
    """A value of DuckDB as JSON can hold it: times as text in UTC, whole decimals as integers, NaN as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, list | tuple):
        return [plain_cell(each) for each in value]
    return str(value)


def write_audit(path: Path, audit: Audit) -> None:
    """Writes audit.json, whole or not at all: one line for each row of a figure."""
    head = {"kind": KIND, "version": VERSION, **audit.about, "relations": dict(audit.relations)}
    text = [json.dumps(head, indent=1, ensure_ascii=False)[:-2] + ',\n "sections": [']
    for number, section in enumerate(audit.sections):
        text.append(f'{"," if number else ""}\n  {{"name": {_json(section.name)}, "title": {_json(section.title)}, ')
        text.append('"figures": [')
        text.append(",".join(_figure_json(figure) for figure in section.figures))
        text.append("]}")
    write_whole(path, "".join([*text, "\n ]\n}\n"]))


def read_audit(path: str | Path) -> Audit:
    """The audit that `write_audit` wrote, given its file or folder. UserError for another file."""
    path = Path(path)
    path = path / AUDIT if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"no audit at {path}: make one with `clipmill audit --catalog URI -o DIR`") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({first_line(error)}): make the audit again") from error
    if not isinstance(found, dict) or found.get("kind") != KIND or found.get("version") != VERSION:
        raise UserError(f"{path} is no audit of this version of clipmill: make the audit again")
    sections = tuple(
        Section(each["name"], each["title"], tuple(_figure(one) for one in each["figures"]))
        for each in found["sections"]
    )
    about = {k: v for k, v in found.items() if k not in ("kind", "version", "relations", "sections")}
    return Audit(about, found["relations"], sections)


def _figure(found: Mapping[str, Any]) -> Figure:
    rows = tuple(tuple(row) for row in found["rows"])
    return Figure(found["id"], found["title"], found["sql"], tuple(found["columns"]), rows, found["note"])


def _figure_json(figure: Figure) -> str:
    fields = asdict(figure)
    fields.pop("rows")
    head = ",\n    ".join(f"{_json(name)}: {_json(value)}" for name, value in fields.items())
    rows = ",\n     ".join(_json(row) for row in figure.rows)
    return f'\n   {{{head},\n    "rows": [{rows}]}}'


def _json(value: str | Sequence[Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _missing(id: str) -> Figure:
    raise KeyError(f"no figure {id!r} in this audit")
