"""What holds of an audit of any catalog: sums are exact, nothing unknown is 0, and its file can be read back."""

import json
import os
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.audit.figure import read_audit
from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate
from curate.catalog.ledger import Ledger
from curate.catalog.views import connect, query
from tests.catalog_rows import write_files
from tests.curate.audit.made import GATES, HOSTILE, Made, audit, gates, planted
from tests.curate.audit.recount import Recount, seconds
from tests.curate.running import clipmill

CONCEPTS = int(os.environ.get("CLIPMILL_CONCEPTS", "100000"))
FEW = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
NAMES = st.sampled_from([HOSTILE, "", " ", "'", '"', "\\", "NULL", "%s {0}", "日本 \u202e", "a" * 300, None])
VALUES = st.one_of(st.none(), st.floats(-1e300, 1e300), st.sampled_from([0.0, 0.25, 10.0, 245.0, -0.0, 1e-300]))


@st.composite
def catalogs(draw):
    made = Made(gates=gates(draw(st.sampled_from(["keep", "drop"]))) if draw(st.booleans()) else ())
    for number in range(draw(st.integers(0, 4))):
        count = draw(st.integers(0, 4))
        key = f"{number:032x}"
        made.sources.append(
            {"source_id": key, "uri": f"{number} {draw(NAMES)}", "status": "done" if count else "failed",
             "reason": draw(NAMES), "media": draw(st.sampled_from(["video", "image", None])), "clips": count,
             "duration_s": draw(st.one_of(st.none(), st.floats(0, 1e6))), "licence": draw(NAMES), "domain": draw(NAMES)}
        )  # fmt: skip
        for index in range(count):
            start = draw(st.floats(0, 1e5))
            length = draw(st.integers(0, 10**8)) / 1_000_000
            made.clips.append(
                {"clip_id": f"{number:016x}{index:016x}", "source_id": key, "media": "video", "start_s": start,
                 "end_s": start + length, "motion": draw(VALUES), "luma": draw(VALUES), "sharpness": None}
            )  # fmt: skip
    if made.clips and draw(st.booleans()):
        made.stages["clusters"] = [
            {"clip_id": c["clip_id"], "source_id": c["source_id"], "concept": n, "concept_name": draw(NAMES)}
            for n, c in enumerate(made.clips)
        ]
    return made


@FEW
@given(catalogs())
def test_the_funnel_sums_exactly_and_compositions_sum_to_all(made):
    with tempfile.TemporaryDirectory() as folder:
        catalog = made.write(Path(folder, "catalog"))
        found = audit(catalog, Path(folder, "audit"))
        rows = found.figure("funnel.clips").records()
        everything = sum((seconds(clip) for clip in made.clips), Fraction(0))
        lost = sum((Fraction(str(row["lost_seconds"])) for row in rows), Fraction(0))
        assert sum(row["lost_clips"] for row in rows) + rows[-1]["clips_left"] == len(made.clips)
        assert abs(lost + Fraction(str(rows[-1]["seconds_left"])) - everything) < Fraction(1, 1000)
        assert all(row["lost_clips"] >= 0 and row["clips_left"] >= 0 for row in rows)
        unknown = made.gates[0].unknown if made.gates else "keep"
        counted = Recount(catalog, list(GATES.values()) if made.gates else [], unknown)
        assert found.figure("totals.clips").value("kept_clips") == sum(clip["kept"] for clip in counted.clips)
        assert sum(found.figure("funnel.sources").column("sources")) == len(made.sources)
        here, beyond, none, in_clips = (Fraction(str(s)) for s in found.figure("funnel.hours").column("seconds"))
        assert abs(here + beyond - none - in_clips) < Fraction(1, 1000) and min(beyond, none) >= 0
        for figure in found.figures():
            if figure.id.startswith("composition.") and "share" in figure.columns:
                assert sum(figure.column("clips")) == len(made.clips), figure.id
                assert sum(figure.column("values")) == len(set(figure.column("value"))) or len(figure.rows) > 50
            assert figure.known == bool(figure.sql)
        json.loads(Path(folder, "audit/audit.json").read_text(), parse_constant=pytest.fail)  # no NaN


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(0, 10**6), st.sampled_from([0, 17]))
@FEW
def test_a_film_that_is_clips_from_end_to_end_has_no_time_less_than_none_outside_of_them(frames, first, missing):
    """Thirds of a second have no whole microseconds: 40 clips are up to 20 microseconds longer than their film."""
    made = Made(sources=[{"source_id": "f" * 32, "uri": "film.mp4", "status": "done", "media": "video",
                          "clips": len(frames), "duration_s": (sum(frames) + missing) / 24}])  # fmt: skip
    at = first
    for number, count in enumerate(frames):
        made.clips.append({"clip_id": f"{number:032x}", "source_id": "f" * 32, "media": "video", "start_s": at / 24,
                           "end_s": (at + count) / 24})  # fmt: skip
        at += count
    with tempfile.TemporaryDirectory() as folder:
        found = audit(made.write(Path(folder, "catalog")), Path(folder, "audit")).figure("funnel.hours")
    here, beyond, none, in_clips = (Fraction(str(value)) for value in found.column("seconds"))
    assert here + beyond == none + in_clips == max(here, in_clips)
    assert 0 <= beyond <= Fraction(len(frames) + 1, 10**6)
    assert abs(none - Fraction(missing, 24)) <= Fraction(len(frames) + 1, 10**6)


def test_an_empty_catalog_has_an_audit(tmp_path):
    found = audit(Made().write(tmp_path / "catalog"), tmp_path / "audit")
    assert found.figure("totals.clips").records()[0]["clips"] == 0
    assert found.figure("funnel.clips").records()[-1]["clips_left"] == 0
    assert not found.figure("signals.histogram.motion").known  # no value is known: not a bar of 0


def test_a_catalog_of_which_all_is_dropped_or_unknown(tmp_path):
    made = planted(sources=6)
    for clip in made.clips:
        clip["motion"], clip["luma"], clip["sharpness"] = 0.0, None, None
    found = audit(made.write(tmp_path / "catalog"), tmp_path / "audit")
    assert found.figure("totals.clips").value("kept_clips") == 0
    gate = found.figure("counterfactual.gates").records()
    assert [row["unknown_clips"] for row in gate] == [0, len(made.clips), 0]
    assert not found.figure("signals.histogram.luma").known
    quantiles = {row["signal"]: row for row in found.figure("signals.quantiles").records()}
    assert (quantiles["luma"]["known_clips"], quantiles["luma"]["q50"]) == (0, None)


def test_of_many_concepts_those_of_most_clips_have_rows_and_one_row_the_rest(tmp_path):
    made = planted(sources=50)
    rows = made.stages["clusters"]
    for number, row in enumerate(rows):
        row["concept"], row["concept_name"] = (number if number % 3 else 0), HOSTILE
    found = audit(made.write(tmp_path / "catalog"), tmp_path / "audit")
    figure = found.figure("composition.concept")
    assert len(figure.rows) == 51
    assert figure.rows[0][figure.columns.index("value")] == f"0 {HOSTILE}"
    assert figure.records()[-1]["values"] == len({row["concept"] for row in rows}) - 50
    assert sum(figure.column("clips")) == len(made.clips)
    assert sum(figure.column("share")) == pytest.approx(1)


@pytest.mark.slow
def test_an_audit_of_very_many_concepts_ends_and_stays_small(tmp_path):
    """Names that all differ, of concepts, domains, licences and clusters of duplicates: none gets a row for each."""
    sources, clips = CONCEPTS // 10, CONCEPTS
    numbers = np.arange(clips)
    ids, keys = (np.array([f"{n:032x}" for n in range(count)]) for count in (clips, sources))
    tables = {
        "clips": {"clip_id": ids, "source_id": keys[numbers % sources], "media": np.full(clips, "video"),
                  "start_s": numbers * 0.0, "end_s": 1 + numbers % 7 / 10, "motion": numbers % 1000 / 500},
        "sources": {"source_id": keys, "uri": np.char.add("s3://x/", keys), "status": np.full(sources, "done"),
                    "media": np.full(sources, "video"), "clips": np.full(sources, 10),
                    "domain": np.char.add(keys, ".example"), "licence": np.char.add("licence ", keys)},
        "clusters": {"clip_id": ids, "concept": numbers.astype(np.int32), "concept_name": np.char.add("name ", ids)},
        "duplicates": {"clip_id": ids, "duplicate_cluster": ids[numbers // 2], "duplicate_keep": numbers % 2 == 0,
                       "duplicate_kind": np.full(clips, "near")},
    }  # fmt: skip
    catalog = Catalog.open_or_create(str(tmp_path / "catalog"))
    catalog.put_gates("ingest", [Gate(name="g", where="motion >= 0.25")], None)
    for state, names in {
        "sources": ["clips", "sources"],
        "clusters": ["clusters"],
        "duplicates": ["duplicates"],
    }.items():
        with Ledger(catalog, state, "source_id" if state == "sources" else "clip_id", "made") as ledger:
            given = {name: pa.table(tables[name]) for name in names}
            writer = ledger.begin({name: rows.schema for name, rows in given.items()})
            ledger.commit(write_files(writer, given))
    done = clipmill("audit", "--catalog", tmp_path / "catalog", "-o", tmp_path / "audit")
    assert done.returncode == 0, done.stderr
    found = read_audit(tmp_path / "audit")
    assert (
        max(len(figure.rows) for figure in found.figures()) <= sources // 10
    )  # the tenth of the domains with most hours
    for column, values in (("concept", clips), ("domain", sources), ("licence", sources)):
        rows = found.figure(f"composition.{column}").records()
        assert (len(rows), rows[-1]["values"], sum(row["clips"] for row in rows)) == (51, values - 50, clips)
    largest = {path.name: path.stat().st_size for path in (tmp_path / "audit").iterdir()}
    assert largest["audit.json"] < 4 << 20 and largest["index.html"] < 4 << 20, largest
    assert "more rows are in audit.json" in (tmp_path / "audit/index.html").read_text()
    assert largest["eu_summary.md"] + largest["datasheet.md"] < 4 << 20, largest


def test_names_of_gates_and_conditions_can_be_anything(tmp_path):
    made = planted(sources=6)
    condition = f"motion > .25 OR '{HOSTILE.replace(chr(39), chr(39) * 2)}' = 'ö' -- > 7"
    made.gates = [Gate(name=HOSTILE, where=condition)]
    catalog = made.write(tmp_path / "catalog")
    found = audit(catalog, tmp_path / "audit")
    assert found.figure("counterfactual.gates").column("gate") == [f"ingest.{HOSTILE}"]
    with connect(Catalog.open(catalog)) as sql:
        for figure in found.figures():
            if figure.known:
                query(sql, found.runnable(figure))
    with connect(Catalog.open(catalog)) as sql:
        assert sql.execute("SELECT count(*) FROM clips").fetchall() == [(len(made.clips),)]
