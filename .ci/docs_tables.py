"""Writes the tables of stages, measures and columns in docs/*.md from the registries of stages and measures.

A page holds `<!-- table: NAME -->` and `<!-- end of table -->`; what stands between them is replaced. NAME is
`stages`, `measures`, `formats X` where X is a table of tests/stages/decode/formats.py, or `columns X` where X is a
table of the catalog or a stage. With --check nothing is written
and the exit code is 1 where a table is not current. Stages, measures and their columns come from their classes alone:
what a stage does and how a measure is computed is the first sentence of the docstring. The meaning of the columns of
the catalog's own tables comes from docs/columns.yaml; a column that only one of the two has is an error.
"""

from __future__ import annotations

import inspect
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from curate.catalog.catalog import Catalog  # noqa: E402
from curate.catalog.schema import duckdb_type  # noqa: E402
from curate.catalog.views import connect  # noqa: E402
from curate.recipe.registry import BUILT_IN, KINDS, StageKind  # noqa: E402
from models.saved.vae_files import save  # noqa: E402
from models.settings.vae import sized  # noqa: E402
from models.vae.causal_vae import CausalVAE  # noqa: E402
from stages.base import Column, TableStage  # noqa: E402
from stages.cuts.settings import CutSettings  # noqa: E402
from stages.decode.settings import ProbeSettings  # noqa: E402
from stages.measures.base import Measure  # noqa: E402
from stages.measures.registry import MEASURES, measure_classes  # noqa: E402
from stages.scan.decode_pass import DecodePass  # noqa: E402
from tests.stages.decode.formats import TABLES as FORMATS  # noqa: E402
from tests.stages.decode.formats import table as format_table  # noqa: E402

TABLE = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
WORDS = ROOT / "docs" / "columns.yaml"
RUNS = {
    "sources": "on sources",
    "clips": "on single clips",
    "shards": "on shards of clips",
    "catalog": "on the whole catalog",
}
Columns = dict[str, str]  # column -> type in SQL


def main() -> int:
    words = yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    wrong = []
    try:
        tables = all_tables(words)
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


def all_tables(words: dict[str, Any]) -> dict[str, str]:
    """Every table that a page may hold, as Markdown, by name."""
    views, kinds = columns_of_views(), {name: KINDS[name] for name in BUILT_IN}
    for name in words["stages"]:
        if name not in kinds:
            raise LookupError(f"docs/columns.yaml: stages has {name!r}, which the code has not")
    same("columns", views, words["columns"])
    stage_head = ["stage", "runs", "table", "what its table says of a clip"]
    measure_head = ["measure", "column", "unit", "meaning", "method", "unknown (NULL) when"]
    found = {
        "stages": markdown(stage_head, (stage_row(name, kind, words) for name, kind in kinds.items())),
        "measures": markdown(measure_head, measure_rows(measure_classes(MEASURES))),
    }
    found |= {f"formats {name}": markdown(*format_table(rows)) for name, rows in FORMATS.items()}
    for name, columns in views.items():
        same(f"columns.{name}", columns, words["columns"][name])
        rows = [[f"`{column}`", kind, with_unit(words["columns"][name][column])] for column, kind in columns.items()]
        if name == "clips":
            rows += column_rows(name, DecodePass(ProbeSettings(), CutSettings(), ()).signals())
        found[f"columns {name}"] = markdown(["column", "type", "meaning"], rows)
    for name, stage in example_stages(kinds, words["stages"]).items():
        rows = column_rows(name, {stage.column(signal): column for signal, column in stage.signals().items()})
        found[f"columns {name}"] = markdown(["column", "type", "meaning"], rows)
    return found


def columns_of_views() -> dict[str, Columns]:
    """The columns that an empty catalog shows, by table."""
    with tempfile.TemporaryDirectory() as folder, connect(Catalog.open_or_create(folder)) as sql:
        tables = ("sources", "clips", "thumbnails", "runs", "gates", "places", "removals")
        return {name: dict(row[:2] for row in sql.execute(f"DESCRIBE {name}").fetchall()) for name in tables}


def example_stages(kinds: Mapping[str, StageKind], words: Mapping[str, Any]) -> dict[str, TableStage[Any]]:
    """Each stage, by name, made with the settings of its example; those without one that need some are left out."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        save(CausalVAE(sized("debug", channels=4)), folder)  # `encode` reads the config of its VAE
        for name, kind in kinds.items():
            settings = words.get(name, {}).get("example", {}) | ({"vae": folder} if name == "encode" else {})
            try:
                stage = kind.stage and kind.stage(kind.settings_type.model_validate(settings))
            except ValidationError:
                continue
            if isinstance(stage, TableStage):
                found[name] = stage
    return found


def stage_row(name: str, kind: StageKind, words: Mapping[str, Any]) -> list[str]:
    about = words["stages"].get(name, {})
    link = f"[`{name}`]({about['page']})" if "page" in about else f"`{name}`"
    table = "your `as`" if "as" in about.get("example", {}) else f"`{getattr(kind.stage, 'default_table', 'clips')}`"
    return [link, RUNS[kind.runs], table, first_sentence(kind.stage)]


def column_rows(where: str, columns: Mapping[str, Column]) -> list[list[str]]:
    return [
        [f"`{name}`", duckdb_type(column.type), with_unit([column.unit, said(where, name, column)])]
        for name, column in columns.items()
    ]


def measure_rows(measures: Iterable[type[Measure]]) -> Iterator[list[str]]:
    for measure in measures:
        start, end = f"`{measure.name}`", [first_sentence(measure), measure.unknown]
        for name, column in measure.columns.items():
            yield [start, f"`{name}`", column.unit, said(measure.name, name, column), *end]
            start, end = "", ["", ""]


def said(where: str, name: str, column: Column) -> str:
    if not column.meaning:
        raise LookupError(f"column {name!r} of {where!r} has no meaning: say it in its Column")
    return column.meaning


def first_sentence(of: type) -> str:
    """The first sentence of a class's docstring, which may go over several lines."""
    text = " ".join((inspect.cleandoc(of.__doc__ or "")).split("\n\n")[0].split())
    if not text:
        raise LookupError(f"{of.__module__}.{of.__name__} has no docstring, whose first sentence stands in the docs")
    return re.split(r"(?<=[.])\s(?=[A-Z`])", text, maxsplit=1)[0].rstrip(".")


def described(text: str | list[str]) -> tuple[str, str]:
    """(unit or nothing, meaning) of an entry of columns.yaml."""
    return ("", text) if isinstance(text, str) else (text[0], text[1])


def with_unit(text: str | list[str]) -> str:
    unit, meaning = described(text)
    return f"{meaning} ({unit})" if unit else meaning


def same(where: str, code: Iterable[str], text: Iterable[str]) -> None:
    """Raises LookupError, naming them, for names that only the code or only the text has."""
    for name in code:
        if name not in text:
            raise LookupError(f"docs/columns.yaml: {where} lacks {name!r}, which the code has")
    for name in text:
        if name not in code:
            raise LookupError(f"docs/columns.yaml: {where} has {name!r}, which the code has not")


def markdown(head: list[str], rows: Iterable[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    sys.exit(main())
