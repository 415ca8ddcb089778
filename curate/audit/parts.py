"""What may leak into what: the clips trained on, those held out of training, and those of a second dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curate.catalog.gates import literal
from curate.catalog.superseded_rows import no_glob
from curate.datasets.files import INDEX, Dataset

HELD_OUT = "held_out.parquet"  # beside audit.json: the sources that are held out, by source_id
TRAINED, HELD, OTHER = "trained on", "held out", "second dataset"


@dataclass(frozen=True)
class Parts:
    """Which clips are held out of training, by their sources' hashes as the trainer does it, and a second dataset."""

    held_out: float | None = None  # share, as `validation.share` of the trainer's config
    other: Dataset | None = None

    @property
    def there(self) -> bool:
        return self.held_out is not None or self.other is not None

    def relations(self, folder: Path) -> dict[str, str]:
        """SQL of the relation `parts`: clip_id, source_id, part. A clip may stand in several parts."""
        if not self.there:
            return {}
        part = literal(TRAINED)
        if self.held_out is not None:
            held = f"SELECT source_id FROM {_file_sql(folder / HELD_OUT)}"
            part = f"CASE WHEN source_id IN ({held}) THEN {literal(HELD)} ELSE {part} END"
        text = f"SELECT clip_id, source_id, {part} AS part FROM audited"
        if self.other is not None:
            index = _file_sql(self.other.folder / INDEX)
            text += f" UNION ALL SELECT DISTINCT clip_id, source_id, {literal(OTHER)} FROM {index}"
        return {"parts": text}


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
