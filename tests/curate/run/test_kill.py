"""kill -9 of the driver, of a worker, of everything, at random moments: resumed, the clips equal an undisturbed run's.

CI kills a few times; `CLIPMILL_KILLS=200 pytest tests/curate/run/test_kill.py` goes on for longer.
"""

import os
import random
import signal
import subprocess

import pytest

from curate.catalog.catalog import Catalog
from curate.run.verify import verify
from tests.curate.killing import run_and_kill
from tests.curate.running import CLIPS, ask, ingest, make_folder, often, pipelines

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("CLIPMILL_KILLS", "4"))
FILMS = 14


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("kill") / "films", films=FILMS)
    file = pipelines(folder.parent)
    ingest(folder.parent / "catalog", folder, file=file)
    return folder, file, ask(folder.parent / "catalog", CLIPS)


def start(source, file, catalog, engine):
    command = often(4, "run", "ingest", "--input", source, "--catalog", catalog)
    command += ["--pipelines", str(file), "--engine", engine]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(folder, file, catalog, engine, retry=False):
    process = start(folder, file, catalog, engine)
    error = process.communicate()[1]
    assert process.returncode in (0, 1), error  # 1 where the one broken film failed in this run
    assert "Traceback" not in error


def check(catalog, clips):
    assert ask(catalog, CLIPS) == clips
    assert ask(catalog, "SELECT status, count(*) FROM sources GROUP BY 1 ORDER BY 1") == [
        ("done", FILMS),
        ("failed", 1),
    ]
    assert verify(Catalog.open(str(catalog))) == []


def test_killed_at_random_moments_inline_and_resumed_no_clip_is_lost_or_doubled(undisturbed, tmp_path):
    folder, file, clips = undisturbed
    dice = random.Random(KILLS)
    catalog = tmp_path / "catalog"
    codes = []
    for number in range(KILLS):
        whom = ("driver", "all")[number % 2]
        codes.append(run_and_kill(lambda: start(folder, file, catalog, "inline"), whom, (0.6, 3.5), dice))
    assert -signal.SIGKILL in codes
    finish(folder, file, catalog, "inline")
    check(catalog, clips)


def test_a_decoder_killed_from_outside_is_given_another_chance(undisturbed, tmp_path):
    folder, file, clips = undisturbed
    dice = random.Random(1)
    catalog = tmp_path / "catalog"
    assert run_and_kill(lambda: start(folder, file, catalog, "inline"), "worker", (0, 0.5), dice, working=True) == 1
    check(catalog, clips)


def test_killed_at_random_moments_with_input_and_catalog_in_a_bucket(undisturbed, tmp_path, bucket):
    import s3fs

    folder, file, clips = undisturbed
    dice = random.Random(KILLS)
    s3fs.S3FileSystem().put(str(folder), f"{bucket}/films", recursive=True)
    source, catalog = f"{bucket}/films", f"{bucket}/catalog"
    for number in range(max(2, KILLS // 2)):
        whom = ("driver", "all")[number % 2]
        run_and_kill(lambda: start(source, file, catalog, "inline"), whom, (1.5, 5), dice)
    finish(source, file, catalog, "inline")
    spans = "SELECT scene, start_s, end_s, luma_mean, phash, verdict FROM clips ORDER BY phash, start_s"
    assert ask(catalog, spans) == ask(folder.parent / "catalog", spans)
    assert ask(catalog, "SELECT count(*), count(DISTINCT clip_id) FROM clips") == [(len(clips), len(clips))]
    assert verify(Catalog.open(catalog)) == []


@pytest.mark.ray
def test_killed_at_random_moments_on_ray_and_resumed_no_clip_is_lost_or_doubled(undisturbed, tmp_path):
    folder, file, clips = undisturbed
    dice = random.Random(KILLS)
    catalog = tmp_path / "catalog"
    codes = []
    for whom in ("all", "driver") * max(1, KILLS // 6) + ("worker",):  # last: with a worker gone a run still finishes
        codes.append(run_and_kill(lambda: start(folder, file, catalog, "ray"), whom, (0, 1), dice, working=True))
    assert -signal.SIGKILL in codes
    finish(folder, file, catalog, "ray")
    check(catalog, clips)
