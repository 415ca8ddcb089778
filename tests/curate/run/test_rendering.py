"""HDR and interlaced films through whole runs: what `sources` and `clips` say, and that latents are not mixed."""

import json
from dataclasses import replace

import pytest

from curate.catalog.catalog import Catalog
from curate.run.command import run_recipes
from curate.run.verify import verify
from stages.decode.pyav_reader import PyAVReader
from stages.decode.rendering import Rendering
from stages.decode.sources import open_source
from stages.shards.format import read_index, read_sample
from stages.windows.prefetch import WindowPrefetcher
from stages.windows.window import Window
from tests.curate.running import INLINE, ask
from tests.hostile import write_video
from tests.stages.decode.hdr_films import hlg_frame, pq_frame, scene, sdr_frame, write_hdr
from tests.stages.decode.test_deinterlace import FIELDS, parts, woven
from tests.stages.decode.test_seek import textured
from tests.vae_models import vae_folder

RECIPES = """\
recipes:
  ingest:
    stages:
      - probe: %(probe)s
      - cut: {min_seconds: 0.5, detector: none, gradual: false}
      - measure: [exposure, sharpness]
  latents:
    select: SELECT * FROM clips WHERE verdict = 'kept'
    stages:
      - encode: %(encode)s
"""
SAID = "SELECT color_transfer, color_primaries, color_matrix, bit_depth, field_order FROM sources WHERE uri LIKE '%{}'"
SIGNALS = "SELECT luma_mean, contrast, sharpness FROM clips WHERE uri LIKE '%{}'"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rendering") / "films"
    folder.mkdir()
    for name, maker in (("sdr", sdr_frame), ("pq", pq_frame), ("hlg", hlg_frame)):
        write_hdr(folder / f"{name}.mp4", [maker(scene(k)) for k in range(24)])
    interlaced = {"codec": "mpeg2video", "container": "mpeg", "options": FIELDS | {"b": "8M"}}
    write_video(folder / "woven.mpg", woven(textured(80)), fps=25, **interlaced)
    write_video(folder / "smooth.mpg", list(textured(80))[::2], fps=25, **interlaced | {"options": {"b": "8M"}})
    parts(folder / "mixed.mkv", "p", "i")
    return folder


@pytest.fixture
def go(tmp_path, films):
    """Runs recipes on a catalog of its own; returns the exit code."""
    vae = vae_folder(tmp_path / "vae")

    def run(*names, probe=None, options=INLINE, **settings):
        encode = {"vae": str(vae), "buckets": ["5x32x48"], "fps": 8, "max_upscale": 2} | settings
        file = tmp_path / "pipelines.yaml"
        file.write_text(RECIPES % {"probe": json.dumps(probe or {}), "encode": json.dumps(encode)})
        return run_recipes(list(names), str(tmp_path / "catalog"), [str(films)] if "ingest" in names else None, file,
                           (), options)  # fmt: skip

    return run


def samples(tmp_path):
    """(path of its shard, JSON) of every sample, by the name of its source."""
    found = {}
    for (shard,) in ask(tmp_path / "catalog", "SELECT DISTINCT shard FROM latents WHERE status = 'done'"):
        rows = read_index(str(tmp_path / "catalog" / shard)).to_pylist()
        for clip in {row["clip_id"] for row in rows if row["field"] == "json"}:
            info = read_sample(str(tmp_path / "catalog" / shard), [row for row in rows if row["clip_id"] == clip])
            found[info["json"]["uri"].rpartition("/")[2]] = info["json"]
    return found


def test_sources_say_what_they_are_and_their_signals_are_those_of_sdr(go, tmp_path):
    assert go("ingest") == 0
    catalog = tmp_path / "catalog"
    assert ask(catalog, SAID.format("/sdr.mp4")) == [("bt709", "bt709", "bt709", 10, "progressive")]
    assert ask(catalog, SAID.format("/pq.mp4")) == [("smpte2084", "bt2020", "bt2020nc", 10, "progressive")]
    assert ask(catalog, SAID.format("/hlg.mp4")) == [("arib-std-b67", "bt2020", "bt2020nc", 10, "progressive")]
    assert ask(catalog, SAID.format("/woven.mpg"))[0][4] in ("tt", "bb")
    assert ask(catalog, SAID.format("/smooth.mpg"))[0][4] == "progressive"
    assert ask(catalog, SAID.format("/mixed.mkv"))[0][4] == "mixed"
    ((luma, contrast, _),) = ask(catalog, SIGNALS.format("/sdr.mp4"))
    for name in ("pq", "hlg"):
        ((found, spread, _),) = ask(catalog, SIGNALS.format(f"/{name}.mp4"))
        assert abs(found - luma) < 12 and abs(spread - contrast) < 0.15 * contrast  # was 14 of 42
    sharp = {name: ask(catalog, SIGNALS.format(f"/{name}.mpg"))[0][2] for name in ("woven", "smooth")}
    assert 0.5 < sharp["woven"] / sharp["smooth"] < 1.5  # was 15 times as much
    hdr = dict(ask(catalog, "SELECT parse_filename(uri), hdr FROM clips"))
    assert hdr["pq.mp4"] == hdr["hlg.mp4"] == "tone_map" and hdr["sdr.mp4"] is hdr["woven.mpg"] is None
    fields = dict(ask(catalog, "SELECT parse_filename(uri), deinterlace FROM clips"))
    assert fields["woven.mpg"] == fields["mixed.mkv"] == "auto" and fields["smooth.mpg"] is fields["pq.mp4"] is None


def test_off_is_a_word_though_yaml_takes_it_for_false(go, tmp_path, films):
    file = tmp_path / "off.yaml"
    file.write_text("recipes: {ingest: {stages: [probe: {deinterlace: off}, cut: {detector: none, gradual: false}]}}")
    assert run_recipes(["ingest"], str(tmp_path / "catalog"), [str(films / "woven.mpg")], file, (), INLINE) == 0
    assert ask(tmp_path / "catalog", "SELECT deinterlace FROM clips") == [("off",)]


def test_with_drop_hdr_is_not_decoded_and_its_clip_says_why(go, tmp_path):
    assert go("ingest", probe={"hdr": "drop"}) == 0
    rows = ask(tmp_path / "catalog", "SELECT parse_filename(uri), verdict, dropped_by, contrast FROM clips ORDER BY 1")
    for name, *said in rows:
        if name in ("pq.mp4", "hlg.mp4"):
            assert said == ["dropped", "probe.hdr", None]
        else:
            assert said[0] == "kept" and said[2] is not None
    assert ask(tmp_path / "catalog", "SELECT DISTINCT status FROM sources") == [("done",)]


@pytest.mark.parametrize(("probe", "name"), [({"hdr": "clip"}, "pq.mp4"), ({"deinterlace": "off"}, "woven.mpg")])
def test_latents_of_films_that_were_scanned_in_another_way_are_refused(go, tmp_path, probe, name):
    assert go("ingest", probe=probe) == 0
    assert go("latents") == 1
    failed = ask(
        tmp_path / "catalog",
        f"SELECT reason FROM latents JOIN clips USING (clip_id) WHERE latents.status = 'failed' AND uri LIKE '%{name}'",
    )
    ((setting, value),) = probe.items()
    assert failed == [(f"scanned with probe.{setting}: {value}: set encode.{setting} alike, or scan it again",)]
    assert go("latents", options=replace(INLINE, rebuild=True), **probe) == 0
    (contract,) = ask(tmp_path / "catalog", "SELECT DISTINCT contract FROM latents")
    assert json.loads(contract[0])[setting] == value


def test_windows_show_what_the_scan_saw_and_the_contract_says_how(go, tmp_path, films):
    assert go("ingest", "latents") == 0
    found = samples(tmp_path)
    assert {"pq.mp4", "hlg.mp4", "sdr.mp4", "woven.mpg"} <= set(found)
    contracts = [json.loads(text) for (text,) in ask(tmp_path / "catalog", "SELECT DISTINCT contract FROM latents")]
    assert [(c["hdr"], c["deinterlace"], c["preprocessing"]) for c in contracts] == [("tone_map", "auto", 2)]
    assert verify(Catalog.open(str(tmp_path / "catalog"))) == []


@pytest.mark.parametrize("rendering", [Rendering(), Rendering("clip", "off"), Rendering("leave", "off")])
@pytest.mark.parametrize("name", ["pq.mp4", "hlg.mp4", "woven.mpg", "mixed.mkv"])
def test_a_window_has_the_pixels_of_the_pass(films, name, rendering):
    path = str(films / name)
    with open_source(path) as file:
        reader = PyAVReader(file, rendering=rendering)
        size = reader.info.width, reader.info.height
        frames = [(f.pts, f.cropped((0, 0, *size), size)) for f in reader]
        base, end = reader.info.time_base, reader.last_end_pts
        fps = reader.info.fps
    window = Window("c", path, None, frames[8][0], end, base, 0.0, fps, 8, None, size[1], size[0], rendering)
    with WindowPrefetcher() as pool:
        ((_, pixels),) = pool.fetch([window])
    for pts, picture, (wanted, expected) in zip(pixels.pts, pixels.video, frames[8:16], strict=True):
        assert pts == wanted and (picture == expected).all()
