"""The three kinds of duplicates behind one interface: links between clips, and whether two clips are alike."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from curate.global_stages.duplicates.banding import Banding
from curate.global_stages.duplicates.frames import FrameHashes
from curate.global_stages.duplicates.semantic import CellIndex
from curate.global_stages.duplicates.settings import NearSettings

_NONE = np.zeros(0, np.int32)


class Links(NamedTuple):
    """Links between clips `first` and `second` (m,). `changed` (u,) are clips outside the query that may have lost
    links with each other because the queried clips were added.
    """

    first: np.ndarray
    second: np.ndarray
    changed: np.ndarray = _NONE


class Kind(Protocol):
    """One way in which clips can be duplicates."""

    name: ClassVar[str]

    def links(self, queried: np.ndarray, among: np.ndarray) -> Links:
        """Links that join every two clips that are found alike, one of `queried` and one of `among` (n,) bool.

        They follow from the set of all clips: queries in parts find what one query of all finds.
        """

    def alike(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(m,) bool for pairs of clips `first` and `second` (m,)."""

    def close(self) -> None:
        """Frees what the kind holds outside of this process's memory."""


class Exact:
    """Clips of the same span of files with the same bytes."""

    name: ClassVar[str] = "exact"

    def __init__(self, content: np.ndarray):
        """`content` (n,) has one number for each content that several clips share, -1 for other clips."""
        self.content = content

    def links(self, queried: np.ndarray, among: np.ndarray) -> Links:
        shared = np.flatnonzero(self.content >= 0)
        _, first, group = np.unique(self.content[shared], return_index=True, return_inverse=True)
        return Links(shared[first[group]], shared)

    def alike(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (self.content[first] >= 0) & (self.content[first] == self.content[second])

    def close(self) -> None:
        pass


class Near:
    """Clips that share frames, by their perceptual hashes; stills are compared with stills, videos with videos."""

    name: ClassVar[str] = "near"

    def __init__(self, frames: FrameHashes, sources: np.ndarray, media: np.ndarray, settings: NearSettings):
        self.frames, self.sources, self.media, self.settings = frames, sources, media, settings
        self.banding = Banding(frames, sources, settings.bits, settings.same_source)

    def links(self, queried: np.ndarray, among: np.ndarray) -> Links:
        found = self.banding.candidates(queried, among)
        alike = self.alike(found.first, found.second)
        return Links(found.first[alike], found.second[alike], found.changed)

    def alike(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        fit = self.media[first] == self.media[second]
        if not self.settings.same_source:
            fit &= self.sources[first] != self.sources[second]
        fit[fit] = self.frames.shared(first[fit], second[fit], self.settings.bits, self.settings.share)
        return fit

    def close(self) -> None:
        self.banding.close()


class Semantic:
    """Clips that show the same thing, by their embeddings."""

    name: ClassVar[str] = "semantic"

    def __init__(self, embeddings: CellIndex):
        self.embeddings = embeddings

    def links(self, queried: np.ndarray, among: np.ndarray) -> Links:
        first, second = self.embeddings.links(queried, among)
        clips = self.embeddings.clips
        return Links(first, second, clips[~queried[clips]] if self.embeddings.cells_differ(queried) else _NONE)

    def alike(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return self.embeddings.alike(first, second)

    def close(self) -> None:
        pass
