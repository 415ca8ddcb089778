"""Text queries about the demo's films, with the shots that answer them.

A question names what can be seen in one frame: colours, shapes, grounds, titles. The direction of a movement can't be
seen there, so no question names one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from curate.demo.films import FilmTruth, shot_at
from curate.demo.scenes import with_article
from curate.query.search import TextSearch

KINDS = (  # the attributes that a question names, and how many questions of the kind there are at most
    (("colour", "shape"), 16),
    (("shape", "ground"), 12),
    (("colour", "shape", "ground"), 12),
    (("title",), 4),
    (("ground",), 6),
)
UNSEEN = {"dark", "short"}  # flaws of films in which nothing can be seen, or that have no clip


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
        of_kind: dict[str, Question] = {}
        for film, number, shot in shots:
            if all(shot[name] for name in names):
                text = _words(shot, names)
                of_kind.setdefault(text, Question(text)).answers.add((film, number))
        ordered = [of_kind[text] for text in sorted(of_kind)]
        chosen += [ordered[i] for i in sorted(rng.permutation(len(ordered))[:most])]
    return chosen


def recalls(search: TextSearch, truth: Sequence[FilmTruth], k: int = 5) -> dict[str, float]:
    """Recall at `k` of every question about these films, by its text, in the answers of `search`."""
    films = {film.name: film for film in truth}
    found = {}
    for question in questions(truth):
        hits = [(PurePosixPath(hit.uri).name, hit.start_s, hit.end_s) for hit in search.find(question.text, k)]
        found[question.text] = recall(question, [(name, shot_at(films[name], *span)) for name, *span in hits])
    return found


def recall(question: Question, found: Sequence[tuple[str, int | None]]) -> float:
    """The share of answers among the shots found, of as many answers as could be among so many."""
    return len(question.answers & set(found)) / min(len(question.answers), len(found)) if found else 0.0


def _words(shot: dict, names: tuple[str, ...]) -> str:
    if names == ("title",):
        return f'the title "{shot["title"]}"'
    parts = []
    if "shape" in names:
        parts.append(with_article(f"{shot['colour']} {shot['shape']}" if "colour" in names else shot["shape"]))
    if "ground" in names:
        parts.append(f"{with_article(shot['ground'])} ground")
    return " over ".join(parts)
