"""Captions, crop box or conditions made anew after encoding: found by every command, and encoded again no more than
needed. The sources are deleted before the run wherever no video may be decoded."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from curate.catalog.catalog import Catalog
from curate.cli.main import main
from curate.loader import Loader
from curate.shards.kept import dataset_notes, noted
from stages.shards.format import read_header, read_index, read_sample
from tests.clip_model import clip_folder
from tests.curate.running import ask
from tests.hostile import moving_square, write_video
from tests.vae_models import vae_folder

pytestmark = pytest.mark.slow

FILMS = 3
RECIPES = """\
recipes:
  ingest:
    stages: [probe: {min_seconds: 0.5}, cut: {min_seconds: 1, max_seconds: 20}, measure: %(measure)s]
  captions:
    select: SELECT * FROM clips WHERE verdict = 'kept'
    stages: [caption: {manifest: {sidecar: .txt}}, caption: {as: short, manifest: {sidecar: .json}}]
  latents:
    select: SELECT * FROM clips WHERE verdict = 'kept'
    stages: [encode: %(encode)s]
"""


class Place:
    """A folder with films of one clip each, their captions beside them, and a catalog; commands as users give them."""

    def __init__(self, folder: Path, vae: Path):
        self.folder, self.films, self.catalog = folder, folder / "films", folder / "catalog"
        self.encode = {"vae": str(vae), "buckets": ["9x32x48"], "fps": 8, "max_upscale": 2, "shard_clips": 10}
        self.encode |= {"text": {"model": str(clip_folder()), "captions": ["caption"]}}
        self.measure = ["motion"]

    def draw(self) -> None:
        self.films.mkdir(parents=True)
        for number in range(FILMS):
            write_video(self.films / f"film_{number}.mp4", film(number))
            self.caption(number, f"take {number}", f"{number}")

    def caption(self, number: int, text: str, short: str) -> None:
        (self.films / f"film_{number}.txt").write_text(text)
        (self.films / f"film_{number}.json").write_text(json.dumps({"caption": short}))

    def run(self, *arguments: str) -> int:
        file = self.folder / "pipelines.yaml"
        file.write_text(RECIPES % {"measure": json.dumps(self.measure), "encode": json.dumps(self.encode)})
        options = ["--catalog", str(self.catalog), "--pipelines", str(file)]
        if "--engine" not in arguments:
            options += ["--engine", "inline"]
        return main(["run", *arguments, *options])

    def ask(self, command: str, *arguments: str) -> int:
        return main([command, *arguments, "--catalog", str(self.catalog)])

    def freeze(self, name: str) -> int:
        select = ["--select", "SELECT clip_id FROM clips", "-o", str(self.folder / "datasets")]
        return self.ask("dataset", "create", name, *select)

    def ids(self) -> list[str]:
        """The clip of each film, in their order."""
        return [clip for (clip,) in ask(self.catalog, "SELECT clip_id FROM clips ORDER BY uri")]

    def row(self, clip: str) -> dict:
        names = ["shard", "captions_hash", "crop_hash", "window_hash", "conditions_hash", "decode_psnr"]
        (values,) = ask(self.catalog, f"SELECT {', '.join(names)} FROM latents WHERE clip_id = '{clip}'")
        return dict(zip(names, values, strict=True))

    def sample(self, clip: str) -> dict:
        shard = str(self.catalog / self.row(clip)["shard"])
        return read_sample(shard, [row for row in read_index(shard).to_pylist() if row["clip_id"] == clip])

    def shards(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.catalog)): path.read_bytes() for path in self.catalog.rglob("*.tar")}

    def lose_sources(self, *numbers: int) -> None:
        for number in numbers or range(FILMS):
            (self.films / f"film_{number}.mp4").unlink()


def film(number: int):
    """A square over a gradient; of the second film the upper and lower fifth are black bars."""
    for index, frame in enumerate(moving_square(36, 96, 72)):
        picture = np.roll(frame, 7 * number + index, axis=1)
        if number == 1:
            picture[:14] = picture[-14:] = 0
        yield picture


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """A place whose films are ingested, captioned and encoded; the VAE lies beside it."""
    folder = tmp_path_factory.mktemp("changed")
    place = Place(folder / "place", vae_folder(folder / "vae"))
    place.draw()
    assert place.run("ingest", "--input", str(place.films)) == 0
    assert place.run("captions") == place.run("latents") == 0
    return place


@pytest.fixture
def place(encoded, tmp_path):
    """A copy of it, at the same path for the sources' sake, put back afterwards."""
    shutil.copytree(encoded.folder, tmp_path / "kept")
    yield encoded
    shutil.rmtree(encoded.folder)
    shutil.copytree(tmp_path / "kept", encoded.folder)
    encoded.measure, encoded.encode["text"] = ["motion"], {"model": str(clip_folder()), "captions": ["caption"]}
    encoded.encode.pop("conditions", None)


def test_a_changed_caption_is_named_by_verify_dataset_create_and_status_with_what_mends_it(place, capsys):
    assert place.ask("verify") == 0 and place.freeze("before") == 0
    assert "changed" not in capsys.readouterr().err
    place.caption(1, "another text", "1")
    assert place.run("captions", "--rebuild") == 0
    capsys.readouterr()
    _, clip, _ = place.ids()
    line = (
        f"latents: 1 clip has changed since encoding (captions of 1), such as {clip}: "
        f"`clipmill run latents --catalog {place.catalog}` encodes it again, without decoding video"
    )
    assert place.ask("verify") == 1
    assert line in capsys.readouterr().out
    assert place.ask("status") == 0
    assert line in capsys.readouterr().out
    assert place.freeze("after") == 0
    assert f"note: {line}; this dataset holds them as they were" in capsys.readouterr().err
    changed = [json.loads((place.folder / "datasets" / n / "dataset.json").read_text())["changed"]
               for n in ("before", "after")]  # fmt: skip
    assert changed == [{}, {"captions": 1}]
    assert place.run("latents") == 0
    capsys.readouterr()
    assert place.ask("verify") == 0 and place.ask("status") == 0 and place.freeze("mended") == 0
    told = capsys.readouterr()
    assert "since encoding" not in told.out + told.err


def test_a_changed_caption_costs_one_text_and_no_video(place, seen, capsys):
    first, clip, last = place.ids()
    before, rows, shards = place.sample(clip), {c: place.row(c) for c in (first, clip, last)}, place.shards()
    place.caption(1, "another text", "1")
    place.run("captions", "--rebuild")
    place.lose_sources()
    assert place.run("latents") == 0
    assert "captions of 1" in capsys.readouterr().err
    assert seen == {"texts": ["another text"], "videos": 0}
    now, row = place.sample(clip), place.row(clip)
    assert now["json"]["captions"] == {"caption": "another text"}
    assert {**now["json"], "captions": 0} == {**before["json"], "captions": 0}
    assert now["mean"].tobytes() == before["mean"].tobytes() and now["logvar"].tobytes() == before["logvar"].tobytes()
    assert now["text"].tobytes() != before["text"].tobytes()
    assert len(now["text_mask"]) == len(now["text"])
    different = {name for name in row if row[name] != rows[clip][name]}
    assert different == {"shard", "captions_hash"}
    assert {c: place.row(c) for c in (first, last)} == {c: rows[c] for c in (first, last)}
    ((old, content),) = shards.items()
    assert place.shards()[old] == content and len(place.shards()) == 2
    with tarfile.open(place.catalog / row["shard"]) as tar:
        assert {name.split(".")[0] for name in tar.getnames() if not name.startswith("__")} == {clip}
    made = place.shards()
    assert place.run("latents") == 0 and place.shards() == made  # nothing is left to do
    assert seen == {"texts": ["another text"], "videos": 0}


def test_a_recorded_psnr_goes_with_its_latents(place):
    (clip,) = (clip for clip in place.ids() if place.row(clip)["decode_psnr"] is not None)
    psnr = place.row(clip)["decode_psnr"]
    for number in range(FILMS):
        place.caption(number, f"new {number}", "x")
    place.run("captions", "--rebuild")
    assert place.run("latents") == 0
    assert place.row(clip)["decode_psnr"] == psnr
    header = read_header(str(place.catalog / place.row(clip)["shard"]))
    assert header["decode_psnr"] == {clip: psnr} and header["vae_dtype"] == "float32"
    assert len(place.shards()) == 1  # no row names the old one any more
    assert place.ask("verify") == 0


def test_a_condition_that_changes_costs_neither_text_nor_video(place, seen):
    place.encode["conditions"] = ["short_caption_words"]
    assert place.run("latents", "--rebuild") == 0
    clip = place.ids()[1]
    before = place.sample(clip)
    place.caption(1, "take 1", "now of four words")
    place.run("captions", "--rebuild")
    place.lose_sources()
    seen["texts"].clear()
    seen["videos"] = 0
    assert place.run("latents") == 0
    now = place.sample(clip)
    assert (before["json"]["conditions"], now["json"]["conditions"]) == (
        {"short_caption_words": 1.0}, {"short_caption_words": 4.0},
    )  # fmt: skip
    for name in ("mean", "logvar", "text", "text_mask"):
        assert now[name].tobytes() == before[name].tobytes()
    assert seen == {"texts": [], "videos": 0}


def test_a_changed_crop_box_has_that_clip_alone_decoded_again(place, seen, capsys):
    first, clip, last = place.ids()
    before, others = place.sample(clip), [place.row(first), place.row(last)]
    assert before["json"]["letterbox"] is None
    place.measure = ["motion", "letterbox"]
    assert place.run("ingest", "--input", str(place.films), "--rebuild") == 0
    place.lose_sources(0, 2)
    capsys.readouterr()
    assert place.ask("verify") == 1
    assert f"1 clip has changed since encoding (crop of 1), such as {clip}" in capsys.readouterr().out
    assert place.run("latents") == 0
    now = place.sample(clip)
    assert now["json"]["letterbox"][3] == 44 and now["json"]["crop"][1] >= 14
    assert now["mean"].tobytes() != before["mean"].tobytes()
    assert seen["videos"] == 1 and len(seen["texts"]) == 1
    assert [place.row(first), place.row(last)] == others


def test_with_letterbox_off_a_crop_box_changes_nothing(place, seen):
    place.encode["letterbox"] = False
    try:
        assert place.run("latents", "--rebuild") == 0
        assert place.row(place.ids()[1])["crop_hash"] is None
        place.measure = ["motion", "letterbox"]
        place.run("ingest", "--input", str(place.films), "--rebuild")
        made = place.shards()
        assert place.run("latents") == 0 and place.shards() == made
    finally:
        del place.encode["letterbox"]


def test_new_columns_are_no_change_of_what_was_encoded(place):
    place.measure = ["motion", "exposure"]
    assert place.run("ingest", "--input", str(place.films), "--rebuild") == 0
    made = place.shards()
    assert place.run("latents") == 0 and place.shards() == made


def test_a_clip_without_its_caption_is_unfit_and_the_run_after_it_has_one_takes_it(place, capsys):
    clip = place.ids()[1]
    place.caption(1, "", "")
    place.run("captions", "--rebuild")
    assert place.run("latents") == 0
    [(found, reason)] = ask(place.catalog, "SELECT clip_id, reason FROM latents WHERE status = 'unfit'")
    assert found == clip and reason.startswith("no caption in column 'caption'; a run after it has one takes it")
    place.caption(1, "back again", "1")
    place.run("captions", "--retry-failed")
    capsys.readouterr()
    assert place.run("latents") == 0
    assert "3 clips selected, 1 taken" in capsys.readouterr().out
    assert place.sample(clip)["json"]["captions"] == {"caption": "back again"}
    assert place.ask("verify") == 0


def test_clips_shorter_than_every_bucket_are_counted_as_unfit_with_the_fix_and_not_taken_again(place, capsys):
    place.encode["buckets"] = ["17x32x48"]
    try:
        assert place.run("latents", "--rebuild") == 0
        said = capsys.readouterr().out
        assert "shorter than the shortest bucket, 17 frames at 8 fps; add a shorter one, or select only" in said
        assert "WHERE end_s - start_s >= 2.125" in said
        assert "3 clips unfit for latents, 3 of them in this run" in said and "--retry-failed" not in said
        assert place.run("latents") == 0
        said = capsys.readouterr().out
        assert "3 clips selected, 0 taken" in said and "3 clips unfit for latents, 0 of them in this run" in said
        assert place.ask("status") == 0
        said = capsys.readouterr().out
        assert next(line.split() for line in said.splitlines() if line.startswith("│ latents")) == [
            "│", "latents", "│", "0", "│", "0", "│", "3", "│", "3", "│"
        ]  # fmt: skip
        assert "shorter than the shortest bucket" in said
        assert place.ask("verify") == 0
    finally:
        place.encode["buckets"] = ["9x32x48"]


def test_a_damaged_shard_costs_its_clip_a_decode_and_never_goes_on(place, seen):
    clip = place.ids()[1]
    shard = place.catalog / place.row(clip)["shard"]
    place_of = {row["field"]: row["offset"] for row in read_index(str(shard)).to_pylist() if row["clip_id"] == clip}
    content = bytearray(shard.read_bytes())
    content[place_of["mean"] + 3] ^= 1
    shard.write_bytes(content)
    place.caption(1, "another text", "1")
    place.run("captions", "--rebuild")
    assert place.run("latents") == 1
    ((reason,),) = ask(place.catalog, "SELECT reason FROM latents WHERE status = 'failed'")
    assert "its latents can't be copied" in reason and f"the field mean of clip {clip} is damaged" in reason
    assert place.run("latents", "--retry-failed") == 0
    assert seen["videos"] == 1 and place.sample(clip)["json"]["captions"] == {"caption": "another text"}


def test_a_dataset_made_before_reads_what_it_was_made_of_until_its_note_is_deleted(place, capsys):
    """Every caption changes, so that no row names the old shard any more."""
    assert place.freeze("old") == 0
    old = place.shards()
    for number in range(FILMS):
        place.caption(number, f"new {number}", "x")
    place.run("captions", "--rebuild")
    assert place.run("latents") == 0 and set(old) < set(place.shards())
    folder = place.folder / "datasets" / "old"
    with Loader(folder, batch_size=FILMS) as loader:
        assert next(loader).latents["mean"].shape[0] == FILMS
    capsys.readouterr()
    assert place.ask("verify") == 0
    (note,) = (place.catalog / "_datasets").iterdir()
    said = capsys.readouterr().out
    assert f"3 of 3 samples of the dataset {folder} are replaced in the catalog" in said
    assert f"which {note} keeps" in said and "no row names" in said and "datasets keep them" in said
    shutil.rmtree(folder)
    assert place.ask("verify") == 0
    assert f"the dataset old is not in {folder} on this machine; {note} keeps its 1 shards" in capsys.readouterr().out
    note.unlink()
    assert place.run("latents") == 0
    assert len(place.shards()) == 1 and not set(old) & set(place.shards())


def test_a_dataset_that_was_made_in_part_is_named_with_how_much_of_it_is_replaced(place, capsys):
    assert place.freeze("old") == 0
    place.caption(1, "another text", "1")
    place.run("captions", "--rebuild")
    place.run("latents")
    capsys.readouterr()
    assert place.ask("verify") == 0
    assert "1 of 3 samples of the dataset" in capsys.readouterr().out


def test_a_dataset_that_fails_leaves_no_note(place, capsys):
    select = ["--select", "SELECT clip_id FROM clips", "--weight", "0", "-o", str(place.folder / "datasets")]
    assert place.ask("dataset", "create", "none", *select) == 2
    assert "--weight '0' gives 0 for every clip" in capsys.readouterr().err
    assert list((place.catalog / "_datasets").iterdir()) == []


def test_latents_in_a_bucket_are_copied_without_their_sources(place, bucket, seen):
    clip, local = place.ids()[1], place.catalog
    before = place.sample(clip)
    place.catalog = f"{bucket}/catalog"
    try:
        where = Catalog(place.catalog)
        where.fs.put(f"{local}/", f"{where.path}/", recursive=True)
        place.caption(1, "another text", "1")
        place.run("captions", "--rebuild")
        place.lose_sources()
        assert place.run("latents") == 0
        assert seen == {"texts": ["another text"], "videos": 0}
        ((shard,),) = ask(place.catalog, f"SELECT shard FROM latents WHERE clip_id = '{clip}'")
        now = read_sample(f"{place.catalog}/{shard}", read_index(f"{place.catalog}/{shard}"))
        assert now["mean"].tobytes() == before["mean"].tobytes()
        assert now["json"]["captions"] == {"caption": "another text"}
        with noted(where, Path("a dataset"), [shard]):
            assert [note.shards for note in dataset_notes(where)] == [(shard,)]
    finally:
        place.catalog = local


@pytest.mark.ray
def test_workers_of_ray_copy_latents_too(place):
    before = {clip: place.sample(clip) for clip in place.ids()}
    for number in range(FILMS):
        place.caption(number, f"new {number}", "x")
    place.run("captions", "--rebuild")
    place.lose_sources()
    assert place.run("latents", "--engine", "ray") == 0
    for number, (clip, sample) in enumerate(before.items()):
        now = place.sample(clip)
        assert now["json"]["captions"] == {"caption": f"new {number}"}
        assert now["mean"].tobytes() == sample["mean"].tobytes()
