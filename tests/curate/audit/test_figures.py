"""Every figure of an audit, against the same counted again in Python from the Parquet files of the tables."""

import math
from collections import Counter

import pytest

from tests.curate.audit.made import GATES, MOVED
from tests.curate.audit.recount import classed, effective, gini, quantile, total

NAMES = [f"ingest.g{number}" for number in range(len(GATES))]


def hours(clips):
    return pytest.approx(total(clips) / 3600, abs=1e-12)


def concept(counted, clip):
    return f"{counted.of('clusters', clip, 'concept')} {counted.of('clusters', clip, 'concept_name')}"


def kept(clips):
    return [clip for clip in clips if clip["kept"]]


def test_totals(whole, counted):
    row = whole.figure("totals.clips").records()[0]
    clips = counted.clips
    assert (row["clips"], row["hours"]) == (len(clips), hours(clips))
    assert (row["kept_clips"], row["kept_hours"]) == (len(kept(clips)), hours(kept(clips)))
    assert row["sources"] == len({clip["source_id"] for clip in clips})
    assert row["encoded_clips"] == sum(map(counted.encoded, clips))
    for row in whole.figure("totals.sources").records():
        of = [s for s in counted.sources.values() if (s["status"], s["media"]) == (row["status"], row["media"])]
        assert (row["sources"], row["bytes"]) == (len(of), sum(s["bytes"] for s in of))
        assert row["hours"] == pytest.approx(sum(s["duration_s"] or 0 for s in of) / 3600)
    assert sum(whole.figure("totals.sources").column("sources")) == len(counted.sources)
    with_clips = {clip["source_id"] for clip in clips}
    bytes_ = sum(counted.sources[source]["bytes"] for source in with_clips)
    assert whole.figure("totals.selected_sources").value("bytes") == bytes_


def test_the_funnel_of_sources_and_hours(whole, counted):
    def state(source):
        if source["status"] == "failed":
            return "failed", classed(source["reason"])
        return ("done", "") if source["clips"] else ("done, without a clip", classed(source["reason"]))

    expected = Counter(map(state, counted.sources.values()))
    figure = whole.figure("funnel.sources")
    assert {(r["state"], r["reason"]): r["sources"] for r in figure.records()} == expected
    found = {row["step"]: row["seconds"] for row in whole.figure("funnel.hours").records()}
    scanned = sum(s["duration_s"] for s in counted.sources.values() if s["status"] == "done")
    assert found["in sources that are done"] == pytest.approx(scanned)
    assert found["in clips"] == pytest.approx(total(counted.clips), abs=1e-9)
    assert found["in no clip"] == pytest.approx(scanned - total(counted.clips), abs=1e-6)
    assert found["in clips beyond their source"] == 0


def test_what_runs_listed_is_as_they_recorded_it(whole):
    rows = whole.figure("funnel.listed").records()
    assert [(row["recipe"], row["listed"], row["left_out"]) for row in rows] == [("ingest", 41, '{"hidden":3}')]


def test_every_clip_is_lost_at_the_first_step_that_stops_it(whole, counted):
    rows = whole.figure("funnel.clips").records()
    lost = counted.by(counted.lost_at)
    steps = [f"dropped by {name}" for name in NAMES] + ["kept, but not encoded"]
    assert [row["step"] for row in rows] == ["clips found", *steps]
    left = list(counted.clips)
    for number, row in enumerate(rows[1:]):
        gone = lost.get(number, [])
        left = [clip for clip in left if counted.lost_at(clip) != number]
        assert (row["lost_clips"], row["clips_left"]) == (len(gone), len(left))
        assert row["lost_seconds"] == pytest.approx(total(gone), abs=1e-9)
        assert row["seconds_left"] == pytest.approx(total(left), abs=1e-9)
    assert len(left) == sum(clip["kept"] and counted.encoded(clip) for clip in counted.clips)


def test_kept_clips_without_latents_have_their_reason(whole, counted):
    def reason(clip):
        row = counted.stages["latents"].get(clip["clip_id"])
        return "not tried" if row is None else f"failed: {classed(row['reason'])}"

    expected = Counter(reason(clip) for clip in kept(counted.clips) if not counted.encoded(clip))
    figure = whole.figure("funnel.not_encoded")
    assert dict(zip(figure.column("reason"), figure.column("clips"), strict=True)) == expected


def test_what_a_gate_drops_and_what_only_it_drops(whole, counted):
    for number, row in enumerate(whole.figure("counterfactual.gates").records()):
        fails = [clip for clip in counted.clips if not clip["passes"][number]]
        only = [clip for clip in fails if sum(not each for each in clip["passes"]) == 1]
        assert (row["gate"], row["condition"]) == (NAMES[number], list(GATES)[number])
        assert (row["dropped_clips"], row["dropped_hours"]) == (len(fails), hours(fails))
        assert row["dropped_share"] == pytest.approx(len(fails) / len(counted.clips))
        assert (row["only_clips"], row["only_hours"]) == (len(only), hours(only))
        assert row["unknown_clips"] == sum(clip["answers"][number] is None for clip in counted.clips)


def test_what_a_moved_threshold_changes(whole, counted):
    rows = [row for row in whole.figure("counterfactual.thresholds").records() if row["signal"] == "motion"]
    assert [(row["threshold"], row["step"], row["tried"]) for row in rows] == [
        (0.25, "-10 %", 0.225),
        (0.25, "+10 %", 0.275),
    ]
    changed = 0
    for row, (_, judge) in zip(rows, MOVED.items(), strict=True):
        then = [(clip, counted.passes(judge(clip)) and all(clip["passes"][1:])) for clip in counted.clips]
        come = [clip for clip, now in then if now and not clip["kept"]]
        gone = [clip for clip, now in then if clip["kept"] and not now]
        assert (row["newly_kept_clips"], row["newly_kept_hours"]) == (len(come), hours(come))
        assert (row["newly_dropped_clips"], row["newly_dropped_hours"]) == (len(gone), hours(gone))
        changed += len(come) + len(gone)
    assert changed  # the planted clips lie on both sides
    assert len(whole.figure("counterfactual.thresholds").rows) == 2 * 4  # motion, both ends of luma, the length


def test_whom_a_gate_hits_hardest(whole, counted):
    values = {
        "licence": lambda clip: counted.sources[clip["source_id"]]["licence"],
        "concept": lambda clip: (
            f"{counted.of('clusters', clip, 'concept')} {counted.of('clusters', clip, 'concept_name')}"
        ),
        "caption_language": lambda clip: counted.of("captions", clip, "caption_language"),
    }
    rows = whole.figure("counterfactual.hits").records()
    for column, value in values.items():
        for number, gate in enumerate(NAMES):
            found = {r["value"]: r for r in rows if (r["by_column"], r["gate"]) == (column, gate)}
            base = sum(not clip["passes"][number] for clip in counted.clips) / len(counted.clips)
            beyond = {}
            for name, clips in counted.by(value).items():
                dropped = sum(not clip["passes"][number] for clip in clips)
                beyond[name] = dropped - len(clips) * base
                if name in found:
                    assert found[name]["dropped_clips"] == dropped
                    assert found[name]["rate"] == pytest.approx(dropped / len(clips))
                    assert found[name]["base_rate"] == pytest.approx(base)
                    assert found[name]["beyond"] == pytest.approx(beyond[name])
            most = sorted((b for b in beyond.values() if b > 1e-9), reverse=True)[:5]
            assert sorted((r["beyond"] for r in found.values() if r["beyond"] > 1e-9), reverse=True) == pytest.approx(
                most
            )


@pytest.mark.parametrize("signal", ["motion", "luma", "sharpness"])
def test_distribution_of_a_signal(whole, counted, signal):
    row = next(r for r in whole.figure("signals.quantiles").records() if r["signal"] == signal)
    known = [clip for clip in counted.clips if clip[signal] is not None]
    values = [clip[signal] for clip in known]
    assert (row["known_clips"], row["unknown_clips"]) == (len(values), len(counted.clips) - len(values))
    assert (row["least"], row["greatest"]) == (min(values), max(values))
    for name, share in (("q01", 0.01), ("q25", 0.25), ("q50", 0.5), ("q95", 0.95)):
        assert row[name] == pytest.approx(quantile(values, share))
    mean = sum(values) / len(values)
    assert row["mean"] == pytest.approx(mean)
    assert row["deviation"] == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / len(values)))
    assert row["kept_median"] == pytest.approx(quantile([clip[signal] for clip in kept(known)], 0.5))
    bars = whole.figure(f"signals.histogram.{signal}").records()
    inside = 0
    for number, bar in enumerate(bars):
        low = -math.inf if number == 0 else bar["at_least"]
        high = math.inf if number == len(bars) - 1 else bar["below"]
        of = [clip for clip in known if low <= clip[signal] < high]
        assert bar["clips"] == pytest.approx(len(of), abs=1)  # a value at an edge may round to either side
        inside += bar["clips"]
        assert bar["kept_clips"] <= bar["clips"]
    assert inside == len(known)
    assert sum(bar["hours"] for bar in bars) == hours(known)
    assert sum(bar["kept_clips"] for bar in bars) == len(kept(known))
    drawn = [t["threshold"] for t in whole.figure("signals.thresholds").records() if t["signal"] == signal]
    assert drawn == {"motion": [0.25], "luma": [10.0, 245.0], "sharpness": []}[signal]
    assert all(bars[0]["at_least"] <= value <= bars[-1]["below"] for value in drawn)


OF_SOURCES = ("licence", "domain", "language", "source_kind", "dataset_licence", "dataset")


@pytest.mark.parametrize("name", [*OF_SOURCES, "caption_language", "concept", "codec", "bit_depth", "has_audio", "fps"])
def test_composition(whole, counted, name):
    def value(clip):
        if name == "caption_language":
            return counted.of("captions", clip, name)
        if name == "concept":
            return concept(counted, clip)
        found = clip[name] if name == "fps" else counted.sources[clip["source_id"]][name]
        return str(found).lower() if isinstance(found, bool) else found if found is None else str(found)

    section = "media" if name in ("codec", "bit_depth", "has_audio", "fps") else "composition"
    figure = whole.figure(f"{section}.{name}")
    expected = counted.by(value)
    assert sorted(figure.column("value"), key=str) == sorted(expected, key=str)
    for row in figure.records():
        clips = expected[row["value"]]
        assert (row["clips"], row["hours"]) == (len(clips), hours(clips))
        assert (row["kept_clips"], row["kept_hours"]) == (len(kept(clips)), hours(kept(clips)))
        assert row["share"] == pytest.approx(len(clips) / len(counted.clips))
        if "sources" in figure.columns:
            assert row["sources"] == len({clip["source_id"] for clip in clips})
    assert sum(figure.column("clips")) == len(counted.clips)


def test_licences_of_source_and_dataset_stay_apart(whole):
    assert whole.figure("composition.dataset_licence").column("value") == [None]
    assert len(whole.figure("composition.licence").rows) == 4
    assert whole.figure("composition.optout_robots").column("value") == [None]  # not checked, which is not 'none found'


def test_the_tenth_of_the_domains_with_most_content(whole, counted):
    by = counted.by(lambda clip: counted.sources[clip["source_id"]]["domain"])
    by.pop(None, None)
    order = sorted(by, key=lambda domain: (-total(by[domain]), -len(by[domain]), domain))
    figure = whole.figure("composition.domain_top")
    assert figure.column("domain") == order[: math.ceil(len(by) / 10)]
    assert figure.records()[0]["hours"] == hours(by[order[0]])
    assert figure.column("domains") == [len(by)] * len(figure.rows)


@pytest.mark.parametrize("name", ["source", "licence", "domain", "concept"])
def test_concentration(whole, counted, name):
    def value(clip):
        if name == "concept":
            return counted.of("clusters", clip, "concept")
        return clip["source_id"] if name == "source" else counted.sources[clip["source_id"]][name]

    counts = [len(clips) for key, clips in counted.by(value).items() if key is not None]
    row = next(r for r in whole.figure("concentration.clips").records() if r["by_column"] == name)
    whole_count = sum(counts)
    assert (row["values"], row["clips"]) == (len(counts), whole_count)
    assert row["top_1"] == pytest.approx(max(counts) / whole_count)
    assert row["top_10"] == pytest.approx(sum(sorted(counts)[-10:]) / whole_count)
    assert row["gini"] == pytest.approx(gini(counts), abs=1e-9)
    assert row["effective"] == pytest.approx(effective(counts))
    assert row["simpson"] == pytest.approx(1 / sum((count / whole_count) ** 2 for count in counts))


def test_duplicates(whole, counted):
    def kind(clip):
        row = counted.stages["duplicates"].get(clip["clip_id"])
        return "not judged" if row is None else row["duplicate_kind"] or "no duplicate"

    by = counted.by(kind)
    for row in whole.figure("duplicates.kinds").records():
        redundant = [c for c in by[row["kind"]] if counted.of("duplicates", c, "duplicate_keep") is False]
        assert (row["clips"], row["hours"]) == (len(by[row["kind"]]), hours(by[row["kind"]]))
        assert (row["redundant_clips"], row["redundant_hours"]) == (len(redundant), hours(redundant))
        assert row["kept_redundant_clips"] == len(kept(redundant))
    clusters = Counter(counted.of("duplicates", clip, "duplicate_cluster") for clip in by["exact"] + by["near"])
    sizes = Counter(clusters.values())
    figure = whole.figure("duplicates.sizes")
    assert {r["size"]: r["clusters"] for r in figure.records()} == sizes
    largest = whole.figure("duplicates.largest")
    assert largest.column("clips") == sorted(clusters.values(), reverse=True)[: len(largest.rows)]


def test_unknowns(whole, counted):
    found = {r["column_name"]: r["unknown_clips"] for r in whole.figure("unknown.clips").records()}
    for signal in ("motion", "luma", "sharpness"):
        assert found[signal] == sum(clip[signal] is None for clip in counted.clips)
    for stage, column in (("captions", "caption"), ("captions", "caption_language"), ("clusters", "concept")):
        assert found[column] == sum(counted.of(stage, clip, column) is None for clip in counted.clips)
    found = {r["column_name"]: r["unknown_sources"] for r in whole.figure("unknown.sources").records()}
    done = [source for source in counted.sources.values() if source["status"] == "done"]
    for column in ("licence", "bit_depth", "has_audio", "dataset_licence", "reason"):
        assert found[column] == sum(source[column] is None for source in done)


def test_captions(whole, counted):
    row = whole.figure("captions.texts").records()[0]
    rows = [r for r in counted.stages["captions"].values() if r["status"] == "done"]
    assert (row["of_column"], row["clips"]) == ("caption", len(rows))
    assert row["different"] == len({r["caption"] for r in rows})
    assert row["words_mean"] == pytest.approx(sum(r["caption_words"] for r in rows) / len(rows))
    assert row["repetitive"] == sum(r["caption_repetition"] >= 0.3 for r in rows)
    assert row["truncated"] == sum(r["caption_truncated"] for r in rows)
    assert row["refusals"] == sum(r["caption_refusal"] is not None for r in rows)
    assert row["match_median"] == pytest.approx(quantile([r["caption_clip_match"] for r in rows], 0.5))
    texts = {r["clip_id"]: r["caption"] for r in rows}
    samples = whole.figure("captions.samples").records()
    assert all(sample["text"] == texts[sample["clip_id"]] for sample in samples)
    worst = [s["match"] for s in samples if s["kind"] == "worst match"]
    assert worst == sorted(r["caption_clip_match"] for r in rows)[: len(worst)]
    longest = [s["words"] for s in samples if s["kind"] == "longest"]
    assert longest == sorted((r["caption_words"] for r in rows), reverse=True)[: len(longest)]


def test_clips_to_look_at_say_why_they_were_kept_or_dropped(whole, counted):
    by_id = {clip["clip_id"]: clip for clip in counted.clips}
    rows = whole.figure("examples.clips").records()
    for row in rows:
        clip = by_id[row["clip_id"]]
        assert row["verdict"] == ("kept" if clip["kept"] else "dropped")
        assert row["failed_gates"] == [name for name, ok in zip(NAMES, clip["passes"], strict=True) if not ok]
        assert (row["start_s"], row["end_s"]) == (clip["start_s"], pytest.approx(clip["end_s"]))
        assert row["uri"] == counted.sources[clip["source_id"]]["uri"]
        assert row["value"] == (clip[row["signal"]] if row["signal"] in clip else row["value"])
    values = sorted(clip["motion"] for clip in counted.clips if clip["motion"] is not None)
    assert [r["value"] for r in rows if (r["signal"], r["kind"]) == ("motion", "lowest")] == values[:6]
    assert [r["value"] for r in rows if (r["signal"], r["kind"]) == ("motion", "highest")] == values[:-7:-1]
    near = [r["value"] for r in rows if r["kind"] == "at the threshold >= 0.25"]
    assert near == sorted(values, key=lambda value: abs(value - 0.25))[:6]
    assert len([r for r in rows if r["kind"] == "random"]) == 6


def test_failures(whole, counted):
    expected = Counter(classed(s["reason"]) for s in counted.sources.values() if s["status"] == "failed")
    figure = whole.figure("failures.sources")
    assert dict(zip(figure.column("reason"), figure.column("sources"), strict=True)) == expected
    uris = {s["uri"]: s["reason"] for s in counted.sources.values() if s["status"] == "failed"}
    assert all(uris[row["example"]] == row["said"] for row in figure.records())
    stages = {(r["table_name"], r["reason"]): r["clips"] for r in whole.figure("failures.stages").records()}
    expected = Counter(
        (name, classed(row["reason"]))
        for name in ("captions", "latents")
        for row in counted.stages[name].values()
        if row["status"] != "done"
    )
    assert stages == expected


def test_runs_settings_models_and_time(whole, counted):
    rows = {(r["table_name"], r["settings"]): r["rows"] for r in whole.figure("runs.settings").records()}
    assert rows["sources", "s1"] == len(counted.sources)
    models = [(r["table_name"], r["model"], r["revision"]) for r in whole.figure("runs.models").records()]
    assert ("captions", "captioner", "r1") in models
    assert ("latents", "v") in [model[:2] for model in models]
    assert [r["listed"] for r in whole.figure("runs.history").records()] == [41, 40]
    stages = whole.figure("runs.stage_seconds").records()
    assert stages == [{"recipe": "ingest", "stage": "decode", "runs": 2, "cpu_hours": pytest.approx(3 / 3600)}]
    assert whole.figure("runs.time").value("wall_hours") == pytest.approx(4 / 3600)
    cpu = whole.figure("runs.time").value("decode_cpu_hours")
    assert cpu == pytest.approx(2.5 * len(counted.sources) / 3600)
