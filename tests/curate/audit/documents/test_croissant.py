"""croissant.json: valid for mlcroissant without a network, complete by our own check, and equal to audit.json."""

import hashlib
import json
import math
from pathlib import Path

import mlcroissant
import pytest
from pyarrow import parquet

from curate.audit.documents.croissant import INLINE, REQUIRED, missing_fields
from tests.curate.audit.documents.conftest import documented
from tests.curate.audit.made import HOSTILE, Made


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there


def opened(made):
    return mlcroissant.Dataset(jsonld=str(made.folder / "croissant.json"))


def read(made):
    return json.loads(made.text("croissant.json"))


def cells(records, name):
    """The rows of a record set as mlcroissant loads them, without its name before theirs."""
    plain = [{key.removeprefix(f"{name}/"): value for key, value in record.items()} for record in records]
    return [
        {key: None if isinstance(v, float) and math.isnan(v) else v.decode() if isinstance(v, bytes) else v
         for key, v in record.items()}
        for record in plain
    ]  # fmt: skip


def test_mlcroissant_takes_it_and_nothing_required_is_missing(whole, of_dataset):
    for made in (whole, of_dataset):
        metadata = opened(made).metadata
        assert not metadata.ctx.issues.errors
        assert not metadata.ctx.issues.warnings
        assert metadata.ctx.conforms_to.value == "http://mlcommons.org/croissant/1.1"
        assert missing_fields(read(made)) == {}
        assert "lacks" not in made.said
        assert (metadata.name, metadata.version) == ("drawn", "1.2.0")


def test_our_check_names_each_required_field_that_is_gone(whole):
    for name in REQUIRED:
        found = read(whole)
        del found[name]
        assert list(missing_fields(found)) == [name]
        assert list(missing_fields(found | {name: ""})) == [name]


def test_what_only_the_provider_knows_is_left_out_and_named(unsaid):
    found = read(unsaid)
    assert opened(unsaid).metadata.ctx.issues.errors == set()
    assert not {"license", "url", "creator", "datePublished"} & set(found)
    assert (
        "croissant.json lacks license, url, creator, datePublished: give dataset.licence, dataset.url, provider.name, "
        "dataset.published in --settings FILE" in unsaid.said
    )


def test_its_record_sets_load_and_are_the_figures(whole):
    dataset = opened(whole)
    figures = cells(dataset.records("figures"), "figures")
    assert figures == [
        {"id": f.id, "title": f.title, "sql": f.sql, "note": f.note} for f in whole.audit.figures()
    ]  # fmt: skip
    for name, (id, columns) in INLINE.items():
        expected = [{column: record[column] for column in columns} for record in whole.audit.figure(id).records()]
        assert cells(dataset.records(name), name) == expected, name
    composition = cells(dataset.records("composition"), "composition")
    licences = {row["value"]: row["kept_clips"] for row in composition if row["by_column"] == "licence"}
    figure = whole.audit.figure("composition.licence")
    assert licences == dict(zip(figure.column("value"), figure.column("kept_clips"), strict=True))


def test_a_dataset_s_samples_load_from_its_index(of_dataset, rights):
    samples = cells(opened(of_dataset).records("samples"), "samples")
    assert samples == parquet.read_table(Path(rights[3], "index.parquet")).to_pylist()
    for file in read(of_dataset)["distribution"]:
        data = (of_dataset.folder / file["contentUrl"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
        assert file["contentSize"] == f"{len(data)} B"


def test_conditions_of_use_are_offers_by_licence_and_by_what_owners_said(whole, rights):
    counted, offers = rights[1], read(whole)["usageInfo"]
    by_name = {offer["name"]: offer for offer in offers}
    for licence in ("CC0", "CC BY 4.0", HOSTILE):
        clips = sum(c["kept"] and counted.sources[c["source_id"]]["licence"] == licence for c in counted.clips)
        rule = by_name[f"Licence of the sources: {licence}"]["odrl:permission"]
        assert rule["odrl:target"]["description"].startswith(f"{clips} clips, ")
        assert rule["odrl:duty"]["odrl:target"] == {"@type": "CreativeWork", "name": licence}
    said = [offer for offer in offers if offer["name"].startswith("Training by robots: ")]
    rules = {offer["name"].split(": ")[1].split(",")[0]: offer for offer in said}
    assert set(rules) == {"allowed", "not allowed", "constrained"}  # none found and not checked make no rule
    assert rules["not allowed"]["odrl:prohibition"]["odrl:action"] == {"@id": "tdm:mine"}
    assert "odrl:duty" in rules["constrained"]["odrl:permission"]
    assert "odrl:duty" not in rules["allowed"]["odrl:permission"]
    clips = sum(c["kept"] and counted.sources[c["source_id"]]["optout_robots"] == "not allowed" for c in counted.clips)
    assert rules["not allowed"]["odrl:prohibition"]["odrl:target"]["description"].startswith(f"{clips} clips, ")


def test_provenance_names_datasets_models_and_the_provider(whole):
    found = read(whole)
    derived = {each["prov:label"] for each in found["prov:wasDerivedFrom"]}
    assert derived == set(whole.audit.figure("rights.datasets").column("dataset")) != set()
    agents = {each["prov:wasAssociatedWith"]["prov:label"] for each in found["prov:wasGeneratedBy"]}
    assert agents >= {"captioner 0, revision r1", "captioner 1, revision r1"}
    assert found["prov:wasAttributedTo"]["prov:label"] == "Films & Sons"


def test_responsible_fields_come_from_figures_and_answers(whole):
    metadata = opened(whole).metadata
    assert set(metadata.data_collection_type) == {
        "Web Scraping", "Secondary Data Analysis", "Others",
    }  # fmt: skip
    assert "captioner 0, revision r1" in metadata.machine_annotation_tools
    assert metadata.personal_sensitive_information == ["There are no persons in it."]
    lost = [row["lost_clips"] for row in whole.audit.figure("funnel.clips").records()]
    assert [f": {clips:,} clips lost" in text for clips, text in zip(lost, read(whole)["rai:dataPreprocessingProtocol"],
                                                                    strict=True)] == [True] * len(lost)  # fmt: skip
    assert "rai:dataSocialImpact" not in read(whole)  # nobody said anything


def test_an_empty_catalog_has_a_valid_croissant(tmp_path):
    made = documented(Made().write(tmp_path / "catalog"), tmp_path / "audit")
    assert opened(made).metadata.ctx.issues.errors == set()
    assert set(missing_fields(read(made))) == {"license", "url", "creator", "datePublished"}
