"""Clips as files: what is chosen is there, whole, once, with its caption; what can't be made is told."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest

from curate.catalog.catalog import Catalog
from curate.cli.main import main
from curate.exports.clip_rows import ClipFileSettings
from curate.exports.clips import export_clips
from curate.storage import filesystem
from tests.curate.running import INLINE, PIPELINES, ask, ingest, make_folder, pipelines, run_recipes

CAPTIONS = """\
  captions:
    select: SELECT * FROM clips WHERE verdict = 'kept'
    stages:
      - caption: {source: manifest, manifest: {column: caption, sidecar: .txt}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(catalog, its kept clips by id) of four films with captions beside them, and one that is broken."""
    folder = tmp_path_factory.mktemp("made")
    films = make_folder(folder / "films", 4)
    for film in films.glob("film_*.mp4"):
        film.with_suffix(".txt").write_text(f"a square in {film.stem}, „grün“")
    file = pipelines(folder, PIPELINES + CAPTIONS)
    ingest(folder / "catalog", films, file=file)
    assert run_recipes(["captions"], str(folder / "catalog"), None, file, (), INLINE) == 0
    return folder / "catalog"


def export(catalog, output, *more):
    return main(["export", "--catalog", str(catalog), "-o", str(output), *map(str, more)])


def kept(catalog):
    rows = ask(catalog, "SELECT clip_id, uri, start_s, end_s, frames FROM clips WHERE verdict = 'kept' ORDER BY 1")
    assert len(rows) == 8
    return rows


def frames_of(data):
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


def span(uri, start, end):
    """The frames of a source with start <= time < end, decoded from its start."""
    with av.open(uri) as container:
        return [f.to_ndarray(format="gray") for f in container.decode(video=0) if start - 1e-6 <= f.time < end - 1e-6]


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_every_kept_clip_has_its_frames_its_caption_and_its_values(made, tmp_path, capsys):
    assert export(made, tmp_path / "out", "--clips") == 0
    assert capsys.readouterr().out.startswith(f"8 clips in {tmp_path / 'out'}: ")
    lines = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    clips = kept(made)
    assert [line["file_name"] for line in lines] == [f"{clip[0]}.mp4" for clip in clips]
    for line, (clip, uri, start, end, frames) in zip(lines, clips, strict=True):
        data = (tmp_path / "out" / f"{clip}.mp4").read_bytes()
        shown, wanted = frames_of(data), span(uri, start, end)
        assert len(shown) == len(wanted) == frames == line["file"]["frames"]
        apart = [np.abs(a.astype(int) - b).mean() for a, b in zip(shown, wanted, strict=True)]
        assert max(apart) == 0 if line["file"]["copied"] else max(apart) < 4
        caption = f"a square in {Path(uri).stem}, „grün“"
        assert (tmp_path / "out" / f"{clip}.txt").read_text() == f"{caption}\n"
        said = json.loads((tmp_path / "out" / f"{clip}.json").read_text())
        assert said == {name: value for name, value in line.items() if name != "file_name"}
        assert said["caption"] == caption
        [(motion, hashed)] = ask(
            made, f"SELECT motion, content_hash FROM clips JOIN sources USING (source_id) WHERE clip_id = '{clip}'"
        )
        assert (said["motion"], said["content_hash"]) == (motion, hashed)
    assert {line["file"]["copied"] for line in lines} == {True, False}
    assert len(names(tmp_path / "out")) == 3 * 8 + len(["export.json", "metadata.jsonl", "README.md"])


def test_a_folder_is_read_by_huggingface_datasets(made, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    assert export(made, tmp_path / "out", "--clips") == 0
    for where in (dict(path=str(tmp_path / "out")), dict(path="videofolder", data_dir=str(tmp_path / "out"))):
        rows = datasets.load_dataset(**where, split="train", cache_dir=str(tmp_path / "cache"))
        assert isinstance(rows.features["video"], datasets.Video)
        rows = rows.cast_column("video", datasets.Video(decode=False))
        assert sorted(row["clip_id"] for row in rows) == [clip[0] for clip in kept(made)]
        for row in rows:
            assert Path(row["video"]["path"]).name == f"{row['clip_id']}.mp4"
            assert row["caption"].startswith("a square in film_") and row["file"]["frames"] == 36
            assert isinstance(row["motion"], float)


def test_size_rate_and_selection_are_what_was_asked_for(made, tmp_path):
    select = "SELECT clip_id FROM clips WHERE uri LIKE '%film_1%' AND verdict = 'kept';"
    assert export(made, tmp_path / "out", "--clips", "--select", select, "--size", "64x32", "--fps", "12") == 0
    clips = [clip for clip in kept(made) if "film_1" in clip[1]]
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.mp4")) == [clip[0] for clip in clips]
    for path in (tmp_path / "out").glob("*.mp4"):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height, stream.average_rate, stream.frames) == (64, 32, 12, 18)
    said = json.loads((tmp_path / "out" / f"{clips[0][0]}.json").read_text())
    assert said["file"]["fps"] == 12 and not said["file"]["copied"]


@pytest.mark.parametrize(
    ("size", "picture", "shape"),
    [(None, (97, 61), (97, 61)), ("48", (96, 72), (64, 48)), ("480", (96, 72), (96, 72)), ("64x32", (96, 72), (64, 32)),
     ("48", (72, 96), (48, 64)), ("48", (97, 61), (76, 48))],
)  # fmt: skip
def test_sizes_keep_the_aspect_and_enlarge_nothing_unless_both_sides_are_named(size, picture, shape):
    assert ClipFileSettings(size=size).shape(*picture) == shape


KILLED = """
import os, signal, sys
from curate.cli.main import main
from curate.exports.folder import ExportFolder
publish, left = ExportFolder.publish, [int(sys.argv.pop(1))]
def publish_or_die(self, part, name):
    publish(self, part, name)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
ExportFolder.publish = publish_or_die
sys.exit(main())
"""


@pytest.mark.slow
def test_an_export_goes_on_where_it_was_killed_and_every_file_is_whole(made, tmp_path, capsys):
    arguments = ["export", "--catalog", str(made), "-o", str(tmp_path / "out"), "--clips", "--encode"]
    done = {}
    for after in (2, 3, 7, 4):  # files: between a clip's video and its JSON, and between two clips
        ended = subprocess.run([sys.executable, "-P", "-c", KILLED, str(after), *arguments], capture_output=True)
        assert ended.returncode == -signal.SIGKILL
        for path in (tmp_path / "out").glob("*.mp4"):
            assert len(frames_of(path.read_bytes())) == 36  # whole
        for path in (tmp_path / "out").glob("*.json"):
            json.loads(path.read_text())
            video = path.with_suffix(".mp4")
            if video.exists():
                assert done.setdefault(video, video.stat().st_mtime_ns) == video.stat().st_mtime_ns  # made once
    assert len(done) >= 3
    assert main(arguments) == 0
    assert f"{len(done)} there before" in capsys.readouterr().out
    assert {video: video.stat().st_mtime_ns for video in done} == done
    assert len(names(tmp_path / "out")) == 3 * 8 + 3
    assert not [name for name in names(tmp_path / "out") if name.startswith(".")]


@pytest.mark.slow
def test_more_clips_join_a_folder_and_changed_captions_are_renewed_without_a_decode(
    made, tmp_path, capsys, monkeypatch
):
    clips = [clip[0] for clip in kept(made)]
    some = f"SELECT clip_id FROM clips WHERE clip_id <= '{clips[2]}' AND verdict = 'kept'"
    catalog = Catalog.open(str(made))
    assert export_clips(catalog, str(tmp_path / "out"), some).there == 0
    report = export_clips(catalog, str(tmp_path / "out"))
    assert (report.there, report.copied + report.encoded, report.failed) == (3, 5, [])
    assert len((tmp_path / "out" / "metadata.jsonl").read_text().splitlines()) == 8
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.mp4")}
    monkeypatch.setattr("curate.exports.clip_pool.ClipFilePool._make", None)  # nothing is made
    report = export_clips(catalog, str(tmp_path / "out"), caption="uri")
    assert (report.there, report.renewed) == (8, 8)
    for clip, uri, *_ in kept(made):
        assert (tmp_path / "out" / f"{clip}.txt").read_text() == f"{uri}\n"
        assert json.loads((tmp_path / "out" / f"{clip}.json").read_text())["caption"] == uri
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.mp4")} == before
    assert f'"caption": "{kept(made)[0][1]}"' in (tmp_path / "out" / "metadata.jsonl").read_text()


def test_a_clip_that_can_not_be_made_is_named_and_the_others_are_there(made, tmp_path, capsys):
    lost = Path(kept(made)[0][1])
    hidden = lost.rename(lost.with_suffix(".away"))
    try:
        assert export(made, tmp_path / "out", "--clips") == 1
    finally:
        hidden.rename(lost)
    out, err = capsys.readouterr()
    gone = [clip for clip, uri, *_ in kept(made) if uri == str(lost)]
    assert len(gone) == 2 and "6 clips in" in out and "2 failed" in out
    for clip in gone:
        [line] = [line for line in err.splitlines() if line.startswith(clip)]
        assert "can't be opened: No such file" in line and str(lost) in line
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 6
    assert export(made, tmp_path / "out", "--clips") == 0  # it came back
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 8


def test_a_folder_that_holds_something_else_is_refused_in_one_line(made, tmp_path, capsys):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("mine")
    assert export(made, tmp_path / "used", "--clips") == 2
    assert "is not empty and holds no export (but 'thesis.txt')" in capsys.readouterr().err
    assert names(tmp_path / "used") == ["thesis.txt"]
    assert export(made, tmp_path / "out", "--clips") == 0
    before = names(tmp_path / "out")
    for more, said in ((["--clips", "--size", "32"], "of size none where this one has 32"),
                       (["--webdataset"], "of export clips where this one has webdataset")):  # fmt: skip
        capsys.readouterr()
        assert export(made, tmp_path / "out", *more) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert names(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--clips", "--size", "255"], "--size 255: a size is the shorter side"),
        (["--clips", "--fps", "0"], "--fps 0.0: "),
        (["--clips", "--select", "SELEC"], "--select: "),
        (["--clips", "--select", "SELECT 1 AS one"], "--select must give clip_id; it gives one"),
        (["--clips", "--select", "SELECT 'x' AS clip_id"], "--select gives no clips to export"),
        (["--clips", "--select", "SELECT clip_id FROM clips; SELECT 1"], "--select: "),
        (["--clips", "--caption", "captoin"], "--caption captoin: clips have no such column; did you mean caption?"),
        (["--clips", "--caption", "motion"], "--caption motion: that column is DOUBLE, no text; texts are caption"),
        (["--clips", "--table", "latents"], "--table names a table of latents"),
        (["--clips", "--shard-mb", "4"], "--shard-mb is the size of a tar"),
        (["--size", "256"], "settings of clips go with --clips or --webdataset"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(made, tmp_path, capsys, more, said):
    assert export(made, tmp_path / "out", *more) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_shards_are_read_by_webdataset_hold_each_clip_once_and_go_on(made, tmp_path, capsys):
    import webdataset

    clips = kept(made)
    some = f"SELECT clip_id FROM clips WHERE clip_id < '{clips[3][0]}' AND verdict = 'kept'"
    assert export(made, tmp_path / "out", "--webdataset", "--shard-mb", "1", "--select", some) == 0
    first = (tmp_path / "out" / "clips-000000.tar").read_bytes()
    assert export(made, tmp_path / "out", "--webdataset", "--shard-mb", "1") == 0
    assert "3 there before" in capsys.readouterr().out
    assert (tmp_path / "out" / "clips-000000.tar").read_bytes() == first  # published shards do not change
    shards = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    samples = {s["__key__"]: s for s in webdataset.WebDataset(shards, shardshuffle=False)}
    assert sorted(samples) == [clip[0] for clip in clips]
    members = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            members += tar.getnames()
    assert len(members) == 3 * 8
    for clip, uri, start, end, frames in clips:
        assert len(frames_of(samples[clip]["mp4"])) == len(span(uri, start, end)) == frames
        assert samples[clip]["txt"].decode() == f"a square in {Path(uri).stem}, „grün“"
        assert json.loads(samples[clip]["json"])["clip_id"] == clip
    listed = [
        json.loads(line)["clip_id"] for path in sorted((tmp_path / "out").glob("*.jsonl")) for line in path.open()
    ]
    assert sorted(listed) == [clip[0] for clip in clips]


@pytest.mark.slow
def test_a_shard_ends_at_its_size_and_the_same_clips_give_the_same_bytes(made, tmp_path):
    catalog = Catalog.open(str(made))
    settings = ClipFileSettings(copy_streams=False)
    for name in ("one", "two"):
        export_clips(catalog, str(tmp_path / name), None, settings, shard_mb=1)
    assert names(tmp_path / "one") == names(tmp_path / "two")
    for path in (tmp_path / "one").glob("*.tar"):
        with tarfile.open(path) as one, tarfile.open(tmp_path / "two" / path.name) as two:
            assert one.getnames() == two.getnames()
            for name in one.getnames():
                assert one.extractfile(name).read() == two.extractfile(name).read(), name
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_two_exports_into_one_folder_do_not_mix(made, tmp_path, capsys):
    from curate.exports.folder import ExportFolder

    with ExportFolder(str(tmp_path / "out"), {"export": "clips"}):
        assert export(made, tmp_path / "out", "--clips") == 2
    assert "another export is writing" in capsys.readouterr().err


def test_files_can_be_read_by_whom_the_umask_lets(made, tmp_path):
    before = os.umask(0o027)
    try:
        assert export(made, tmp_path / "out", "--clips") == 0
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o640}


@pytest.mark.slow
def test_clips_of_a_bucket_go_into_a_bucket(made, tmp_path, bucket):
    """Sources read from a store, files written to one, and an export that goes on there."""
    films = make_folder(tmp_path / "films", 1)
    fs, path = filesystem(f"{bucket}/films")
    fs.put_file(str(films / "film_0.mp4"), f"{path}/film_0.mp4")
    ingest(f"{bucket}/catalog", f"{bucket}/films", file=pipelines(tmp_path))
    assert export(f"{bucket}/catalog", f"{bucket}/out", "--clips") == 0
    fs, path = filesystem(f"{bucket}/out")
    there = sorted(name.rpartition("/")[2] for name in fs.ls(path, detail=False))
    clips = [name for name in there if name.endswith(".mp4")]
    assert len(clips) == 2 and "metadata.jsonl" in there
    for clip in clips:
        assert len(frames_of(fs.cat_file(f"{path}/{clip}"))) == 36
    fs.rm_file(f"{path}/{clips[0]}")
    report = export_clips(Catalog.open(f"{bucket}/catalog"), f"{bucket}/out")
    assert (report.there, report.copied + report.encoded) == (1, 1)
    assert export(f"{bucket}/catalog", f"{bucket}/out", "--clips", "--fps", "3") == 2
