"""The three kinds of duplicates behind one face: links among clips, and whether two clips are alike."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from curate.global_stages.duplicates.banding import Banding
from curate.global_stages.duplicates.frames import FrameHashes
from curate.global_stages.duplicates.semantic import Embeddings
from curate.global_stages.duplicates.settings import NearSettings

_NONE = np.zeros(0, np.int32)


class Links(NamedTuple):
    """Clips `first` and `second` (m,) belong together. `unsettled` (u,) are clips of those not asked for whose
    links with each other may be fewer than before the asked-for came.
    """

    first: np.ndarray
    second: np.ndarray
    unsettled: np.ndarray = _NONE


class Kind(Protocol):
    name: str

    def links(self, asked: np.ndarray, among: np.ndarray) -> Links:
        """Links that join every two alike clips that are found, one of `asked` and one of `among` (n,) bool.

        They follow from the set of all clips: whoever asks in parts finds what asking for all at once finds.
        """

    def alike(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(m,) bool of clips `first` and `second` (m,)."""

    def close(self) -> None:
        """Lets go of what the kind holds outside of this process' memory."""


class Exact:
    """The same span of files that are the same to the byte."""

    name: ClassVar[str] = "exact"

    def __init__(self, content: np.ndarray):
        """`content` (n,) has one number for each content that several clips have, -1 elsewhere."""
        self.content = content

    def links(self, asked: np.ndarray, among: np.ndarray) -> Links:
        shared = np.flatnonzero(self.content >= 0)
        _, first, group = np.unique(self.content[shared], return_index=True, return_inverse=True)
        return Links(shared[first[group]], shared)

    def alike(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (self.content[first] >= 0) & (self.content[first] == self.content[second])

    def close(self) -> None:
        pass


class Near:
    """Clips that share frames, by their perceptual hashes; pictures with pictures, films with films."""

    name: ClassVar[str] = "near"

    def __init__(self, frames: FrameHashes, sources: np.ndarray, media: np.ndarray, settings: NearSettings):
        self.frames, self.sources, self.media, self.settings = frames, sources, media, settings
        self.banding = Banding(frames, sources, settings.bits, settings.same_source)

    def links(self, asked: np.ndarray, among: np.ndarray) -> Links:
        found = self.banding.candidates(asked, among)
        alike = self.alike(found.first, found.second)
        return Links(found.first[alike], found.second[alike], found.unsettled)

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

    def __init__(self, embeddings: Embeddings):
        self.embeddings = embeddings

    def links(self, asked: np.ndarray, among: np.ndarray) -> Links:
        first, second = self.embeddings.links(asked, among)
        rows = self.embeddings.rows
        return Links(first, second, rows[~asked[rows]] if self.embeddings.cells_differ(asked) else _NONE)

    def alike(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return self.embeddings.alike(first, second)

    def close(self) -> None:
        pass
