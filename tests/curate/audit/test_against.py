"""What an audit says against another version, catalog or dataset, counted again in Python from the tables' Parquet."""

import bisect
import json
import math
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from curate.audit.against import find_against
from curate.audit.figure import plain_cell
from curate.catalog.catalog import Catalog
from curate.catalog.views import connect, query
from tests.curate.audit.made import Made, audit, planted, write_dataset
from tests.curate.audit.recount import Recount, index_row, quantile, total
from tests.curate.audit.test_made_up import catalogs
from tests.curate.audit.versions import GATES_NOW, GATES_THEN, two_versions

FEW = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
KEPT_NOW, DROPPED_NOW = "dropped in the other, kept here", "kept in the other, dropped here"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return two_versions(tmp_path_factory.mktemp("versions") / "catalog")


@pytest.fixture(scope="module")
def found(both, tmp_path_factory):
    return audit(both.uri, tmp_path_factory.mktemp("audit"), against="1")


def sides(both):
    """(clip here or None, clip in the other or None) by clip id."""
    here, there = ({clip["clip_id"]: clip for clip in side.clips} for side in (both.now, both.then))
    return [(here.get(key), there.get(key)) for key in sorted({*here, *there})]


def change(pair):
    here, there = pair
    if here is None or there is None:
        return "came" if there is None else "went"
    return "stayed" if here["kept"] == there["kept"] else KEPT_NOW if here["kept"] else DROPPED_NOW


def test_clips_that_came_went_stayed_or_changed_verdict(found, both):
    expected = {}
    for pair in sides(both):
        clip = pair[0] or pair[1]
        expected.setdefault((change(pair), "kept" if clip["kept"] else "dropped"), []).append(clip)
    rows = found.figure("against.clips").records()
    for row in rows:
        clips = expected.pop((row["change"], row["verdict"]), [])
        assert (row["clips"], row["sources"]) == (len(clips), len({clip["source_id"] for clip in clips}))
        assert row["hours"] == pytest.approx(total(clips) / 3600, abs=1e-12)
    assert not expected
    counts = Counter({(row["change"], row["verdict"]): row["clips"] for row in rows})
    assert all(counts[change, "kept"] for change in ("came", "went", "stayed", KEPT_NOW))
    assert counts[DROPPED_NOW, "dropped"]
    sources = Counter()
    for row in found.figure("against.sources").records():
        sources[row["change"]] += row["sources"]
    here, there = set(both.now.sources), set(both.then.sources)
    assert sources == {"came": len(here - there), "went": len(there - here), "stayed": len(here & there)}


def test_a_changed_verdict_names_its_gate_and_what_changed(found, both):
    expected = Counter()
    for here, there in sides(both):
        if here and there and here["kept"] != there["kept"]:
            dropped, gates, others = (there, GATES_THEN, GATES_NOW) if here["kept"] else (here, GATES_NOW, GATES_THEN)
            gate = list(gates)[dropped["passes"].index(False)]
            same = others.get(gate) == gates[gate]
            cause = "the same gate: the clips' values changed" if same else "the gate has another condition"
            if gate not in others:
                cause = "the gate is gone" if here["kept"] else "the gate is new"
            expected[KEPT_NOW if here["kept"] else DROPPED_NOW, gate, cause] += 1
    rows = found.figure("against.verdicts").records()
    assert {(row["change"], row["gate"], row["cause"]): row["clips"] for row in rows} == expected
    assert {cause for _, _, cause in expected} >= {"the gate is new", "the gate is gone"}
    assert (DROPPED_NOW, "ingest.g0", "the gate has another condition") in expected
    assert next(row["signals"] for row in rows if row["gate"] == "ingest.sharp") == "sharpness"
    gates = {row["gate"]: row for row in found.figure("against.gates").records()}
    assert {name: row["change"] for name, row in gates.items()} == {
        "ingest.g0": "another condition", "ingest.g1": "only in the other", "ingest.g2": "same",
        "ingest.sharp": "only here",
    }  # fmt: skip
    assert gates["ingest.g0"]["dropped_clips"] == sum(not clip["passes"][0] for clip in both.now.clips)
    assert gates["ingest.g0"]["other_dropped_clips"] == sum(not clip["passes"][0] for clip in both.then.clips)


def kolmogorov(a, b):
    a, b = sorted(a), sorted(b)
    return max(abs(bisect.bisect_right(a, x) / len(a) - bisect.bisect_right(b, x) / len(b)) for x in {*a, *b})


def stability(shares):
    pairs = [(max(p, 1e-4), max(q, 1e-4)) for p, q in shares]
    return sum((p - q) * math.log(p / q) for p, q in pairs)


def stability_of_tenths(here, there):
    edges = sorted({quantile(there, number / 200) for number in range(1, 201)})
    bins = [Counter(bisect.bisect_left(edges, value) for value in side) for side in (here, there)]
    tenths, before = {}, 0
    for edge in range(len(edges) + 1):
        p, q = (side[edge] / side.total() for side in bins)
        if p or q:
            before += bins[1][edge]
            tenth = min(9, (2 * before - bins[1][edge]) * 10 // (2 * bins[1].total()))
            was = tenths.get(tenth, (0, 0))
            tenths[tenth] = (was[0] + p, was[1] + q)
    return stability(tenths.values())


@pytest.mark.parametrize("signal", ["motion", "luma", "sharpness"])
def test_how_far_a_signal_moved(found, both, signal):
    row = next(r for r in found.figure("against.movers").records() if r["name"] == signal)
    here, there = ([c[signal] for c in side.clips if c[signal] is not None] for side in (both.now, both.then))
    assert (row["clips"], row["other_clips"], row["side"]) == (len(here), len(there), "both")
    assert row["unknown_share"] == pytest.approx(1 - len(here) / len(both.now.clips))
    exact = kolmogorov(here, there)
    assert exact - 1 / 200 - 1e-9 <= row["distance"] <= exact + 1e-9
    assert row["psi"] == pytest.approx(stability_of_tenths(here, there))
    kept = [[c[signal] for c in s.clips if c["kept"] and c[signal] is not None] for s in (both.now, both.then)]
    assert kolmogorov(*kept) - 0.05 <= row["kept_distance"] <= kolmogorov(*kept) + 1e-9
    shown = next(r for r in found.figure("against.signals").records() if r["signal"] == signal)
    assert (shown["q50"], shown["other_q50"]) == (
        pytest.approx(quantile(here, 0.5)),
        pytest.approx(quantile(there, 0.5)),
    )
    both_have = [(a, b) for a, b in sides(both) if a and b]
    scores = next(r for r in found.figure("against.scores").records() if r["signal"] == signal)
    values = [(a[signal], b[signal]) for a, b in both_have]
    assert scores["changed_clips"] == sum(None not in pair and pair[0] != pair[1] for pair in values)
    assert scores["known_clips"] == sum(a is not None and b is None for a, b in values)
    assert scores["unknown_clips"] == sum(a is None and b is not None for a, b in values)


def test_how_far_the_composition_moved_and_by_which_value(found, both):
    for column in ("licence", "domain", "dataset_licence"):
        counts = [Counter(side.sources[c["source_id"]][column] for c in side.clips) for side in (both.now, both.then)]
        shares = {v: tuple(c[v] / c.total() for c in counts) for v in {*counts[0], *counts[1]}}
        row = next(r for r in found.figure("against.movers").records() if r["name"] == column)
        assert row["distance"] == pytest.approx(sum(abs(p - q) for p, q in shares.values()) / 2)
        assert row["psi"] == pytest.approx(stability(shares.values()))
        values = [r for r in found.figure("against.values").records() if r["by_column"] == column]
        assert {r["value"]: (r["clips"], r["other_clips"]) for r in values}.items() <= {
            v: (counts[0][v], counts[1][v]) for v in shares
        }.items()
        farthest = max(abs(p - q) for p, q in shares.values())
        assert abs(values[0]["difference"]) == pytest.approx(farthest)


def test_the_largest_movers_come_first(found):
    rows = [
        max(r["distance"], r["kept_distance"]) for r in found.figure("against.movers").records() if r["side"] == "both"
    ]
    assert rows == sorted(rows, reverse=True)
    assert rows[0] > 0


def test_the_sql_beside_every_figure_gives_its_rows_with_the_other_attached(found, both):
    opened = Catalog.open(both.uri)
    with connect(opened) as sql:
        find_against(opened, "1").attach(sql)
        for figure in found.figures():
            if not figure.known or not figure.id.startswith("against."):
                continue
            columns, rows = query(sql, found.runnable(figure))
            assert (tuple(columns), len(rows)) == (figure.columns, len(figure.rows)), figure.id
            for again, row in zip(rows, figure.rows, strict=True):
                for one, other in zip(map(plain_cell, again), row, strict=True):
                    assert one == (pytest.approx(other) if isinstance(other, float) else other), figure.id


def test_a_selection_is_made_on_both_sides(both, tmp_path):
    select = "WITH chosen_ones AS (SELECT * FROM clips WHERE verdict = 'kept') SELECT clip_id FROM chosen_ones"
    found = audit(both.uri, tmp_path, against="aaaa1111", select=select)
    counts = Counter()
    for row in found.figure("against.clips").records():
        counts[row["change"]] += row["clips"]
    now, then = ({c["clip_id"] for c in side.clips if c["kept"]} for side in (both.now, both.then))
    assert counts == {"came": len(now - then), "went": len(then - now), "stayed": len(now & then),
                      KEPT_NOW: 0, DROPPED_NOW: 0}  # fmt: skip


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Two catalogs of which the second has the bytes of three sources of the first under other names."""
    folder = tmp_path_factory.mktemp("copies")
    one, two = planted(sources=8), planted(seed=3, sources=8)
    new = {f"{number:032x}": f"{number + 100:032x}" for number in range(8)}
    for number, source in enumerate(one.sources):
        source["content_hash"] = f"a{number:031x}"
    for number, source in enumerate(two.sources):
        source["content_hash"] = f"a{number:031x}" if number in (0, 1, 2) else f"b{number:031x}"
        source["source_id"] = new[source["source_id"]]
    for rows in (two.clips, *two.stages.values()):
        for row in rows:
            row["source_id"], row["clip_id"] = new[row["source_id"]], "f" + row["clip_id"][1:]
    uri, other = one.write(folder / "one"), two.write(folder / "two")
    counted = Recount(other, [])
    dataset = write_dataset(folder / "test_set", [index_row(clip, counted) for clip in counted.clips[::2]], other)
    return uri, other, dataset, counted


@pytest.mark.parametrize("option", ["other", "against"])
def test_copies_of_bytes_leak_between_datasets_of_two_catalogs(copies, tmp_path, option):
    uri, _, dataset, counted = copies
    found = audit(uri, tmp_path, **{option: dataset})
    rows = {row["kind"]: row for row in found.figure("leakage.shared").records()}
    planted_ids = {f"{number + 100:032x}" for number in (0, 1, 2)}
    clips = [clip for clip in counted.clips[::2] if clip["source_id"] in planted_ids]
    assert rows["a source of the same bytes"]["shared"] == len({clip["source_id"] for clip in clips}) == 3
    assert rows["a source of the same bytes"]["other_clips"] == len(clips)
    assert (rows["the clip"]["shared"], rows["the source"]["shared"]) == (0, 0)


def test_an_index_without_hashes_of_content_is_refused_and_not_counted_as_no_leak(copies, tmp_path):
    from curate.errors import UserError

    uri, other, _, counted = copies
    rows = [{k: v for k, v in index_row(c, counted).items() if k != "content_hash"} for c in counted.clips]
    old = write_dataset(tmp_path / "old", rows, other)
    with pytest.raises(UserError, match="content_hash"):
        audit(uri, tmp_path / "out", other=old)


def test_against_another_catalog_all_came_and_all_went(copies, tmp_path):
    uri, other, _, counted = copies
    found = audit(uri, tmp_path, against=other)
    counts = Counter()
    for row in found.figure("against.clips").records():
        counts[row["change"]] += row["clips"]
    assert (counts["came"], counts["went"]) == (len(Recount(uri, []).clips), len(counted.clips))
    assert found.figure("leakage.parts").known


@FEW
@given(catalogs(), catalogs())
def test_of_any_two_catalogs_clips_sum_up_and_distances_lie_between_0_and_1(one, two):
    with tempfile.TemporaryDirectory() as folder:
        uri, other = one.write(Path(folder, "one")), two.write(Path(folder, "two"))
        found = audit(uri, Path(folder, "audit"), against=other)
        counts = Counter()
        for row in found.figure("against.clips").records():
            counts[row["change"]] += row["clips"]
        assert counts.total() - counts["went"] == len(one.clips)
        assert counts.total() - counts["came"] == len(two.clips)
        for row in found.figure("against.movers").records():
            for name in ("distance", "kept_distance"):
                assert row[name] is None or -1e-9 <= row[name] <= 1 + 1e-9
            assert (row["distance"] is None) == (row["side"] != "both" or not (one.clips and two.clips) or (
                row["kind"] == "signal" and not (row["clips"] and row["other_clips"])))  # fmt: skip
        json.loads(Path(folder, "audit/audit.json").read_text(), parse_constant=pytest.fail)


def test_an_empty_catalog_and_one_of_one_clip(tmp_path):
    one = planted(sources=1, of_each=1)
    one.stages = {}
    uri, empty = one.write(tmp_path / "one"), Made().write(tmp_path / "empty")
    for number, (here, there, change) in enumerate(((uri, empty, "came"), (empty, uri, "went"), (uri, uri, "stayed"))):
        found = audit(here, tmp_path / str(number), against=there)
        rows = found.figure("against.clips").records()
        assert {row["change"] for row in rows if row["clips"]} == {change}
        assert sum(row["clips"] for row in rows) == 1
