"""The public summary of training content (EU AI Act, Article 53(1)(d)): its fields, filled from figures and settings.

A field that neither decides is marked; nothing is guessed. An unknown kind of source leaves the field open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from curate.audit.documents.facts import Facts, Record
from curate.audit.documents.markdown import escaped, shown, table
from curate.audit.documents.settings import DocumentSettings

TODO = "TO BE COMPLETED BY THE PROVIDER"
SIZES = {  # from which number on -> range
    "hours": {0: "under 10,000 h", 10_000: "10,000 to 1 million h", 1_000_000: "over 1 million h"},
    "images": {0: "under 1 million", 1_000_000: "1 million to 1 bn", 1_000_000_000: "over 1 bn"},
}


def size_range(unit: str, number: float) -> str:
    """The range of the form that a number of hours or images lies in."""
    return [name for least, name in SIZES[unit].items() if number >= least][-1]


def eu_summary(facts: Facts, settings: DocumentSettings) -> str:
    """The form in Markdown: a table of fields for each section, with where each answer comes from."""
    return "\n".join([*_Form(facts, settings).lines()]).replace("\n\n\n", "\n\n") + "\n"


class _Form:
    def __init__(self, facts: Facts, settings: DocumentSettings):
        self.facts, self.settings, self.form = facts, settings, settings.eu_summary

    def lines(self) -> Iterator[str]:
        yield "# Public summary of training content"
        yield ""
        yield (
            f"Fields of the form of Article 53(1)(d) of the EU AI Act. Numbers count the {self.facts.counted} "
            f"({shown(self.facts.clips)}) and are cells of the figures of `audit.json` that are named beside them. "
            f"`{TODO}` marks what neither the catalog nor the settings file decides."
        )
        yield from self._header()
        yield from self._general()
        yield from self._sources()
        yield from self._processing()

    def _header(self) -> Iterator[str]:
        described = self.facts.about.get("described") or {}
        parent = described.get("parent")
        rows = [
            self.given("Version of the summary", "version"),
            self.given("Links to earlier versions", "earlier"),
            ("Date of last update", shown(str(self.facts.about["made"])[:10]), "the audit's date"),
            ("Dataset", escaped(self.settings.dataset.name or self.facts.name), "audit"),
        ]
        if described:
            rows.append(("Dataset made", shown(described["created"]), "dataset.json"))
            rows.append(("Replaces the dataset", shown(parent["name"]) if parent else "none recorded", "dataset.json"))
        yield from self.fields("Header", rows, level=2)

    def _general(self) -> Iterator[str]:
        provider = self.settings.provider
        yield "\n## 1. General information"
        yield from self.fields("1.1 Provider", [
            (title, escaped(value) if value else TODO, f"settings: `provider.{key}`")
            for title, key in {"Name": "name", "Contact": "contact", "Representative": "representative"}.items()
            for value in [getattr(provider, key)]
        ])  # fmt: skip
        yield from self.fields("1.2 Model", [
            self.given("Versioned names of the models", "models"),
            self.given("Base model and link to its summary", "base_model"),
            self.given("Date of placing on the market", "placed_on_market"),
        ])  # fmt: skip
        yield from self.fields("1.3 Modalities, size and characteristics", [*self._modalities(), *self._character()])
        yield from self._named("Languages of the sources", "composition.language", "language")
        for id in [f.id for f in self.facts.audit.figures() if f.id.endswith("_language")]:
            yield from self._named("Languages of the captions", id, "language")
        yield from self._named("Concepts", "composition.concept", "concept")

    def _modalities(self) -> Iterator[tuple[str, str, str]]:
        facts, video, image = self.facts, self.facts.media("video"), self.facts.media("image")
        written = facts.rows("captions.models")
        if not facts.clips:
            for name in ("Text", "Image", "Audio", "Video"):
                yield name, f"{TODO} (no clip counts)", "figure `totals.clips`"
        else:
            words = [f"{record['of_column']}: {shown(facts.of(record, 'words'))} words" for record in written]
            yield (
                "Text",
                f"yes, captions ({escaped('; '.join(words))})" if written else "no",
                "figure `captions.models`",
            )
            if written:
                yield self.given("Text: size in tokens", "text_size")
                yield self.given("Text: types of content", "text_content")
            yield "Image", "yes" if image else "no", "figure `rights.media`"
            if image:
                number = facts.of(image, "clips")
                yield "Image: size", f"{size_range('images', number)} ({shown(number)} images)", "figure `rights.media`"
                yield self.given("Image: types of content", "image_content")
            with_sound = facts.of(video, "with_sound") if video else 0
            sound = f" ({shown(with_sound)} sources have sound)" if with_sound else ""
            yield "Audio", f"no; sound of videos counts as video{sound}", "figure `rights.media`"
            yield "Video", "yes" if video else "no", "figure `rights.media`"
            if video:
                hours = facts.of(video, "hours")
                yield "Video: size", f"{size_range('hours', hours)} ({facts.amount(video)})", "figure `rights.media`"
                yield self.given("Video: types of content", "video_content")
            yield from self._weighted()
        yield self.given("Other modalities", "other_modalities")

    def _weighted(self) -> Iterator[tuple[str, str, str]]:
        for record in self.facts.records("weights.samples"):
            text = (
                f"{shown(record['samples'])} samples of total weight {shown(record['weight'])}; a drawn sample has "
                f"{shown(record['drawn_seconds_mean'])} s on average"
            )
            yield "Size after weights", text, "figure `weights.samples`"

    def _character(self) -> Iterator[tuple[str, str, str]]:
        added = [str(record["last_added"]) for record in self.facts.rows("rights.media") if record["last_added"]]
        if added:
            yield "Last source came into the catalog", shown(max(added)), "figure `rights.media`"
        yield self.given("Latest date of acquisition", "latest_acquisition")
        yield self.given("Whether collection goes on", "collection_continues")
        yield self.given("Other characteristics (regional, demographic)", "characteristics")
        yield self.given("Comments (tokenisation, compression, sampling rate)", "comments")
        rates = [record for record in self.facts.rows("media.fps") if record["value"] is not None]
        if rates:
            listed = ", ".join(f"{record['value']} ({shown(self.facts.of(record, 'clips'))} clips)" for record in rates)
            yield "Frames per second", escaped(listed), "figure `media.fps`"
        vaes = [r for r in self.facts.records("runs.models") if r["column_name"].endswith("contract")]
        if vaes:
            listed = "; ".join(f"{each['model']}, contract {each['revision']}" for each in vaes)
            yield "Compression into latents", escaped(listed), "figure `runs.models`, of the whole catalog"

    def _sources(self) -> Iterator[str]:
        facts = self.facts
        yield "\n## 2. Data sources"
        yield from self.fields("2.1 Publicly available datasets", [
            *self.kind("public dataset"), self.given("Links and versions; description of the rest", "public_datasets"),
            self.given("Period of collection", "public_datasets_period"),
        ])  # fmt: skip
        listed = [r for r in facts.rows("rights.datasets") if r["source_kind"] == "public dataset"]
        yield from self.counted(("Dataset", "Licence"), listed, ("dataset", "dataset_licence"), "rights.datasets")
        yield "\n### 2.2 Private datasets"
        yield from self.fields("2.2.1 Commercially licensed", self.kind("licensed"), level=4)
        private = [
            *self.kind("private"),
            self.given("Publicly known datasets; description of the rest", "private_datasets"),
        ]
        yield from self.fields("2.2.2 Other private datasets", private, level=4)
        yield from self.fields("2.3 Crawled and scraped data", [
            *self.kind("crawled"), self.given("Names of crawlers", "crawlers"),
            self.given("Purposes", "crawl_purposes"),
            self.given("Behaviour (robots.txt, captchas, paywalls)", "crawl_behaviour"),
            self.given("Period", "crawl_period"), self.given("Kinds of content and of sources", "crawl_content"),
        ])  # fmt: skip
        yield from self._domains()
        yield from self.fields("2.4 User data", [
            *self.kind("user"), self.given("From interactions with models", "user_interactions"),
            self.given("From other services", "user_services"),
        ])  # fmt: skip
        yield from self._synthetic()
        yield from self.fields("2.6 Other sources", [self.given("Other sources", "other_sources")])

    def _domains(self) -> Iterator[str]:
        listed = self.facts.records("rights.crawled_domains")
        if listed:
            number = shown(listed[0]["domains"])
            yield f"\nMost relevant domains: the top 10 % by content of {number} domains."
            yield from self.counted(("Domain",), listed, ("domain",), "rights.crawled_domains")
        elif self.facts.kinds("crawled"):
            yield f"\nMost relevant domains: {TODO} (no crawled source has a domain)."

    def _synthetic(self) -> Iterator[str]:
        facts = self.facts
        made, open_ = facts.captions("model", "server"), facts.captions("manifest", None)
        by_whom = f"{TODO} (texts came with the sources; who wrote them is not recorded)"
        rows = list(self.kind("synthetic"))
        if made:  # captions decide it, whatever the sources are
            rows = [("Used", "yes", "figure `captions.models`"), *(row for row in rows if row[0] != "Used")]
        elif open_ and rows[0][1] == "no":
            rows = [("Used", by_whom, "figure `captions.models`")]
        rows.append(("Captions by models", "yes" if made else by_whom if open_ else "no", "figure `captions.models`"))
        rows.append(self.given("Models that made synthetic sources", "synthetic_models"))
        yield from self.fields("2.5 Synthetic data", rows)
        head = ("Column of captions", "Model", "Revision", "Clips", "Words")
        yield from self.figure("captions.models", head, [
            (r["of_column"], r["model"], r["revision"], facts.of(r, "clips"), facts.of(r, "words")) for r in made
        ])  # fmt: skip

    def _processing(self) -> Iterator[str]:
        facts = self.facts
        yield "\n## 3. Data processing"
        yield from self.fields("3.1 Reservations of rights", [
            self.given("Signatory of the Code of Practice", "code_of_practice"),
            self.given("Measures before and during collection", "reservations"),
        ])  # fmt: skip
        answers = [
            (r["signal"], r["answer"], facts.of(r, "sources"), facts.of(r, "clips"), facts.of(r, "hours"),
             r["first_checked"] or "", r["last_checked"] or "", r["read_from"] or "")
            for r in facts.rows("rights.opt_outs")
        ]  # fmt: skip
        yield "\nOpt-out signals. `not checked`: nobody looked; `none found`: somebody looked, and there was none."
        head = ("Signal", "Answer", "Sources", "Clips", "Hours", "First checked", "Last checked", "Read from, such as")
        yield from self.figure("rights.opt_outs", head, answers)
        yield from self.fields("3.2 Removal of illegal content", [self.given("Measures", "illegal_content")])
        gates = [(r["gate"], r["condition"], r["dropped_clips"], r["dropped_hours"])
                 for r in facts.records("counterfactual.gates")]  # fmt: skip
        yield from self.figure("counterfactual.gates", ("Gate in force", "Keeps", "Drops clips", "Drops hours"), gates)
        removed = [(r["kind"], r["removals"], r["first"], r["last"]) for r in facts.records("funnel.removed")]
        if not removed:
            yield "\nRemovals: none is recorded in the catalog (figure `funnel.removed`)."
        yield from self.figure("funnel.removed", ("Removed", "Removals", "First", "Last"), removed)
        yield from self.fields("3.3 Other information", [self.given("Other", "other")])

    def kind(self, kind: str) -> list[tuple[str, str, str]]:
        """Whether a kind of source is used, and in which modalities. An unknown kind may be any: nothing says no."""
        facts, source = self.facts, "figure `rights.kinds`"
        if found := facts.kinds(kind):
            media = "; ".join(f"{r['media'] or 'unknown'}: {facts.amount(r)}" for r in found)
            return [("Used", "yes", source), ("Modalities", media, source)]
        if not facts.known("rights.kinds") or not facts.clips:
            return [("Used", f"{TODO} ({'no clip counts' if not facts.clips else 'source_kind is not there'})", source)]
        if unknown := facts.kinds(None):
            media = "; ".join(f"{r['media'] or 'unknown'}: {facts.amount(r)}" for r in unknown)
            return [("Used", f"{TODO} (source\\_kind is unknown of {media})", source)]
        return [("Used", "no", source)]

    def given(self, title: str, key: str) -> tuple[str, str, str]:
        """A field that only the provider knows."""
        value: Any = getattr(self.form, key)
        text = TODO if value is None or value == () else shown(list(value) if isinstance(value, tuple) else value)
        return title, text, f"settings: `eu_summary.{key}`"

    def fields(self, title: str, rows: Iterable[tuple[str, str, str]], level: int = 3) -> Iterator[str]:
        yield f"\n{'#' * level} {title}\n"
        yield "| Field | Answer | From |"
        yield "| --- | --- | --- |"
        yield from (f"| {field} | {answer} | {source} |" for field, answer, source in rows)

    def counted(self, head: tuple[str, ...], records: list[Record], names: tuple[str, ...], id: str) -> Iterator[str]:
        """A table of values with their sources, clips and hours."""
        of = self.facts.of
        rows = [(*(r[name] for name in names), of(r, "sources"), of(r, "clips"), of(r, "hours")) for r in records]
        yield from self.figure(id, (*head, "Sources", "Clips", "Hours"), rows)

    def figure(self, id: str, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Iterator[str]:
        if rows:
            yield f"\nFigure `{id}`:"
            yield from table(head, rows)

    def _named(self, title: str, id: str, what: str) -> Iterator[str]:
        """A table of a composition, values that nobody knows as such."""
        if not any(record["value"] is not None for record in self.facts.rows(id)):
            yield f"\n{title}: {TODO} (the catalog knows no {what})."
            return
        yield f"\n{title}."
        yield from self.figure(id, (what.capitalize(), "Clips", "Hours"), self.facts.composition(id))
