"""Stages on clips inside ingest cost no second decode: counted at a server that hands out the bytes."""

import contextlib
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from curate.run.command import run_recipes
from tests.curate import brightness
from tests.curate.run.test_clip_stages import DECODE, KEPT, RECIPES, STAGE
from tests.curate.running import INLINE, ask, cut_film
from tests.sounds import speech, write_film


class Films(BaseHTTPRequestHandler):
    """Serves files by ranges and counts the bytes of each that left."""

    files: dict[str, bytes]
    sent: Counter

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        data = self.files[self.path]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)) if asked else (0, len(data) - 1)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end + 1 - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
        self.end_headers()
        if body:
            self.sent[self.path] += end + 1 - start
            self.wfile.write(data[start : end + 1])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder, *films):
    """(manifest of these files at a local server, bytes sent by file)."""
    files = {f"/{film.name}": film.read_bytes() for film in films}
    handler = type("Handler", (Films,), {"files": files, "sent": Counter()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    manifest = folder / "films.jsonl"
    manifest.write_text("\n".join(json.dumps({"uri": f"http://127.0.0.1:{server.server_port}{n}"}) for n in files))
    yield manifest, handler.sent
    server.shutdown()


@pytest.fixture
def films(tmp_path):
    with served(tmp_path, *(cut_film(tmp_path / f"film_{seed}.mp4", seed) for seed in range(2))) as made:
        yield made


@pytest.mark.slow
def test_a_stage_inside_ingest_reads_no_byte_more_than_the_decode_pass(tmp_path, films, monkeypatch):
    brightness.register(monkeypatch)
    manifest, sent = films
    read = []
    for name, stages in (("without", ""), ("with", STAGE % "{}" + "\n" + STAGE % "{as: second}")):
        file = tmp_path / f"{name}.yaml"
        given = {"decode": DECODE, "stages": stages, "settings": "{as: later}", "select": KEPT, "gates": "", "luma": 0}
        file.write_text(RECIPES % given)
        sent.clear()
        assert run_recipes(["ingest"], str(tmp_path / name), [str(manifest)], file, options=INLINE) == 0
        read.append(dict(sent))
    assert read[0] == read[1] and all(read[0].values())
    assert ask(tmp_path / "with", "SELECT count(brightness), count(second) FROM clips") == [(4, 4)]
    sent.clear()
    assert run_recipes(["later"], str(tmp_path / "with"), None, file, options=INLINE) == 0
    assert len(sent) == 2  # a recipe of its own does read the films again: the count can tell


SOUND = """\
recipes:
  ingest:
    stages:
      - cut: {min_seconds: 0.5}
      - measure: [exposure%s]
"""


@pytest.mark.slow
@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_the_sound_comes_from_the_same_read_of_the_bytes(tmp_path, container):
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 255, (40, 144, 256, 3)).astype(np.uint8)  # several blocks of what is fetched at a time
    pictures = (grain[number % 40] for number in range(12 * 24))
    film = write_film(tmp_path / "film", speech(12, 48000, 2), container=container, seconds=12, pictures=pictures)
    size, read = film.stat().st_size, {}
    assert size > 10e6
    with served(tmp_path, film) as (manifest, sent):
        for name, measures in (("deaf", ""), ("hearing", ", audio")):
            file = tmp_path / f"{name}.yaml"
            file.write_text(SOUND % measures)
            sent.clear()
            assert run_recipes(["ingest"], str(tmp_path / name), [str(manifest)], file, options=INLINE) == 0
            read[name] = sum(sent.values())
    assert size <= read["hearing"] <= 1.02 * read["deaf"]
    heard = "SELECT count(*) = count(loudness), count(*) = count(silence), count(*) > 0, count(audio_reason) FROM clips"
    assert ask(tmp_path / "hearing", heard) == [(True, True, True, 0)]
    header = "SELECT has_audio, audio_codec, audio_channels, audio_rate, audio_errors FROM sources"
    assert ask(tmp_path / "hearing", header) == [(True, "aac", 2, 48000, 0)]
    assert ask(tmp_path / "deaf", header) == [(True, "aac", 2, 48000, None)]
