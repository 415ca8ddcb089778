"""Questions in words about the demo's films, with the shots that answer them.

What a question names can be seen in one frame: colours, shapes, grounds, titles. Which way a shape moves can't,
so no question asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from curate.demo.films import FilmTruth, shot_at
from curate.query.search import TextSearch

KINDS = (  # what a question names, and how many of the kind there are at most
    (("colour", "shape"), 16),
    (("shape", "ground"), 12),
    (("colour", "shape", "ground"), 12),
    (("title",), 4),
    (("ground",), 6),
)
UNSEEN = {"dark", "short"}  # flaws of films in which nothing can be seen, or of which no frame is taken


@dataclass
class Question:
    """`answers` are (film, number of its shot), counted from 0."""

    text: str
    answers: set[tuple[str, int]] = field(default_factory=set)


def questions(truth: Sequence[FilmTruth], seed: int = 0) -> list[Question]:
    """Up to fifty questions, each with at least one answer; the same films give the same questions."""
    rng = np.random.default_rng(seed)
    shots = [
        (film.name, number, shot)
        for film in truth
        if not UNSEEN & set(film.flaws)
        for number, shot in enumerate(film.shots)
    ]
    chosen: list[Question] = []
    for names, most in KINDS:
        asked: dict[str, Question] = {}
        for film, number, shot in shots:
            if all(shot[name] for name in names):
                text = _words(shot, names)
                asked.setdefault(text, Question(text)).answers.add((film, number))
        ordered = [asked[text] for text in sorted(asked)]
        chosen += [ordered[i] for i in sorted(rng.permutation(len(ordered))[:most])]
    return chosen


def recalls(asked: TextSearch, truth: Sequence[FilmTruth], k: int = 5) -> dict[str, float]:
    """Recall at `k` of every question about these films, by its text, as a catalog's search answers it."""
    films = {film.name: film for film in truth}
    found = {}
    for question in questions(truth):
        hits = [(PurePosixPath(hit.uri).name, hit.start_s, hit.end_s) for hit in asked.find(question.text, k)]
        found[question.text] = recall(question, [(name, shot_at(films[name], *span)) for name, *span in hits])
    return found


def recall(question: Question, found: Sequence[tuple[str, int | None]]) -> float:
    """The answers among the shots found, out of as many as there could be among so many."""
    return len(question.answers & set(found)) / min(len(question.answers), len(found)) if found else 0.0


def _words(shot: dict, names: tuple[str, ...]) -> str:
    if names == ("title",):
        return f'the title "{shot["title"]}"'
    parts = []
    if "shape" in names:
        parts.append(_with_article(f"{shot['colour']} {shot['shape']}" if "colour" in names else shot["shape"]))
    if "ground" in names:
        parts.append(f"{_with_article(shot['ground'])} ground")
    return " over ".join(parts)


def _with_article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"
