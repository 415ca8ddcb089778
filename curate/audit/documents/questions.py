"""The questions of a datasheet, after Gebru et al., "Datasheets for Datasets" (2021), in words of our own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """One question. `key` is its name in the settings file."""

    section: str
    key: str
    question: str


def _section(title: str, questions: dict[str, str]) -> list[Question]:
    return [Question(title, key, question) for key, question in questions.items()]


QUESTIONS = (
    *_section("Motivation", {
        "purpose": "What was the dataset made for, and which gap does it fill?",
        "creators": "Which team made it, and on whose behalf?",
        "funding": "Who paid for it?",
        "motivation_other": "Is there more to say about why it was made?",
    }),
    *_section("Composition", {
        "instances": "What does one instance stand for, and are there several kinds?",
        "counts": "How many instances of each kind are there?",
        "sample": "Are these all possible instances, or a sample of a larger set, and how representative is it?",
        "contents": "What is in one instance?",
        "labels": "Does each instance have a label or a target?",
        "missing": "What is missing from instances, and why?",
        "relations": "Are relations between instances recorded?",
        "splits": "Which splits for training and testing are recommended?",
        "noise": "Which errors, noise and redundancies are known?",
        "self_contained": "Does the dataset stand by itself, or lean on sources elsewhere that may change or vanish?",
        "confidential": "Does it hold data that is confidential?",
        "offensive": "Does it hold data that may offend, insult, threaten or frighten?",
        "subpopulations": "Which groups of people can be told apart, and how are they distributed?",
        "identifiable": "Can persons be identified, directly or together with other data?",
        "sensitive": "Does it hold sensitive data, such as origin, health, belief, location or finances?",
        "composition_other": "Is there more to say about what is in it?",
    }),
    *_section("Collection", {
        "acquired": "How was the data of each instance acquired, and was it validated?",
        "mechanisms": "With which instruments, programs or procedures was it collected?",
        "sampling": "If it is a sample, by which rule was it drawn?",
        "collectors": "Who collected it, and how were they paid?",
        "timeframe": "Over which time was it collected, and does that match when the content was made?",
        "ethics": "Was there an ethical review, and with which result?",
        "individuals": "Was it collected from the persons concerned, or from others such as websites?",
        "notice": "Were the persons concerned told, and how?",
        "consent": "Did they consent, and how was consent asked for?",
        "revocation": "Can consent be withdrawn, and how?",
        "impact": "Was the effect on the persons concerned analysed?",
        "collection_other": "Is there more to say about how it was collected?",
    }),
    *_section("Preprocessing, cleaning, labelling", {
        "preprocessing": "What was done to the data: cuts, filters, removals, labels?",
        "raw": "Are the raw data kept besides?",
        "software": "Is the software that did it available?",
        "preprocessing_other": "Is there more to say about it?",
    }),
    *_section("Uses", {
        "used": "What has it been used for?",
        "repository": "Where are papers and systems that use it listed?",
        "tasks": "What else could it be used for?",
        "future_impact": "Does anything about its making limit or endanger future uses?",
        "unsuitable": "What should it not be used for?",
        "uses_other": "Is there more to say about its uses?",
    }),
    *_section("Distribution", {
        "third_parties": "Is it given to others outside the body that made it?",
        "distribution": "In which form is it given out, and does it have a DOI?",
        "distribution_date": "When is it given out?",
        "licence": "Under which licence or terms?",
        "restrictions": "Which terms of third parties apply to its content?",
        "export_controls": "Do export controls or other rules apply?",
        "distribution_other": "Is there more to say about its distribution?",
    }),
    *_section("Maintenance", {
        "maintainers": "Who hosts and maintains it?",
        "contact": "How are they reached?",
        "erratum": "Is there a list of errors?",
        "updates": "Will it be updated: corrected, extended, cleaned; how often and by whom?",
        "retention": "Are there limits on how long data about persons is kept?",
        "old_versions": "Are older versions kept, and for how long?",
        "contributions": "How can others contribute or build on it?",
        "maintenance_other": "Is there more to say about its maintenance?",
    }),
)  # fmt: skip
