"""Datasheet and EU summary: their numbers are those of audit.json and of the raw tables, and nothing is guessed."""

import re
from collections import Counter

import pytest
from markdown_it import MarkdownIt

from curate.audit.documents.eu_summary import TODO, size_range
from curate.audit.documents.markdown import escaped, shown, table
from tests.curate.audit.documents.conftest import ANSWERS, documented
from tests.curate.audit.made import HOSTILE, Made, planted
from tests.curate.audit.recount import total

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")


def fields(text, title):
    """field -> answer, of the section of a document that has this title."""
    section = re.split(r"\n#+ ", text.split(f" {title}\n", 1)[1])[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in rows if len(row) == 3}


def rows(text, id):
    """The cells of the first table of a figure."""
    lines = text.split(f"Figure `{id}`:\n", 1)[1].strip().split("\n\n")[0].splitlines()
    return [line[2:-2].split(" | ") for line in lines[2:]]


def kept(counted, condition=lambda clip, source: True):
    found = [c for c in counted.clips if c["kept"] and condition(c, counted.sources[c["source_id"]])]
    return len(found), total(found) / 3600, len({c["source_id"] for c in found})


def amount(counted, condition):
    clips, hours, _ = kept(counted, condition)
    return f"{shown(clips)} clips, {shown(hours)} h"


def test_the_form_counts_what_the_raw_tables_have(whole, rights):
    counted, text = rights[1], whole.text("eu_summary.md")
    clips, hours, _ = kept(counted)
    assert fields(text, "1.3 Modalities, size and characteristics")["Video: size"] == (
        f"under 10,000 h ({shown(clips)} clips, {shown(hours)} h)"
    )
    for title, kind in {
        "2.1 Publicly available datasets": "public dataset", "2.2.1 Commercially licensed": "licensed",
        "2.3 Crawled and scraped data": "crawled", "2.5 Synthetic data": "synthetic",
    }.items():  # fmt: skip
        found = fields(text, title)
        assert found["Used"] == "yes"
        assert found["Modalities"] == f"video: {amount(counted, lambda c, s, kind=kind: s['source_kind'] == kind)}"
    unknown = amount(counted, lambda c, s: s["source_kind"] is None)
    for title in ("2.2.2 Other private datasets", "2.4 User data"):  # an unknown kind may be one of these
        assert fields(text, title)["Used"] == f"{TODO} (source\\_kind is unknown of video: {unknown})"


def test_the_top_tenth_of_the_crawled_domains_is_listed(whole, rights):
    counted = rights[1]
    crawled = {}
    for clip in counted.clips:
        source = counted.sources[clip["source_id"]]
        if clip["kept"] and source["source_kind"] == "crawled" and source["domain"] is not None:
            crawled.setdefault(source["domain"], []).append(clip)
    ranked = sorted(crawled, key=lambda d: (-total(crawled[d]), -len(crawled[d]), d))
    expected = [[d, shown(len(crawled[d])), shown(total(crawled[d]) / 3600)] for d in ranked[: -(-len(ranked) // 10)]]
    text = whole.text("eu_summary.md")
    assert [[row[0], *row[2:]] for row in rows(text, "rights.crawled_domains")] == expected
    assert f"the top 10 % by content of {len(ranked)} domains" in text


def test_not_checked_stands_apart_from_none_found(whole, rights):
    counted = rights[1]
    found = {(row[0], row[1]): row[2:5] for row in rows(whole.text("eu_summary.md"), "rights.opt_outs")}
    for signal in ("robots", "tdmrep"):
        for answer in ANSWERS:
            of = kept(counted, lambda c, s, signal=signal, answer=answer: s[f"optout_{signal}"] == answer)
            expected = [shown(of[2]), shown(of[0]), shown(of[1])] if of[0] else None
            assert found.get((signal, answer or "not checked")) == expected
    assert found["c2pa", "not checked"][1] == shown(kept(counted)[0])
    assert ("c2pa", "none found") not in found


def test_captions_by_models_are_synthetic_data_with_model_and_revision(whole, rights):
    counted = rights[1]
    expected = Counter()
    for clip in counted.clips:
        if clip["kept"] and counted.of("captions", clip, "caption_source") in ("model", "server"):
            expected[counted.of("captions", clip, "model")] += 1
    found = rows(whole.text("eu_summary.md"), "captions.models")
    assert {row[1]: int(row[3]) for row in found} == expected
    assert {row[2] for row in found} == {"r1"}
    assert fields(whole.text("eu_summary.md"), "2.5 Synthetic data")["Captions by models"] == "yes"


@pytest.mark.parametrize("which", ["whole", "of_dataset", "unsaid"])
def test_every_number_of_the_documents_is_a_cell_of_audit_json(which, request):
    made = request.getfixturevalue(which)
    cells = [cell for figure in made.audit.figures() for row in figure.rows for cell in row]
    known = {shown(cell) for cell in cells if isinstance(cell, int | float)}
    texts = " ".join(shown(cell) for cell in cells if isinstance(cell, str))
    texts += " ".join(figure.id for figure in made.audit.figures()) + (made.folder.parent / "x").as_posix()
    known |= set(NUMBER.findall(texts)) | set(NUMBER.findall(str(dict(made.audit.about))))
    known |= {"53", "1", "10,000", "10", "2021", "04"}  # of the form's own words
    known |= set(NUMBER.findall("drawn-dit 1; 01/2026; 2026-03-04; 1.2.0; CC-BY-4.0; under 1 bn tokens"))
    for name in ("eu_summary.md", "datasheet.md"):
        text = re.sub(r"(?m)^#.*$", "", made.text(name)).replace("&#58;", "").replace("www&#46;", "")
        strange = [number for number in NUMBER.findall(text) if number.rstrip(",") not in known]
        assert not strange, (name, strange)


def test_a_dataset_counts_its_samples_with_their_weights(of_dataset, whole):
    text, weights = of_dataset.text("eu_summary.md"), of_dataset.audit.figure("weights.samples").records()[0]
    found = fields(text, "1.3 Modalities, size and characteristics")
    clips = of_dataset.audit.figure("totals.clips").value("clips")
    assert f"({shown(clips)} clips, " in found["Video: size"]
    assert found["Size after weights"].startswith(f"{clips} samples of total weight {shown(weights['weight'])};")
    assert clips < whole.audit.figure("totals.clips").value("kept_clips")
    assert "the selected clips" in text
    assert "of weight 0" in of_dataset.text("datasheet.md") or "have weight 0" in of_dataset.text("datasheet.md")


def test_a_selection_counts_what_is_selected_also_where_gates_drop_it(rights, tmp_path):
    catalog, counted = rights[:2]
    dropped = [clip["clip_id"] for clip in counted.clips if not clip["kept"]][:5]
    select = f"SELECT clip_id FROM clips WHERE clip_id IN ({', '.join(map(repr, dropped))})"
    made = documented(catalog, tmp_path / "audit", "--select", select)
    found = fields(made.text("eu_summary.md"), "1.3 Modalities, size and characteristics")
    assert "(5 clips, " in found["Video: size"]


def test_what_the_provider_says_is_there_and_what_nobody_says_is_marked(whole, unsaid):
    said, nothing = whole.text("eu_summary.md"), unsaid.text("eu_summary.md")
    assert fields(said, "1.1 Provider")["Name"] == "Films &amp; Sons"
    assert fields(said, "3.1 Reservations of rights")["Signatory of the Code of Practice"] == "yes"
    assert fields(said, "1.3 Modalities, size and characteristics")["Latest date of acquisition"] == "01/2026"
    for title in ("1.1 Provider", "1.2 Model", "2.6 Other sources", "3.3 Other information"):
        assert set(fields(nothing, title).values()) == {"Answer", "---", TODO}
    assert "Provider: To test documents." in whole.text("datasheet.md")
    assert f"{TODO} (settings: `datasheet.purpose`)" in unsaid.text("datasheet.md")
    assert "`datasheet.purpose`" not in whole.text("datasheet.md")


def test_an_empty_catalog_and_one_without_rights_say_neither_yes_nor_no(tmp_path):
    plain = planted(sources=6)
    for source in plain.sources:
        source |= dict.fromkeys(("licence", "domain", "language", "source_kind", "dataset"))
    plain.stages = {}
    for number, made in enumerate((Made(), plain)):
        catalog = made.write(tmp_path / f"catalog{number}")
        text = documented(catalog, tmp_path / f"audit{number}").text("eu_summary.md")
        for title in ("2.1 Publicly available datasets", "2.3 Crawled and scraped data", "2.4 User data"):
            assert fields(text, title)["Used"].startswith(f"{TODO} (")
        assert f"Languages of the sources: {TODO}" in text
    assert fields(text, "2.5 Synthetic data")["Captions by models"] == "no"
    assert {row[1] for row in rows(text, "rights.opt_outs")} == {"not checked"}


def test_hostile_names_stay_text(whole):
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    for name in ("eu_summary.md", "datasheet.md"):
        tokens = html.parse(whole.text(name))
        kinds = {each.type for token in tokens for each in (token, *(token.children or []))}
        assert not kinds & {"html_inline", "html_block", "link_open", "image", "fence"}
        assert HOSTILE in " ".join(each.content for t in tokens for each in t.children or [] if each.type == "text")
        tables = re.findall(r"(?:^\|.*\n)+", whole.text(name), re.MULTILINE)
        for lines in tables:
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines.splitlines()}) == 1


@pytest.mark.parametrize(
    "text",
    ["<img src=x onerror=1>", "[a](javascript:b)", "![a](b)", "a|b", "`a`", "**b**", "a\n\n# b", "http://a.example",
     "&lt;", "\\", "\\|", "~~x~~", "<!-- ", "a\u202eb", "\x00\x1b[31m", "<http://a.example>", "www.a.example", "$x$"],
)  # fmt: skip
def test_markdown_shows_any_text_as_it_is(text):
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render("\n".join(table(["a", "b"], [[text, 1]])))
    cells = re.findall(r"<td>(.*?)</td>", html, re.DOTALL)
    plain = "".join("\ufffd" if each in "\u202e\x00\x1b" else each for each in " ".join(text.split()))
    assert cells == [plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;"), "1"]
    assert "\n" not in escaped(text)


@pytest.mark.parametrize(
    ("unit", "number", "expected"),
    [("hours", 0, "under 10,000 h"), ("hours", 9_999.99, "under 10,000 h"), ("hours", 10_000, "10,000 to 1 million h"),
     ("hours", 1e6, "over 1 million h"), ("images", 999_999, "under 1 million"), ("images", 10**6, "1 million to 1 bn"),
     ("images", 10**9, "over 1 bn")],
)  # fmt: skip
def test_size_ranges_of_the_form(unit, number, expected):
    assert size_range(unit, number) == expected
