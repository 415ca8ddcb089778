"""What an audit selects: the whole catalog, the clips that a SELECT gives, or the samples of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from curate.catalog.gates import literal, one_line
from curate.catalog.superseded_rows import no_glob
from curate.datasets.files import INDEX, Dataset
from curate.errors import UserError


@dataclass(frozen=True)
class Chosen:
    """The selected clips: SQL that gives clip_id, once each, and weight where there is one."""

    said: str  # the selection in words
    sql: str | None = None  # None: every clip
    weighted: bool = False
    dataset: Dataset | None = None


EVERY_CLIP = Chosen("every clip of the catalog")


def of_select(sql: duckdb.DuckDBPyConnection, select: str) -> Chosen:
    """What a SELECT on the views gives; its column `weight`, where it has one, weighs the clips. UserError if wrong."""
    try:
        statements = sql.extract_statements(select)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise UserError(f"--select must be one SELECT statement, not {select!r}")
        text = statements[0].query.strip().rstrip(";")
        columns = {row[0].lower(): row[1] for row in sql.execute(f"DESCRIBE {text}").fetchall()}
    except duckdb.Error as error:
        raise UserError(f"--select: {one_line(error)}") from error
    if columns.get("clip_id") != "VARCHAR":
        raise UserError(f"--select must give clip_id, a text; it gives {', '.join(columns)[:200]}")
    weight = ", CAST(any_value(weight) AS DOUBLE) AS weight" if "weight" in columns else ""
    chosen = f"SELECT clip_id{weight} FROM ({text}\n) AS given WHERE clip_id IS NOT NULL GROUP BY clip_id"
    return Chosen(f"the clips that this gives: {text}", chosen, bool(weight))


def of_dataset(dataset: Dataset) -> Chosen:
    """The samples of a dataset, with their weights."""
    path = literal(no_glob(str(Path(dataset.folder, INDEX).absolute())))
    chosen = f"SELECT clip_id, any_value(weight) AS weight FROM read_parquet({path}) GROUP BY clip_id"
    return Chosen(f"the samples of the dataset {dataset.name}", chosen, True, dataset)
