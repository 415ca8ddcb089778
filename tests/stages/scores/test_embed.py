"""Embeddings: those of open_clip called by hand, whatever the batches, the order and the engine; clear refusals."""

import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.catalog.catalog import Catalog
from curate.catalog.ledger import Ledger
from curate.catalog.unit_writer import FileSet, WriterSettings, state_schema
from curate.engines.engine import Work
from curate.engines.inline import InlineEngine
from curate.engines.ray_engine import RayEngine
from stages.base import Needs, SettingsError
from stages.decode.seek import FetchFrames
from stages.pretrained.open_clip_lookup import find_model
from stages.pretrained.open_clip_model import load_model
from stages.scores.embed import Embed, consistency
from stages.scores.settings import EmbedSettings
from stages.unit import Clip, Source, Unit
from tests.clip_model import by_hand, clip_folder
from tests.hostile import moving_square, write_video
from tests.stages.units import clip_of, rows_of

CLOSE = 1e-4


def pictures(seed, count, width=64, height=40):
    """Smooth random pictures (h, w, 3) BGR, no two alike."""
    import cv2

    rng = np.random.default_rng(seed)
    return [cv2.resize(rng.integers(0, 255, (4, 5, 3)).astype(np.uint8), (width, height)) for _ in range(count)]


def hand_made(frames):
    """(k, width) float64: what open_clip gives for BGR pictures, each run by itself, L2-normalised."""
    import torch
    from PIL import Image

    network, transform, _ = by_hand(clip_folder())
    with torch.inference_mode():
        found = [network.encode_image(transform(Image.fromarray(p[:, :, ::-1]))[None])[0].double() for p in frames]
    return np.stack([(vector / vector.norm()).numpy() for vector in found])


def hand_pooled(frames):
    mean = hand_made(frames).mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.fixture(scope="module")
def stage():
    made = Embed(EmbedSettings(model=str(clip_folder()), device="cpu"))
    made.setup()
    yield made
    made.close()


def unit_of(stage, name, clips):
    """A unit of clips, {clip id: pictures}."""
    return Unit(name, [clip_of(clip, frames, stage.wants()) for clip, frames in clips.items()])


def embedded(stage, units):
    """{clip id: row} of everything that the stage says of units."""
    return rows_of(stage.stream(units), "embeddings")


def vector_of(row):
    return np.frombuffer(row["embedding"], "<f2").astype(np.float64)


def rounding(vector):
    """What storing as float16 may add to a difference."""
    return np.spacing(np.abs(vector).astype(np.float16)).astype(np.float64) / 2


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=4), min_size=1, max_size=4),
    batch=st.integers(1, 9),
    images=st.sampled_from([1, 3, 256]),
    order=st.randoms(use_true_random=False),
)
def test_an_embedding_is_that_of_open_clip_whatever_comes_with_it(stage, sizes, batch, images, order):
    units, truth = [], {}
    for u, counts in enumerate(sizes):
        clips = {f"{u}.{c}": pictures(100 * u + c, count, 40 + 9 * c) for c, count in enumerate(counts)}
        truth |= clips
        units.append(unit_of(stage, str(u), clips))
    order.shuffle(units)
    stage.batch_clips = batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.scores.frame_embeddings.NETWORK_IMAGES", images)
        rows = embedded(stage, units)
    assert set(rows) == set(truth)
    for clip, frames in truth.items():
        hand = hand_pooled(frames)
        assert (
            rows[clip]["status"] == "done"
            and rows[clip]["dim"] == 24
            and rows[clip]["embeddings_frames"] == len(frames)
        )
        assert (np.abs(vector_of(rows[clip]) - hand) <= CLOSE + rounding(hand)).all()
        vectors = hand_made(frames)
        expected = None if len(frames) == 1 else min((vectors[:-1] * vectors[1:]).sum(axis=1))
        assert rows[clip]["embeddings_model"] == "tiny0"
        assert rows[clip]["temporal_consistency"] == (None if expected is None else pytest.approx(expected, abs=CLOSE))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A film and its clips, as a catalog knows them."""
    path = write_video(tmp_path_factory.mktemp("film") / "a.mp4", moving_square(60), options={"threads": "1"})
    base = 1 / 12288
    frame = round(1 / 24 / base)
    return path, [(i * 10 * frame, (i + 1) * 10 * frame) for i in range(6)]


def catalog_units(film):
    path, spans = film
    source = Source("s", str(path))
    clips = [
        Clip(
            {"clip_id": f"c{i}", "source_id": "s", "start_pts": a, "end_pts": b}
            | {"time_base_num": 1, "time_base_den": 12288},
            source,
        )
        for i, (a, b) in enumerate(spans)
    ]
    return [Unit(f"u{i}", clips[i : i + 2]) for i in range(0, len(clips), 2)]


def committed(engine, film, folder):
    """{clip id: row} of what the catalog in `folder` holds after a run through an engine."""
    embed = Embed(EmbedSettings(model=str(clip_folder()), device="cpu"))
    fetch = FetchFrames((embed.wants(),))
    fetch.needs = embed.needs = Needs(workers=1)  # one worker imports torch, not two
    table = embed.table
    with Ledger(Catalog.open_or_create(str(folder)), table, "clip_id", "0" * 32) as ledger:
        writer = WriterSettings({table: ledger.begin({table: state_schema(embed.columns()[table])})}, {table: {}})
        work = Work((fetch, embed), iter(catalog_units(film)), writer, lambda: {table: ledger.schema(table)})
        try:
            for event in engine.run(work):
                if isinstance(event, FileSet):
                    ledger.commit(event.of(table))
        finally:
            engine.close()
        rows = [row for part in ledger.known(()) for row in part.to_pylist()]
    found = {row["clip_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.ray
def test_both_engines_give_the_same_embeddings(film, tmp_path):
    inline = committed(InlineEngine(), film, tmp_path / "inline")
    ray = committed(RayEngine(), film, tmp_path / "ray")
    assert set(inline) == set(ray) == {f"c{i}" for i in range(6)}
    for clip, row in inline.items():
        assert row["status"] == "done" and row["embeddings_frames"] == 3
        assert np.abs(vector_of(row) - vector_of(ray[clip])).max() <= CLOSE + rounding(vector_of(row)).max() * 2
        assert row["embeddings_revision"] == ray[clip]["embeddings_revision"]


def test_a_frame_that_a_short_clip_gives_twice_counts_once(stage):
    one, other = pictures(1, 2)
    unit = unit_of(stage, "u", {"c": [one]})
    unit.clips[0].pixels[stage.wants()] = [(0.5, other), (0.1, one), (0.5, other)]
    row = embedded(stage, [unit])["c"]
    assert row["embeddings_frames"] == 2
    assert np.abs(vector_of(row) - hand_pooled([one, other])).max() <= CLOSE + 2**-12


def test_a_missed_cut_shows_as_low_consistency():
    same = np.eye(4)[[0, 0, 0]]
    assert consistency(same) == 1.0
    assert consistency(same[:1]) is None
    assert consistency(np.eye(4)[[0, 0, 1]]) == 0.0


def test_a_clip_without_frames_and_one_of_a_broken_picture_fail_alone(stage):
    good = pictures(2, 1)
    unit = unit_of(stage, "u", {"good": good, "broken": [np.zeros((0, 0, 3), np.uint8)], "lost": good})
    lost = unit.clips[-1]
    lost.pixels, lost.lost = {}, "the file is gone"
    stage.batch_clips = 32
    rows = embedded(stage, [unit])
    assert {clip: row["status"] for clip, row in rows.items()} == {"good": "done", "broken": "failed", "lost": "failed"}
    assert "the file is gone" in rows["lost"]["reason"] and rows["broken"]["reason"]


def test_numbers_that_are_not_finite_fail_their_clip_and_no_other(stage, monkeypatch):
    real = stage.model.encode_prepared

    def overflows(prepared):
        found = real(prepared)
        found[[not bool(picture.any()) for picture in prepared]] = np.nan
        return found

    monkeypatch.setattr(stage.model, "encode_prepared", overflows)
    black = [np.zeros((40, 64, 3), np.uint8)]
    rows = embedded(stage, [unit_of(stage, "u", {"a": pictures(1, 1), "b": black, "c": pictures(2, 2)})])
    assert {clip: row["status"] for clip, row in rows.items()} == {"a": "done", "b": "failed", "c": "done"}
    assert "try bfloat16 or float32" in rows["b"]["reason"]


def test_another_model_s_scores_stand_beside_the_first_s():
    settings = EmbedSettings.model_validate({"model": str(clip_folder(1)), "as": "second", "device": "cpu"})
    other = Embed(settings)
    assert set(other.columns()) == {"second"}
    assert {"second_embedding", "second_dim", "second_model", "second_revision"} <= set(other.columns()["second"])
    other.setup()
    unit = unit_of(other, "u", {"c": pictures(3, 2)})
    assert rows_of(other.stream([unit]), "second")["c"]["second_model"] == "tiny1"
    other.close()


def test_the_next_batch_is_gathered_and_prepared_while_the_network_runs(stage, monkeypatch):
    second, seen = threading.Event(), []
    real = stage.model.encode_prepared

    def slow(prepared):
        seen.append(second.wait(10))
        return real(prepared)

    def units():
        yield unit_of(stage, "a", {"a": pictures(4, 1)})
        second.set()  # asked for before the first batch is done
        yield unit_of(stage, "b", {"b": pictures(5, 1)})

    monkeypatch.setattr(stage.model, "encode_prepared", slow)
    stage.batch_clips = 1
    assert [unit.unit_id for unit in stage.stream(units())] == ["a", "b"]
    assert seen == [True, True]


def test_units_that_failed_before_go_through_untouched(stage):
    failed = unit_of(stage, "u", {"c": pictures(1, 1)}).failed("earlier")
    found = list(stage.stream([failed]))
    assert [unit.failure for unit in found] == ["earlier"]
    assert rows_of(found, "embeddings") == {}


# Models


def test_the_revision_is_that_of_the_weights_and_not_of_their_file():
    safe, pickled, other = (
        load_model(find_model(str(clip_folder(*which))), "cpu") for which in ((0,), (0, "bin"), (1,))
    )
    assert safe.revision == pickled.revision != other.revision
    assert len(safe.revision) == 16 and int(safe.revision, 16) >= 0


def test_local_weights_are_part_of_the_version(tmp_path):
    folder = shutil.copytree(clip_folder(), tmp_path / "model")
    before = Embed(EmbedSettings(model=str(folder))).versions()
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    assert Embed(EmbedSettings(model=str(folder))).versions() != before


def test_a_named_architecture_takes_a_local_checkpoint(tmp_path):
    checkpoint = tmp_path / "mine.pt"
    checkpoint.touch()
    spec = find_model("ViT-B/32", str(checkpoint))
    assert (spec.name, spec.model, spec.image_size, spec.width) == ("ViT-B-32/mine.pt", "ViT-B-32", 224, 512)


def test_texts_and_pictures_share_one_space():
    import torch

    model = load_model(find_model(str(clip_folder())), "cpu")
    network, _, tokens = by_hand(clip_folder())
    with torch.inference_mode():
        hand = torch.nn.functional.normalize(network.encode_text(tokens(["a red car"])), dim=-1).numpy()
    assert np.abs(model.encode_texts(["a red car", "rain"])[:1] - hand).max() <= CLOSE
    assert model.fits("a red car") and not model.fits("a red car " * 10)
    assert model.encode_texts([]).shape == model.encode_prepared([]).shape == (0, 24)


def test_a_reduced_dtype_stays_near_full():
    spec, frames = find_model(str(clip_folder())), pictures(6, 5)
    full, half = (load_model(spec, "cpu", dtype).encode_pictures(frames) for dtype in ("float32", "bfloat16"))
    assert 0 < np.abs(full - half).max() < 0.05


def folder_with(tmp_path, change=None, weights=True):
    folder = tmp_path / "model"
    folder.mkdir()
    config = json.loads((clip_folder() / "open_clip_config.json").read_text())
    if change:
        change(config["model_cfg"])
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    if weights:
        shutil.copy(clip_folder() / "open_clip_model.safetensors", folder)
    return str(folder)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"model": "ViT-L14"}, r"no model 'ViT-L14': did you mean ViT-L-14\?"),
        ({"pretrained": "laion2b_s32b"}, r"no pretrained tag 'laion2b_s32b': did you mean laion2b_s32b_b82k\?"),
        ({"model": "ViT-B-32"}, r"no pretrained tag .*did you mean laion2b_s34b_b79k\?"),
        ({"pretrained": "openai"}, "another activation: use model: ViT-L-14-quickgelu"),
        ({"model": "/nowhere/model"}, "no folder /nowhere/model"),
        ({"pretrained": "/nowhere/model.pt"}, "no checkpoint at /nowhere/model.pt"),
    ],
)
def test_an_unknown_model_or_tag_is_refused_with_the_nearest(named, says):
    with pytest.raises(SettingsError, match=says):
        Embed(EmbedSettings(**named))


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"has no open_clip_config.json"):
        find_model(str(tmp_path))
    with pytest.raises(SettingsError, match="holds no weights"):
        find_model(folder_with(tmp_path, weights=False))
    with pytest.raises(SettingsError, match="holds its own weights: leave `pretrained` out"):
        Embed(EmbedSettings(model=str(clip_folder()), pretrained="openai"))


def test_weights_that_do_not_fit_the_architecture_are_one_line(tmp_path):
    folder = folder_with(tmp_path, change=lambda config: config.update(embed_dim=16))
    with pytest.raises(SettingsError, match=r"model model can't be loaded: .*size mismatch") as caught:
        load_model(find_model(folder), "cpu")
    assert "\n" not in str(caught.value)


def test_a_hub_out_of_reach_says_how_to_give_a_path(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("https_proxy", "HTTPS_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    stage = Embed(EmbedSettings())
    with pytest.raises(
        SettingsError, match=r"hub that can't be reached .*give `pretrained` the path of a local checkpoint"
    ):
        stage.check()
    with pytest.raises(SettingsError, match=r"hub that can't be reached .*give its folder as `model`"):
        find_model("hf-hub:someone/something")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SettingsError, match="HF_HUB_OFFLINE is set: give `pretrained` the path"):
        stage.check()


def test_without_open_clip_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'clipmill\[clip\]'"):
        find_model()


def test_a_gpu_that_is_not_there_is_told():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SettingsError, match="no GPU that torch can use"):
        load_model(find_model(str(clip_folder())), "cuda")


def test_planning_imports_neither_torch_nor_open_clip():
    code = (
        "import sys\n"
        "from stages.scores.embed import Embed\n"
        "from stages.scores.settings import EmbedSettings\n"
        "stage = Embed(EmbedSettings(model=sys.argv[1])); stage.check(); stage.versions(); stage.columns()\n"
        "try: EmbedSettings(model='ViT-L14') and Embed(EmbedSettings(model='ViT-L14'))\n"
        "except Exception as error: assert 'did you mean' in str(error)\n"
        "assert 'torch' not in sys.modules and 'open_clip' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(clip_folder())], check=True)


def test_open_clip_s_own_registry_is_what_was_read_from_its_source():
    import open_clip

    from stages.pretrained.open_clip_names import architectures, tags_of

    assert set(architectures()) == set(open_clip.list_models())
    for model in {model for model, _ in open_clip.list_pretrained()}:
        tags = {tag: open_clip.get_pretrained_cfg(model, tag) for tag in open_clip.list_pretrained_tags_by_model(model)}
        assert {tag: (bool(e.get("quick_gelu")), e["hf_hub"]) for tag, e in tags.items()} == tags_of(model), model
