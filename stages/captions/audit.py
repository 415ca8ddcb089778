"""Measures of a caption's text alone: words, repetition, truncation, refusals, boilerplate. Pure functions.

The n-gram measure is seq-rep-n of Welleck et al., "Neural Text Generation with Unlikelihood Training" (2020).
"""

from __future__ import annotations

import re
from collections.abc import Callable

NGRAM = 3  # words; captions are short, and two equal words in a row are common in good ones
LONG = 20  # a text of so many words or more without a sentence end counts as cut off

# Chinese and Japanese put no spaces between words, so each character counts as one.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
    r"|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+(?:['\u2019-]\w+)*"
)
_STOPS, _WIDE_STOPS = r".!?\u2026", r"\u3002\uff01\uff1f"  # _WIDE_STOPS: of Chinese and Japanese
_CLOSERS = r"[\"'\u201d\u2019\u00bb\u300d\u300f)\]*]*"
_END = re.compile(rf"[{_STOPS}{_WIDE_STOPS}]{_CLOSERS}\s*$")
_BETWEEN = re.compile(rf"(?<=[{_STOPS}]){_CLOSERS}\s+|(?<=[{_WIDE_STOPS}])(?![\u300d\u300f\u201d\"])\s*|\s*\n\s*")

_THING = r"(?:image|video|clip|picture|photo(?:graph)?|frame|footage|scene|sequence|animation|screenshot)s?"
_REFUSALS = re.compile(
    r"\bi(?:'m| am) (?:so |very |really )?sorry\b"
    r"|\bi(?:'m| am) (?:unable|not able|not allowed) to\b"
    r"|\bi (?:cannot|can't|can not|could not|couldn't|won't|will not|am not going to) (?:\w+ )?"
    r"(?:assist|help|provide|describe|identify|view|see|access|analy[sz]e|comply|fulfil|generate|discuss|determine)"
    r"|\bas an? (?:ai|artificial intelligence|(?:large )?(?:vision[- ])?language model)\b"
    r"|\b(?:violates?|against) (?:my|our|the|content) (?:\w+ )?(?:guidelines|polic(?:y|ies))"
    rf"|\bno {_THING} (?:was|were|is|are|has been|have been) (?:provided|attached|uploaded|shared|given)"
    rf"|\b(?:please|could you) (?:provide|upload|share|attach) (?:the|a|an|me with the) {_THING}",
    re.IGNORECASE,
)
_BOILERPLATE = re.compile(
    rf"^\W*(?:the|this|these) (?:\w+ )?{_THING} (?:\w+ )?(?:shows?|depicts?|features?|captures?|displays?|presents?"
    r"|showcases?|illustrates?|portrays?|begins?|opens?|starts?|appears? to)\b"
    rf"|\b(?:in|throughout) (?:this|the|these) (?:\w+ )?{_THING}\b"
    rf"|^\W*(?:an? |the )?{_THING} (?:of|showing|depicting)\b"
    r"|^\W*(?:sure|certainly|of course|absolutely|okay|here (?:is|are)|here's)\b"
    r"|^\W*(?:short |long |detailed |brief )?(?:caption|description|answer|summary)\W*:"
    rf"|\boverall,? (?:the|this) (?:atmosphere|mood|tone|impression|{_THING})\b"
    r"|\bit(?:'s| is) (?:worth|important) (?:noting|to note)\b"
    r"|\bcan be seen\b|\bwe (?:can )?see\b",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    """The words of a text in lower case; a Chinese or Japanese character is a word."""
    return [word.lower() for word in _WORD.findall(text)]


def repetition(text: str, n: int = NGRAM) -> float:
    """Share of a text's word n-grams that repeat an earlier one: 0 where none is repeated, towards 1 in a loop."""
    all_words = words(text)
    grams = list(zip(*(all_words[start:] for start in range(n)), strict=False))
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def truncated(text: str, finish: str | None) -> bool:
    """True where the model was cut off (`finish` 'length'), or the text stops in the middle of a sentence.

    A short phrase without a full stop is not cut off: a full stop is expected only of a text that is long or has
    several sentences, even where the model ended by itself ('stop').
    """
    if finish == "length":
        return True
    if not text.strip() or _END.search(text):
        return False
    return len(sentences(text)) > 1 or len(words(text)) >= LONG


def refusal(text: str) -> str | None:
    """The first words by which a model declines to describe, in lower case; None where there are none."""
    return _first(_REFUSALS, text)


def boilerplate(text: str) -> str | None:
    """The first phrase about the picture instead of what is in it ("the video shows"), or None."""
    return _first(_BOILERPLATE, text)


def sentences(text: str) -> list[str]:
    """The sentences of a text, split at sentence ends and line ends."""
    return [part.strip() for part in _BETWEEN.split(text) if part and _WORD.search(part)]


def pieces(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The text itself if it fits an encoder; otherwise its sentences, halved where they still do not fit."""
    if fits(text):
        return [text]
    return [half for sentence in sentences(text) for half in _halves(sentence, fits)]


def _halves(text: str, fits: Callable[[str], bool]) -> list[str]:
    if len(text) < 2 or fits(text):
        return [text]
    middle = len(text) // 2
    spaces = [place for place, letter in enumerate(text) if letter == " " and 0 < place < len(text) - 1]
    if spaces:
        middle = min(spaces, key=lambda place: abs(place - middle))
    halves = text[:middle].strip(), text[middle:].strip()
    return [part for half in halves if half for part in _halves(half, fits)]


def _first(phrases: re.Pattern[str], text: str) -> str | None:
    found = phrases.search(text.replace("\u2019", "'"))
    return " ".join(re.sub(r"^\W+", "", found[0]).lower().split()) if found else None
