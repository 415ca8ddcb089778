"""`clipmill export --clips` and `--webdataset`: chosen clips as MP4, with their captions and what is known of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import ValidationError

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.errors import UserError
from curate.exports.clip_files.messages import ClipFile
from curate.exports.clip_folder import ClipFolder
from curate.exports.clip_pool import ClipFilePool, ClipJob, MadeClip
from curate.exports.clip_rows import ClipFileSettings, ClipRows
from curate.exports.clip_shards import ClipShards
from curate.exports.folder import ExportFolder
from curate.progress_bar import ProgressBar
from stages.pretrained.devices import cores
from stages.windows.window import PREPROCESSING_VERSION

MOST_CHILDREN = 8


@dataclass
class ExportReport:
    """What became of the clips of an export. `failed` has a line for each clip that has no file."""

    copied: int = 0
    encoded: int = 0
    there: int = 0  # exported before
    renewed: int = 0  # of those, whose captions or values were written anew
    outdated: int = 0  # of those, whose captions or values are older than the catalog's
    images: int = 0
    failed: list[str] = field(default_factory=list)

    def lines(self, output: str) -> Iterator[str]:
        clips = self.copied + self.encoded + self.there
        parts = [f"{self.copied:,} copied", f"{self.encoded:,} encoded", f"{self.there:,} there before"]
        if self.renewed:
            parts.append(f"{self.renewed:,} of them with new captions or values")
        if self.failed:
            parts.append(f"{len(self.failed):,} failed")
        yield f"{clips:,} clips in {output}: {', '.join(parts)}"
        if self.outdated:
            yield f"note: {self.outdated:,} clips have other captions or values now; a new folder would have them"
        if self.images:
            yield f"note: {self.images:,} still images left out"


class Output(Protocol):
    """Where finished clips go."""

    def earlier(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """What was said of this clip when its file was made, by an export before; None where there is none."""

    def add(self, part: str, said: dict[str, Any]) -> None:
        """Takes a finished file, and what is said of it."""

    def renew(self, said: dict[str, Any]) -> bool:
        """Says something else of a clip whose file is there; False where that can't be."""

    def finish(self) -> None:
        """After the last clip."""


def run_export_clips(
    catalog: str, output: str, select: str | None, caption: str | None, shard_mb: int | None, given: dict[str, Any]
) -> int:
    """`clipmill export --clips`, or with `shard_mb` `--webdataset`: returns 0 if all was written, 1 if a clip was not;
    each such clip is a line on stderr. `given` are settings, see `ClipFileSettings`.
    """
    try:
        settings = ClipFileSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"--{first['loc'][0]} {first['input']}: {said}") from error
    report = export_clips(Catalog.open(catalog), output, select, settings, caption, shard_mb)
    for line in report.failed:
        print(line, file=sys.stderr)
    for line in report.lines(output):
        print(line)
    return 1 if report.failed else 0


def export_clips(
    catalog: Catalog, output: str, select: str | None = None, settings: ClipFileSettings | None = None,
    caption: str | None = None, shard_mb: int | None = None,
) -> ExportReport:  # fmt: skip
    """Writes each clip that `select` gives (SQL with a column clip_id; None: the kept ones) that is not there yet.

    Into `output` go KEY.mp4, KEY.txt with the caption, KEY.json, and metadata.jsonl with a line for each file; or with
    `shard_mb` shards of about that size. Raises UserError for wrong SQL, an `output` that holds something else, and
    one that can't be written.
    """
    settings = settings or ClipFileSettings()
    about = {
        "export": "clips" if shard_mb is None else "webdataset",
        "catalog": catalog.uri,
        **settings.model_dump(),
        "preprocessing": PREPROCESSING_VERSION,
    }
    with connect(catalog) as sql:
        rows = ClipRows.of(sql, select, caption)
        if rows.caption is None:
            print("note: clips have no column caption: no captions are written (choose one with --caption)")
        report = ExportReport(images=rows.images)
        with ExportFolder(output, about) as folder:
            files: Output = ClipFolder(folder) if shard_mb is None else ClipShards(folder, shard_mb << 20)
            _export(rows, settings, folder, files, report)
    return report


def _export(
    rows: ClipRows, settings: ClipFileSettings, folder: ExportFolder, files: Output, report: ExportReport
) -> None:
    children = min(MOST_CHILDREN, cores())
    with ProgressBar("export", rows.count, "clips") as bar, ClipFilePool(children, folder) as pool:
        for clip in pool.files(_missing(rows, settings, files, report)):
            with folder.writing():
                _take(clip, rows, files, report)
            done = report.copied + report.encoded + report.there + len(report.failed)
            bar.update(done, f"{len(report.failed):,} failed" if report.failed else "")
        files.finish()


def _missing(rows: ClipRows, settings: ClipFileSettings, files: Output, report: ExportReport) -> Iterator[ClipJob]:
    """The clips without a file; of the others, what is said is renewed."""
    for row in rows:
        earlier = files.earlier(row)
        if earlier is None:
            yield ClipJob(settings.request(row), row)
            continue
        report.there += 1
        said = rows.said(row, earlier["file"])
        if said != earlier:
            renewed = files.renew(said)
            report.renewed += renewed
            report.outdated += not renewed


def _take(clip: MadeClip, rows: ClipRows, files: Output, report: ExportReport) -> None:
    row = clip.job.row
    if not isinstance(clip.made, ClipFile):
        span = f"{row['start_s']:.3f} to {row['end_s']:.3f} s"
        report.failed.append(f"{row['clip_id']}: {clip.made} ({row['uri']}, {span})")
        return
    files.add(clip.part, rows.said(row, clip.made))
    report.copied += clip.made.copied
    report.encoded += not clip.made.copied
