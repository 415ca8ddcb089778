"""What holds of an audit of any catalog: sums are exact, nothing unknown is 0, and its file can be read back."""

import json
import tempfile
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.catalog.catalog import Catalog
from curate.catalog.gates import Gate
from curate.catalog.views import connect, query
from tests.curate.audit.made import GATES, HOSTILE, Made, audit, gates, planted
from tests.curate.audit.recount import Recount, seconds

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
        for figure in found.figures():
            if figure.id.startswith("composition.") and "share" in figure.columns:
                assert sum(figure.column("clips")) == len(made.clips), figure.id
                assert sum(figure.column("values")) == len(set(figure.column("value"))) or len(figure.rows) > 50
            assert figure.known == bool(figure.sql)
        json.loads(Path(folder, "audit/audit.json").read_text(), parse_constant=pytest.fail)  # no NaN


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
