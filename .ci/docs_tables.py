"""Writes the tables of stages, measures and columns in docs/*.md from the registries of stages and measures.

A page holds `<!-- table: NAME -->` and `<!-- end of table -->`; what stands between them is replaced. NAME is
`stages`, `measures`, `every column`, `every stage`, `formats X` where X is a table of tests/stages/decode/formats.py,
`columns X` where X is a stage, or `settings X` where X is a part of the settings file of an audit's documents.
With --check nothing is written and the exit code is 1 where a table is not current.
What a stage does and how a measure is computed is the first sentence of the docstring of its class. Columns are those
that `clipmill columns` prints. The pages that describe stages are named in docs/stages.yaml.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from curate.audit.documents.settings import DocumentSettings  # noqa: E402
from curate.query.columns.listing import empty_catalog, said_of  # noqa: E402
from curate.query.columns.words import NAMED, ColumnWords, documented  # noqa: E402
from curate.recipe.registry import BUILT_IN, KINDS, StageKind  # noqa: E402
from stages.measures.base import Measure  # noqa: E402
from stages.measures.registry import MEASURES, measure_classes  # noqa: E402
from tests.stages.decode.formats import TABLES as FORMATS  # noqa: E402
from tests.stages.decode.formats import table as format_table  # noqa: E402

TABLE = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
PAGES = ROOT / "docs" / "stages.yaml"
RUNS = {
    "sources": "on sources",
    "clips": "on single clips",
    "shards": "on shards of clips",
    "catalog": "on the whole catalog",
}


def main() -> int:
    pages = yaml.safe_load(PAGES.read_text(encoding="utf-8"))
    wrong = []
    try:
        tables = all_tables(pages)
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return 1
    for path in sorted((ROOT / "docs").glob("*.md")):
        old = path.read_text(encoding="utf-8")
        for found in TABLE.finditer(old):
            if found[2] not in tables:
                wrong.append(
                    f"{path.relative_to(ROOT)}: no table is called {found[2]!r}; there are {', '.join(tables)}"
                )
        new = TABLE.sub(lambda found: found[1] + tables.get(found[2], "") + found[3], old)
        if new != old and "--check" in sys.argv[1:]:
            wrong.append(f"{path.relative_to(ROOT)}: its tables are not current; run `make docs`")
        elif new != old:
            path.write_text(new, encoding="utf-8")
    print("\n".join(wrong) or "tables of the docs: current", file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


def all_tables(pages: dict[str, str]) -> dict[str, str]:
    """Every table that a page may hold, as Markdown, by name."""
    kinds = {name: KINDS[name] for name in BUILT_IN}
    for name in pages:
        if name not in kinds:
            raise LookupError(f"docs/stages.yaml has {name!r}, which the code has not")
    stage_head = ["stage", "runs", "table", "what its table says of a clip"]
    measure_head = ["measure", "column", "unit", "meaning", "method", "unknown (NULL) when"]
    with empty_catalog() as sql:
        columns = documented(sql)
    found = {
        "stages": markdown(stage_head, (stage_row(name, kind, pages) for name, kind in kinds.items())),
        "measures": markdown(measure_head, measure_rows(measure_classes(MEASURES))),
        "every column": "\n".join(section(table, columns) for table in dict.fromkeys(c.table for c in columns)),
        "every stage": markdown(["column", "type", "unit", "meaning"], every_stage_rows(columns)),
    }
    found |= {f"formats {name}": markdown(*format_table(rows)) for name, rows in FORMATS.items()}
    for name, part in DocumentSettings():
        rows = [[f"`{key}`", field.description or ""] for key, field in type(part).model_fields.items()]
        found[f"settings {name}"] = markdown([f"`{name}:`", "meaning"], rows)
    for name in kinds:
        rows = [[f"`{c.column}`", c.type, with_unit(c)] for c in columns if c.stage == name and not c.of_every_stage]
        found[f"columns {name}"] = markdown(["column", "type", "meaning"], rows)
    return found


def section(table: str, columns: Sequence[ColumnWords]) -> str:
    """A table of the catalog with a heading; what every table of a stage has is said once, under `every stage`."""
    mine = [c for c in columns if c.table == table]
    rows = [[f"`{c.column}`", c.type, c.unit, f"`{c.stage}`", c.meaning] for c in mine if not c.of_every_stage]
    table_of_it = markdown(["column", "type", "unit", "stage", "meaning"], rows)
    return f"## {table}\n\nOne row is {said_of(table, mine[0].stage)}.\n\n{table_of_it}"


def every_stage_rows(columns: Sequence[ColumnWords]) -> Iterator[list[str]]:
    first = next(c.table for c in columns if c.of_every_stage)
    for column in columns:
        if column.of_every_stage and column.table == first:
            yield [f"`{column.column}`", column.type, column.unit, column.meaning]


def stage_row(name: str, kind: StageKind, pages: dict[str, str]) -> list[str]:
    link = f"[`{name}`]({pages[name]})" if name in pages else f"`{name}`"
    table = "your `as`" if name in NAMED else f"`{getattr(kind.stage, 'default_table', 'clips')}`"
    return [link, RUNS[kind.runs], table, first_sentence(kind.stage)]


def measure_rows(measures: Iterable[type[Measure]]) -> Iterator[list[str]]:
    for measure in measures:
        start, end = f"`{measure.name}`", [first_sentence(measure), measure.unknown]
        for name, column in measure.columns.items():
            yield [start, f"`{name}`", column.unit, column.meaning, *end]
            start, end = "", ["", ""]


def first_sentence(of: type) -> str:
    """The first sentence of a class's docstring, which may go over several lines."""
    text = " ".join((inspect.cleandoc(of.__doc__ or "")).split("\n\n")[0].split())
    if not text:
        raise LookupError(f"{of.__module__}.{of.__name__} has no docstring, whose first sentence stands in the docs")
    return re.split(r"(?<=[.])\s(?=[A-Z`])", text, maxsplit=1)[0].rstrip(".")


def with_unit(column: ColumnWords) -> str:
    return f"{column.meaning} ({column.unit})" if column.unit else column.meaning


def markdown(head: list[str], rows: Iterable[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    sys.exit(main())
