"""The demo's second half in small: every step leaves what the next one takes, and goes on where it was stopped."""

import json
from html.parser import HTMLParser

import pytest

from curate.catalog.catalog import Catalog
from curate.demo import learning
from curate.demo.demo import write_pipelines
from curate.demo.page import write_page
from curate.demo.shapes import draw_shape_films
from curate.run.command import run_recipes
from curate.run.verify import verify
from tests.curate.running import INLINE, ask

pytestmark = pytest.mark.slow

FEW = 3  # prompts and first frames
COUNTS = learning.SampleCounts(prompts=FEW, first_frames=FEW, steps=2)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """(folder, what was learnt, commands) of a demo whose networks saw a handful of steps."""
    folder = tmp_path_factory.mktemp("learning") / "demo"
    draw_shape_films(folder / "films", takes=2)
    pipelines = write_pipelines(folder / "pipelines.yaml", True, folder)
    catalog = str(folder / "catalog")
    assert run_recipes(["ingest", "captions"], catalog, [str(folder / "films")], pipelines, (), INLINE) == 0
    for name, steps in (("vae", 4), ("dit", 4)):
        path = learning.write_config(name, folder)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"steps": steps, "batch_size": 8}))
    commands = []
    found = learning.learn(folder, pipelines, "inline", lambda *words: commands.append(words), COUNTS)
    again = learning.learn(folder, pipelines, "inline", lambda *words: None, COUNTS)
    assert again == found
    return folder, found, commands


def test_each_command_of_the_way_is_shown_in_its_order(learnt):
    _, _, commands = learnt
    assert [words[0] for words in commands] == ["train", "run", "dataset", "train", "sample"]


def test_every_kept_take_is_encoded_and_in_the_dataset(learnt):
    folder, _, _ = learnt
    kept = ask(folder / "catalog", "SELECT count(*) FROM clips WHERE verdict = 'kept' AND caption IS NOT NULL")[0][0]
    about = json.loads((folder / "datasets" / "demo" / "dataset.json").read_text())
    assert about["samples"] == kept > 90
    assert verify(Catalog.open(str(folder / "catalog"))) == []


def test_samples_are_judged_and_a_network_that_learnt_nothing_is_not_called_good(learnt):
    folder, found, _ = learnt
    assert len(found.samples) == FEW and all((folder / "samples" / each.file).exists() for each in found.samples)
    assert len(found.still_psnr) == FEW
    assert found.share_right < 0.8 and not found.good
    assert (folder / "samples" / "asked.gif").exists()


class Sources(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []
        self.links = []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        if tag == "img":
            self.found.append(dict(attrs)["src"])


def test_the_page_shows_pictures_that_are_there(learnt):
    folder, found, _ = learnt
    write_page(
        folder / "index.html",
        ["cut: 1 of 1 found"],
        [("(all)", "3", "")],
        ["clipmill run ingest"],
        found,
        "audit/index.html",
    )
    page = Sources()
    page.feed((folder / "index.html").read_text())
    assert page.links == ["audit/index.html"]
    assert len(page.found) == FEW + 2
    assert all((folder / source).exists() for source in page.found)


def test_a_step_that_is_stopped_ends_the_demo(tmp_path):
    commands = []

    def stopped(*_, **__):
        return 130

    with pytest.raises(KeyboardInterrupt):
        learning.learn(tmp_path, tmp_path / "no.yaml", "inline", lambda *words: commands.append(words), train=stopped)
    assert [words[0] for words in commands] == ["train"]
