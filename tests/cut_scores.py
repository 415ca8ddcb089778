"""Scores of found clips against the truth of a composed film."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from stages.cuts.scenes import SceneCutter
from stages.cuts.settings import CutSettings
from stages.decode.readers import open_reader
from stages.decode.sources import open_source
from stages.frames import Span
from tests.films import Truth

NEAR = 2  # frames: a cut found so close to a true one is right


def clips_of(path: Path, settings: CutSettings | None = None) -> list[Span]:
    """The clips that the real reader and the real cutter make of a file."""
    with open_source(str(path)) as file:
        reader = open_reader(file)
        cutter = SceneCutter(settings or CutSettings(), reader.info.time_base)
        clips = [clip for frame in reader for clip in cutter.observe(frame)]
        return clips + cutter.finish(reader.last_end_pts)


def boundaries(clips: list[Span], first_pts: int = 0) -> Iterator[tuple[int, int]]:
    """(end of one scene, start of the next) in PTS; the same for a hard cut. Splits of a long scene are
    none.
    """
    if clips and clips[0].start_pts > first_pts:
        yield first_pts, clips[0].start_pts
    for one, two in pairwise(clips):
        if one.scene != two.scene:
            yield one.end_pts, two.start_pts


@dataclass
class Score:
    """Counts over one film or, added up, over several. `errors` are the frames that right cuts are off by."""

    cuts: int = 0
    right_cuts: int = 0
    false_cuts: int = 0  # hard cuts and gaps that are nothing of the kind
    fades: int = 0
    found_fades: int = 0
    errors: tuple[int, ...] = ()
    fade_errors: tuple[tuple[int, int], ...] = ()

    def __add__(self, other: Score) -> Score:
        return Score(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def f1(self) -> float:
        """Of the hard cuts; 1 where there are none and none were found."""
        wrong = self.cuts - self.right_cuts + self.false_cuts
        return 1.0 if not wrong else 2 * self.right_cuts / (2 * self.right_cuts + wrong)


def score(truth: Truth, clips: list[Span]) -> Score:
    """A true fade is found where a gap covers at least half of it and is at most twice as long."""
    found = [(truth.index(end), truth.index(start)) for end, start in boundaries(clips, truth.pts[0])]
    cuts = [truth.index(pts) for pts in truth.cuts]
    fades = [(truth.index(start), truth.index(end)) for start, end in truth.fades]
    errors, fade_errors = [], []
    for cut in cuts:
        near = [f for f in found if f[0] == f[1] and abs(f[0] - cut) <= NEAR]
        if near:
            best = min(near, key=lambda f: abs(f[0] - cut))
            found.remove(best)
            errors.append(best[0] - cut)
    for start, end in fades:
        over = [f for f in found if 2 * (min(f[1], end) - max(f[0], start)) >= end - start]
        over = [f for f in over if f[1] - f[0] <= 2 * (end - start)]
        if over:
            found.remove(over[0])
            fade_errors.append((over[0][0] - start, over[0][1] - end))
    return Score(len(cuts), len(errors), len(found), len(fades), len(fade_errors), tuple(errors), tuple(fade_errors))
