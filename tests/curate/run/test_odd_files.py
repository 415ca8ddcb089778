"""Files as people have them, from the folder to the shard: every frame at its time, and a reason for every loss."""

import json

import pytest

from curate.run.command import run_recipes
from tests.curate.running import INLINE, ask
from tests.hostile import write_video
from tests.numbered import film
from tests.stages.decode.test_frame_times import in_decoding_order
from tests.stages.decode.test_lost_packets import without
from tests.stages.decode.test_odd_files import LARGE, NONE, SMALL, animation, streams, timelapse
from tests.vae_models import vae_folder

pytestmark = pytest.mark.slow

RECIPES = """\
recipes:
  ingest:
    stages:
      - cut: {detector: none, gradual: false, min_seconds: 2}
      - measure: [motion]
  latents:
    select: SELECT * FROM clips WHERE verdict = 'kept'
    stages:
      - encode: %s
"""
B_FRAMES = {"bf": "3", "g": "48", "preset": "veryfast"}
FRAMES = 48  # 2 s at 24 a second


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    films = folder / "films"
    films.mkdir()
    for kind in ("avi", "asf", "flv"):
        write_video(films / f"order.{kind}", film(FRAMES), container=kind, options=B_FRAMES)
    write_video(films / "ticks.mkv", film(FRAMES), container="matroska", options=B_FRAMES)
    in_decoding_order(films / "order.mov").with_suffix(".mkv").unlink()
    write_video(folder / "whole.ts", film(FRAMES), container="mpegts", options=B_FRAMES | {"g": "250"})
    without(folder / "whole.ts", 0.3, films / "lost.ts")
    streams(films / "streams.mp4", (*SMALL, NONE), (*LARGE, NONE))
    timelapse(films / "turned.mov", 6, "mov")
    for kind in ("webp", "png", "gif"):
        (films / f"moving.{kind}").write_bytes(animation(kind, list(film(FRAMES)), 50))
    encode = {"vae": str(vae_folder(folder / "vae")), "buckets": ["37x32x48"], "fps": 20}
    file = folder / "pipelines.yaml"
    file.write_text(RECIPES % json.dumps(encode))
    assert run_recipes(["ingest"], str(folder / "catalog"), [str(films)], file, (), INLINE) == 0
    run_recipes(["latents"], str(folder / "catalog"), None, file, (), INLINE)
    return folder / "catalog"


def named(catalog, columns, table="sources", where="true"):
    rows = ask(catalog, f"SELECT parse_filename(uri), {columns} FROM {table} WHERE {where} ORDER BY 1")
    return {name: rest[0] if len(rest) == 1 else rest for name, *rest in rows}


def test_every_film_is_done_with_all_of_its_frames(catalog):
    frames = named(catalog, "frames", where="status = 'done'")
    lost = frames.pop("lost.ts")
    assert FRAMES - 5 <= lost < FRAMES
    assert frames == {
        "order.avi": FRAMES, "order.asf": FRAMES, "order.flv": FRAMES, "order.mov": 200, "ticks.mkv": FRAMES,
        "streams.mp4": 24, "turned.mov": 24, "moving.webp": FRAMES, "moving.png": FRAMES, "moving.gif": FRAMES,
    }  # fmt: skip


def test_the_columns_say_what_was_chosen_and_what_is_damaged(catalog):
    found = named(catalog, "[width, height, rotation, video_stream, video_streams, decode_errors > 0]")
    assert found["streams.mp4"] == [480, 270, 0, 1, 2, 0]
    assert found["turned.mov"] == [112, 192, 90, 0, 1, 0]
    assert found["order.avi"] == [192, 112, 0, 0, 1, 0]
    assert found["lost.ts"][-1] == 1
    damaged = named(catalog, "damaged_frames", "clips")
    assert damaged.pop("lost.ts") > 0 and set(damaged.values()) == {0}
    for name, fps in named(catalog, "fps").items():
        assert fps == pytest.approx(20 if name.startswith("moving") else 24, rel=0.01)


def test_two_seconds_are_two_seconds_in_every_container(catalog):
    kept = named(catalog, "verdict = 'kept'", "clips")
    short = {"streams.mp4", "turned.mov", "lost.ts"}  # of one second, or with frames gone
    assert {name for name in kept if kept[name]} >= kept.keys() - short


def test_a_window_over_lost_packets_is_refused_with_the_reason_and_others_are_encoded(catalog):
    rows = ask(
        catalog,
        "SELECT parse_filename(uri), latents.status, latents.reason FROM latents JOIN clips USING (clip_id) ORDER BY 1",
    )
    for name, status, reason in rows:
        if name == "lost.ts":
            assert status == "failed" and "the file is damaged there" in reason
        else:
            assert (status, reason) == ("done", None)
    assert {name for name, _, _ in rows} >= {
        "order.avi",
        "order.asf",
        "order.mov",
        "ticks.mkv",
        "moving.webp",
        "moving.png",
        "moving.gif",
    }
