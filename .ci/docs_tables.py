"""Writes the tables of stages, measures and columns in docs/*.md from the registry of stages and docs/columns.yaml.

A page holds `<!-- table: NAME -->` and `<!-- end of table -->`; what stands between them is replaced. NAME is
`stages`, `measures`, or `columns X` where X is a table of the catalog or a stage. With --check nothing is written
and the exit code is 1 where a table is not current. Columns and their types come from the code, their meaning from
docs/columns.yaml; a column that only one of the two has is an error.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pydantic import TypeAdapter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from curate.catalog.catalog import Catalog  # noqa: E402
from curate.catalog.schema import duckdb_type  # noqa: E402
from curate.catalog.views import connect  # noqa: E402
from curate.recipe.registry import BUILT_IN  # noqa: E402
from models.saved.vae_files import save  # noqa: E402
from models.settings.vae import sized  # noqa: E402
from models.vae.causal_vae import CausalVAE  # noqa: E402
from stages.measures.registry import MEASURES  # noqa: E402

TABLE = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
WORDS = ROOT / "docs" / "columns.yaml"
RUNS = {"clips": "on single clips", "shards": "on shards of clips", "catalog": "on the whole catalog"}
Columns = dict[str, str]  # column -> type in SQL


def main() -> int:
    words = yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    wrong = []
    try:
        tables = all_tables(words)
    except LookupError as error:
        print(f"docs/columns.yaml: {error.args[0]}", file=sys.stderr)
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
    views, made = columns_of_views(), example_stages(words["stages"])
    stages = {n: {c: sql_type(k) for c, k in stage.columns()[stage.table].items()} for n, stage in made.items()}
    measures = {name: {c: sql_type(kind) for c, kind in measure.columns.items()} for name, measure in MEASURES.items()}
    views["clips"]["source_s"] = "DOUBLE"  # of the decode pass, whatever it measures
    same("columns", [*views, *measures, *stages], words["columns"])
    same("measures", measures, words["measures"])
    for name, columns in (views | measures | stages).items():
        same(f"columns.{name}", columns, words["columns"][name])
    found = {
        "stages": markdown(
            ["stage", "runs", "table", "what its table says of a clip"], stage_rows(made, words["stages"])
        ),
        "measures": markdown(
            ["measure", "column", "unit", "meaning", "method", "unknown (NULL) when"], measure_rows(measures, words)
        ),
    }
    for name, columns in (views | stages).items():
        rows = ([f"`{column}`", kind, with_unit(words["columns"][name][column])] for column, kind in columns.items())
        found[f"columns {name}"] = markdown(["column", "type", "meaning"], rows)
    return found


def columns_of_views() -> dict[str, Columns]:
    """The columns that an empty catalog shows, by table."""
    with tempfile.TemporaryDirectory() as folder, connect(Catalog.open_or_create(folder)) as sql:
        tables = ("sources", "clips", "thumbnails", "runs", "gates")
        return {name: dict(row[:2] for row in sql.execute(f"DESCRIBE {name}").fetchall()) for name in tables}


def example_stages(words: Mapping[str, Any]) -> dict[str, Any]:
    """Each stage that fills a table of its own, by name, made with the settings of its example."""
    kinds = {name: kind for name, kind in BUILT_IN.items() if kind.runs in RUNS}
    same("stages", kinds, words)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        save(CausalVAE(sized("debug", channels=4)), folder)  # `encode` reads the config of its VAE
        for name, kind in kinds.items():
            vae = {"vae": folder} if name == "encode" else {}
            found[name] = kind.make(TypeAdapter(kind.settings_type).validate_python(words[name]["example"] | vae))
    return found


def stage_rows(made: Mapping[str, Any], words: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, stage in made.items():
        table = "your `as`" if "as" in words[name]["example"] else f"`{stage.table}`"
        yield [f"[`{name}`]({words[name]['page']})", RUNS[BUILT_IN[name].runs], table, words[name]["says"]]


def measure_rows(measures: Mapping[str, Columns], words: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, columns in measures.items():
        about = words["measures"][name]
        for number, column in enumerate(columns):
            first = number == 0
            unit, meaning = described(words["columns"][name][column])
            yield [
                f"`{name}`" if first else "", f"`{column}`", unit, meaning,
                about["method"] if first else "", about["unknown"] if first else "",
            ]  # fmt: skip


def described(text: str | list[str]) -> tuple[str, str]:
    """(unit or nothing, meaning) of an entry of columns.yaml."""
    return ("", text) if isinstance(text, str) else (text[0], text[1])


def with_unit(text: str | list[str]) -> str:
    unit, meaning = described(text)
    return f"{meaning} ({unit})" if unit else meaning


def sql_type(arrow: str) -> str:
    return duckdb_type(pa.type_for_alias(arrow))


def same(where: str, code: Iterable[str], text: Iterable[str]) -> None:
    """Raises LookupError, naming them, for names that only the code or only the text has."""
    for name in code:
        if name not in text:
            raise LookupError(f"{where} lacks {name!r}, which the code has")
    for name in text:
        if name not in code:
            raise LookupError(f"{where} has {name!r}, which the code has not")


def markdown(head: list[str], rows: Iterable[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    sys.exit(main())
