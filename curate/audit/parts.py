"""What may leak into what: the clips trained on, those held out of training, and those of a second dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curate.audit.across import ACROSS, write_across
from curate.audit.against import Against
from curate.audit.subject import Subject
from curate.catalog.gates import literal
from curate.catalog.superseded_rows import no_glob
from curate.datasets.files import INDEX, Dataset
from curate.errors import UserError

HELD_OUT = "held_out.parquet"  # beside audit.json: the sources that are held out, by source_id
TRAINED, HELD, OTHER = "trained on", "held out", "second dataset"


@dataclass(frozen=True)
class Parts:
    """Which clips are held out of training, by their sources' hashes as the trainer does it, and a second dataset."""

    held_out: float | None = None  # share, as `validation.share` of the trainer's config
    other: str | None = None  # SQL of clip_id, source_id and content_hash of the second dataset's clips
    across: bool = False  # whether these are clips of another catalog, whose duplicates here are looked for

    @property
    def there(self) -> bool:
        return self.held_out is not None or self.other is not None

    def relations(self, folder: Path) -> dict[str, str]:
        """SQL of the relation `parts`: clip_id, source_id, content_hash, part. A clip may stand in several.
        And of `across`, where the second dataset is of another catalog: see `write_across`.
        """
        if not self.there:
            return {}
        part = literal(TRAINED)
        if self.held_out is not None:
            held = f"SELECT source_id FROM {_file_sql(folder / HELD_OUT)}"
            part = f"CASE WHEN source_id IN ({held}) THEN {literal(HELD)} ELSE {part} END"
        files = "(SELECT source_id, content_hash FROM sources)"
        text = (
            f"SELECT clip_id, source_id, content_hash, {part} AS part FROM audited LEFT JOIN {files} USING (source_id)"
        )
        if self.other is not None:
            text += f" UNION ALL SELECT DISTINCT clip_id, source_id, content_hash, {literal(OTHER)} FROM ({self.other})"
        return {"parts": text} | ({"across": f"SELECT * FROM {_file_sql(folder / ACROSS)}"} if self.across else {})

    def write(self, relation: str, subject: Subject, folder: Path) -> None:
        """Writes the file that a relation reads, once all relations before it are there."""
        if relation == "parts" and self.held_out is not None:
            ids = [row[0] for row in subject.rows("SELECT source_id FROM audited_sources")]
            write_held_out(folder / HELD_OUT, ids, self.held_out)
        if relation == "across":
            write_across(folder / ACROSS, subject, OTHER)


def find_parts(held_out: float | None, dataset: Dataset | None, against: Against | None) -> Parts:
    """The parts, of which the second dataset's clips are those of an index, or of another catalog or dataset that is
    compared with. An earlier version of the same catalog is no second dataset. UserError for an index without content
    hashes.
    """
    across = dataset is None and against is not None and not against.same_catalog
    return Parts(held_out, _second_part(dataset, against), across)


def _second_part(dataset: Dataset | None, against: Against | None) -> str | None:
    if dataset is not None:
        if "content_hash" not in dataset.index_columns():
            raise UserError(f"{dataset.folder / INDEX} has no column 'content_hash': make the dataset again")
        return f"SELECT clip_id, source_id, content_hash FROM {_file_sql(dataset.folder / INDEX)}"
    if against is None or (against.same_catalog and against.chosen.sql is None):
        return None
    return (
        "SELECT clip_id, source_id, content_hash FROM other_audited "
        "LEFT JOIN (SELECT source_id, content_hash FROM other.main.sources) USING (source_id)"
    )


def write_held_out(path: Path, sources: list[str], share: float) -> None:
    """Writes the ids of the sources that the trainer would hold out of these."""
    import pyarrow as pa
    from pyarrow import parquet

    from curate.training.held_out import held_out_ids
    from train.config.training import ValidationConfig

    held = sorted(held_out_ids(sources, share, ValidationConfig().least))
    parquet.write_table(pa.table({"source_id": pa.array(held, pa.string())}), path)


def _file_sql(path: Path) -> str:
    return f"read_parquet({literal(no_glob(str(path.absolute())))})"
