"""What the documents ask of an audit: cells of its figures, counted of what is to be trained on."""

from __future__ import annotations

from typing import Any

from curate.audit.documents.markdown import shown
from curate.audit.figure import Audit

Record = dict[str, Any]


class Facts:
    """An audit by the names that documents use. Nothing is computed here: each number is a cell of a figure.

    Of a whole catalog the clips that the gates keep count, of a selection or a dataset all that are selected.
    """

    def __init__(self, audit: Audit):
        self.audit, self.about = audit, audit.about
        self.whole = audit.about["select"] is None and audit.about["dataset"] is None
        self.counted = "clips that the gates keep" if self.whole else "selected clips"
        self._prefix = "kept_" if self.whole else ""

    def known(self, id: str) -> bool:
        return self.audit.figure(id).known

    def records(self, id: str) -> list[Record]:
        """The rows of a figure; none of one that the catalog could not give."""
        return self.audit.figure(id).records()

    def of(self, record: Record, name: str) -> Any:
        """A count (clips, hours, sources, words) of what is to be trained on."""
        return record[f"{self._prefix}{name}"]

    def rows(self, id: str) -> list[Record]:
        """The rows that have a clip which counts."""
        return [record for record in self.records(id) if self.of(record, "clips")]

    @property
    def total(self) -> Record:
        return self.records("totals.clips")[0]

    @property
    def clips(self) -> int:
        return self.of(self.total, "clips")

    def amount(self, record: Record) -> str:
        """Clips and hours in words."""
        return f"{shown(self.of(record, 'clips'))} clips, {shown(self.of(record, 'hours'))} h"

    def media(self, name: str) -> Record | None:
        """The row of videos or of images, where there are any."""
        return next((record for record in self.rows("rights.media") if record["media"] == name), None)

    def kinds(self, kind: str | None) -> list[Record]:
        """Rows of the sources of a kind; None: of those whose kind is unknown."""
        return [record for record in self.rows("rights.kinds") if record["source_kind"] == kind]

    def captions(self, *sources: str | None) -> list[Record]:
        """Models that wrote captions: `model` and `server`, `manifest` for texts that came with the sources."""
        return [record for record in self.rows("captions.models") if record["source"] in sources]

    def composition(self, id: str) -> list[tuple[Any, ...]]:
        """Value, clips and hours of a composition; the values that have no row of their own are counted."""
        rows = []
        for r in self.rows(id):
            value = r["value"] if r["values"] == 1 else f"{shown(r['values'])} others"
            rows.append((value, self.of(r, "clips"), self.of(r, "hours")))
        return rows

    @property
    def name(self) -> str:
        """The dataset's name, or the last part of the catalog's URI."""
        described = self.about.get("described")
        return described["name"] if described else str(self.about["catalog"]).rstrip("/").rsplit("/", 1)[-1]


def named_model(record: Record) -> str:
    """A model with its revision."""
    return f"{record['model'] or 'unknown model'}, revision {record['revision'] or 'unknown'}"
