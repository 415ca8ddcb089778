"""An audit of a dataset, what leaks between datasets, and the SQL and the file of any audit."""

import json

import pytest

from curate.audit.figure import plain_cell, read_audit
from curate.catalog.catalog import Catalog
from curate.catalog.views import connect, query
from curate.training.held_out import held_out_ids
from tests.curate.audit.recount import seconds


def test_leakage(whole, counted, made):
    held = held_out_ids({clip["source_id"] for clip in counted.clips}, 0.3, 8)
    rows = {(r["one"], r["other"], r["kind"]): r for r in whole.figure("leakage.shared").records()}
    parts = {"trained on": [c for c in counted.clips if c["source_id"] not in held]}
    parts["held out"] = [c for c in counted.clips if c["source_id"] in held]
    other = set(list(made[5])[:9])
    parts["second dataset"] = [c for c in counted.clips if c["clip_id"] in other]

    def cluster(clip, kinds):
        kind = counted.of("duplicates", clip, "duplicate_kind")
        return counted.of("duplicates", clip, "duplicate_cluster") if kind in kinds else None

    keys = {
        "the clip": lambda clip: clip["clip_id"],
        "the source": lambda clip: clip["source_id"],
        "a source of the same bytes": lambda clip: counted.sources[clip["source_id"]]["content_hash"],
        "exact duplicates": lambda clip: cluster(clip, ["exact"]),
        "duplicates of any kind": lambda clip: cluster(clip, ["exact", "near"]),
    }
    for (one, two, kind), row in rows.items():
        if kind not in keys:
            continue
        shared = {keys[kind](c) for c in parts[one]} & {keys[kind](c) for c in parts[two]} - {None}
        assert row["shared"] == len(shared), (one, two, kind)
        assert row["one_clips"] == sum(keys[kind](c) in shared for c in parts[one])
        assert row["other_clips"] == sum(keys[kind](c) in shared for c in parts[two])
        assert row["other_share"] == pytest.approx(row["other_clips"] / len(parts[two]))
    assert rows["trained on", "held out", "the source"]["shared"] == 0
    assert rows["trained on", "held out", "exact duplicates"]["shared"] > 0
    assert rows["held out", "second dataset", "the clip"]["shared"] > 0
    found = {row["part"]: row["clips"] for row in whole.figure("leakage.parts").records()}
    assert found == {name: len(clips) for name, clips in parts.items()}


def test_composition_after_weights(weighed, counted, made):
    weights = made[5]
    clips = [clip for clip in counted.clips if clip["clip_id"] in weights]
    row = weighed.figure("weights.samples").records()[0]
    values = list(weights.values())
    assert (row["samples"], row["of_weight_0"], row["weight"]) == (len(values), values.count(0.0), sum(values))
    assert row["effective_samples"] == pytest.approx(sum(values) ** 2 / sum(value**2 for value in values))
    drawn = sum(weights[c["clip_id"]] * float(seconds(c)) for c in clips) / sum(values)
    assert row["drawn_seconds_mean"] == pytest.approx(drawn)
    found = [r for r in weighed.figure("weights.composition").records() if r["by_column"] == "licence"]
    for row in found:
        of = [c for c in clips if counted.sources[c["source_id"]]["licence"] == row["value"]]
        assert row["clips"] == len(of)
        assert row["stored_share"] == pytest.approx(len(of) / len(clips))
        assert row["drawn_share"] == pytest.approx(sum(weights[c["clip_id"]] for c in of) / sum(values))
    figure = weighed.figure("composition.licence")
    assert sum(figure.column("weighted_share")) == pytest.approx(1)
    assert not made[3].figure("weights.composition").known


def test_the_funnel_of_a_dataset_ends_at_the_trainer(weighed, counted, made):
    weights = made[5]
    rows = weighed.figure("funnel.clips").records()
    assert [row["step"] for row in rows][-2:] == ["encoded, but not selected", "selected, but of weight 0"]
    ready = [c for c in counted.clips if c["kept"] and counted.encoded(c)]
    chosen = [c for c in ready if c["clip_id"] in weights]
    drawn = [c for c in chosen if weights[c["clip_id"]] > 0]
    assert rows[-2]["lost_clips"] == len(ready) - len(chosen)
    assert (rows[-1]["clips_left"], rows[-1]["lost_clips"]) == (len(drawn), len(chosen) - len(drawn))
    assert weighed.figure("totals.clips").value("clips") == len(weights)


def test_the_sql_beside_every_figure_gives_its_rows(made, weighed):
    folder, catalog, _, whole, _, _ = made
    with connect(Catalog.open(catalog)) as sql:
        for found in (whole, weighed):
            for figure in found.figures():
                if not figure.known:
                    assert (figure.sql, figure.columns, figure.rows) == ("", (), ())
                    continue
                columns, rows = query(sql, found.runnable(figure))
                assert tuple(columns) == figure.columns
                assert len(rows) == len(figure.rows), figure.id
                for again, row in zip(rows, figure.rows, strict=True):
                    for one, other in zip(again, row, strict=True):
                        number = isinstance(other, float) or (isinstance(other, int) and not isinstance(other, bool))
                        assert float(one) == pytest.approx(other) if number else plain_cell(one) == other, figure.id
    assert len({figure.id for figure in whole.figures()}) == len(list(whole.figures()))
    text = (folder / "whole/audit.json").read_text()
    assert json.loads(text)["kind"] == "clipmill audit"
    assert read_audit(folder / "whole" / "audit.json") == whole
