"""kill -9 in the middle of captioning: resumed, no caption that arrived is asked for again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import duckdb
import pytest

from curate.catalog.catalog import Catalog
from curate.run.verify import verify
from stages.captions.answer_cache import AnswerCache
from tests.caption_server import MODEL, CaptionServer
from tests.curate.running import ask, cut_film, ingest, pipelines

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("CLIPMILL_KILLS", "2"))
FILMS = 3
CONCURRENCY = 8
PROMPTS = {"short": "{clip_id} in short", "long": "{clip_id} at length"}
# Commits of a few rows, so that kills fall before, between and behind them.
BATCH_ROWS = 12
RUN = f"""
import sys
from curate.engines.engine import CloseRule
from curate.run.command import RunOptions, run_recipes
options = RunOptions("inline", closing=CloseRule(rows={BATCH_ROWS}))
sys.exit(run_recipes(["caption"], sys.argv[1], None, sys.argv[2], (), options))
"""
PIPELINES = """
recipes:
  ingest:
    stages:
      - probe
      - cut: {{detector: fixed, seconds: 0.125, min_seconds: 0.05}}
  caption:
    select: SELECT * FROM clips
    stages:
      - caption:
          source: server
          server: {{base_url: "{url}", model: {model}, concurrency: {concurrency}, timeout_seconds: 10}}
          frames: {{positions: [0.5], long_side: 32}}
          prompts: {prompts}
"""


@pytest.fixture
def catalog(tmp_path):
    """A catalog of short clips, not captioned."""
    films = tmp_path / "films"
    films.mkdir()
    for number in range(FILMS):
        cut_film(films / f"{number}.mp4", number)
    ingest(tmp_path / "catalog", films, file=pipelines(tmp_path, text("http://localhost/v1")))
    return tmp_path / "catalog"


def text(url):
    return PIPELINES.format(url=url, model=MODEL, concurrency=CONCURRENCY, prompts=json.dumps(PROMPTS))


def start(catalog):
    command = [sys.executable, "-P", "-c", RUN, str(catalog), str(catalog.parent / "pipelines.yaml")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.005)


def kept(catalog):
    """The text of every answer in the cache, and of every row that is committed."""
    cached = [json.loads(file.read_text()) for file in (catalog / "_answers" / "captions").glob("*.json")]
    texts = {answer["text"] for entry in cached for answer in entry.values()}
    try:
        rows = ask(catalog, "SELECT caption_short, caption_long FROM captions")
    except duckdb.CatalogException:  # nothing was committed yet
        rows = []
    return texts | {text for row in rows for text in row}


def test_killed_and_resumed_no_caption_that_arrived_is_paid_for_again(catalog):
    clips = {clip for (clip,) in ask(catalog, "SELECT clip_id FROM clips")}
    questions = {prompt.format(clip_id=clip) for clip in clips for prompt in PROMPTS.values()}
    assert len(clips) > 60
    with CaptionServer(delay=0.02) as server:
        pipelines(catalog.parent, text(server.url))
        stops = []  # what was safe, and how many requests there had been
        for number in range(KILLS):
            process = start(catalog)
            enough = len(server.answered) + len(questions) // (KILLS + 1)
            wait_for(lambda enough=enough: len(server.answered) >= enough, process)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            server.wait_until_idle()  # answers under way are sent to nobody now
            safe = kept(catalog)
            stops.append((safe, len(server.seen)))
            # What is not safe was under way: at most one request of each thread.
            assert len(server.answered) - len(safe) <= CONCURRENCY * (number + 1)
        process = start(catalog)
        assert process.wait() == 0, process.stdout.read()
        process.stdout.close()
    for safe, asked in stops:
        again = {f"answers {prompt}." for prompt in server.prompts[asked:]}
        assert safe
        assert not [one for one in safe if any(prompt in one for prompt in again)]
    rows = ask(catalog, "SELECT clip_id, status, caption_short, caption_long FROM captions")
    assert Counter(row[0] for row in rows) == Counter(clips)
    assert all(row[1] == "done" and f"{row[0]} in short" in row[2] and f"{row[0]} at length" in row[3] for row in rows)
    # Every question was asked; the ones asked twice are those that the kills cut off.
    assert set(server.prompts) == questions
    assert len(server.seen) <= len(questions) + CONCURRENCY * KILLS
    # A kill between a commit and the clearing of its answers leaves them; the next start is told.
    cache = AnswerCache(str(catalog), "captions")
    assert len(cache.clip_ids()) <= KILLS * 3 * BATCH_ROWS
    cache.clear(clips)
    assert not list((catalog / "_answers" / "captions").iterdir())
    assert verify(Catalog.open(str(catalog))) == []
