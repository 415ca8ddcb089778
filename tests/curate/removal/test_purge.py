"""`clipmill purge`: nothing of what was purged is left in any file, and all else stays as it was."""

import json
import re
import shutil
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from curate.catalog.catalog import Catalog
from curate.catalog.views import connect
from curate.cli.main import main
from curate.datasets.files import open_dataset
from curate.datasets.pseudonyms import pseudonym
from curate.errors import UserError
from curate.loader.loader import Loader
from curate.removal.choose import Asked, choose
from curate.run.command import RunOptions, run_recipes
from curate.run.verify import verify
from stages.scan.purged import digest
from tests.curate.removal.searching import all_samples, files, holding, values_of
from tests.curate.running import INLINE, ask

pytestmark = pytest.mark.slow
OTHERS = "SELECT * EXCLUDE (shard, shard_hash, shard_bytes, index_hash) FROM clips ORDER BY clip_id"


def purge(made, *arguments):
    return main(["purge", "--catalog", str(made.catalog), *map(str, arguments)])


def ingest(made, *inputs, options=INLINE, sets=()):
    return run_recipes(["ingest"], str(made.catalog), [str(one) for one in inputs], made.recipes, sets, options)


def of_film(made, number):
    return f"uri = '{made.film(number)}'"


def test_nothing_of_a_purged_source_is_left_in_any_file_and_all_else_stays(made, capsys):
    dataset = made.dataset()
    values = values_of(made.catalog, of_film(made, 1))
    assert {name for name, _ in holding(values, made.catalog, made.datasets)} == set(values)
    (gone,) = ask(made.catalog, f"SELECT source_id, bytes FROM sources WHERE {of_film(made, 1)}")
    clips, sources = ask(made.catalog, OTHERS), ask(made.catalog, "SELECT * FROM sources ORDER BY source_id")
    pictures, before = ask(made.catalog, "SELECT * FROM thumbnails ORDER BY clip_id"), all_samples(made.catalog)
    shards = {path: content for path, content in files(made.catalog / "shards").items()}
    held = {row[0] for row in ask(made.catalog, f"SELECT DISTINCT shard FROM clips WHERE {of_film(made, 1)}")} - {None}

    assert purge(made, "--where", of_film(made, 1), "--yes") == 0

    assert holding(values, made.catalog, made.datasets) == set()
    logs = [content for path, content in files(made.catalog).items() if path.suffix == ".json"]
    assert logs and not any(str(gone[1]).encode() in content for content in logs if b"minValues" in content)
    at = [column for column, *_ in ask(made.catalog, "DESCRIBE clips")].index("source_id")
    assert ask(made.catalog, OTHERS) == [row for row in clips if row[at] != gone[0]]
    assert ask(made.catalog, "SELECT * FROM sources ORDER BY source_id") == [
        row for row in sources if row[0] != gone[0]
    ]
    assert ask(made.catalog, "SELECT * FROM thumbnails ORDER BY clip_id") == [r for r in pictures if r[1] != gone[0]]
    left = {clip for (clip,) in ask(made.catalog, "SELECT clip_id FROM clips")}
    assert all_samples(made.catalog) == {clip: fields for clip, fields in before.items() if clip in left}
    now = files(made.catalog / "shards")
    untouched = {path for path in shards if not any(str(path).startswith(str(made.catalog / s)[:-4]) for s in held)}
    assert untouched
    assert all(now[path] == shards[path] for path in untouched)
    assert verify(Catalog.open(str(made.catalog))) == []
    (record,) = (made.catalog / "_removals").iterdir()
    about = json.loads(record.read_text())
    assert about["sources"] == [digest(gone[0])]
    assert (about["found"], about["removed"]["sources"], about["removed"]["rows"]["latents"]) == (0, 1, 2)
    assert [one["folder"] for one in about["datasets"]] == [str(dataset)]
    assert "checkpoints" in " ".join(about["not purged"])
    assert ask(made.catalog, "SELECT kind, digest FROM removals") == [("source", digest(gone[0]))]


def test_a_dry_run_says_what_would_go_and_changes_no_byte(made, capsys):
    made.dataset()
    before = files(made.catalog, made.datasets)
    capsys.readouterr()
    assert purge(made, "--where", of_film(made, 0), "--dry-run") == 0
    said = capsys.readouterr().out
    for line in ("sources: 1", "clips: 3 ", "captions: 3", "embeddings: 3", "latents: 2", "2 of its 10 samples go"):
        assert line in said
    assert files(made.catalog, made.datasets) == before


def test_purged_sources_are_kept_out_under_every_name(made, tmp_path, capsys):
    inside = tmp_path / "more"
    inside.mkdir()
    film = made.film(2)
    assert purge(made, "--where", of_film(made, 2), "--yes") == 0
    shutil.copy(film, inside / "renamed.mp4")
    shutil.copy(made.film(3), inside / "fresh.mp4")
    with tarfile.open(inside / "archive.tar", "w") as archive:
        archive.add(film, "inside/again.mp4")
    before = ask(made.catalog, "SELECT count(*) FROM sources")
    capsys.readouterr()
    loud = RunOptions(engine="inline")
    for number in range(2):
        ingest(made, made.films, inside, options=loud)
        said = capsys.readouterr().out
        assert ("1 removed (purged); in this run" if number == 0 else "3 removed (purged); in this run") in said
        assert ("2 removed (purged), " in said) == (number == 0)  # read once, then known
        assert ask(made.catalog, "SELECT count(*) FROM sources") == [(before[0][0] + 1,)]
    assert ask(made.catalog, "SELECT kind, count(*) FROM removals GROUP BY 1 ORDER BY 1") == [
        ("copy", 2),
        ("source", 1),
    ]
    assert main(["status", "--catalog", str(made.catalog)]) == 0
    assert "5 done (0.005 hours), 1 failed, 0 pending, 3 removed (purged)" in capsys.readouterr().out
    ingest(made, made.films, inside, options=RunOptions(engine="inline", quiet=True, rebuild=True))
    assert ask(made.catalog, "SELECT count(*) FROM sources") == [(before[0][0] + 1,)]
    assert verify(Catalog.open(str(made.catalog))) == []


def test_a_purged_clip_does_not_come_back_however_its_source_is_cut(made, capsys):
    clip, start, end = ask(
        made.catalog, f"SELECT clip_id, start_s, end_s FROM clips WHERE {of_film(made, 0)} ORDER BY start_s"
    )[1]
    own = {name: value for name, value in values_of(made.catalog, f"clip_id = '{clip}'").items()
           if not name.startswith(("uri", "source", "content", "caption"))}  # fmt: skip
    assert purge(made, "--where", f"clip_id = '{clip}'", "--yes") == 0
    assert holding(own, made.catalog) == set()
    assert ask(made.catalog, f"SELECT clips FROM sources WHERE {of_film(made, 0)}") == [(2,)]
    assert verify(Catalog.open(str(made.catalog))) == []
    again = RunOptions(engine="inline", quiet=True, rebuild=True)
    ingest(made, made.films, options=again, sets=("cut.max_seconds=1.2", "cut.min_seconds=0.3"))
    spans = ask(made.catalog, f"SELECT start_s, end_s FROM clips WHERE {of_film(made, 0)}")
    assert spans
    assert all(not (a < end and start < b) for a, b in spans)
    assert verify(Catalog.open(str(made.catalog))) == []


def test_a_source_of_which_every_clip_is_purged_says_so_and_has_none_after_a_rebuild(made):
    assert purge(made, "--of", "clips", "--where", of_film(made, 4), "--yes") == 0
    for _ in range(2):
        found = ask(made.catalog, f"SELECT status, clips, reason FROM sources WHERE {of_film(made, 4)}")
        assert found == [("done", 0, "its clips were purged")]
        ingest(made, made.films, options=RunOptions(engine="inline", quiet=True, rebuild=True))


def test_a_list_takes_uris_ids_and_content_hashes(made, tmp_path, capsys):
    (source,) = ask(made.catalog, f"SELECT content_hash FROM sources WHERE {of_film(made, 1)}")
    (clip,) = ask(made.catalog, f"SELECT min(clip_id) FROM clips WHERE {of_film(made, 2)}")
    missing = tmp_path / "later.mp4"
    listed = tmp_path / "list.txt"
    listed.write_text(f"# a takedown\n{made.film(0)}\n\n{source[0]}\n{clip[0]}\n{missing}\n")
    capsys.readouterr()
    assert purge(made, "--from-file", listed, "--yes") == 0
    said = capsys.readouterr().out
    assert "sources: 2" in said
    assert "clips: 7" in said
    assert "not in the catalog, and kept out from now on: 1" in said
    shutil.copy(made.film(3), missing)
    ingest(made, made.films, missing)
    assert ask(made.catalog, "SELECT count(*) FROM sources WHERE status = 'done'") == [(3,)]


class Counting:
    """A connection that counts what is asked of it."""

    def __init__(self, sql):
        self.sql, self.asked = sql, 0

    def execute(self, *arguments):
        self.asked += 1
        return self.sql.execute(*arguments)


def test_a_list_of_any_length_is_looked_up_at_once_and_as_line_by_line(made):
    catalog = Catalog.open(str(made.catalog))
    known = ask(made.catalog, "SELECT source_id, uri, content_hash FROM sources ORDER BY 1")
    lines = [value for row in known[:3] for value in row if value] + [f"/nowhere/{n}.mp4" for n in range(400)]
    lines += [clip for (clip,) in ask(made.catalog, "SELECT clip_id FROM clips ORDER BY 1 LIMIT 3")]

    def chosen(some):
        with connect(catalog) as sql:
            counting = Counting(sql)
            plan, _ = choose(catalog, counting, Asked(lines=some))
        return counting.asked, {s.source_id for s in plan.sources}, {c.clip_id for c in plan.clips}, set(plan.named)

    asked, sources, clips, unknown = chosen(lines)
    assert asked == chosen(lines[:1])[0]
    single = [chosen([line, known[4][0]]) for line in lines[:9] + lines[-3:]]  # each beside one that is there
    beside = chosen([known[4][0]])
    assert sources == set().union(*(each[1] for each in single)) - (beside[1] - sources)
    assert clips == set().union(*(each[2] for each in single)) - (beside[2] - clips)
    assert len(unknown) == 400


def test_a_list_from_another_system_is_read_to_its_last_line(made, tmp_path, capsys):
    (source,) = ask(made.catalog, f"SELECT source_id, content_hash FROM sources WHERE {of_film(made, 1)}")
    (other,) = ask(made.catalog, f"SELECT content_hash FROM sources WHERE {of_film(made, 2)}")
    listed = tmp_path / "list.txt"
    lines = [str(made.film(0)), "", source[0].upper(), "  ", other[0].upper(), "name with\x1b[31m.mp4", "inv\udcff.mp4"]
    listed.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode("utf-8", "surrogateescape"))
    capsys.readouterr()
    assert purge(made, "--from-file", listed, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "sources: 3" in said
    assert "kept out from now on: 2\n" in said
    assert "name with\\x1b[31m.mp4" in said
    listed.write_text("/a.mp4\n", encoding="utf-16")
    assert purge(made, "--from-file", listed, "--yes") == 2
    assert "no text in UTF-8" in capsys.readouterr().err


def test_a_list_of_what_never_came_keeps_it_out(made, tmp_path, capsys):
    before = ask(made.catalog, "SELECT * FROM clips ORDER BY clip_id")
    later, listed = tmp_path / "later.mp4", tmp_path / "list.txt"
    listed.write_text(f"{later}\n")
    assert purge(made, "--from-file", listed, "--yes") == 0
    assert f"  {later}\n" in capsys.readouterr().out
    shutil.copy(made.film(3), later)
    ingest(made, made.films, later)
    assert ask(made.catalog, "SELECT * FROM clips ORDER BY clip_id") == before
    assert verify(Catalog.open(str(made.catalog))) == []


def test_copies_that_are_in_the_catalog_go_too(made, tmp_path):
    shutil.copy(made.film(3), tmp_path / "twin.mp4")
    ingest(made, tmp_path / "twin.mp4")
    assert purge(made, "--where", of_film(made, 3), "--yes") == 0
    assert ask(made.catalog, f"SELECT count(*) FROM sources WHERE uri LIKE '%twin%' OR {of_film(made, 3)}") == [(0,)]


def test_near_duplicates_are_shown_and_their_judgement_is_made_again(made, tmp_path, capsys):
    shutil.copy(made.film(3), tmp_path / "twin.mp4")
    with open(tmp_path / "twin.mp4", "ab") as file:
        file.write(bytes(8))  # the same pictures in other bytes
    run_recipes(["ingest", "unique"], str(made.catalog), [str(tmp_path / "twin.mp4")], made.recipes, (), INLINE)
    capsys.readouterr()
    assert purge(made, "--where", of_film(made, 3), "--dry-run") == 0
    said = capsys.readouterr().out
    assert "clips that stay are duplicates of what goes" in said
    assert str(tmp_path / "twin.mp4") in said
    ids = [one for row in ask(made.catalog, f"SELECT clip_id FROM clips WHERE {of_film(made, 3)}") for one in row]
    assert purge(made, "--where", of_film(made, 3), "--yes") == 0
    assert holding({one: one.encode() for one in ids}, made.catalog) == set()
    run_recipes(["unique"], str(made.catalog), None, made.recipes, (), INLINE)
    assert ask(made.catalog, "SELECT count(*) FROM clips WHERE duplicate_keep IS NOT TRUE") == [(0,)]


def test_a_dataset_is_retired_and_its_successor_has_the_same_samples_in_the_same_order(made):
    old = made.dataset()
    other = made.dataset("other", f"SELECT clip_id FROM clips WHERE {of_film(made, 2)}")
    index = pq.read_table(old / "index.parquet")
    gone = {clip for (clip,) in ask(made.catalog, f"SELECT clip_id FROM clips WHERE {of_film(made, 1)}")}
    kept = [clip for clip in index["clip_id"].to_pylist() if clip not in gone]
    with Loader(old, batch_size=1, text=None) as loader:
        before = {clip: batch for clip, batch in _samples(loader, index.num_rows)}
    assert purge(made, "--where", of_film(made, 1), "--yes") == 0
    with pytest.raises(UserError, match=r"was retired on .* 2 of its 10 samples were purged .* start a new run on its"):
        Loader(old, batch_size=1, text=None)
    retired = pq.read_table(old / "index.parquet")
    hidden = [pseudonym(clip) if clip in gone else clip for clip in index["clip_id"].to_pylist()]
    assert retired["clip_id"].to_pylist() == hidden
    for name in ("bucket", "weight", "seconds", "shard"):
        assert retired[name].equals(index[name])
    successor = open_dataset(open_dataset(old).retired["successor"])
    assert successor.about["parent"]["name"] == "all"
    assert successor.columns(["clip_id"])["clip_id"].to_pylist() == kept
    with Loader(successor, batch_size=1, text=None, verify="always") as loader:
        after = {clip: batch for clip, batch in _samples(loader, len(kept))}
    assert set(after) == set(kept)
    assert all(np.array_equal(after[clip], before[clip]) for clip in kept)
    twin = open_dataset(other)  # held none of them: retired only where it shared a shard
    if twin.retired is not None:
        assert twin.retired["purged"] == 0
        assert open_dataset(twin.retired["successor"]).samples == twin.samples


def _samples(loader, count):
    for _ in range(count):
        batch = next(loader)
        yield batch.clip_ids[0], batch.latents["mean"].numpy().copy()


def test_a_dataset_of_the_catalog_that_this_one_was_copied_from_is_not_retired(made, tmp_path, capsys):
    old = made.dataset()
    before = files(old)
    copy = shutil.copytree(made.catalog, tmp_path / "copy")
    assert main(["purge", "--catalog", str(copy), "--where", of_film(made, 1), "--yes"]) == 0
    assert f"reads the shards of {made.catalog}: purge that catalog too" in capsys.readouterr().out
    assert files(old) == before


def test_a_dataset_that_is_not_there_is_listed_as_not_purged(made, capsys):
    shutil.rmtree(made.dataset())
    assert purge(made, "--where", of_film(made, 1), "--yes") == 0
    assert "on this machine (it will lack shards)" in capsys.readouterr().out
    (record,) = (made.catalog / "_removals").iterdir()
    assert "the dataset all, which is not in" in json.loads(record.read_text())["not purged"][0]


def test_nothing_is_left_of_a_dataset_that_held_purged_clips_alone(made):
    old = made.dataset("only", f"SELECT clip_id FROM clips WHERE {of_film(made, 1)}")
    assert purge(made, "--where", of_film(made, 1), "--yes") == 0
    assert [path.name for path in made.datasets.iterdir()] == ["only"]
    with pytest.raises(UserError, match="nothing of it is left"):
        Loader(old, batch_size=1, text=None)


def test_caches_that_hold_it_are_emptied(made, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ((clip, digest_of, shard),) = ask(
        made.catalog, f"SELECT min(clip_id), min(shard_hash), min(shard) FROM clips WHERE {of_film(made, 1)}"
    )
    others = {h for (h,) in ask(made.catalog, f"SELECT shard_hash FROM clips WHERE NOT {of_film(made, 1)}")} - {None}
    answers = made.catalog / "_answers" / "captions"
    answers.mkdir(parents=True)
    (answers / f"{clip}.json").write_text("{}")
    (answers / f"{'0' * 32}.json").write_text("{}")
    for folder in (tmp_path / "cache" / "clipmill" / "shards", tmp_path / "mine"):
        folder.mkdir(parents=True)
        for one in {digest_of, *others}:
            (folder / f"{one}-16777216-0").write_bytes((made.catalog / shard).read_bytes())
    assert purge(made, "--where", of_film(made, 1), "--yes", "--cache", tmp_path / "mine") == 0
    assert [path.name for path in answers.iterdir()] == [f"{'0' * 32}.json"]
    now = {h for (h,) in ask(made.catalog, "SELECT shard_hash FROM clips")}
    for folder in (tmp_path / "cache" / "clipmill" / "shards", tmp_path / "mine"):
        assert {path.name.partition("-")[0] for path in folder.iterdir()} == others & now


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--where", "uri = 'nobody'"], "nothing in .* matches WHERE uri = 'nobody'"),
        (["--where", "uri ="], "--where: Parser Error"),
        (["--where", " "], "one condition"),
        (["--where", "bytes"], "one condition"),
        (["--where", "1/0"], "one condition"),
        (["--where", "nonsense > 1"], "--where: .*nonsense"),
        (["--where", "true) OR (true"], None),
        (["--where", "1=1); DROP TABLE x; SELECT (1"], "--where"),
        (["--where", "true", "--from-file", "x"], "not both"),
        (["--from-file", "nowhere.txt"], "nowhere.txt: No such file"),
        ([], "no purge of this catalog was interrupted"),
        (["--where", "true"], "say --yes"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(made, arguments, line, capsys):
    before = files(made.catalog)
    assert purge(made, *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    if line is not None:
        assert re.search(line, error)
    assert files(made.catalog) == before
