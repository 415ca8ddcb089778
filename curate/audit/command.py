"""`clipmill audit`: counts a catalog, a selection or a dataset, and writes figures and documents into a folder."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from curate.audit.against import find_against
from curate.audit.documents.settings import read_settings
from curate.audit.documents.write import write_documents
from curate.audit.figure import AUDIT, Audit, Section, write_audit
from curate.audit.page.page import PAGE, write_page
from curate.audit.parts import find_parts
from curate.audit.pictures import pictures
from curate.audit.relations import describe_other, prepared
from curate.audit.sections.against import comparison
from curate.audit.sections.registry import SECTIONS
from curate.audit.selection import EVERY_CLIP, of_dataset, of_select
from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.datasets.files import Dataset, open_dataset
from curate.errors import UserError
from curate.progress_bar import ProgressBar
from curate.storage import is_local


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes a folder, and takes it away again where the block raises and has left nothing in it."""
    there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't make the folder {folder}: {error.strerror}") from error
    try:
        yield
    except BaseException:
        if not there:
            with suppress(OSError):
                folder.rmdir()
        raise


def _refuse_used(folder: Path, catalog: Catalog) -> None:
    """UserError for a folder inside the catalog, and for one with a page that no audit has written."""
    if is_local(catalog.uri) and folder.resolve().is_relative_to(Path(catalog.path).resolve()):
        raise UserError(
            f"-o {folder} is in the catalog {catalog.uri}, which an audit leaves as it is: give another one"
        )
    if (folder / PAGE).exists() and not (folder / AUDIT).exists():
        raise UserError(f"-o {folder} has a {PAGE} that is not of an audit: give another folder")


def run_audit(
    catalog: str, output: str, select: str | None = None, dataset: str | None = None, held_out: float | None = None,
    other: str | None = None, settings: str | None = None, against: str | None = None,
) -> int:  # fmt: skip
    """Writes the page, audit.json and the documents into OUTPUT; returns the exit code 0. Raises UserError, before
    anything is written.

    `held_out` is the share of the sources that the trainer holds out, `other` the folder of a second dataset: what
    leaks between them is counted. `settings` is a file with what only the provider knows. `against` is a version of the
    catalog, another catalog or a dataset: what came, went and moved since is counted.
    """
    if held_out is not None and not 0 < held_out < 1:
        raise UserError(f"--held-out {held_out}: a share of the sources, above 0 and below 1")
    if not is_local(output):
        raise UserError(f"-o {output}: the audit is written on this machine; copy it where you like afterwards")
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"-o {output} is a file: give a folder")
    given = read_settings(settings)
    opened = Catalog.open(catalog)
    _refuse_used(folder, opened)
    found = open_dataset(dataset) if dataset is not None else None
    compared = find_against(opened, against) if against is not None else None
    parts = find_parts(held_out, open_dataset(other) if other is not None else None, compared)
    versions = opened.snapshot()
    with connect(opened, versions) as sql, ExitStack() as stack:
        if found is not None:
            chosen = of_dataset(found)
        else:
            chosen = EVERY_CLIP if select is None else of_select(sql, select)
        beside = describe_other(sql, compared, select) if compared is not None else None
        stack.enter_context(_made(folder))
        progress = stack.enter_context(ProgressBar("audit", len(SECTIONS), "sections"))
        subject = stack.enter_context(prepared(sql, opened, chosen, parts, folder, beside))
        sections = []
        for maker in SECTIONS:
            sections.append(Section(maker.name, maker.title, tuple(maker.figures(subject))))
            progress.update(len(sections))
        about = {
            "catalog": opened.uri,
            "selection": chosen.said,
            "select": select,
            "dataset": str(found.folder) if found is not None else None,
            "described": described(found) if found is not None else None,
            "held_out": held_out,
            "other": other,
            "against": against,
            "compared_with": compared.said if compared is not None else None,
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions,
        }
        audit = Audit(about, subject.relations, tuple(sections))
        jpegs = pictures(sql, audit)
    write_audit(folder / AUDIT, audit)
    if (why_not := write_page(folder, audit, jpegs)) is not None:
        print(f"{folder / PAGE} shows tables without plots: {why_not}", file=sys.stderr)
    missing = write_documents(folder, audit, given)
    totals = audit.figure("totals.clips").records()[0]
    print(
        f"{folder / PAGE}: {totals['clips']:,} clips, {totals['kept_clips']:,} of them kept; "
        f"every number beside its SQL: {folder / AUDIT}"
    )
    if compared is not None:
        print(comparison(audit, compared.said))
    if missing:
        print(f"croissant.json lacks {', '.join(missing)}: give {', '.join(missing.values())} in --settings FILE")
    return 0


def described(dataset: Dataset) -> dict[str, Any]:
    """What dataset.json says of where the dataset comes from."""
    return {"name": dataset.name} | {name: dataset.about.get(name) for name in ("created", "parent")}
