"""A planted catalog with rights columns and captions by models, its documents, and the truth in the raw tables."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import pytest

from curate.audit.figure import Audit, read_audit
from tests.curate.audit.made import GATES, HOSTILE, Made, planted, write_dataset
from tests.curate.audit.recount import Recount
from tests.curate.running import clipmill

KINDS = ("crawled", "public dataset", "licensed", "synthetic", None)
ANSWERS = ("allowed", "not allowed", "constrained", "none found", None)
CHECKED = datetime.datetime(2026, 2, 1, 8, 30, tzinfo=datetime.UTC)
SETTINGS = """\
provider: {name: Films & Sons, contact: "films@example.com", url: "https://films.example.com"}
dataset:
  name: drawn
  version: "1.2.0"
  url: https://films.example.com/drawn
  licence: https://spdx.org/licenses/CC-BY-4.0
  published: 2026-03-04
  cite: Films & Sons, drawn
  keywords: [video, drawn]
eu_summary:
  models: drawn-dit 1
  code_of_practice: true
  latest_acquisition: 01/2026
  text_size: under 1 bn tokens
datasheet:
  purpose: To test documents.
  sensitive: There are no persons in it.
  used: Nothing yet.
"""


@dataclass(frozen=True)
class Documented:
    """An audit that the command wrote: its folder, its figures, what was printed."""

    folder: Path
    audit: Audit
    said: str

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()


def with_rights(made: Made) -> Made:
    """Plants what owners said, each in turn, so that every kind meets every answer."""
    for number, source in enumerate(made.sources):
        source["source_kind"] = KINDS[number % len(KINDS)]
        source["dataset"] = f"set {number % 3} {HOSTILE}" if source["source_kind"] == "public dataset" else None
        source["dataset_licence"] = ("CC0-1.0", None)[number % 2] if source["dataset"] else None
        for signal, step in (("robots", 1), ("tdmrep", 7)):
            answer = ANSWERS[number // step % len(ANSWERS)]
            source[f"optout_{signal}"] = answer
            source[f"optout_{signal}_from"] = None if answer is None else f"{signal} of {source['domain']}"
            source[f"optout_{signal}_checked"] = None if answer is None else CHECKED + datetime.timedelta(days=number)
    for number, row in enumerate(made.stages["captions"]):
        if row["status"] == "done":
            row["caption_source"] = ("model", "server", "manifest")[number % 3]
            row["model"], row["revision"] = (None, None) if number % 3 == 2 else (f"captioner {number % 3}", "r1")
    return made


def documented(catalog: str, folder: Path, *options: object) -> Documented:
    done = clipmill("audit", "--catalog", catalog, "-o", folder, *options)
    assert done.returncode == 0, done.stderr
    return Documented(folder, read_audit(folder), done.stdout)


@pytest.fixture(scope="package")
def rights(tmp_path_factory):
    """Catalog, recount, settings file, dataset."""
    folder = tmp_path_factory.mktemp("documents")
    catalog = with_rights(planted(sources=50)).write(folder / "catalog")
    counted = Recount(catalog, list(GATES.values()))
    (folder / "settings.yaml").write_text(SETTINGS)
    chosen = [clip for clip in counted.clips if counted.encoded(clip)][::2]
    rows = [
        {"clip_id": c["clip_id"], "source_id": c["source_id"], "weight": float(n % 3)} for n, c in enumerate(chosen)
    ]
    return catalog, counted, folder / "settings.yaml", write_dataset(folder / "chosen", rows, catalog)


@pytest.fixture(scope="package")
def whole(rights, tmp_path_factory):
    catalog, _, settings, _ = rights
    return documented(catalog, tmp_path_factory.mktemp("whole") / "audit", "--settings", settings)


@pytest.fixture(scope="package")
def unsaid(rights, tmp_path_factory):
    """The same without a settings file."""
    return documented(rights[0], tmp_path_factory.mktemp("unsaid") / "audit")


@pytest.fixture(scope="package")
def of_dataset(rights, tmp_path_factory):
    catalog, _, settings, dataset = rights
    folder = tmp_path_factory.mktemp("dataset") / "audit"
    return documented(catalog, folder, "--settings", settings, "--dataset", dataset)
