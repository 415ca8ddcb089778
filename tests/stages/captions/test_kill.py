"""kill -9 in the middle of captioning: resumed, no caption that arrived is asked for again."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from stages.captions import Caption
from stages.captions.answers import Answer
from stages.captions.spool import Spool
from tests.caption_server import CaptionServer
from tests.stages.captions.driver import CONCURRENCY, PROMPTS, committed
from tests.stages.captions.made import rows_of, run, served, unit_of

CLIPS = 60
KILLS = int(os.environ.get("CLIPMILL_KILLS", "3"))
ROOT = Path(__file__).parents[3]


def start(server, folder):
    command = [sys.executable, "-m", "tests.stages.captions.driver", server.url, str(folder), str(CLIPS)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process):
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.005)


def kept(folder):
    """The (clip, caption text) of every answer that lies in the spool, and of every row that is committed."""
    spooled = [json.loads(file.read_text()) for file in (folder / "_answers" / "captions").glob("*.json")]
    texts = {answer["text"] for entry in spooled for answer in entry.values()}
    return texts | {row[f"caption_{name}"] for row in committed(folder) for name in PROMPTS}


def test_killed_and_resumed_no_caption_that_arrived_is_paid_for_again(tmp_path):
    with CaptionServer(delay=0.02) as server:
        stops = []  # what was safe, and how many requests there had been
        for number in range(KILLS):
            process = start(server, tmp_path)
            enough = len(server.answered) + 2 * CLIPS // (KILLS + 1)
            wait_for(lambda enough=enough: len(server.answered) >= enough, process)
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(0.1)  # answers under way are sent into the void now
            safe = kept(tmp_path)
            stops.append((safe, len(server.seen)))
            # What is not safe was under way: at most one request of each thread.
            assert len(server.answered) - len(safe) <= CONCURRENCY * (number + 1)
        process = start(server, tmp_path)
        assert process.wait(timeout=60) == 0, process.stderr.read()
        process.stderr.close()
    for safe, asked in stops:
        again = {f"answers {prompt}." for prompt in server.prompts[asked:]}
        assert safe
        assert not [text for text in safe if any(prompt in text for prompt in again)]
    rows = committed(tmp_path)
    assert Counter(row["clip_id"] for row in rows) == Counter(f"{number:032x}" for number in range(CLIPS))
    assert {row["status"] for row in rows} == {"done"}
    # Every question was asked; the ones asked twice are those that the kills cut off.
    assert set(server.prompts) == {p.format(clip_id=f"{n:032x}") for n in range(CLIPS) for p in PROMPTS.values()}
    assert len(server.seen) <= 2 * CLIPS + CONCURRENCY * KILLS
    assert not list((tmp_path / "_answers" / "captions").iterdir())


@pytest.mark.parametrize("store", ["local", "memory"])
def test_answers_are_kept_until_their_rows_are_committed(tmp_path, store):
    catalog = str(tmp_path) if store == "local" else f"memory://{tmp_path.name}"
    answer = Answer("A dog.", "server", "stop", None, "v1")
    spool = Spool(catalog, "captions")
    spool.open()
    assert spool.get("a") == {}
    spool.put("a", {"k": answer})
    spool.put("a", {"k": answer, "m": answer})
    spool.put("b", {"k": answer})
    later = pickle.loads(pickle.dumps(Spool(catalog, "captions")))
    later.open()
    assert later.get("a") == {"k": answer, "m": answer}
    Spool(catalog, "captions").clear(["a", "never there"])
    last = Spool(catalog, "captions")
    last.open()
    assert last.get("a") == {}
    assert last.get("b") == {"k": answer}


def test_what_a_kill_left_half_written_is_no_answer(tmp_path):
    spool = Spool(str(tmp_path), "captions")
    spool.open()
    folder = tmp_path / "_answers" / "captions"
    (folder / "a.json.part").write_text('{"k": {"te')
    (folder / "b.json").write_text("no JSON")
    spool.open()
    assert spool.get("a") == spool.get("b") == {}
    assert [path.name for path in folder.iterdir()] == ["b.json"]


def test_a_stage_travels_to_its_worker_and_takes_up_what_another_left(tmp_path):
    with CaptionServer() as server:
        first = Caption(served(server.url))
        first.bind(str(tmp_path))
        run(first, [unit_of([1, 2], first)])
        again = pickle.loads(pickle.dumps(first.__class__(first.settings)))
        again.bind(str(tmp_path))
        rows = rows_of(run(pickle.loads(pickle.dumps(again)), [unit_of([1, 2, 3], again)]))
        assert sorted(rows) == [1, 2, 3]
        assert len(server.answered) == len(set(server.answered)) == 3
